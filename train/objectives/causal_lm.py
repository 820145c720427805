"""Next-token prediction."""

import dataclasses

import jax
import jax.numpy as jnp

from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import Decoder
from train import experiment
from train.objectives.terms import Mean, Term


@dataclasses.dataclass(frozen=True)
class CausalLM:
    """Autoregressive language modelling (Radford et al. 2018, eq. 1): predict each token from those before it in its document.

    batch: tokens, targets, segments, positions int32 [B, T], weights float32 [B, T] (0 on padding), rows int32 [B].
    Term `loss`: nats per predicted token. `z_loss`: squared log partition function, when asked for. Metric: accuracy.
    """

    model: Decoder
    options: experiment.CausalLM
    shards: int = 1
    """Devices that the rows of a batch are spread over: sets the size of the vocabulary chunks."""
    unit = "token"

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = None if key is None else jax.vmap(lambda row: jax.random.fold_in(key, row))(batch.rows)
        hidden_BTD = self.model.apply(
            {"params": params}, batch.tokens, segments_BT=batch.segments, positions_BT=batch.positions, keys_B=keys_B
        )
        want = ("nll", "hit", "log_z") if self.options.z_loss else ("nll", "hit")
        head, softcap = Head(hidden_BTD, vocabulary_table(params)), self.model.config.logit_softcap
        scores = score_tokens(head, batch.targets, want=want, softcap=softcap, shards=self.shards)
        weight = batch.weights.sum()
        terms = {"loss": Term(1.0, (scores.nll * batch.weights).sum(), weight)}
        if self.options.z_loss:
            terms["z_loss"] = Term(self.options.z_loss, (jnp.square(scores.log_z) * batch.weights).sum(), weight)
        return terms, {"accuracy": Mean((scores.hit * batch.weights).sum(), weight)}, carry
