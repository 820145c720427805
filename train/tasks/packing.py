"""Examples in rows: several texts in each, so that a batch of any lengths has one of few shapes and little padding."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

SPARE = 1.3
"""From one number of rows to the next: a batch that needs more takes a shape with so many more."""
SAMPLES = 64
"""Batches by which it is reckoned how many rows one takes."""
CHUNK = 256
"""Examples of an evaluation that are laid out together, those of equal lengths beside one another."""


class Piece(NamedTuple):
    """A text as a model reads it, which becomes a segment of a row.

    ids: int32 [L], what is read, or with `target` what its encoder reads. types: int32 [L], by default zeros. label: of the text (any shape
    that its head knows) or, with an axis of L first, of each token. target: int32 [M], what is written. learned: float32, which ids (or
    targets) have a loss; of `ids`, the first never has. beside: float32 [K], numbers that belong to the text, for a head.
    """

    ids: np.ndarray
    types: np.ndarray | None = None
    label: Any = None
    target: np.ndarray | None = None
    learned: Any = None
    beside: np.ndarray | None = None


Item = tuple[Piece, ...]
"""An example: the texts that stand in one row."""


def size(item: Item) -> np.ndarray:
    """What an item takes of a row: places, places of what is written, and segments. int64 [3]."""
    places = sum(len(piece.ids) for piece in item)
    return np.array([places, sum(0 if piece.target is None else len(piece.target) for piece in item), len(item)])


def lay(sizes: np.ndarray, room: Sequence[int]) -> list[list[int]]:
    """Rows of the numbers of items, longest first, each in the first row that has room for it. sizes: [N, 3] as by `size`."""
    order = np.argsort(-sizes[:, 0], kind="stable")
    rows: list[list[int]] = []
    left = np.zeros((len(sizes), 3), np.int64)
    for number in order.tolist():
        fits = np.flatnonzero((left[: len(rows)] >= sizes[number]).all(1))
        if fits.size:
            row = int(fits[0])
        else:
            row = len(rows)
            rows.append([])
            left[row] = room
        rows[row].append(number)
        left[row] -= sizes[number]
    return rows


def lay_in_order(sizes: np.ndarray, room: Sequence[int]) -> list[list[int]]:
    """The same for an evaluation: items of about equal lengths, CHUNK at a time."""
    order = np.argsort(-sizes[:, 0], kind="stable")
    rows: list[list[int]] = []
    for first in range(0, len(order), CHUNK):
        chunk = order[first : first + CHUNK]
        rows += [chunk[row].tolist() for row in map(np.array, lay(sizes[chunk], room))]
    return rows


def usual_rows(needed: Callable[[int], int], multiple: int) -> int:
    """How many rows nearly all batches fit into, a multiple of `multiple`. needed: how many a batch needs, by its number."""
    return _multiple(sorted(map(needed, range(SAMPLES)))[int(0.95 * (SAMPLES - 1))], multiple)


def enough_rows(needed: int, usual: int, most: int, multiple: int) -> int:
    """The smallest number of rows on the ladder usual, 1.3 usual, ... that is at least `needed`, and at most `most`."""
    rows = usual
    while rows < needed:
        rows = _multiple(max(int(rows * SPARE), rows + 1), multiple)
    return min(rows, _multiple(max(most, needed), multiple))


def _multiple(count: int, of: int) -> int:
    return -(-max(count, 1) // of) * of
