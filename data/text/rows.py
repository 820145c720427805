"""Rows of text as the model sees them."""

from typing import Any, NamedTuple

import numpy as np


class TextBatch(NamedTuple):
    """B rows of T positions. Padding has weight 0 and segment 0. Its token and target are 0, but so may be those of text."""

    tokens: np.ndarray  # int32 [B, T]: inputs
    targets: np.ndarray  # int32 [B, T]: the token that follows each input
    weights: np.ndarray  # float32 [B, T]: 1 where a target is predicted, else 0
    segments: np.ndarray  # int32 [B, T]: 1, 2, ... for the documents of a row; 0 on padding
    positions: np.ndarray  # int32 [B, T]: 0, 1, ... within each segment
    rows: np.ndarray  # int32 [B]: number of the row in the stream
    words: np.ndarray | None = None  # int32 [B, T]: number of the word within the row that each token belongs to
    types: np.ndarray | None = None  # int32 [B, T]: 0 for the first text of a pair, 1 for the second
    follows: np.ndarray | None = None  # int32 [B]: of a pair, 1 where the second text follows the first, else 0
    shift: Any = None  # float32 [B, T, W]: added to the vectors of tokens; None: nothing is


class Segments(NamedTuple):
    """Targets of a batch: segment i predicts tokens [start, start + length) of a document, in a row.

    All int64 [segments], in the order of rows, and within each row from its first column on without a gap.
    """

    row: np.ndarray
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def empty_batch(rows: np.ndarray, context_length: int) -> TextBatch:
    """A batch of padding alone; `rows` numbers its rows."""
    shape = len(rows), context_length
    ids = [np.zeros(shape, np.int32) for _ in range(4)]
    return TextBatch(ids[0], ids[1], np.zeros(shape, np.float32), ids[2], ids[3], rows.astype(np.int32))


def fill(batch: TextBatch, rows: np.ndarray, segments: Segments, split, document_start: int | None) -> np.ndarray:
    """Writes segments of one split into `rows` of a batch, which are empty; segments.row counts in `rows`.

    The input before the first token of a document is `document_start`; a corpus without one cannot predict that token: its
    weight is 0, and its input is the token itself. Returns bool [segments]: the damaged, which stay padding.
    """
    row, document, start, length = segments
    targets, damaged = split.read_many(document, start, start + length)
    before, damaged_before = split.read_many(document, np.maximum(start - 1, 0), np.maximum(start, 1))
    damaged |= damaged_before
    targets, before = targets.astype(np.int32), before.astype(np.int32)
    first = np.cumsum(length) - length
    if document_start is not None:
        before[start == 0] = document_start
    tokens = np.roll(targets, 1)
    tokens[first] = before
    numbers = np.arange(len(row)) - np.searchsorted(row, row) + 1
    weights = np.ones(len(targets), np.float32)
    if document_start is None:
        weights[first[start == 0]] = 0

    filled = np.bincount(row, length, minlength=len(rows))
    columns = np.arange(batch.tokens.shape[1], dtype=np.int32)
    inside = columns < filled[:, None]
    kept = np.repeat(~damaged, length) if damaged.any() else True
    for field, values in (
        ("tokens", tokens),
        ("targets", targets),
        ("weights", weights),
        ("segments", np.repeat(numbers.astype(np.int32), length)),
        ("positions", np.arange(len(targets), dtype=np.int32) - np.repeat(first.astype(np.int32), length)),
    ):
        block = np.zeros(inside.shape, values.dtype)
        block[inside] = values * kept
        getattr(batch, field)[rows] = block
    return damaged
