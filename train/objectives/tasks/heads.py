"""What encoders answer with: small heads over hidden states. Each gives a loss for every text or token, and what answers are made of.

A head's `logits` are float32. `losses(logits, batch, smoothing)` gives nats (or squared errors) [B, S] or [B, T], and hits of the same
shape or None; the objective weighs them. `answers(logits, batch)` is what an evaluation keeps. `divergence(logits, others, batch,
symmetric)`, of the same shape as losses, is how far two answers to the same texts are apart: nats, the Kullback-Leibler divergence of the
first from the second, symmetric plus that of the second from the first; for numbers the squared difference.
"""

import dataclasses

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


def divergence_terms(log_p, log_q, symmetric: bool):
    """p (log p - log q), symmetric plus q (log q - log p), of each event; summed over all of them a divergence."""
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    return (p - q if symmetric else p) * (log_p - log_q)


@dataclasses.dataclass(frozen=True)
class Classes:
    """One of several labels, for each text or each token. Answers: probabilities [..., V]."""

    width: int
    by_token: bool = False

    def labels(self, batch):
        return batch.labels

    def losses(self, logits, batch, smoothing: float = 0.0):
        log_p = jax.nn.log_softmax(logits)
        return smoothed_nll(log_p, batch.labels, smoothing), logits.argmax(-1) == batch.labels

    def answers(self, logits, batch):
        return jax.nn.softmax(logits)

    def divergence(self, logits, others, batch, symmetric: bool):
        return divergence_terms(jax.nn.log_softmax(logits), jax.nn.log_softmax(others), symmetric).sum(-1)


@dataclasses.dataclass(frozen=True)
class JudgedClasses(Classes):
    """Classes, of which some are answers that a person judged.

    batch.labels: float32 [B, S, 3], the class, its reward, and the probability with which it was answered, 0 for a label that is simply
    true. The loss of an answer that was judged is minus its reward times pi / pi_0, the ratio of its probability now and then, which is at
    most `clip` where the answer was right (Swaminathan & Joachims 2015, eq. 5): its mean is what answers would have earned, up to the sign.
    Where the ratio is clipped there is no gradient. That of a wrong answer is not clipped: the likelier it is, the more it is unlearned.
    """

    clip: float = 10.0

    def labels(self, batch):
        return batch.labels[..., 0].astype(jnp.int32)

    def judged(self, batch):
        """bool [B, S]"""
        return batch.labels[..., 2] > 0

    def losses(self, logits, batch, smoothing: float = 0.0):
        log_p, labels_BS = jax.nn.log_softmax(logits), self.labels(batch)
        reward_BS, then_BS = batch.labels[..., 1], batch.labels[..., 2]
        judged_BS = self.judged(batch)
        now_BS = jnp.exp(-smoothed_nll(log_p, labels_BS, 0.0))
        ratio_BS = now_BS / jnp.where(judged_BS, then_BS, 1.0)
        earned_BS = reward_BS * jnp.where(reward_BS > 0, jnp.minimum(ratio_BS, self.clip), ratio_BS)
        same_BS = logits.argmax(-1) == labels_BS
        hits_BS = jnp.where(judged_BS & (reward_BS <= 0), ~same_BS, same_BS)
        return jnp.where(judged_BS, -earned_BS, smoothed_nll(log_p, labels_BS, smoothing)), hits_BS


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

    def divergence(self, logits, others, batch, symmetric: bool):
        yes = divergence_terms(jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(others), symmetric)
        return (yes + divergence_terms(jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(-others), symmetric)).sum(-1)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number for each text; the loss is the squared error. batch.labels: float32 [B, S]. Answers: [B, S]."""

    width = 1
    by_token = False

    def losses(self, logits, batch, smoothing: float = 0.0):
        return jnp.square(logits[..., 0] - batch.labels), None

    def answers(self, logits, batch):
        return logits[..., 0]

    def divergence(self, logits, others, batch, symmetric: bool):
        return jnp.square(logits - others)[..., 0]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The one text of an example that is right. batch.labels: int32 [B, S], 1 for it; batch.items tells the examples of a row apart. Its
    loss counts once, at the right text. Answers: logits [B, S]."""

    width = 1
    by_token = False

    def _log_p(self, logits, batch):
        """(log-probability of each text among those of its example, which texts are of one example)."""
        score_BS = logits[..., 0]
        same_BSS = (batch.items[:, :, None] == batch.items[:, None, :]) & (batch.items >= 0)[:, None, :]
        return score_BS - jax.nn.logsumexp(jnp.where(same_BSS, score_BS[:, None, :], NEVER), axis=-1), same_BSS

    def losses(self, logits, batch, smoothing: float = 0.0):
        log_p_BS, same_BSS = self._log_p(logits, batch)
        best_BS = jnp.where(same_BSS, logits[:, None, :, 0], NEVER).max(-1)
        count_BS = same_BSS.sum(-1)
        mean_BS = jnp.where(same_BSS, log_p_BS[:, None, :], 0).sum(-1) / jnp.maximum(count_BS, 1)
        return -(1.0 - smoothing) * log_p_BS - smoothing * mean_BS, logits[..., 0] >= best_BS

    def answers(self, logits, batch):
        return logits[..., 0]

    def divergence(self, logits, others, batch, symmetric: bool):
        (log_p_BS, same_BSS), (log_q_BS, _) = (self._log_p(x, batch) for x in (logits, others))
        return jnp.where(same_BSS, divergence_terms(log_p_BS, log_q_BS, symmetric)[:, None, :], 0).sum(-1)


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

    def divergence(self, logits, others, batch, symmetric: bool):
        log_p_BT2, log_q_BT2 = (self._log_p(x, batch) for x in (logits, others))
        allowed_BT = (batch.labels & 1) > 0
        terms_BT = jnp.where(allowed_BT, divergence_terms(log_p_BT2, log_q_BT2, symmetric).mean(-1), 0)
        same_BTT = batch.segments[:, :, None] == batch.segments[:, None, :]
        return (same_BTT * terms_BT[:, None, :]).sum(-1)
