"""Filters of logits against their definitions, in NumPy, in float64, by sorting."""

import jax
import numpy as np
import pytest

from model.attention.dispatch import MASKED
from model.decoding.filters import keep_min_p, keep_top_k, keep_top_p, keep_typical, temper

WIDTH = 997


def rows():
    """Rows of several kinds: smooth, peaked, flat, with ties, of both signs and zeros, with what is filtered out already."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (8, WIDTH))
    x[1] *= 10
    x[2] = rng.normal(0, 1e-3, WIDTH)
    x[3] = rng.integers(-3, 4, WIDTH)
    x[4] = np.where(rng.random(WIDTH) < 0.5, -0.0, 0.0)
    x[5, rng.random(WIDTH) < 0.9] = MASKED
    x[6] -= 1000
    x[7] = MASKED
    x[7, 5] = 1.0
    return x.astype(np.float32)


def softmax(x):
    p = np.exp(x.astype(np.float64) - x.max())
    return p / p.sum()


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9, 0.999])
def test_top_p_keeps_the_set_that_sorting_keeps(p):
    found = np.asarray(jax.jit(keep_top_p)(rows(), p))
    for x, kept in zip(rows(), found > MASKED, strict=True):
        probability = softmax(x)
        order = np.argsort(-x, kind="stable")
        reached = np.cumsum(probability[order])
        smallest = x[order[np.searchsorted(reached, p)]]
        different = np.flatnonzero(kept != (x >= smallest))
        # Elsewhere the mass lies within the rounding of float32 sums of p, at the border alone.
        assert all(abs(probability[x >= x[i]].sum() - p) < 1e-5 or abs(probability[x > x[i]].sum() - p) < 1e-5 for i in different)
        assert probability[kept].sum() > p - 1e-5


def test_top_p_of_almost_one_keeps_whatever_rounding_says():
    found = np.asarray(jax.jit(keep_top_p)(rows(), float(np.nextafter(1, 0))))
    assert all(softmax(x)[kept > MASKED].sum() > 1 - 1e-5 for x, kept in zip(rows(), found, strict=True))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
def test_typical_keeps_what_is_about_as_surprising_as_expected(p):
    found = np.asarray(jax.jit(keep_typical)(rows(), p))
    for x, kept in zip(rows(), found > MASKED, strict=True):
        probability = softmax(x)
        there = probability > 0
        surprise = np.where(there, -np.log(np.where(there, probability, 1)), np.inf)
        distance = np.abs(surprise - (probability[there] * surprise[there]).sum())
        order = np.argsort(distance, kind="stable")
        farthest = distance[order[np.searchsorted(np.cumsum(probability[order]), p)]]
        # Elsewhere a distance lies within the rounding of float32 of the farthest that is kept.
        different = np.flatnonzero(kept != (distance <= farthest))
        assert all(abs(distance[i] - farthest) < 1e-4 * max(1, surprise[i]) for i in different)
        assert probability[kept].sum() > p - 1e-5


@pytest.mark.parametrize("k", [1, 7, WIDTH, 5 * WIDTH])
def test_top_k_keeps_the_k_largest_and_their_equals(k):
    found = np.asarray(jax.jit(keep_top_k)(rows(), k))
    for x, kept in zip(rows(), found, strict=True):
        np.testing.assert_array_equal(kept, np.where(x >= np.sort(x)[::-1][min(k, WIDTH) - 1], x, np.float32(MASKED)))


@pytest.mark.parametrize("p", [0.01, 0.5, 1.0])
def test_min_p_keeps_what_is_nearly_as_likely_as_the_likeliest(p):
    found = np.asarray(jax.jit(keep_min_p)(rows(), p))
    for x, kept in zip(rows(), found > MASKED, strict=True):
        ratio = np.exp(x.astype(np.float64) - x.max())
        assert (kept == (ratio >= p))[np.abs(ratio - p) > 1e-5].all()


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 0.3, 50.0])
def test_a_tempered_row_is_that_of_the_definition(temperature):
    x = rows()[:4]
    found = np.asarray(jax.jit(temper)(x, temperature))
    with np.errstate(over="ignore"):
        expected = (x.astype(np.float64) - x.max(1, keepdims=True).astype(np.float64)) / max(temperature, np.finfo(np.float32).tiny)
        np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-5)
    assert (found.max(1) == 0).all()
