"""Every kernel equals the reference, or raises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention import KERNELS, Mask, attend, reference

SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 3, 3, 3]])
MASKS = {
    "full": Mask(causal=False),
    "causal": Mask(causal=True),
    "packed": Mask(causal=True, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS),
    "both sides": Mask(causal=False, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS),
    "window": Mask(causal=True, window=3),
    "packed window": Mask(causal=True, window=2, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS),
    "cached window": Mask(causal=True, window=3, query_segments_BT=SEGMENTS[:, 4:6], key_segments_BS=SEGMENTS, offset=jnp.int32(4)),
    "cached": Mask(causal=True, query_segments_BT=SEGMENTS[:, 4:6], key_segments_BS=SEGMENTS, offset=jnp.int32(4)),
}
HERE = [name for name in KERNELS if name not in ("reference", "cudnn")]


def inputs(queries):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((2, queries, 4, 8), (2, 7, 2, 8), (2, 7, 2, 8)))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("kernel", HERE)
def test_kernel_equals_reference(kernel, mask):
    q, k, v = inputs(2 if mask.offset is not None else 7)

    def run(kernel):
        def loss(q, k, v):
            return sum((attend(q, k, v, mask, kernel, softcap) ** 2).sum() for softcap in (0.0, 0.7))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run(kernel), run("reference"))


def test_masks_and_caps_are_what_they_are_called():
    """The reference itself, against one query and one key at a time."""
    mask, cap = MASKS["packed window"], 0.7
    q, k, v = inputs(7)
    found = np.asarray(reference(q, k, v, mask, cap))
    for row, t, head in np.ndindex(2, 7, 4):
        seen = [s for s in range(t + 1) if SEGMENTS[row, s] == SEGMENTS[row, t] and t - s < 2]
        scores = np.array([q[row, t, head] @ k[row, s, head // 2] for s in seen], np.float64) / 8**0.5
        weights = np.exp(cap * np.tanh(scores / cap))
        np.testing.assert_allclose(found[row, t, head], weights / weights.sum() @ v[row, seen, head // 2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs a causal mask"):
        Mask(causal=False, window=3)


def test_a_kernel_that_cannot_honour_the_mask_raises():
    with pytest.raises(ValueError, match="'cudnn' cannot honour segments.*reference, xla"):
        attend(*inputs(7), MASKS["packed"], "cudnn")


def test_fully_masked_rows_give_finite_numbers_and_gradients():
    """Padding queries see only padding; a query that sees nothing at all must not poison the rest with NaN."""
    q, k, v = inputs(7)
    mask = Mask(causal=True, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS + 10)
    value, gradient = jax.jit(jax.value_and_grad(lambda q: reference(q, k, v, mask).sum()))(q)
    assert np.isfinite(value) and np.isfinite(gradient).all()
