"""What one run says about its own privacy: a lower bound of epsilon from how well canaries can be told (Steinke et al. 2023)."""

import math

import numpy as np
from scipy import stats

SHARES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Of the canaries, how many are guessed on either side; the bound holds for the best of them, each tested at its part of the doubt."""


def epsilon_bound(scores: np.ndarray, inside: np.ndarray, delta: float, confidence: float = 0.95) -> float:
    """The epsilon that an (epsilon, delta)-private mechanism must at least have, at this confidence; 0 where nothing can be told.

    scores: of each canary, higher where it seems to have been there. inside: bool, whether it was, each with probability 1/2, by itself.
    """
    order, count, found = np.argsort(scores, kind="stable"), len(scores), 0.0
    for share in SHARES:
        each = max(1, round(share * count))
        right = int(inside[order[-each:]].sum() + (~inside[order[:each]]).sum())
        found = max(found, _bound(count, 2 * each, right, delta, (1 - confidence) / len(SHARES)))
    return found


def _bound(count: int, guesses: int, right: int, delta: float, doubt: float) -> float:
    """The largest epsilon at which so many right guesses are less probable than `doubt`."""
    low, high = 0.0, 1.0
    if _probability(count, guesses, right, low, delta) >= doubt:
        return 0.0
    while _probability(count, guesses, right, high, delta) < doubt:
        low, high = high, 2 * high
        if high > 64:  # all right, and so many: no finite epsilon would be surprising
            return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(count, guesses, right, middle, delta) < doubt else (low, middle)
    return low


def _probability(count: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """An upper bound of the probability of at least `right` right ones among `guesses`, of `count` canaries (theorem 5.2)."""
    one = 1 / (1 + math.exp(-epsilon))
    tail = stats.binom.sf(right - 1, guesses, one)
    before = np.cumsum(stats.binom.pmf(right - np.arange(1, right + 1), guesses, one)) if right else np.zeros(0)
    worst = (before / np.arange(1, right + 1)).max(initial=0.0)
    return min(1.0, float(tail + 2 * count * delta * worst))
