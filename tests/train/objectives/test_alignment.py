"""Contrastive losses against their definitions, and the same on one device and on eight."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.media.encoder_config import AudioEncoder, ImageEncoder
from model.media.towers import MediaTower, TextTower
from train.devices.mesh import batch_sharding, make_mesh
from train.experiment import MeshShape
from train.objectives.media.alignment import AlignmentLoss, alike, info_nce, recall, sigmoid_loss, similarities
from train.objectives.media.views import Pairs
from train.step.gradients import plain
from train.step.update import on_mesh

B, E = 16, 6


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    left = rng.normal(size=(B, E)).astype(np.float32)
    valid = np.ones(B, np.float32)
    valid[[3, 11]] = 0.0
    return left, left + 0.7 * rng.normal(size=(B, E)).astype(np.float32), valid


def cosines(left, right):
    left, right = np.asarray(left, float), np.asarray(right, float)
    return left @ right.T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)[None, :]


def test_losses_equal_their_definitions(embeddings):
    left, right, valid = embeddings
    there = np.flatnonzero(valid)
    cosine = cosines(left[there], right[there])
    found = similarities(left, right)
    np.testing.assert_allclose(np.asarray(found)[np.ix_(there, there)], cosine, atol=1e-6)

    logits = 7.0 * cosine
    own = np.diag(logits)
    by_row, by_column = np.log(np.exp(logits).sum(1)) - own, np.log(np.exp(logits).sum(0)) - own
    losses = np.asarray(info_nce(found, valid, 7.0))
    np.testing.assert_allclose(losses[there], (by_row + by_column) / 2, rtol=1e-5)
    assert (losses[valid == 0] == 0).all()

    expected = [
        sum(np.log1p(np.exp(-(1 if i == j else -1) * (7.0 * cosine[i, j] - 3.0))) for j in range(len(there))) for i in range(len(there))
    ]
    losses = np.asarray(sigmoid_loss(found, valid, 7.0, -3.0))
    np.testing.assert_allclose(losses[there], expected, rtol=1e-5)
    assert (losses[valid == 0] == 0).all()


def test_pairs_with_the_same_text_are_not_told_apart(embeddings):
    """The loss of a pair is what it is without its twin."""
    left, right, valid = embeddings
    texts = np.arange(B).astype(np.uint32)
    texts[5] = texts[0]
    same, found = alike(texts), similarities(left, right)
    assert np.argwhere(same).tolist() == [[0, 5], [5, 0]]
    others = np.arange(B) != 5
    alone = found[others][:, others]
    for loss in (lambda cosine, valid, *same: info_nce(cosine, valid, 7.0, *same), lambda *a: sigmoid_loss(a[0], a[1], 7.0, -3.0, *a[2:])):
        np.testing.assert_allclose(loss(found, valid, same)[0], loss(alone, valid[others])[0], rtol=1e-5)
        assert not np.allclose(loss(found, valid)[0], loss(alone, valid[others])[0], rtol=1e-4)
    nearer = found.at[0, 0].set(1.5).at[0, 5].set(2.0)
    assert recall(nearer, valid)[0] == 0 and recall(nearer, valid, 1, same)[0] == 1
    linear = {"left": jnp.eye(E), "right": jnp.eye(E), "log_scale": jnp.float32(0), "bias": jnp.float32(0)}
    for numbers, expected in ((None, found > 9), (texts[:, None], same)):
        terms, *_ = AlignmentLoss(Linear(), Linear())(linear, Pairs(left, right, valid[:, None], np.arange(B), numbers), None)
        np.testing.assert_allclose(terms["loss"].total, sigmoid_loss(found, valid, 1.0, 0.0, expected).sum(), rtol=1e-5)


def test_recall_counts_those_that_are_nearer(embeddings):
    left, right, valid = embeddings
    cosine, there = cosines(left, right), np.flatnonzero(valid)
    for most in (1, 3, B):
        expected = [i in there and sum(cosine[i, j] > cosine[i, i] for j in there) < most for i in range(B)]
        np.testing.assert_array_equal(recall(similarities(left, right), valid, most), expected)
    assert recall(jnp.ones((4, 4)), jnp.ones(4)).sum() == 0  # knowing nothing finds nothing


@dataclasses.dataclass(frozen=True)
class Linear:
    """The smallest tower."""

    def __call__(self, params, x, keys_B):
        return (x @ params)[:, None]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_eight_devices_equal_one(embeddings, kind):
    """Each pair is compared with those of all devices: loss, metrics and gradients, by towers and by temperature."""
    left, right, valid = embeddings
    rng = np.random.default_rng(1)
    params = {"left": rng.normal(size=(E, 5)), "right": rng.normal(size=(E, 5)), "log_scale": 1.5, "bias": -2.0}
    params = jax.tree.map(jnp.float32, params)
    batch = Pairs(left, right, valid[:, None], np.arange(B))
    objective = AlignmentLoss(Linear(), Linear(), kind)

    def step(devices):
        mesh = make_mesh(MeshShape(data=devices), jax.devices()[:devices])
        placed = jax.device_put(batch, jax.tree.map(lambda x: batch_sharding(mesh, 1), batch))
        gradients, metrics, _ = on_mesh(jax.jit(lambda params, batch: plain(objective, params, batch, None)), mesh)(params, placed)
        return gradients, metrics["loss"].total / metrics["loss"].weight, metrics["accuracy"].total / metrics["accuracy"].weight

    one, eight = step(1), step(8)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    assert one[1] > 0.1 and 0 < one[2] <= 1


class Media(NamedTuple):
    patches: np.ndarray
    places: np.ndarray
    segments: np.ndarray


class Texts(NamedTuple):
    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray


def test_towers_of_packed_rows_learn_to_tell_pairs_apart():
    """Two pairs a row, one of them missing: pictures and their names, and what is alone pulls nothing."""
    shape = {"num_layers": 1, "embed_dim": 16, "num_heads": 2}
    image = ImageEncoder(**shape, patch=2, rows=2, columns=1)
    text = ModelConfig(vocab_size=8, context_length=8, **shape)
    objective = AlignmentLoss(MediaTower(image, 8, 2), TextTower(text, 8, 2), "softmax")
    params = nn.unbox(jax.jit(objective.start)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(4, 12)).astype(np.float32)  # four different patches, a text each
    which = np.array([[0, 1], [2, 3]])
    segments = np.tile([1, 1, 2, 2, 0], (2, 1))
    patches = np.concatenate([np.repeat(picture[which], 2, 1), np.ones((2, 1, 12))], 1).astype(np.float32)
    places = np.zeros((2, 5, 2), int)
    places[:, 1::2, 0] = 1
    tokens = np.concatenate([np.repeat(which, 2, 1), np.ones((2, 1))], 1).astype(int)
    texts = Texts(tokens, segments, np.tile([0, 1, 0, 1, 0], (2, 1)))
    valid = np.array([[1, 1], [1, 0]], np.float32)
    batch = Pairs(Media(patches, places, segments), texts, valid, np.arange(2))

    @jax.jit
    def descend(params):
        gradients, metrics, _ = plain(objective, params, batch, jax.random.key(0))
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradients), metrics

    for _ in range(60):
        params, metrics = descend(params)
    assert metrics["loss"].weight == 3 and metrics["loss"].total / 3 < 0.1
    assert metrics["accuracy"].total == metrics["accuracy"].weight == 6

    changed = patches.copy()
    changed[1, 2:] = 5.0
    other = batch._replace(left=batch.left._replace(patches=changed))
    loss = jax.jit(lambda batch: objective(params, batch, None)[0]["loss"].total)
    np.testing.assert_array_equal(loss(batch), loss(other))


def test_a_tower_of_sounds_has_half_as_many_hidden_places():
    audio = AudioEncoder(num_layers=1, embed_dim=8, num_heads=2, mel_bands=3, times=4)
    tower = MediaTower(audio, 5, 2)
    params = nn.unbox(jax.jit(tower.start)(jax.random.key(0)))
    media = Media(np.ones((1, 8, 3), np.float32), np.arange(8)[None, :, None] % 4, np.array([[1, 1, 1, 1, 2, 2, 2, 0]]))
    found = jax.jit(tower)(params, media)
    assert found.shape == (1, 2, 5) and np.isfinite(found).all()
