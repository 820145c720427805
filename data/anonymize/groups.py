"""How far a table tells its rows apart: groups of rows that are the same in what others may know of a person (quasi-identifiers).

k-anonymity (Sweeney 2002): every group has at least k rows. l-diversity (Machanavajjhala et al. 2007): in every group a sensitive column
has at least l different values, or an entropy of at least log l. t-closeness (Li et al. 2007): in no group is its distribution further than
t from that of the whole table.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_NAMED = 1000
"""Rows that a report lists as alone."""
_BLOCK = 1 << 22  # values of a matrix of groups and sensitive values that is in memory at once


@dataclasses.dataclass(frozen=True)
class Column:
    """values: the different ones, numbers before texts and both in their order. codes: int32 [N], which of them each row has."""

    name: str
    values: list[str]
    codes: np.ndarray

    @functools.cached_property
    def numbers(self) -> np.ndarray | None:
        """float64, the values; None where one is no number."""
        found = [_number(value) for value in self.values]
        return None if None in found else np.array(found, np.float64)

    def width(self, first: int, last: int) -> float:
        """How much of the column lies between two values: 0 for the same, 1 for the first and the last. Numbers by their distance, others
        by how many lie between."""
        if len(self.values) < 2:
            return 0.0
        numbers = self.numbers if first != last else None
        if numbers is not None and numbers[-1] > numbers[0]:
            return float((numbers[last] - numbers[first]) / (numbers[-1] - numbers[0]))
        return (last - first) / (len(self.values) - 1)


def column_of(name: str, cells: Sequence[str]) -> Column:
    """The cells of a column, as codes."""
    values = sorted(set(cells), key=lambda value: (_number(value) is None, _number(value) or 0.0, value))
    places = {value: place for place, value in enumerate(values)}
    return Column(name, values, np.fromiter((places[cell] for cell in cells), np.int32, len(cells)))


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def groups_of(columns: Sequence[Column]) -> np.ndarray:
    """int64 [N]: the number of each row's group, from 0 on."""
    found = np.zeros(len(columns[0].codes), np.int64)
    for column in columns:
        found = np.unique(found * len(column.values) + column.codes, return_inverse=True)[1]
    return found


def report_of(groups: np.ndarray, sensitive: Sequence[Column]) -> dict[str, Any]:
    """{"rows", "groups", "k", "alone": rows that are alone in their group, from 1 on, "sizes": {size: groups}, "sensitive": {column: {"l",
    "entropy_l", "t"}}}; of the rows alone their number too, for more than MOST_NAMED are not listed."""
    sizes = np.bincount(groups)
    alone = np.flatnonzero(sizes[groups] == 1) + 1
    of_size = dict(zip(*(values.tolist() for values in np.unique(sizes, return_counts=True)), strict=True))
    return {
        "rows": len(groups),
        "groups": len(sizes),
        "k": int(sizes.min()),
        "rows_alone": len(alone),
        "alone": alone[:MOST_NAMED].tolist(),
        "sizes": {str(size): count for size, count in of_size.items()},
        "sensitive": {column.name: _diversity(groups, sizes, column) for column in sensitive},
    }


def _diversity(groups: np.ndarray, sizes: np.ndarray, column: Column) -> dict[str, float]:
    count = len(column.values)
    pairs, rows = np.unique(groups * count + column.codes, return_counts=True)
    of, share = pairs // count, rows / sizes[pairs // count]
    entropy = np.bincount(of, -share * np.log(share), len(sizes))
    return {"l": int(np.bincount(of).min()), "entropy_l": float(np.exp(entropy.min())), "t": _closeness(pairs, rows, sizes, column)}


def _closeness(pairs: np.ndarray, rows: np.ndarray, sizes: np.ndarray, column: Column) -> float:
    """The largest earth mover's distance of a group from the table. Li et al. 2007, sec. 3.4: numbers lie in a row, each one step from the
    next; other values are all as far from each other."""
    count, ordered = len(column.values), column.numbers is not None
    whole = np.bincount(column.codes, minlength=count) / len(column.codes)
    most, step = 0.0, max(_BLOCK // count, 1)
    for first in range(0, len(sizes), step):
        inside = slice(*np.searchsorted(pairs, (first * count, (first + step) * count)))
        share_GV = np.zeros((min(step, len(sizes) - first), count))
        place = pairs[inside] - first * count
        share_GV.flat[place] = rows[inside] / sizes[pairs[inside] // count]
        share_GV -= whole
        distance = np.abs(np.cumsum(share_GV, axis=1)).sum(1) / max(count - 1, 1) if ordered else np.abs(share_GV).sum(1) / 2
        most = max(most, float(distance.max()))
    return most
