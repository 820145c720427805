"""Where a token stands: rotary positions, sinusoids, and what scores owe to the distance of a key (learned positions are a table)."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from model.config import ModelConfig


def rotary_angles(positions_BT, config: ModelConfig):
    """Sine and cosine of the rotation of each position (Su et al. 2021, eq. 34), for a context scaled as the config says.

    positions_BT: int, counted from the start of each document. Returns two float32 arrays [B, T, head_width / 2].
    """
    angle_BTK = positions_BT[..., None].astype(jnp.float32) * rotary_frequencies(config)
    # Behind a barrier, lest every layer computes them again inside its own loops.
    sin_BTK, cos_BTK = jax.lax.optimization_barrier((jnp.sin(angle_BTK), jnp.cos(angle_BTK)))
    if config.rotary_scaling != "yarn":
        return sin_BTK, cos_BTK
    # The temperature of the softmax (Peng et al. 2023, eq. 22): queries and keys both grow, so scores grow by the square.
    temperature = 0.1 * math.log(config.rotary_factor) + 1.0
    return sin_BTK * temperature, cos_BTK * temperature


def rotary_frequencies(config: ModelConfig):
    """Radians that each pair of a head turns by from one position to the next, float32 [head_width / 2], fastest first.

    linear divides all of them by the factor: position interpolation (Chen et al. 2023, eq. 4). ntk raises the base, so that the slowest
    pair is divided by the factor and the fastest left alone (Peng et al. 2023, definition 1). yarn divides the pairs that turn less
    than once in the original context, leaves alone those that turn more than 32 times, and mixes between (same, definition 2; the
    ramp runs over the number of the pair, with whole ends, as in the authors' code and every released model). llama3 does so
    for 1 and 4 turns, and its ramp runs over the number of turns (Llama 3.1).
    """
    width, base, factor, context = config.rotary_width, config.rotary_base, config.rotary_factor, config.rotary_original_context
    if config.rotary_scaling == "ntk":
        base *= factor ** (width / (width - 2))
    pair_K = jnp.arange(0, width, 2, dtype=jnp.float32)
    plain_K = base ** (-pair_K / width)
    if config.rotary_scaling in ("none", "ntk"):
        return plain_K
    if config.rotary_scaling == "linear":
        return plain_K / factor
    if config.rotary_scaling == "llama3":
        kept_K = (context * plain_K / (2 * math.pi) - 1.0) / (4.0 - 1.0)
    else:

        def pair_that_turns(times):
            """The (broken) number of the pair that turns so many times in the original context."""
            return width / 2 * math.log(context / (times * 2 * math.pi)) / math.log(base)

        first, last = max(math.floor(pair_that_turns(32)), 0), min(math.ceil(pair_that_turns(1)), width - 1)
        kept_K = 1.0 - (pair_K / 2 - first) / max(last - first, 1e-3)
    kept_K = jnp.clip(kept_K, 0.0, 1.0)
    return kept_K * plain_K + (1.0 - kept_K) * plain_K / factor


def rotate(x_BTHK, angles):
    """Rotate the pairs (k, k + K/2) of each head by the angles of its position, in float32; keeps x's type.

    The halves are paired as in Llama's released weights; attention scores then depend on relative position alone.
    """
    sin_BT1K, cos_BT1K = (angle[:, :, None, :] for angle in angles)
    sin_BT1K, cos_BT1K = jnp.concatenate([-sin_BT1K, sin_BT1K], -1), jnp.concatenate([cos_BT1K, cos_BT1K], -1)
    width = sin_BT1K.shape[-1]
    x_float, rest_BTHK = x_BTHK[..., :width].astype(jnp.float32), x_BTHK[..., width:]
    turned_BTHK = (x_float * cos_BT1K + jnp.roll(x_float, width // 2, -1) * sin_BT1K).astype(x_BTHK.dtype)
    return jnp.concatenate([turned_BTHK, rest_BTHK], -1) if rest_BTHK.shape[-1] else turned_BTHK


def sinusoids(positions, width: int):
    """float32 [..., width], an even number: sines, then cosines, of a position at width / 2 wavelengths from 2 pi to 10,000 times that
    (Vaswani et al. 2017, sec. 3.5, where each sine stands beside its cosine)."""
    angles = positions[..., None].astype(jnp.float32) / 10_000.0 ** (jnp.arange(0, width, 2) / width)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def indices(offset, count: int):
    """int32 [1, T], or [B, T] of an offset [B]: where `count` tokens stand, the first of them at the offset; None for 0."""
    return jnp.reshape(0 if offset is None else offset, (-1, 1)) + jnp.arange(count)


def behind(offset, queries: int, keys: int):
    """int32 [1 or B, T, S]: how far each key stands before each query. offset: index among the keys of the first query, as of `indices`."""
    return indices(offset, queries)[..., None] - jnp.arange(keys)


def distance_buckets(distance, buckets: int, furthest: int, *, both_ways: bool):
    """int32: the bucket of each distance, query minus key (Raffel et al. 2020, sec. 2.1; as in the authors' code).

    Half of the buckets hold one distance each, the others ever more, up to `furthest`, beyond which all share the last. both_ways: keys
    behind the query have half of the buckets, keys before it the others; else those share the first.
    """
    offset = 0
    if both_ways:
        buckets //= 2
        offset = jnp.where(distance < 0, buckets, 0)
        distance = jnp.abs(distance)
    distance, exact = jnp.maximum(distance, 0), buckets // 2
    steps = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(furthest / exact) * (buckets - exact)
    far = jnp.minimum(exact + steps.astype(jnp.int32), buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)


@flax.struct.dataclass
class Distances:
    """Distances of keys behind queries: sinusoids_RD, those of R - 1 down to 0, R being the number of keys. offset: index among the keys of
    the first query (decoding with a cache); None where keys and queries end with the same token."""

    sinusoids_RD: Any
    offset: Any = None


def distance_scores(q_BTHK, r_RHK, distances: Distances):
    """float32 [B, H, T, S]: what a query's distance to each key adds to its score: q r / sqrt(K) (Dai et al. 2019, appendix B).

    r_RHK: projections of distances.sinusoids_RD. Each query is multiplied with all distances, and its row shifted to its own place. Keys
    after a query get numbers that mean nothing, for the mask to hide.
    """
    by_distance = jnp.einsum("BTHK,RHK->BHTR", q_BTHK, r_RHK, preferred_element_type=jnp.float32) * q_BTHK.shape[-1] ** -0.5
    *most, queries, keys = by_distance.shape
    if distances.offset is None:
        padded = jnp.pad(by_distance, ((0, 0), (0, 0), (0, 0), (1, 0)))
        return padded.reshape(*most, keys + 1, queries)[:, :, 1:].reshape(*most, queries, keys)
    place_BTS = jnp.clip(keys - 1 - behind(distances.offset, queries, keys), 0, keys - 1)
    return jnp.take_along_axis(by_distance, place_BTS[:, None], axis=-1)
