"""Which tokens may be sampled: filters of logits that cost passes over the vocabulary, and never a sort of it."""

import jax
import jax.numpy as jnp

from model.attention.dispatch import MASKED

FLOAT_BITS = 32


def keep_top_k(x_BV, k: int):
    """The k largest logits of each row, and those equal to the smallest of them; the others at MASKED."""
    # Only as a minimum: taken by its place, XLA on a CPU sorts the whole row.
    smallest_B1 = jax.lax.top_k(x_BV, min(k, x_BV.shape[-1]))[0].min(-1, keepdims=True)
    return jnp.where(x_BV >= smallest_B1, x_BV, MASKED)


def keep_top_p(x_BV, p: float):
    """The smallest set of the likeliest tokens whose probability reaches p, and those as likely as the least of them; the others at MASKED.

    Holtzman et al. 2020, eq. 2. The smallest logit kept is found by bisection over the floats themselves, whose bits are in their order:
    the same set as by sorting, but for the rounding of sums.
    """
    p_BV = jax.nn.softmax(x_BV, axis=-1)

    def halve(_, bounds):
        low_B1, high_B1 = bounds
        middle_B1 = high_B1 - (high_B1 - low_B1 >> 1)
        reaches_B1 = jnp.where(x_BV >= _float(middle_B1), p_BV, 0.0).sum(-1, keepdims=True) >= p
        return jnp.where(reaches_B1, middle_B1, low_B1), jnp.where(reaches_B1, high_B1, middle_B1 - 1)

    bounds = (_order(x_BV.min(-1, keepdims=True)), _order(x_BV.max(-1, keepdims=True)))
    smallest_B1, _ = jax.lax.fori_loop(0, FLOAT_BITS, halve, bounds)
    return jnp.where(x_BV >= _float(smallest_B1), x_BV, MASKED)


def keep_min_p(x_BV, p: float):
    """Tokens at least p times as likely as the likeliest (Nguyen et al. 2024, sec. 3); the others at MASKED."""
    return jnp.where(x_BV >= x_BV.max(-1, keepdims=True) + jnp.log(p), x_BV, MASKED)


def temper(x_BV, temperature: float):
    """Logits divided by a temperature above 0, the largest of each row at 0: however low it is, the likeliest token stays what it is."""
    lowest = float(jnp.finfo(jnp.float32).tiny)  # below it a float32 is 0, and nothing can be divided by it
    return (x_BV - x_BV.max(-1, keepdims=True)) / max(temperature, lowest)


def _order(x):
    """uint32 in the order of float32 numbers."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _float(order):
    """The number that `_order` has put there."""
    return jax.lax.bitcast_convert_type(jnp.where(order >> 31 == 1, order & jnp.uint32((1 << 31) - 1), ~order), jnp.float32)
