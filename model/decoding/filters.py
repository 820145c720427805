"""Which tokens may be sampled: filters of logits that cost passes over the vocabulary, and never a sort of it."""

import jax
import jax.numpy as jnp

from model.attention.dispatch import MASKED

FLOAT_BITS = 32


def keep_top_k(x_BV, limit_B1):
    """The k largest logits of each row, and those equal to the smallest of them; the others at MASKED. limit_B1: k of each row."""
    return _keep_largest(x_BV, x_BV, lambda kept_BV: kept_BV.sum(-1, keepdims=True) >= limit_B1)


def keep_top_p(x_BV, limit_B1):
    """The smallest set of the likeliest tokens whose probability reaches p, and those as likely as the least of them; the others at MASKED.

    Holtzman et al. 2020, eq. 2. limit_B1: p of each row, or of all.
    """
    p_BV = jax.nn.softmax(x_BV, axis=-1)
    return _keep_largest(x_BV, x_BV, lambda kept_BV: jnp.where(kept_BV, p_BV, 0.0).sum(-1, keepdims=True) >= limit_B1)


def keep_typical(x_BV, limit_B1):
    """The smallest set of tokens whose surprise is closest to the entropy and whose probability reaches p (Meister et al. 2022, eq. 9)."""
    log_p_BV = jax.nn.log_softmax(x_BV, axis=-1)
    p_BV = jnp.exp(log_p_BV)
    entropy_B1 = -jnp.where(p_BV > 0, p_BV * log_p_BV, 0.0).sum(-1, keepdims=True)
    closeness_BV = jnp.where(p_BV > 0, -jnp.abs(log_p_BV + entropy_B1), MASKED)
    return _keep_largest(x_BV, closeness_BV, lambda kept_BV: jnp.where(kept_BV, p_BV, 0.0).sum(-1, keepdims=True) >= limit_B1)


def _keep_largest(x_BV, by_BV, enough):
    """Logits of the tokens that are largest by a number of theirs: as few as are enough, enough(bool [B, V]) being bool [B, 1].

    The smallest number kept is found by bisection over the floats themselves, whose bits are in their order: the same set as by sorting,
    but for the rounding of sums.
    """

    def halve(_, bounds):
        low_B1, high_B1 = bounds
        middle_B1 = high_B1 - (high_B1 - low_B1 >> 1)
        enough_B1 = enough(by_BV >= _float(middle_B1))
        return jnp.where(enough_B1, middle_B1, low_B1), jnp.where(enough_B1, high_B1, middle_B1 - 1)

    bounds = (_order(by_BV.min(-1, keepdims=True)), _order(by_BV.max(-1, keepdims=True)))
    smallest_B1, _ = jax.lax.fori_loop(0, FLOAT_BITS, halve, bounds)
    return jnp.where(by_BV >= _float(smallest_B1), x_BV, MASKED)


def keep_min_p(x_BV, limit_B1):
    """Tokens at least p times as likely as the likeliest (Nguyen et al. 2024, sec. 3); the others at MASKED. limit_B1: p of each row."""
    return jnp.where(x_BV >= x_BV.max(-1, keepdims=True) + jnp.log(limit_B1), x_BV, MASKED)


def temper(x_BV, temperature_B1):
    """Logits divided by a temperature above 0, the largest of each row at 0: however low it is, the likeliest token stays what it is."""
    lowest = jnp.finfo(jnp.float32).tiny  # below it a float32 is 0, and nothing can be divided by it
    return (x_BV - x_BV.max(-1, keepdims=True)) / jnp.maximum(temperature_B1, lowest)


def _order(x):
    """uint32 in the order of float32 numbers."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _float(order):
    """The number that `_order` has put there."""
    return jax.lax.bitcast_convert_type(jnp.where(order >> 31 == 1, order & jnp.uint32((1 << 31) - 1), ~order), jnp.float32)
