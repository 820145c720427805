"""Intervals of confidence: what a score would be on other examples of the same kind (Efron and Tibshirani 1993, ch. 13)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

_TOGETHER = 64  # resamples whose counts are in memory at once


def bootstrap(
    score: Callable[[np.ndarray], float],
    count: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence | None = None,
) -> tuple[float, float]:
    """(low, high) of a score by the percentile method.

    score: of the examples with these indices, which may occur many times. count: of examples. groups: of each example, such as its author
    or document; groups are then drawn whole, because examples of one tell less than so many independent ones. Draws for which the score is
    NaN are left out.
    """
    return _interval([score(drawn) for drawn in resamples_of(count, resamples, seed, groups)], level)


def bootstrap_sums(
    parts_NP: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence | None = None,
) -> tuple[float, float]:
    """The same, fast, for a score that depends on sums over examples alone: from sums [R, P] to [R]. parts_NP: what each example adds."""
    parts_NP = np.asarray(parts_NP, np.float64)
    count, scores, counts = len(parts_NP), [], []
    for number, drawn in enumerate(resamples_of(count, resamples, seed, groups), 1):
        counts.append(np.bincount(drawn, minlength=count))
        if len(counts) == _TOGETHER or number == resamples:
            scores.extend(score(np.stack(counts) @ parts_NP))
            counts = []
    return _interval(scores, level)


def resamples_of(count: int, resamples: int, seed: int = 0, groups: Sequence | None = None) -> Iterator[np.ndarray]:
    """The indices of each resample, the same ones for the same arguments."""
    if count < 1 or (groups is not None and len(groups) != count):
        raise ValueError(f"{count} examples" + ("" if groups is None else f" and {len(groups)} groups"))
    rng = np.random.default_rng(seed)
    if groups is None:
        for _ in range(resamples):
            yield rng.integers(0, count, count)
        return
    _, of = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    for _ in range(resamples):
        yield np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])


def _interval(scores: Sequence[float], level: float) -> tuple[float, float]:
    found = np.asarray(scores, np.float64)
    found = found[~np.isnan(found)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if len(found) else (np.nan, np.nan)
    return float(low), float(high)
