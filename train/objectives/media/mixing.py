"""Mixup and CutMix: training examples made of two, with the classes of both. Pure functions that run on the device, on whole batches.

The partner of a row is the row before it; nothing is mixed where the two differ in where their places lie or in which of them have classes.
Values are [B, N, C]: patches, or the pixels of images of one size. Labels are shares of classes, [B, S, V], zeros for what has no class.
"""

import jax
import jax.numpy as jnp

from model.media.encoders import segment_means


def _partner(x):
    return jnp.roll(x, 1, axis=0)


def compatible(media, labels_BSV):
    """bool [B]: rows that may be mixed with their partner."""
    present_BS = labels_BSV.sum(-1) > 0
    alike = [(x == _partner(x)).reshape(len(x), -1).all(1) for x in (media.segments, media.places, present_BS)]
    return alike[0] & alike[1] & alike[2]


def _blend(labels_BSV, own_BS):
    return own_BS[..., None] * labels_BSV + (1.0 - own_BS[..., None]) * _partner(labels_BSV)


def mixup(values_BNC, labels_BSV, key, allowed_B, alpha: float):
    """Both rows' values and labels in the proportion drawn from Beta(alpha, alpha), for each row anew (Zhang et al. 2018, eq. 1)."""
    own_B = jnp.where(allowed_B, jax.random.beta(key, alpha, alpha, (len(values_BNC),)), 1.0)
    x, share = values_BNC.astype(jnp.float32), own_B[:, None, None]
    return share * x + (1.0 - share) * _partner(x), _blend(labels_BSV, own_B[:, None])


def cutmix(values_BNC, labels_BSV, key, allowed_B, alpha: float, media, grid: tuple[int, int]):
    """A rectangle of the partner's values in each row's, and labels by area (Yun et al. 2019, eq. 1 and 2).

    media: places [B, N, A], the last two numbers of each being its (y, x) on a grid of so many rows and columns, and segments [B, N]. The
    rectangle has the grid's aspect, lies anywhere and is cut off at the edges. A label's share is that of the values that were kept.
    """
    keys, batch = jax.random.split(key, 3), len(values_BNC)
    side_B = jnp.sqrt(1.0 - jax.random.beta(keys[0], alpha, alpha, (batch,)))
    places_BN2 = media.places[..., -2:]
    inside_BN = allowed_B[:, None] & (media.segments > 0) & (places_BN2 >= 0).all(-1)
    for axis, size in enumerate(grid):
        centre_B = size * jax.random.uniform(keys[1 + axis], (batch,))
        inside_BN &= jnp.abs(places_BN2[..., axis] + 0.5 - centre_B[:, None]) < 0.5 * size * side_B[:, None]
    shown_BN = jnp.where((places_BN2 >= 0).all(-1), media.segments, 0)  # all but class tokens
    replaced_BS = segment_means(inside_BN[..., None].astype(jnp.float32), shown_BN, labels_BSV.shape[1])[..., 0]
    return jnp.where(inside_BN[..., None], _partner(values_BNC), values_BNC), _blend(labels_BSV, 1.0 - replaced_BS)
