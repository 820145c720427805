"""Every kernel equals the reference, or raises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention.dispatch import Mask, Problem, attend, choose_kernel, layer_kernels, reference
from tests.model.conftest import GEMMA2, MODERN

SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 3, 3, 3]])
GROUPS = jnp.array([[0, 0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 1]])
MASKS = {
    "full": Mask(causal=False),
    "causal": Mask(causal=True),
    "packed": Mask(causal=True, query_segments_BT=SEGMENTS),
    "both sides": Mask(causal=False, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS),
    "window": Mask(causal=True, window=3),
    "packed window": Mask(causal=True, window=2, query_segments_BT=SEGMENTS),
    "cached window": Mask(causal=True, window=3, query_segments_BT=SEGMENTS[:, 4:6], key_segments_BS=SEGMENTS, offset=jnp.int32(4)),
    "groups": Mask(causal=True, query_segments_BT=SEGMENTS, query_groups_BT=GROUPS),
    "cached groups": Mask(
        causal=True,
        query_segments_BT=SEGMENTS[:, :2],
        key_segments_BS=SEGMENTS,
        offset=jnp.int32(0),
        query_groups_BT=GROUPS[:, :2],
        key_groups_BS=GROUPS,
    ),
    "branches": Mask(causal=True, query_segments_BT=SEGMENTS, branches_BT=GROUPS + jnp.arange(7) // 6),
    "cached": Mask(causal=True, query_segments_BT=SEGMENTS[:, 4:6], key_segments_BS=SEGMENTS, offset=jnp.int32(4)),
}


def inputs(queries):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((2, queries, 4, 8), (2, 7, 2, 8), (2, 7, 2, 8)))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_xla_equals_reference(mask):
    q, k, v = inputs(2 if mask.offset is not None else 7)

    def run(kernel):
        def loss(q, k, v):
            return sum((attend(q, k, v, mask, kernel, softcap) ** 2).sum() for softcap in (0.0, 0.7))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run("xla"), run("reference"))


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
    with pytest.raises(ValueError, match="groups of positions need a causal mask"):
        Mask(causal=True, window=3, query_groups_BT=GROUPS)
    with pytest.raises(ValueError, match="branches need a causal mask without a window"):
        Mask(causal=True, window=3, branches_BT=GROUPS)


def test_branches_see_the_trunk_of_their_segment_and_themselves():
    """Every pair of places, against what the words say."""
    mask = MASKS["branches"]
    allowed = np.asarray(mask.allowed(7, 7))[:, 0]
    for row, t, s in np.ndindex(2, 7, 7):
        same = SEGMENTS[row, t] == SEGMENTS[row, s] and mask.branches_BT[row, s] in (0, mask.branches_BT[row, t])
        assert allowed[row, t, s] == (s <= t and same)


def test_groups_say_what_is_seen_in_one_rule_for_causal_prefix_and_both_ways():
    def allowed(mask):
        return np.asarray(mask.allowed(7, 7))[:, 0]

    segments = {"query_segments_BT": SEGMENTS}
    every = jnp.broadcast_to(jnp.arange(7), (2, 7))
    for groups, same in ((every, Mask(causal=True, **segments)), (every * 0, Mask(causal=False, **segments))):
        np.testing.assert_array_equal(allowed(Mask(causal=True, query_groups_BT=groups, **segments)), allowed(same))
    prefix = allowed(Mask(causal=True, query_groups_BT=jnp.maximum(every - 3, 0)))  # four positions read, three written
    assert prefix[0, :4, :4].all() and not prefix[0, :4, 4:].any()
    np.testing.assert_array_equal(prefix[0, 4:], np.tri(7, dtype=bool)[4:])


@pytest.mark.parametrize(
    "kernel, mask, softcap, words",
    [
        ("cudnn", "causal", 1.0, "'cudnn' cannot honour softcap; use one of reference, xla, splash"),
        ("cudnn", "packed", 0.0, "'cudnn' cannot honour float32; it takes bfloat16.*reference, xla, splash, triton"),
        ("triton", "window", 0.0, "'triton' cannot honour window"),
        ("triton", "branches", 0.0, "'triton' cannot honour branches; use one of reference, xla "),
        ("triton", "both sides", 0.0, "'triton' cannot honour key_segments; use one of reference, xla "),
        ("splash", "cached", 0.0, "'splash' cannot honour key_segments, offset"),
    ],
)
def test_a_kernel_that_cannot_honour_the_mask_raises(kernel, mask, softcap, words):
    with pytest.raises(ValueError, match=words):
        attend(*inputs(7), MASKS[mask], kernel, softcap)


def test_auto_takes_the_fast_kernel_of_the_device_and_warns_where_there_is_none(recwarn):
    fits, wide = Problem(256, 256, 64, jnp.bfloat16), Problem(256, 256, 192, jnp.bfloat16)
    packed = {"causal", "segments"}
    chosen = [
        choose_kernel("auto", features, problem, platform)
        for features, problem, platform in (
            (packed | {"window", "softcap", "split_positions"}, wide, "tpu"),
            ({"causal"}, fits, "gpu"),
            (packed, fits, "gpu"),
            (packed | {"window"}, fits, "gpu"),
            (packed | {"key_segments", "offset"}, fits, "tpu"),
            (packed, wide, "cpu"),
        )
    ]
    assert chosen == ["splash", "cudnn", "triton", "cudnn", "xla", "xla"] and not recwarn
    with pytest.warns(UserWarning, match="falls back to xla.*triton: heads 192 wide.*cudnn: heads 192 wide"):
        assert choose_kernel("auto", packed, wide, "gpu") == "xla"
    with pytest.raises(ValueError, match="packed rows of 192; they must be multiples of 128"):
        choose_kernel("cudnn", packed, Problem(192, 192, 64, jnp.bfloat16), "gpu")


def test_the_kernels_of_a_model_are_known_before_it_runs():
    local = dataclasses.replace(MODERN, window=8, global_every=2, head_dim=8, dtype="bfloat16", context_length=128)
    assert layer_kernels(local, "gpu") == ["triton", "cudnn"]
    assert layer_kernels(GEMMA2, "tpu", split_positions=True) == ["splash"]
    with pytest.raises(ValueError, match="'splash' runs on a tpu; this is a cpu"):
        layer_kernels(dataclasses.replace(MODERN, attention="splash"), "cpu")


def test_fully_masked_rows_give_finite_numbers_and_gradients():
    """Padding queries see only padding; a query that sees nothing at all must not poison the rest with NaN."""
    q, k, v = inputs(7)
    mask = Mask(causal=True, query_segments_BT=SEGMENTS, key_segments_BS=SEGMENTS + 10)
    value, gradient = jax.jit(jax.value_and_grad(lambda q: reference(q, k, v, mask).sum()))(q)
    assert np.isfinite(value) and np.isfinite(gradient).all()
