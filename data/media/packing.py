"""Whole samples into rows that have room for so many tokens, and for so many patches of each medium."""

import collections

import numpy as np
import xxhash

_OPEN = 64  # rows that are being filled at once


_KEPT = 64
_plans: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}


def pack(costs_NC: np.ndarray, capacity_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `first_fit` gives, kept for the next call with the same arguments: checks before a run, the run and each of its evaluations
    ask for the same plans."""
    key = xxhash.xxh3_128_digest(costs_NC.tobytes() + capacity_C.tobytes() + repr((costs_NC.dtype, costs_NC.shape)).encode())
    if key not in _plans:
        if len(_plans) == _KEPT:
            del _plans[next(iter(_plans))]
        _plans[key] = first_fit(costs_NC, capacity_C)
        for array in _plans[key]:
            array.setflags(write=False)
    return _plans[key]


def first_fit(costs_NC: np.ndarray, capacity_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row_start int64 [rows + 1], samples int64): row r holds samples[row_start[r]:row_start[r + 1]].

    costs_NC: int, of each sample; capacity_C: of a row. Each sample goes into the first row under way that it fits; a pure function of its
    arguments. Samples that fit no row are left out.
    """
    chosen = np.flatnonzero((costs_NC <= capacity_C).all(-1))
    costs = costs_NC[chosen]
    if len(chosen) and (costs == costs[0]).all():  # as many in each
        each = int((capacity_C[costs[0] > 0] // costs[0][costs[0] > 0]).min())
        return np.append(np.arange(0, len(chosen), each), len(chosen)), chosen
    left_OC = np.empty((_OPEN, costs.shape[1]), np.int64)
    held: collections.deque[list[int]] = collections.deque()  # samples of the rows under way, the oldest first, as in left_OC
    rows: list[list[int]] = []
    for sample, cost in zip(chosen.tolist(), costs, strict=True):
        fits = (left_OC[: len(held)] >= cost).all(-1)
        place = int(fits.argmax()) if fits.any() else -1
        if place < 0:
            if len(held) == _OPEN:
                rows.append(held.popleft())
                left_OC[:-1] = left_OC[1:]
            place = len(held)
            held.append([])
            left_OC[place] = capacity_C
        held[place].append(sample)
        left_OC[place] -= cost
    rows += held
    start = np.cumsum([0, *map(len, rows)])
    return start, np.array([sample for row in rows for sample in row], np.int64)
