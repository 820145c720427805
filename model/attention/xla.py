"""Attention as plain matrix products, with its gradient written out.

Differentiating the obvious code makes XLA recompute the softmax, transpose scores and reduce over [T, S] where rows of width K
would do: on a CPU the step of a small model takes about a tenth longer.
"""

import functools

import jax
import jax.numpy as jnp


def products(q_BTHK, k_BSGK, v_BSGK, mask, masked: float, bias_BHTS=None):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with grouped keys; `masked` is the score of a hidden key,
    bias_BHTS is added to scores.

    Softmax in float32. The weights [B, H, T, S] are kept for the backward pass, in the type of v.
    """
    batch, queries, heads, width = q_BTHK.shape
    keys, groups = k_BSGK.shape[1:3]
    q_BGRK = jnp.swapaxes(q_BTHK, 1, 2).reshape(batch, groups, -1, width)  # R: the queries of all heads that share keys
    k_BGSK, v_BGSK = jnp.swapaxes(k_BSGK, 1, 2), jnp.swapaxes(v_BSGK, 1, 2)
    allowed = mask.allowed(queries, keys)
    if allowed is not None and groups != heads:
        allowed = jnp.broadcast_to(allowed[:, :, None], (*allowed.shape[:2], heads // groups, queries, keys))
        allowed = allowed.reshape(*allowed.shape[:2], -1, keys)
    bias = bias_BHTS
    if bias is not None:
        bias = bias.reshape(len(bias), groups, -1, keys)
    if mask.offset is not None:  # keys come from a cache, which has rows and heads as one axis: take it as it lies
        allowed = jnp.broadcast_to(allowed, (batch, groups, *allowed.shape[2:])).reshape(1, batch * groups, *allowed.shape[2:])
        q_BGRK, k_BGSK, v_BGSK = (x.reshape(1, batch * groups, *x.shape[2:]) for x in (q_BGRK, k_BGSK, v_BGSK))
        if bias is not None:
            bias = jnp.broadcast_to(bias, (batch, *bias.shape[1:])).reshape(1, batch * groups, *bias.shape[2:])
    y_BGRK = _attend(q_BGRK * width**-0.5, k_BGSK, v_BGSK, allowed, bias, masked)
    return jnp.swapaxes(y_BGRK.reshape(batch, heads, queries, width), 1, 2)


def _product(a, b, a_axis: int, b_axis: int):
    """The products of all pairs of matrices of two batches, contracted over one axis of each."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q_BGRK, k_BGSK, v_BGSK, allowed, bias, masked):
    return _forward(q_BGRK, k_BGSK, v_BGSK, allowed, bias, masked)[0]


def _forward(q_BGRK, k_BGSK, v_BGSK, allowed, bias, masked):
    score_BGRS = _product(q_BGRK, k_BGSK, 3, 3)
    if bias is not None:
        score_BGRS += bias
    if allowed is not None:
        score_BGRS = jnp.where(allowed, score_BGRS, masked)
    power_BGRS = jnp.exp(score_BGRS - score_BGRS.max(-1, keepdims=True))
    weight_BGRS = (power_BGRS / power_BGRS.sum(-1, keepdims=True)).astype(v_BGSK.dtype)
    y_BGRK = _product(weight_BGRS, v_BGSK, 3, 2).astype(v_BGSK.dtype)
    return y_BGRK, (q_BGRK, k_BGSK, v_BGSK, bias, weight_BGRS, y_BGRK)


def _backward(masked, saved, dy_BGRK):
    q_BGRK, k_BGSK, v_BGSK, bias, weight_BGRS, y_BGRK = saved
    dv_BGSK = _product(weight_BGRS, dy_BGRK, 2, 2)
    # The softmax's gradient subtracts sum_S weight * dweight, which equals sum_K y * dy (Dao et al. 2022, appendix B.2).
    mean_BGR1 = (dy_BGRK.astype(jnp.float32) * y_BGRK).sum(-1, keepdims=True)
    dscore_BGRS = weight_BGRS * (_product(dy_BGRK, v_BGSK, 3, 3) - mean_BGR1)
    dbias = bias
    if bias is not None:
        dbias = (dscore_BGRS.sum(0, keepdims=True) if len(bias) < len(dscore_BGRS) else dscore_BGRS).astype(bias.dtype)
    dscore_BGRS = dscore_BGRS.astype(q_BGRK.dtype)
    dq_BGRK, dk_BGSK = _product(dscore_BGRS, k_BGSK, 3, 2), _product(dscore_BGRS, q_BGRK, 2, 2)
    return dq_BGRK.astype(q_BGRK.dtype), dk_BGSK.astype(k_BGSK.dtype), dv_BGSK.astype(v_BGSK.dtype), None, dbias


_attend.defvjp(_forward, _backward)
