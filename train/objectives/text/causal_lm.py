"""Next-token prediction."""

import dataclasses

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.heads import Head, score_tokens, vocabulary_table
from model.mixture_of_experts import Router
from train import experiment
from train.kinds import Bound, Family, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_continues
from train.objectives.text.predictions import Predicted, smoothed, vocabulary_divergence


@dataclasses.dataclass(frozen=True)
class CausalLMLoss:
    """Autoregressive language modelling (Radford et al. 2018, eq. 1): predict each token from those before it in its document.

    batch: tokens, targets, segments, positions int32 [B, T], weights float32 [B, T] (0 on padding), rows int32 [B].
    Term `loss`: nats per predicted token. `z_loss`: squared log partition function, when asked for. Metric: accuracy. With experts also
    what `router_terms` says.
    """

    model: Family
    options: experiment.CausalLM
    shards: int = 1
    """Devices that the rows of a batch are spread over: sets the size of the vocabulary chunks."""
    answers: bool = False
    """Most tokens are read and few are learned: prompts go through no vocabulary pass."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        return *self.score(params, batch, self.read(params, batch, key)), carry

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None) -> Predicted:
        """A pass; streams: as of the model."""
        output = self.read(params, batch, key if dropout else None, **({} if streams is None else {"streams": streams}))
        return Predicted(Head(output.hidden_BTD, vocabulary_table(params)), batch.targets, batch.weights, output)

    def judged(self, params, batch, predicted: Predicted):
        """Terms and metrics of a pass."""
        return self.score(params, batch, predicted.output)

    def divergence(self, own: Predicted, theirs: Predicted, batch, temperature: float = 1.0, symmetric: bool = False):
        """(total, weight), of another pass's predictions from one's own: nats per token."""
        return vocabulary_divergence(own, theirs, temperature, self.model.config.logit_softcap, self.shards, symmetric)

    def read(self, params, batch, key, **more):
        """The model's output; more: further arguments of it."""
        keys_B = None if key is None else jax.vmap(lambda row: jax.random.fold_in(key, row))(batch.rows)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        if batch.shift is not None:
            where["shift_BTD"] = batch.shift
        return self.model.apply({"params": params}, batch.tokens, **where, **more)

    def score(self, params, batch, output, smoothing: float = 0.0, words: int = 0):
        """Terms and metrics of what the model gave. smoothing: share of each target that is spread over the first `words` ids, 0 for
        all."""
        want = ("nll", "hit") + ("log_z",) * bool(self.options.z_loss) + ("mean_nll",) * bool(smoothing)
        head, softcap = Head(output.hidden_BTD, vocabulary_table(params)), self.model.config.logit_softcap
        counted_BT = batch.weights > 0 if self.answers else None
        scores = score_tokens(head, batch.targets, want=want, softcap=softcap, shards=self.shards, counted_BT=counted_BT, words=words)
        weight = batch.weights.sum()
        terms = {"loss": Term(1.0, (smoothed(scores, smoothing) * batch.weights).sum(), weight)}
        if self.options.z_loss:
            terms["z_loss"] = Term(self.options.z_loss, (jnp.square(scores.log_z) * batch.weights).sum(), weight)
        metrics = {"accuracy": Mean((scores.hit * batch.weights).sum(), weight)}
        if output.router is not None:
            more_terms, more_metrics = router_terms(self.model.config, self.options, output.router, batch)
            terms, metrics = terms | more_terms, metrics | more_metrics
        return terms, metrics


def bind(options: experiment.CausalLM, whole: experiment.Experiment, shards: int) -> Bound:
    check_continues(options, whole)
    model = realise(whole.model)
    return Bound(CausalLMLoss(model, options, shards), start=model.start, parts=model.parts())


def router_terms(config: ModelConfig, options: experiment.CausalLM, router: Router, batch):
    """What keeps routers balanced and calm, over the tokens that are no padding; and two metrics.

    `load_balance`: experts * sum_i f_i P_i over the tokens of a row, f_i being the share of slots that went to expert i and P_i the
    mean of the router's probability of it (Fedus et al. 2021, eq. 4, taken row by row as in DeepSeek-V3, 2024, eq. 17-20, so that it
    adds up over micro-batches). 1 when even. `router_z`: squared log partition function of the router (Zoph et al. 2022, eq. 5). Both are
    means over tokens and layers, and their coefficients are times the number of layers, as the papers add them up.
    Metrics: busiest_expert, the share of a row's slots that its busiest expert gets; dropped, the share that found no room.
    """
    tokens_B = (batch.segments != 0).sum(-1) * (batch.weights.sum(-1) > 0)  # an evaluation's last rows may count for nothing
    weight = tokens_B.sum().astype(jnp.float32)
    present_B, some_B = (tokens_B > 0).astype(jnp.float32), jnp.maximum(tokens_B, 1).astype(jnp.float32)
    share_LBE = router.counts_BE / (config.experts_per_token * some_B[:, None])
    balance_LB = config.experts * (share_LBE * router.probabilities_BE).sum(-1)

    def total(x_LB):
        return (x_LB * present_B).sum() / config.num_layers

    terms = {
        "load_balance": Term(options.load_balance * config.num_layers, total(balance_LB), weight),
        "router_z": Term(options.router_z * config.num_layers, total(router.z_B), weight),
    }
    metrics = {"busiest_expert": Mean(total(share_LBE.max(-1) * some_B), weight)}
    if config.expert_capacity:
        metrics["dropped"] = Mean(total(router.dropped_B) / config.experts_per_token, weight)
    return {name: term for name, term in terms.items() if term.coefficient}, metrics
