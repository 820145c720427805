"""Mixing several corpora: a fixed periodic table says which one each row comes from."""

import numpy as np

from data.errors import UserError

LONGEST_PERIOD = 1000


class Mixture:
    """Row r of the stream -> (source, row of that source), in O(1).

    In every period the sources have exactly `counts` rows, spread evenly by smooth weighted round robin.
    """

    def __init__(self, counts: list[int]):
        self.counts = np.array(counts, np.int64)
        self.table = _round_robin(counts)
        self._rank = np.zeros(len(self.table), np.int64)  # of a row of the period among those of its source
        for source in range(len(counts)):
            self._rank[self.table == source] = np.arange(counts[source])

    def __call__(self, rows):
        period, place = np.divmod(rows, len(self.table))
        source = self.table[place]
        return source, period * self.counts[source] + self._rank[place]


def counts_of_weights(weights) -> list[int]:
    """Rows of each source in one period, by largest remainder: the shortest period that is exact, else LONGEST_PERIOD."""
    weights = np.array(weights, np.float64)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise UserError(f"weights {weights.tolist()}: not all above 0.", "Leave out the corpora that are not wanted.")
    shares = weights / weights.sum()
    for period in range(1, LONGEST_PERIOD + 1):
        if np.abs(shares * period - np.round(shares * period)).max() < 1e-9 * period:
            break
    counts = np.floor(shares * period + 1e-6).astype(np.int64)
    remainder = shares * period - counts
    counts[np.argsort(-remainder, kind="stable")[: period - counts.sum()]] += 1
    if not counts.all():
        raise UserError(
            f"weight {weights[counts == 0][0]:g} is less than a {LONGEST_PERIOD}th of the sum, and would get no rows.",
            "Give it more, or leave its corpus out.",
        )
    return counts.tolist()


def counts_of_sizes(sizes) -> list[int]:
    """Rows of each source in one period, about in proportion to its size and at least one."""
    sizes = np.asarray(sizes, np.float64)
    period = min(max(LONGEST_PERIOD, 10 * sizes.sum() / sizes.min()), 100 * LONGEST_PERIOD)  # the smallest has ten rows in it
    counts = np.maximum(np.round(period * sizes / sizes.sum()), 1).astype(np.int64)
    return (counts // np.gcd.reduce(counts)).tolist()


def _round_robin(counts):
    """Each turn every source earns its count; the richest has the turn and pays the whole."""
    counts = np.array(counts, np.int64)
    credit, table = np.zeros(len(counts), np.int64), []
    for _ in range(counts.sum()):
        credit += counts
        table.append(int(credit.argmax()))
        credit[table[-1]] -= counts.sum()
    return np.array(table)
