"""Rows of text as the model sees them."""
from typing import NamedTuple

import numpy as np

from data.blocks import flat_ranges


class TextBatch(NamedTuple):
    """B rows of T positions. What is padding is known by weight and segment, never by id: both ids are 0 there."""
    tokens: np.ndarray                                     # int32 [B, T]: inputs
    targets: np.ndarray                                    # int32 [B, T]: the token that follows each input
    weights: np.ndarray                                    # float32 [B, T]: 1 where a target is predicted, else 0
    segments: np.ndarray                                   # int32 [B, T]: 1, 2, ... for the documents of a row; 0 on padding
    positions: np.ndarray                                  # int32 [B, T]: 0, 1, ... within each segment
    rows: np.ndarray                                       # int32 [B]: number of the row in the stream


class Segments(NamedTuple):
    """Targets of a batch: segment i predicts the tokens [start, start + length) of a document, from `column` of a row on.

    All int64 [segments], ordered by row and column.
    """
    row: np.ndarray
    column: np.ndarray
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def fill(batch: TextBatch, segments: Segments, split, document_end: int | None) -> np.ndarray:
    """Writes segments of one corpus into a batch of zeros. Returns bool [segments]: those that are damaged stay empty.

    The input before the first token of a document is `document_end`; a corpus without one cannot predict that token: its
    weight is 0, and its input is the token itself.
    """
    context = np.minimum(segments.start, 1)                # tokens read before the first target
    begin = segments.start - context
    ids, damaged = split.read_many(segments.document, begin, segments.start + segments.length)
    length = np.where(damaged, 0, segments.length)
    read = segments.length + context
    first = np.cumsum(read) - read + context               # of each segment, in ids
    source = flat_ranges(first, length)
    goal = flat_ranges(segments.row * batch.tokens.shape[1] + segments.column, length)
    batch.targets.reshape(-1)[goal] = ids[source]
    batch.tokens.reshape(-1)[goal] = ids[source - 1]
    batch.weights.reshape(-1)[goal] = 1
    batch.positions.reshape(-1)[goal] = flat_ranges(np.zeros_like(length), length)
    batch.segments.reshape(-1)[goal] = np.repeat(_numbers(segments.row), length)
    begins = np.flatnonzero((context == 0) & ~damaged)
    goal = (segments.row * batch.tokens.shape[1] + segments.column)[begins]
    batch.tokens.reshape(-1)[goal] = ids[first[begins]] if document_end is None else document_end
    batch.weights.reshape(-1)[goal] = document_end is not None
    return damaged


def empty_batch(rows: np.ndarray, context_length: int) -> TextBatch:
    """A batch of padding alone; `rows` numbers its rows."""
    shape = len(rows), context_length
    ids = [np.zeros(shape, np.int32) for _ in range(4)]
    return TextBatch(ids[0], ids[1], np.zeros(shape, np.float32), ids[2], ids[3], rows.astype(np.int32))


def _numbers(row):
    """1, 2, ... for the segments of each row."""
    first = np.flatnonzero(np.diff(row, prepend=-1))
    return np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row))) + 1
