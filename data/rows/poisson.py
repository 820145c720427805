"""Poisson sampling: a step takes each unit by itself with one probability, so that the size of a batch is random."""

import math

import numpy as np

from data.rows.order import fold


def drawn(secret: int, step: int, count: int, rate: float, most: int) -> np.ndarray:
    """The units of [0, count) that a step takes, int64, each with probability `rate` and independently of all others.

    Of more than `most`, a fair choice of `most` are taken; `room_for` says how many keep that from happening. secret: who knows it knows
    who was drawn.
    """
    hashes = fold(secret, step, np.arange(count))
    chosen = np.flatnonzero(hashes < np.uint64(min(int(rate * 2**64), 2**64 - 1))) if rate < 1 else np.arange(count)
    if len(chosen) > most:
        chosen = np.sort(chosen[np.argsort(hashes[chosen], kind="stable")[:most]])
    return chosen


def overflow(expected: float, room: int) -> float:
    """An upper bound of the probability that more than `room` units are drawn where `expected` are on average.

    Of all ways to draw that many on average, the Poisson distribution has the heaviest tail (Hoeffding 1956); of it, Chernoff's bound.
    """
    many = room + 1
    return math.exp(many - expected - many * math.log(many / expected)) if many > expected else 1.0


def expected_in(room: int, risk: float = 1e-12) -> int:
    """The largest number of units on average for which more than `room` are drawn with a probability of at most `risk`; at least 1."""
    low, high = 1, room
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if overflow(middle, room) <= risk else (low, middle - 1)
    return low


def room_for(expected: int, risk: float = 1e-12) -> int:
    """The fewest rows into which `expected` units on average fit, but for a probability of at most `risk`; at least `expected`."""
    room = expected
    while overflow(expected, room) > risk:
        room += 1
    return room
