"""Classes of media, and examples mixed of two."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.media.encoder_config import ImageEncoder
from train.devices.mesh import batch_sharding, make_mesh, parameter_shardings
from train.experiment import MeshShape
from train.objectives.media.classification import MediaClassificationLoss, cross_entropy, smoothed
from train.objectives.media.mixing import compatible, cutmix, mixup
from train.objectives.media.views import LabelledRows
from train.step.gradients import plain
from train.step.update import on_mesh

IMAGE = ImageEncoder(num_layers=1, embed_dim=16, num_heads=2, patch=2, rows=4, columns=4)


class Media(NamedTuple):
    patches: np.ndarray
    places: np.ndarray
    segments: np.ndarray


def batch_of(rows=6, padding=2):
    """Rows of one image of 4 x 4 patches, and padding; the class is the sign of the brightness."""
    labels = np.arange(rows) % 2
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(rows, 16 + padding, 12)) + (2 * labels - 1)[:, None, None]
    places = np.concatenate([np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2), np.zeros((padding, 2))])
    segments = np.array([1] * 16 + [0] * padding)
    media = Media(patches.astype(np.float32), np.tile(places, (rows, 1, 1)).astype(np.int32), np.tile(segments, (rows, 1)))
    return LabelledRows(media, labels[:, None].astype(np.int32), np.arange(rows))


def test_losses_in_closed_form():
    shares = smoothed(jnp.array([2, -1]), 4, 0.2)
    np.testing.assert_allclose(shares, [[0.05, 0.05, 0.85, 0.05], [0, 0, 0, 0]], atol=1e-7)
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 2))
    expected = -(np.asarray(shares) * logits).sum(-1)
    np.testing.assert_allclose(cross_entropy(logits + 5.0, shares), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_mixes_values_and_labels_alike(alpha):
    """Values that are labels too must come out as the labels do."""
    rows = 8
    labels = jax.nn.one_hot(jnp.arange(rows), rows)[:, None]
    allowed = jnp.arange(rows) != 3
    values, mixed = jax.jit(lambda key: mixup(labels, labels, key, allowed, alpha))(jax.random.key(0))
    np.testing.assert_allclose(values, mixed, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(mixed[3], labels[3])
    assert all(set(np.flatnonzero(mixed[row, 0])) <= {row, (row - 1) % rows} for row in range(rows))


def test_a_class_token_is_no_part_of_the_picture_that_cutmix_replaces():
    """With it in front the same rectangles are replaced, and labels are shared as without."""
    plain_media = batch_of(rows=20).media
    led = Media(
        *(
            np.pad(x, ((0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)), constant_values=value)
            for x, value in zip(plain_media, (0, -1, 1), strict=True)
        )
    )
    labels, allowed = jax.nn.one_hot(jnp.arange(20), 20)[:, None], jnp.ones(20, bool)
    mix = jax.jit(lambda media: cutmix(media.patches, labels, jax.random.key(0), allowed, 1.0, media, (4, 4)))
    (values, shares), (led_values, led_shares) = mix(plain_media), mix(led)
    np.testing.assert_allclose(led_values[:, 1:], values)
    np.testing.assert_allclose(led_shares, shares, atol=1e-6)
    assert (np.asarray(shares).max(-1) < 1).any()


def test_cutmix_replaces_a_rectangle_and_labels_say_how_much():
    batch = batch_of(rows=50)
    patches = np.broadcast_to(np.arange(50)[:, None, None], batch.media.patches.shape)
    labels = jax.nn.one_hot(jnp.arange(50), 50)[:, None]
    allowed = jnp.ones(50, bool)
    values, mixed = jax.jit(lambda key: cutmix(patches, labels, key, allowed, 1.0, batch.media, (4, 4)))(jax.random.key(0))
    own = np.asarray(values[..., 0] == np.arange(50)[:, None])
    assert own[:, 16:].all()  # padding
    for row in range(50):
        square = ~own[row, :16].reshape(4, 4)
        rows, columns = square.any(1), square.any(0)
        np.testing.assert_array_equal(square, rows[:, None] & columns[None, :])
        assert (np.abs(np.diff(rows.astype(int))) > 0).sum() <= 2
        assert float(mixed[row, 0, row]) == pytest.approx(own[row, :16].mean())
        assert float(mixed[row, 0, (row - 1) % 50]) == pytest.approx(1 - own[row, :16].mean())
    assert 0.2 < own[:, :16].mean() < 0.9


def test_rows_that_do_not_fit_together_are_left_alone():
    batch = batch_of()
    batch.media.places[2, 0] = 3
    batch.media.segments[4, 15] = 0
    labels = smoothed(batch.labels, 2, 0.0)
    np.testing.assert_array_equal(compatible(batch.media, labels), [True, True, False, False, False, False])
    missing = batch_of()
    missing.labels[1] = -1
    np.testing.assert_array_equal(compatible(missing.media, smoothed(missing.labels, 2, 0.0)), [True, False, False, True, True, True])


def test_a_class_is_learned_from_mixed_rows():
    objective = MediaClassificationLoss(IMAGE, 3, smoothing=0.1, mixup=0.4, cutmix=1.0)
    params, batch = nn.unbox(jax.jit(objective.start)(jax.random.key(0))), batch_of(rows=16)
    batch.labels[5] = -1
    evaluate = jax.jit(lambda params: objective(params, batch, None))
    terms, metrics, _ = evaluate(params)
    assert float(terms["loss"].total / terms["loss"].weight) == pytest.approx(np.log(3), rel=1e-5)
    assert terms["loss"].weight == 15

    @jax.jit
    def descend(params, key):
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, plain(objective, params, batch, key)[0])

    for step in range(40):
        params = descend(params, jax.random.key(step))
    terms, metrics, _ = evaluate(params)
    assert metrics["accuracy"].total == metrics["accuracy"].weight == 15
    np.testing.assert_allclose(terms["loss"].total, metrics["nll"].total, rtol=1e-6)  # nothing is smoothed or mixed in evaluation


def test_any_mesh_gives_the_same_gradient():
    """Encoder, pool and mixing with rows, widths and heads over eight devices, against one."""
    config = dataclasses.replace(IMAGE, pool="attention", patch=4, stem="convolutions")
    objective = MediaClassificationLoss(config, 3, mixup=0.4, cutmix=1.0)
    batch = batch_of(rows=8)
    batch = batch._replace(media=batch.media._replace(patches=np.tile(batch.media.patches, (1, 1, 4))))
    shapes = jax.eval_shape(objective.start, jax.random.key(0))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), nn.unbox(shapes))

    def gradients(shape, devices):
        mesh = make_mesh(shape, jax.devices()[:devices])
        params = jax.device_put(drawn, parameter_shardings(mesh, shapes))
        placed = jax.device_put(batch, jax.tree.map(lambda x: batch_sharding(mesh, 1), batch))
        return on_mesh(jax.jit(lambda params, batch: plain(objective, params, batch, jax.random.key(1))[:2]), mesh)(params, placed)

    one = gradients(MeshShape(data=1), 1)
    several = gradients(MeshShape(data=2, fsdp=2, tensor=2), 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * (1 + np.abs(b).max())), several, one)
