"""What encoders answer with: small heads over hidden states. Each gives a loss for every text or token, and what answers are made of.

A head's `logits` are float32. `losses(logits, batch, smoothing)` gives nats (or squared errors) [B, S] or [B, T], and hits of the same
shape or None; the objective weighs them. `answers(logits, batch)` is what an evaluation keeps.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.layers import Dense

NEVER = -1e30


def projection(width: int, std: float) -> nn.Module:
    """Hidden states to logits, float32. Parameters: kernel [D, width], bias."""
    return Dense((width,), ("embed", "norm"), std, jnp.dtype(jnp.float32), bias=True)


def smoothed_nll(log_p, labels, smoothing: float):
    """-sum_v q_v log p_v over the last axis; q is 1 - smoothing for the label, and `smoothing` is shared by all (Szegedy et al. 2016)."""
    own = -jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return (1.0 - smoothing) * own - smoothing * log_p.mean(-1) if smoothing else own


@dataclasses.dataclass(frozen=True)
class Classes:
    """One of several labels, for each text or each token. Answers: probabilities [..., V]."""

    width: int
    by_token: bool = False

    def losses(self, logits, batch, smoothing: float = 0.0):
        log_p = jax.nn.log_softmax(logits)
        return smoothed_nll(log_p, batch.labels, smoothing), logits.argmax(-1) == batch.labels

    def answers(self, logits, batch):
        return jax.nn.softmax(logits)


@dataclasses.dataclass(frozen=True)
class SeveralLabels:
    """Any number of labels at once. batch.labels: float32 [B, S, V], 1 for those that hold. Answers: probabilities [B, S, V]."""

    width: int
    by_token = False

    def losses(self, logits, batch, smoothing: float = 0.0):
        wanted = (1.0 - smoothing) * batch.labels + 0.5 * smoothing
        nats = jnp.logaddexp(0.0, logits) - wanted * logits
        return nats.sum(-1), ((logits > 0) == (batch.labels > 0.5)).all(-1)

    def answers(self, logits, batch):
        return jax.nn.sigmoid(logits)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number for each text; the loss is the squared error. batch.labels: float32 [B, S]. Answers: [B, S]."""

    width = 1
    by_token = False

    def losses(self, logits, batch, smoothing: float = 0.0):
        return jnp.square(logits[..., 0] - batch.labels), None

    def answers(self, logits, batch):
        return logits[..., 0]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The one text of an example that is right. batch.labels: int32 [B, S], 1 for it; batch.items tells the examples of a row apart. Its
    loss counts once, at the right text. Answers: logits [B, S]."""

    width = 1
    by_token = False

    def losses(self, logits, batch, smoothing: float = 0.0):
        score_BS = logits[..., 0]
        same_BSS = (batch.items[:, :, None] == batch.items[:, None, :]) & (batch.items >= 0)[:, None, :]
        others_BSS = jnp.where(same_BSS, score_BS[:, None, :], NEVER)
        log_p_BS = score_BS - jax.nn.logsumexp(others_BSS, axis=-1)
        count_BS = same_BSS.sum(-1)
        mean_BS = jnp.where(same_BSS, log_p_BS[:, None, :], 0).sum(-1) / jnp.maximum(count_BS, 1)
        return -(1.0 - smoothing) * log_p_BS - smoothing * mean_BS, score_BS >= others_BSS.max(-1)

    def answers(self, logits, batch):
        return logits[..., 0]


@dataclasses.dataclass(frozen=True)
class Span:
    """Where an answer begins and ends in each text (Devlin et al. 2019, sec. 4.2). batch.labels: int32 [B, T], of each token 1 where it may
    begin or end an answer, and 2 more for the true beginning, 4 more for the true end. The loss of a text stands at its first token.
    Answers: log-probabilities [B, T, 2]."""

    width = 2
    by_token = True

    def _log_p(self, logits, batch):
        allowed_BT = (batch.labels & 1) > 0
        masked_BT2 = jnp.where(allowed_BT[..., None], logits, NEVER)
        same_BTT = (batch.segments[:, :, None] == batch.segments[:, None, :])[..., None]
        total_BT2 = jax.nn.logsumexp(jnp.where(same_BTT, masked_BT2[:, None], NEVER), axis=2)
        return masked_BT2 - total_BT2

    def losses(self, logits, batch, smoothing: float = 0.0):
        log_p_BT2 = self._log_p(logits, batch)
        true_BT2 = jnp.stack([(batch.labels & 2) > 0, (batch.labels & 4) > 0], -1)
        nats_BT = -0.5 * jnp.where(true_BT2, log_p_BT2, 0).sum(-1)
        same_BTT = batch.segments[:, :, None] == batch.segments[:, None, :]
        return (same_BTT * nats_BT[:, None, :]).sum(-1), None

    def answers(self, logits, batch):
        return self._log_p(logits, batch)


Head = Classes | SeveralLabels | Number | Choice | Span | Any
