"""Vectors of texts by contrast: two passes of one text, apart by dropout alone, shall lie near each other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.media.encoders import segment_means
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.media.alignment import MASKED, recall, similarities
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_trunk, tokens_of
from train.objectives.text.corruption import begins, present, row_keys
from train.objectives.text.options import SimCSE


def contrast(cosine_NN, valid_N, temperature: float):
    """Nats per text, float32 [N]: of its other view among those of all texts (Gao et al. 2021, eq. 1). valid_N: 0 for no text."""
    logits_NN = cosine_NN / temperature
    all_N = jax.nn.logsumexp(jnp.where(valid_N[None, :] > 0, logits_NN, MASKED), axis=1)
    return jnp.where(valid_N > 0, all_N - jnp.diagonal(logits_NN), 0.0)


@dataclasses.dataclass(frozen=True)
class SimCSELoss:
    """Unsupervised SimCSE (Gao et al. 2021, eq. 1).

    batch: TextBatch; each segment is a text. Term `loss`: nats per text, over the texts of the global batch, on however many devices: so it
    cannot be accumulated over micro-batches. Without a key there is no dropout, and both views are one: evaluation then measures how far
    apart different texts lie. Metrics: accuracy; dropped, the share of texts beyond options.texts of a row; tokens.
    """

    model: Any
    options: SimCSE

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        o = self.options
        segments_BT = jnp.where(present(batch), batch.segments, 0)
        keys_B = row_keys(key, batch.rows)[1]
        keys_2B = None if keys_B is None else jax.vmap(jax.random.split)(keys_B).reshape(-1)
        tokens, segments, positions = (jnp.repeat(x, 2, axis=0) for x in (batch.tokens, segments_BT, batch.positions))
        where = {"segments_BT": segments, "positions_BT": positions, "keys_B": keys_2B}
        hidden = self.model.apply({"params": params}, tokens, **where).hidden_BTD
        if o.pool == "mean":
            pooled = segment_means(hidden, segments, o.texts)
        else:  # the mean of one
            pooled = segment_means(hidden, jnp.where(jax.vmap(begins)(segments), segments, 0), o.texts)
        views = pooled.reshape(-1, 2, *pooled.shape[1:])
        left_NE, right_NE = (views[:, side].reshape(-1, views.shape[-1]) for side in (0, 1))
        valid_N = (segments_BT[:, None] == jnp.arange(1, o.texts + 1)[:, None]).any(-1).reshape(-1).astype(jnp.float32)
        cosine_NN, count = similarities(left_NE, right_NE), valid_N.sum()
        losses_N = contrast(cosine_NN, valid_N, o.temperature)
        texts = segments_BT.max(1)
        metrics = {
            "accuracy": Mean(recall(cosine_NN, valid_N).sum(), count),
            "dropped": Mean(jnp.maximum(texts - o.texts, 0).sum().astype(jnp.float32), texts.sum().astype(jnp.float32)),
            "tokens": tokens_of(batch),
        }
        return {"loss": Term(1.0, losses_N.sum(), count)}, metrics, carry


def bind(options: SimCSE, experiment: Experiment, shards: int) -> Bound:
    check_trunk(options, experiment)
    if not experiment.model.drops:
        raise UserError("objective SimCSE tells two views of a text apart by dropout; model.dropout is 0", "Set --model.dropout 0.1.")
    model = realise(experiment.model)
    return Bound(SimCSELoss(model, options), start=model.start, parts=model.parts())
