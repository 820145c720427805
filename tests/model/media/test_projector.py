"""Projectors: each segment's outputs depend on its own places alone, and come in the numbers that are promised."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.media.signals.patches import grid
from model.media.encoder_config import ImageEncoder, Projection
from model.media.projector import Projector
from tests.model.media.arrays import draw, near

WIDTH, E = 10, 8
IMAGE = ImageEncoder(num_layers=1, embed_dim=E, num_heads=2, patch=2)
KINDS = {
    "linear": Projection("linear"),
    "mlp": Projection("mlp", shuffle=2),
    "resampler": Projection("resampler", latents=3),
}
SEGMENTS = np.array([[1] * 4 + [2] * 8 + [0] * 4])


@functools.cache
def make(kind):
    config = dataclasses.replace(IMAGE, projector=KINDS[kind])
    projector = Projector(config, WIDTH)
    hidden = jax.ShapeDtypeStruct((1, 4, E), jnp.float32)
    shapes = jax.eval_shape(lambda key, hidden: projector.init(key, hidden, np.ones((1, 4), int), 1), jax.random.key(0), hidden)["params"]
    return config, projector, draw(shapes)


def places_of(config, hidden, count):
    """How many places a projector makes of a row of hidden places that holds up to `count` segments."""
    projector = config.projector
    return count * projector.latents if projector.method == "resampler" else hidden // projector.shuffle**2


def hidden_places(seed=0):
    return np.random.default_rng(seed).normal(size=(1, 16, E)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_segments_equal_separate_ones(kind):
    """Values and gradients, whatever stands in the places of padding."""
    config, projector, params = make(kind)
    hidden, other = hidden_places(), np.where(SEGMENTS[..., None] == 0, 9.0, hidden_places()).astype(np.float32)

    def total(*found):
        """The squares of all places of segments with so many hidden places."""
        media = []
        for projected, sizes in found:
            for number, size in enumerate(sizes, 1):
                where = jnp.nonzero(projected.segments_BM[0] == number, size=places_of(config, size, 1))
                media.append(projected.media_BMD[0][where])
        media = jnp.concatenate(media)
        return (media**2).sum(), media

    def packed(params, hidden):
        return total((projector.apply({"params": params}, hidden, SEGMENTS, 3), (4, 8)))

    def separate(params, hidden):
        first = projector.apply({"params": params}, hidden[:, :4], SEGMENTS[:, :4], 1)
        return total((first, (4,)), (projector.apply({"params": params}, hidden[:, 4:12], SEGMENTS[:, 4:12] - 1, 1), (8,)))

    found = jax.jit(jax.value_and_grad(packed, (0, 1), has_aux=True))
    (_, values), gradients = found(params, hidden)
    (_, expected), expected_gradients = jax.jit(jax.value_and_grad(separate, (0, 1), has_aux=True))(params, hidden)
    near(values, expected)
    near(gradients, expected_gradients, 1e-3)
    near(found(params, other)[0][1], expected)
    assert projector.apply({"params": params}, hidden, SEGMENTS, 3).segments_BM.shape == (1, places_of(config, 16, 3))


def test_a_block_of_the_picture_becomes_one_place():
    """By gradient: with pixel shuffle an output depends on the places of one s x s block, all of them."""
    _, projector, params = make("mlp")
    places, ones = grid(4, 4, 2), np.ones((1, 16), np.int32)
    reach = jax.jit(jax.jacrev(lambda hidden: projector.apply({"params": params}, hidden, ones, 1).media_BMD[0].sum(-1)))(hidden_places())
    seen = np.abs(reach[:, 0]).sum(-1) > 0
    blocks = places // 2 @ np.array([2, 1])
    np.testing.assert_array_equal(seen, blocks == np.arange(4)[:, None])


def test_a_resampler_asks_the_same_number_of_everything_and_of_what_is_absent_nothing():
    _, projector, params = make("resampler")
    order = np.random.default_rng(1).permutation(8)
    shuffled = hidden_places()
    shuffled[0, 4:12] = shuffled[0, 4:12][order]
    run = jax.jit(lambda hidden: projector.apply({"params": params}, hidden, SEGMENTS, 3))
    found = run(hidden_places())
    np.testing.assert_array_equal(found.segments_BM[0], [1, 1, 1, 2, 2, 2, 0, 0, 0])
    near(run(shuffled).media_BMD[:, :6], found.media_BMD[:, :6])  # places know where they lie; the resampler does not
    assert np.isfinite(found.media_BMD).all()


def test_rows_that_blocks_do_not_fill_are_refused():
    _, projector, params = make("mlp")
    with pytest.raises(ValueError, match="blocks of 4"):
        projector.apply({"params": params}, hidden_places()[:, :6], SEGMENTS[:, :6], 1)
