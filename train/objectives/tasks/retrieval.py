"""Vectors by which a question finds its text among others."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from train.experiment import Experiment
from train.kinds import Bound, check_range, realise
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss, pooled
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_encoder, tokens_of

APART = -1e30


@dataclasses.dataclass(frozen=True)
class Retrieval(Supervised):
    """Contrast of pairs within the batch: every other text of it is a wrong one (Karpukhin et al. 2020, eq. 2, both ways)."""

    home: ClassVar[str] = ":bind"
    generates: ClassVar[bool] = False

    pool: Literal["auto", "pooler", "first", "mean"] = "mean"
    """Vector of a text: the mean of its hidden states, the first one, or the pooler's output."""
    temperature: float = 0.05
    """Divides the cosines, above 0."""

    def __post_init__(self):
        super().__post_init__()
        check_range("objective.", self, 1e-4, "temperature")
        if self.r_drop or self.mixup or self.ngrams:
            raise ValueError("objective.r_drop, mixup and ngrams are for labels, which Retrieval has none of: leave them at 0")

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        return "batch"


@dataclasses.dataclass(frozen=True)
class RetrievalLoss(HeadLoss):
    """batch: HeadBatch, whose labels are 0 for questions and 1 for texts; a pair shares its item. Term `loss`: nats per question and per
    text. Metrics: accuracy, whether the own one is the nearest of the batch; tokens."""

    divergence = None  # type: ignore[assignment]
    """Vectors are no predictions that a teacher could give."""

    def start(self, key):
        return self.model.start(key)

    def logits(self, params, hidden_BTD, batch, keys_B=None):
        """Vectors of length one, float32 [B, S, D]."""
        x_BSD = pooled(self.model, params, hidden_BTD, batch, self.pool).astype(jnp.float32)
        return x_BSD * jax.lax.rsqrt(jnp.maximum(jnp.square(x_BSD).sum(-1, keepdims=True), 1e-24))

    def judge(self, logits, batch, smoothing: float, share=1.0):
        assert isinstance(self.options, Retrieval)
        x_ND, items_N, side_N = logits.reshape(-1, logits.shape[-1]), batch.items.reshape(-1), batch.labels.reshape(-1)
        there_N = (batch.weights.reshape(-1) > 0) & (items_N >= 0)
        cosine_NN = x_ND @ x_ND.T / self.options.temperature
        other_NN = there_N[None, :] & (side_N[:, None] != side_N[None, :])
        score_NN = jnp.where(other_NN, cosine_NN, APART)
        own_NN = other_NN & (items_N[:, None] == items_N[None, :])
        own_N = jnp.where(own_NN, cosine_NN, 0).sum(1)
        weight_N = (there_N & own_NN.any(1)).astype(jnp.float32)
        nats_N, hits_N = jax.nn.logsumexp(score_NN, axis=1) - own_N, own_N >= score_NN.max(1)
        metrics = {"accuracy": Mean((hits_N * weight_N).sum(), weight_N.sum()), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (nats_N * weight_N).sum(), weight_N.sum())}, metrics

    def outputs(self, params, batch):
        values = self.logits(params, self.read(params, batch, None), batch)
        return {"values": values, "items": batch.items, "segments": batch.segments}


def bind(options: Retrieval, experiment: Experiment, shards: int) -> Bound:
    check_encoder(options, experiment)
    model = realise(experiment.model)
    pool = options.pool if options.pool != "auto" else "mean"
    loss = RetrievalLoss(model, None, options, pool)
    return Bound(loss, start=loss.start, parts=model.parts(), outputs=loss.outputs)
