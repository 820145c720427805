"""Masked patch modelling: what is hidden, and that only that is asked for."""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.media.encoder_config import AudioEncoder, ImageEncoder, VideoEncoder
from train.objectives.media.hidden_patches import HiddenPatchesLoss, choose_hidden, tubes
from train.objectives.media.views import MediaRows
from train.step.gradients import accumulated, plain

SHAPE = {"num_layers": 1, "embed_dim": 16, "num_heads": 2, "patch": 2, "rows": 4, "columns": 4}
IMAGE = ImageEncoder(**SHAPE)
VIDEO = VideoEncoder(**SHAPE, frames=1, times=3)


class Media(NamedTuple):
    patches: np.ndarray
    places: np.ndarray
    segments: np.ndarray


def grid(*counts):
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, len(counts))


def clips():
    """A row of two clips, of 2 x 3 x 4 and 3 x 2 x 2 places, a class token behind the first, and padding."""
    places = np.concatenate([grid(2, 3, 4), [[-1, -1, -1]], grid(3, 2, 2), np.zeros((3, 3))]).astype(np.int32)
    segments = np.array([1] * 25 + [2] * 12 + [0] * 3, np.int32)
    return places[None], segments[None]


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9])
def test_whole_tubes_are_hidden_in_the_share_asked_for(rate):
    places, segments = clips()
    hide = jax.jit(lambda key: choose_hidden(key, tubes(VIDEO, places), segments, jnp.arange(1), rate))
    drawn = np.array([hide(jax.random.key(seed))[0] for seed in range(200)])
    assert not drawn[:, segments[0] == 0].any() and not drawn[:, 24].any()
    for number, times, count in ((1, 2, 12), (2, 3, 4)):
        mine = (segments[0] == number) & (places[0, :, 0] >= 0)
        by_tube = drawn[:, mine].reshape(-1, times, count)
        assert (by_tube == by_tube[:, :1]).all()
        assert (by_tube[:, 0].sum(-1) == np.ceil(rate * count)).all()
        often = by_tube[:, 0].mean(0)  # no tube is spared
        assert np.abs(often - np.ceil(rate * count) / count).max() < 5 * 0.5 / np.sqrt(200)


def test_what_is_hidden_depends_on_the_row_and_not_on_its_neighbours():
    places, segments = clips()
    both = [np.concatenate([x, x]) for x in (tubes(VIDEO, places), segments)]
    choose = jax.jit(functools.partial(choose_hidden, rate=0.5))
    found = choose(jax.random.key(1), *both, jnp.array([7, 8]))
    alone = choose(jax.random.key(1), tubes(VIDEO, places), segments, jnp.array([8]))
    np.testing.assert_array_equal(found[1], alone[0])
    assert (found[0] != found[1]).any()


def batch_of(seed=0, rows=4, config=IMAGE):
    """Images whose patches are all alike, so that the hidden ones can be told from the others."""
    rng = np.random.default_rng(seed)
    patches = np.tile(rng.normal(size=(rows, 1, config.patch_values)), (1, 9, 1)).astype(np.float32)
    places = np.tile(grid(3, 3), (rows, 1, 1)).astype(np.int32)
    return MediaRows(Media(patches, places, np.ones((rows, 9), np.int32)), np.arange(rows))


@pytest.mark.parametrize("config", [IMAGE, dataclasses.replace(IMAGE, patch=4, stem="convolutions")], ids=["linear", "convolutions"])
def test_hidden_values_reach_the_loss_as_targets_alone_and_shown_ones_as_inputs_alone(config):
    """Also where convolutions reach from patch to patch."""
    objective = HiddenPatchesLoss(config, 0.5)
    params, batch = nn.unbox(jax.jit(objective.start)(jax.random.key(0))), batch_of(config=config)
    params = jax.tree.map(lambda x: 8.0 * x, params)  # so that places listen to one another
    choose = jax.jit(functools.partial(choose_hidden, rate=0.5))
    hidden = np.asarray(choose(jax.random.key(0), tubes(config, batch.media.places), batch.media.segments, batch.rows))
    assert hidden.sum() == 4 * 5

    @jax.jit
    def loss(shown, wanted):
        """The objective with the values of hidden places from one array, and those of shown places from another."""
        patches = jnp.where(hidden[..., None], wanted, shown)
        terms, metrics, _ = objective(params, batch._replace(media=batch.media._replace(patches=patches)), None)
        return terms["loss"].total, metrics["hidden"]

    patches = batch.media.patches
    total, share = loss(patches, patches)
    assert float(share.total / share.weight) == pytest.approx(5 / 9)
    # The prediction of a hidden place does not change with its values, so the loss follows the target in closed form.
    assert loss(patches + 1.0, patches)[0] != total
    np.testing.assert_allclose(loss(patches, 3.0 * patches + 2.0)[0], total, rtol=1e-4)  # targets are normalised, inputs are not seen


def test_saying_nothing_costs_one_and_learning_costs_less():
    objective = HiddenPatchesLoss(IMAGE, 0.5)
    params, batch = nn.unbox(jax.jit(objective.start)(jax.random.key(0))), batch_of(rows=16)
    mute = params | {"predict": jax.tree.map(jnp.zeros_like, params["predict"])}
    loss = jax.jit(lambda params: objective(params, batch, None)[0]["loss"])
    assert float(loss(mute).total / loss(mute).weight) == pytest.approx(1.0, abs=1e-3)

    @jax.jit
    def descend(params):
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, plain(objective, params, batch, None)[0])

    for _ in range(60):
        params = descend(params)
    assert float(loss(params).total / loss(params).weight) < 0.7  # neighbours tell


def test_micro_batches_change_nothing():
    objective = HiddenPatchesLoss(IMAGE, 0.5)
    params, batch = nn.unbox(jax.jit(objective.start)(jax.random.key(0))), batch_of()
    key = jax.random.key(3)
    whole = jax.jit(lambda params: plain(objective, params, batch, key))(params)
    parts = jax.jit(lambda params: accumulated(objective, params, batch, key, micro_batches=2))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole[:2], parts[:2])


def test_sounds_and_rates_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="for audio"):
        HiddenPatchesLoss(AudioEncoder())
    with pytest.raises(ValueError, match="rate is 0"):
        HiddenPatchesLoss(IMAGE, 0.0)
