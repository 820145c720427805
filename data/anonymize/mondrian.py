"""Quasi-identifiers made coarser until every group has k rows: Mondrian (LeFevre, DeWitt and Ramakrishnan 2006, fig. 5, strict)."""

from collections.abc import Sequence

import numpy as np

from data.anonymize.groups import Column


def partition(columns: Sequence[Column], k: int) -> list[np.ndarray]:
    """The rows of each group. The table is cut at a median of the column that spreads most in what is cut, as long as both halves have k
    rows; it must have k itself."""
    waiting, done = [np.arange(len(columns[0].codes))], []
    while waiting:
        rows = waiting.pop()
        halves = _halves(columns, rows, k) if len(rows) >= 2 * k else None
        if halves is None:
            done.append(rows)
        else:
            waiting += halves[::-1]
    return done


def _halves(columns: Sequence[Column], rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    bounds = [(int(codes.min()), int(codes.max())) for codes in (column.codes[rows] for column in columns)]
    widths = [column.width(*ends) for column, ends in zip(columns, bounds, strict=True)]
    for place in sorted(range(len(columns)), key=lambda one: -widths[one]):
        if bounds[place][0] == bounds[place][1]:
            continue
        codes = columns[place].codes[rows]
        median = np.partition(codes, (len(codes) - 1) // 2)[(len(codes) - 1) // 2]
        for left in (codes <= median, codes < median):  # where many have the median's value, one side or the other may be too small
            if k <= left.sum() <= len(rows) - k:
                return rows[left], rows[~left]
    return None


def generalized(columns: Sequence[Column], groups: Sequence[np.ndarray]) -> tuple[list[list[str]], dict[str, float]]:
    """(the cells of each column, coarser; what it costs).

    A group's cell is LOW..HIGH for numbers, and A | B | C for other values. The costs: "certainty_penalty", the mean share of its column
    that a cell covers (Xu et al. 2006), 0 where nothing changes and 1 where nothing is left; "average_group", the mean number of rows;
    "discernibility", that of the group of a row (Bayardo and Agrawal 2005, over the number of rows).
    """
    count = len(columns[0].codes)
    cells: list[list[str]] = []
    penalty = 0.0
    for column in columns:
        own = [""] * count
        for rows in groups:
            held = np.unique(column.codes[rows])
            label = _label(column, held)
            penalty += len(rows) * column.width(int(held[0]), int(held[-1]))
            for row in rows.tolist():
                own[row] = label
        cells.append(own)
    sizes = np.array([len(rows) for rows in groups], np.float64)
    costs = {
        "certainty_penalty": penalty / (count * len(columns)),
        "average_group": float(sizes.mean()),
        "discernibility": float(np.square(sizes).sum() / count),
    }
    return cells, costs


def _label(column: Column, held: np.ndarray) -> str:
    values = [column.values[place] for place in held.tolist()]
    if len(values) > 1 and column.numbers is not None:
        return f"{values[0]}..{values[-1]}"
    return " | ".join(values)
