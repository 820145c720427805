"""From hidden states to predictions: the one chunked vocabulary pass that pretraining, PPO, DPO and distillation share."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.decoding.quantize import Quantized, product
from model.watched import Watched

CHUNK_ELEMENTS = 1 << 26
"""Logits held at once, as a count of float32 elements (256 MiB): large enough for full-speed products, small beside the model."""
SKIPPABLE, FULL_SPEED = 8, 256
"""Where positions may be passed over: chunks at most so many, of at least so many positions, or the products are slow."""


class Head(NamedTuple):
    """What turns one model's hidden states into logits: hidden_BTD, the output projection table_VD, and bias_V or None."""

    hidden_BTD: jax.Array
    table_VD: jax.Array
    bias_V: jax.Array | None = None


class Scores(NamedTuple):
    """Per token, float32 [B, T]; None where not asked for.

    nll: -log p(target), nats. mean_nll: the same of every token of the vocabulary, their mean. log_z: log of the partition function (its
    square is the z-loss of PaLM, Chowdhery et al. 2022, sec. 5). entropy: of the prediction, nats. hit: 1 where the target is the most
    likely token. kl: KL(p || q) to the second head's q, nats. cross_entropy: -sum q log p. reverse_kl: KL(q || p), nats. jensen_shannon:
    (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, nats, at most log 2.
    """

    nll: jax.Array | None = None
    mean_nll: jax.Array | None = None
    log_z: jax.Array | None = None
    entropy: jax.Array | None = None
    hit: jax.Array | None = None
    kl: jax.Array | None = None
    cross_entropy: jax.Array | None = None
    reverse_kl: jax.Array | None = None
    jensen_shannon: jax.Array | None = None

    @property
    def log_probs(self) -> jax.Array:
        """log p(target); needs nll."""
        assert self.nll is not None
        return -self.nll


COMPARING = {"kl", "cross_entropy", "reverse_kl", "jensen_shannon"}
"""Scores that compare with a second head."""


def vocabulary_table(params) -> jax.Array:
    """The output projection [V, D] of a decoder: its own head, or the embedding table when tied."""
    return params["head" if "head" in params else "embedding"]["table"]


def logits(head: Head, *, softcap: float = 0.0, temperature: float = 1.0):
    """float32 logits [..., V], divided by the temperature after the soft cap `c * tanh(x / c)` (Gemma 2, sec. 2); 0 is no cap."""
    hidden, table, bias_V = head
    if isinstance(table, Quantized):
        x = product(hidden.reshape(-1, hidden.shape[-1]), table).reshape(*hidden.shape[:-1], -1)
    elif isinstance(table, Watched):
        x = table.logits(hidden)
    else:
        x = jnp.einsum("...D,VD->...V", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
    if bias_V is not None:
        x += bias_V
    if softcap:
        x = softcap * jnp.tanh(x / softcap)
    return x if temperature == 1.0 else x / temperature


def _score(head, other, targets_BT, want, softcap, temperature, words=0) -> Scores:
    """The plain computation, whole [B, T, V] logits at once: what each chunk runs, and the reference for all of them."""
    x_BTV = logits(head, softcap=softcap, temperature=temperature)
    log_z_BT = jax.nn.logsumexp(x_BTV, axis=-1)
    found = {"log_z": log_z_BT}
    if "nll" in want:
        found["nll"] = log_z_BT - jnp.take_along_axis(x_BTV, targets_BT[..., None], axis=-1)[..., 0]
    if "mean_nll" in want:
        found["mean_nll"] = log_z_BT - (x_BTV[..., :words] if words else x_BTV).mean(-1)
    if "hit" in want:
        found["hit"] = (jnp.argmax(x_BTV, axis=-1) == targets_BT).astype(jnp.float32)
    if ({"entropy"} | COMPARING) & set(want):
        log_p_BTV = x_BTV - log_z_BT[..., None]
        if "entropy" in want:
            found["entropy"] = -(jnp.exp(log_p_BTV) * log_p_BTV).sum(-1)
        if other is not None:
            log_q_BTV = jax.nn.log_softmax(logits(other, softcap=softcap, temperature=temperature), axis=-1)
            if "kl" in want:
                found["kl"] = (jnp.exp(log_p_BTV) * (log_p_BTV - log_q_BTV)).sum(-1)
            if "cross_entropy" in want:
                found["cross_entropy"] = -(jnp.exp(log_q_BTV) * log_p_BTV).sum(-1)
            if "reverse_kl" in want:
                found["reverse_kl"] = (jnp.exp(log_q_BTV) * (log_q_BTV - log_p_BTV)).sum(-1)
            if "jensen_shannon" in want:
                log_m_BTV = jnp.logaddexp(log_p_BTV, log_q_BTV) - math.log(2)
                both = (jnp.exp(log) * (log - log_m_BTV) for log in (log_p_BTV, log_q_BTV))
                found["jensen_shannon"] = 0.5 * sum(both).sum(-1)
    return Scores(**{name: found[name] for name in want})


def score_tokens(
    head: Head,
    targets_BT,
    *,
    want: tuple[str, ...] = ("nll",),
    other: Head | None = None,
    softcap: float = 0.0,
    temperature: float = 1.0,
    shards: int = 1,
    chunk: int = 0,
    counted_BT=None,
    words: int = 0,
) -> Scores:
    """Score the target of every position, holding the logits of a few positions at a time: [B, T, V] never exists.

    The forward pass keeps nothing of a chunk's logits; the backward pass computes them again and adds up the gradient of the tables
    in float32. targets_BT: int32. want: names of `Scores`; those of COMPARING need `other`, a second head over the same
    vocabulary. shards: devices that the rows are split over. chunk: positions per row in a chunk; 0 fits CHUNK_ELEMENTS logits per device.
    counted_BT: bool, the positions that are asked for; the others score 0. They go last in their rows, and a chunk of none but them costs
    nothing: so a prompt costs no vocabulary pass. words: ids that mean_nll is a mean over, from the first; 0: all.
    """
    unknown = set(want) - set(Scores._fields)
    if unknown:
        raise ValueError(f"score_tokens: unknown {sorted(unknown)}; choose from {Scores._fields}")
    if COMPARING & set(want) and other is None:
        raise ValueError(f"score_tokens: {' and '.join(sorted(COMPARING & set(want)))} compare with a second head; give `other`")
    batch, length = targets_BT.shape
    rows, vocabulary = max(1, batch // shards), head.table_VD.shape[0]
    fits = chunk or max(1, CHUNK_ELEMENTS // (rows * vocabulary))
    if counted_BT is not None and not chunk:
        fits = min(fits, max(-(-length // SKIPPABLE), -(-FULL_SPEED // rows)))
    chunk = min(length, fits)
    if chunk == length or isinstance(head.table_VD, Watched):  # whose uses are counted where they are traced
        scores = _score(head, other, targets_BT, want, softcap, temperature, words)
        return scores if counted_BT is None else jax.tree.map(lambda x: jnp.where(counted_BT, x, 0.0), scores)
    if counted_BT is not None:
        order_BT = jnp.argsort(~counted_BT, axis=1, stable=True)
        head = head._replace(hidden_BTD=_in_order(head.hidden_BTD, order_BT))
        other = None if other is None else other._replace(hidden_BTD=_in_order(other.hidden_BTD, order_BT))
        targets_BT, back_BT = _in_order(targets_BT, order_BT), jnp.argsort(order_BT, axis=1)
    chunks = -(-length // chunk)
    chunk = -(-length // chunks)  # as even as can be: little is padded

    def split(x):
        """[B, T, ...] to [chunks, B, chunk, ...], padded at the end; rows stay whole, so they stay on their device."""
        x = jnp.pad(x, ((0, 0), (0, chunks * chunk - length)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(batch, chunks, chunk, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(batch, chunks * chunk)[:, :length]

    hidden, tables = {"own": split(head.hidden_BTD)}, {"own": head[1:]}
    if other is not None:
        hidden["other"], tables["other"] = split(other.hidden_BTD), other[1:]
    used = None if counted_BT is None else split(_in_order(counted_BT, order_BT)).any((1, 2))
    scores = jax.tree.map(join, _scan_chunks(tables, hidden, split(targets_BT), used, (tuple(want), softcap, temperature, words)))
    if counted_BT is None:
        return scores
    return jax.tree.map(lambda x_BT: jnp.where(counted_BT, _in_order(x_BT, back_BT), 0.0), scores)


def _in_order(x, order_BT):
    """Of x [B, T, ...], the positions of each row in this order."""
    return jnp.take_along_axis(x, order_BT.reshape(*order_BT.shape, *(1,) * (x.ndim - 2)), axis=1)


def _chunk_scores(tables, hidden, targets, options) -> Scores:
    other = Head(hidden["other"], *tables["other"]) if "other" in tables else None
    return _score(Head(hidden["own"], *tables["own"]), other, targets, *options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scan_chunks(tables, hidden, targets, used, options) -> Scores:
    """The scores of all chunks, one after the other; arrays lead with the chunk, `tables` are shared. used: bool, of each chunk, or None
    for all: the others score 0."""

    def body(_, chunk):
        hidden, targets, used = chunk

        def score():
            return _chunk_scores(tables, hidden, targets, options)

        def nothing():
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(score))

        return None, score() if used is None else jax.lax.cond(used, score, nothing)

    return jax.lax.scan(body, None, (hidden, targets, used))[1]


def _scan_forward(tables, hidden, targets, used, options):
    return _scan_chunks(tables, hidden, targets, used, options), (tables, hidden, targets, used)


def _scan_backward(options, saved, gradients):
    tables, hidden, targets, used = saved

    def body(total, chunk):
        hidden, targets, used, gradient = chunk

        def add(total):
            _, pull_back = jax.vjp(lambda tables, hidden: _chunk_scores(tables, hidden, targets, options), tables, hidden)
            d_tables, d_hidden = pull_back(gradient)
            return jax.tree.map(lambda sum_, part: sum_ + part.astype(jnp.float32), total, d_tables), d_hidden

        def nothing(total):
            return total, jax.tree.map(jnp.zeros_like, hidden)

        return add(total) if used is None else jax.lax.cond(used, add, nothing, total)

    zero = jax.tree.map(lambda table: jnp.zeros(table.shape, jnp.float32), tables)
    d_tables, d_hidden = jax.lax.scan(body, zero, (hidden, targets, used, gradients))
    return jax.tree.map(lambda d, table: d.astype(table.dtype), d_tables, tables), d_hidden, None, None


_scan_chunks.defvjp(_scan_forward, _scan_backward)
