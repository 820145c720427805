"""Policies learned from comparisons without sampling: DPO and its kin."""

import dataclasses

import jax
import jax.numpy as jnp

from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import DECODER
from train.experiment import Experiment
from train.kinds import Bound, Family, realise
from train.objectives.preference.reward_model import flat
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_continues
from train.rl import options
from train.sources.comparisons import Comparisons


def preference_loss(kind: str, chosen_B, rejected_B, *, beta: float, smoothing: float = 0.0):
    """The loss of each pair, float32 [B]. chosen_B, rejected_B: log policy - log reference of each response, summed over its tokens.

    dpo: -log sigmoid(beta h) with h the difference of the two (Rafailov et al. 2023, eq. 7), a share `smoothing` of pairs taken to be the
    other way round (Mitchell 2023). ipo: (h - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17). hinge: max(0, 1 - beta h) (Zhao et al. 2023).
    """
    h_B = chosen_B - rejected_B
    match kind:
        case "dpo":
            return -(1 - smoothing) * jax.nn.log_sigmoid(beta * h_B) - smoothing * jax.nn.log_sigmoid(-beta * h_B)
        case "ipo":
            return jnp.square(h_B - 1.0 / (2.0 * beta))
        case "hinge":
            return jax.nn.relu(1.0 - beta * h_B)
    raise ValueError(f"preference loss {kind!r}; choose dpo, ipo or hinge")


def kto_loss(chosen_B, rejected_B, baseline, *, beta: float):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 8), equal weights: each response by itself against a KL."""
    return 2.0 - jax.nn.sigmoid(beta * (chosen_B - baseline)) - jax.nn.sigmoid(beta * (baseline - rejected_B))


def odds_ratio_loss(chosen_B, rejected_B):
    """ORPO's penalty (Hong et al. 2024, eq. 7): -log sigmoid of the log odds ratio. chosen_B, rejected_B: mean log-probabilities."""

    def log_odds(x_B):
        return x_B - jnp.log1p(-jnp.exp(jnp.minimum(x_B, -1e-6)))

    return -jax.nn.log_sigmoid(log_odds(chosen_B) - log_odds(rejected_B))


@dataclasses.dataclass(frozen=True)
class PreferenceLearningLoss:
    """The best response of each comparison is made likelier, and one of the others (the next in order) less likely.

    batch: Comparisons. Term `loss`: per comparison; with orpo also `likelihood`, nats per token of the best response.
    Metrics: accuracy, whether the policy moved towards the best; margin, of beta times the log ratios; chosen and rejected, those ratios.
    KTO's baseline is the KL of mismatched pairs in the paper; here it is the mean log ratio of the batch, not below 0, which is why KTO is
    of the whole batch and refuses micro-batches.
    """

    model: Family
    options: options.PreferenceLearning
    shards: int = 1

    def __call__(self, params, batch: Comparisons, key, *, frozen=None, carry=None):
        o, c = self.options, self.model.config
        responses = batch.present.shape[1]
        other_B = (batch.best + 1) % responses
        other_B = jnp.where(jnp.take_along_axis(batch.present, other_B[:, None], 1)[:, 0] > 0, other_B, 0)

        def pick(x):
            """[B, K, ...] to [2 B, ...]: the best, then the others."""
            index = jnp.stack([batch.best, other_B], 1).reshape(*other_B.shape, 2, *(1,) * (x.ndim - 2))
            return flat(jnp.take_along_axis(x, index, 1))

        tokens, targets, weights = pick(batch.tokens), pick(batch.targets), pick(batch.weights)
        where = {"segments_BT": pick(batch.segments), "positions_BT": pick(batch.positions)}

        def log_probs(params):
            hidden_BTD = self.model.apply({"params": params}, tokens, **where).hidden_BTD
            head = Head(hidden_BTD, vocabulary_table(params))
            scores = score_tokens(head, targets, softcap=c.logit_softcap, shards=self.shards, counted_BT=weights > 0)
            return (scores.log_probs * weights).sum(1).reshape(-1, 2)

        policy_B2 = log_probs(params)
        lengths_B2 = jnp.maximum(weights.sum(1).reshape(-1, 2), 1.0)
        count = batch.counts.sum()
        if o.loss == "orpo":
            means_B2 = policy_B2 / lengths_B2
            loss_B, ratios_B2 = o.beta * odds_ratio_loss(means_B2[:, 0], means_B2[:, 1]), means_B2
        else:
            ratios_B2 = policy_B2 - jax.lax.stop_gradient(log_probs(frozen["reference"]))
            if o.loss == "kto":
                mean = (ratios_B2 * batch.counts[:, None]).sum() / jnp.maximum(2 * count, 1.0)
                loss_B = kto_loss(ratios_B2[:, 0], ratios_B2[:, 1], jax.lax.stop_gradient(jax.nn.relu(mean)), beta=o.beta)
            else:
                loss_B = preference_loss(o.loss, ratios_B2[:, 0], ratios_B2[:, 1], beta=o.beta, smoothing=o.label_smoothing)
        terms = {"loss": Term(1.0, (loss_B * batch.counts).sum(), count)}
        if o.loss == "orpo":
            terms["likelihood"] = Term(1.0, -(policy_B2[:, 0] * batch.counts).sum(), (lengths_B2[:, 0] * batch.counts).sum())

        def mean_of(x_B):
            return Mean((x_B * batch.counts).sum(), count)

        chosen_B, rejected_B = ratios_B2[:, 0], ratios_B2[:, 1]
        metrics = {
            "accuracy": mean_of((chosen_B > rejected_B).astype(jnp.float32)),
            "margin": mean_of(o.beta * (chosen_B - rejected_B)),
            "chosen": mean_of(chosen_B),
            "rejected": mean_of(rejected_B),
        }
        tokens_seen = (where["segments_BT"] != 0).sum().astype(jnp.float32)
        return terms, metrics | {"tokens": Mean(tokens_seen, tokens_seen)}, carry


def bind(options: options.PreferenceLearning, experiment: Experiment, shards: int) -> Bound:
    check_continues(options, experiment)
    model = realise(experiment.model)
    loss = PreferenceLearningLoss(model, options, shards)
    return Bound(loss, start=model.start, parts=model.parts(), reference=() if options.loss == "orpo" else DECODER)
