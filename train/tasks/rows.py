"""Rows of examples as the three kinds of models read them: an encoder with a head, a decoder, an encoder-decoder."""

import functools
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.text.rows import TextBatch, empty_batch
from train.tasks.packing import Item


class HeadBatch(NamedTuple):
    """B rows of T places that hold up to S texts. Padding has segment 0, weight 0 and item -1."""

    tokens: np.ndarray  # int32 [B, T]
    segments: np.ndarray  # int32 [B, T]: 1, 2, ... for the texts of a row
    positions: np.ndarray  # int32 [B, T]: within each text
    types: np.ndarray  # int32 [B, T]: 0 for the first of a pair, 1 for the second
    labels: np.ndarray  # [B, S, ...], of each text, or [B, T, ...], of each token
    weights: np.ndarray  # float32 [B, S] or [B, T]: how much each counts
    items: np.ndarray  # int32 [B, S]: number of the example in its batch or its split
    rows: np.ndarray  # int32 [B]: number of the row, by which its randomness is drawn
    shift: Any = None  # float32 [B, T, W]: added to the vectors of tokens; None: nothing is
    beside: Any = None  # float32 [B, S, K]: numbers that stand beside each text; None: there are none


class TogetherBatch(NamedTuple):
    """B rows for the heads of several tasks, each row with texts of one of them. Padding as of HeadBatch."""

    tokens: np.ndarray  # int32 [B, T]
    segments: np.ndarray  # int32 [B, T]
    positions: np.ndarray  # int32 [B, T]
    types: np.ndarray  # int32 [B, T]
    labels: tuple  # of each task, as of HeadBatch; zeros in rows of others
    weights: tuple  # the same
    items: np.ndarray  # int32 [B, S]
    rows: np.ndarray  # int32 [B]
    shift: Any = None

    def of(self, task: int) -> HeadBatch:
        """The batch as a task sees it: rows of others have no weight."""
        return HeadBatch(*self[:4], self.labels[task], self.weights[task], *self[6:])


class SourceBatch(NamedTuple):
    """B rows of T places that are written, each segment of what the segment of the same number of the source says."""

    tokens: np.ndarray  # int32 [B, T]: what stands before each target
    targets: np.ndarray  # int32 [B, T]
    weights: np.ndarray  # float32 [B, T]
    segments: np.ndarray  # int32 [B, T]
    positions: np.ndarray  # int32 [B, T]
    rows: np.ndarray  # int32 [B]
    sources: np.ndarray  # int32 [B, S]: what is read
    source_segments: np.ndarray  # int32 [B, S]
    source_positions: np.ndarray  # int32 [B, S]
    shift: Any = None  # float32 [B, S, W]: added to the vectors of the source's tokens; None: nothing is


def head_batch(
    items: list[Item],
    laid: list[list[int]],
    rows: np.ndarray,
    length: int,
    texts: int,
    label: np.ndarray,
    by_token: bool,
    beside: int = 0,
) -> HeadBatch:
    """HeadBatch. laid: of each row, the numbers of its items. label: an empty one, which says shape and type. by_token: whether tokens have
    labels, and not texts. beside: how many numbers stand beside each text."""
    count = len(rows)
    tokens, segments, positions, types = (np.zeros((count, length), np.int32) for _ in range(4))
    places = length if by_token else texts
    labels = np.zeros((count, places, *label.shape), label.dtype)
    weights = np.zeros((count, places), np.float32)
    numbers = np.full((count, texts), -1, np.int32)
    numbers_beside = np.zeros((count, texts, beside), np.float32) if beside else None
    for row, held in enumerate(laid):
        begin = text = 0
        for number in held:
            for piece in items[number]:
                span = slice(begin, begin + len(piece.ids))
                tokens[row, span], segments[row, span] = piece.ids, text + 1
                positions[row, span] = np.arange(len(piece.ids))
                if piece.types is not None:
                    types[row, span] = piece.types
                place = span if by_token else text
                labels[row, place] = piece.label
                weights[row, place] = piece.learned if piece.learned is not None else 1.0
                numbers[row, text] = number
                if numbers_beside is not None:
                    numbers_beside[row, text] = piece.beside
                begin, text = span.stop, text + 1
    return HeadBatch(tokens, segments, positions, types, labels, weights, numbers, rows.astype(np.int32), beside=numbers_beside)


def in_one(batches: list) -> Any:
    """One batch of several that hold different rows: rows that one of them lacks are empty in it. Those of heads become a TogetherBatch."""
    first = batches[0]
    apart = {"labels", "weights"} if isinstance(first, HeadBatch) else set()
    fields: dict[str, Any] = {}
    for name, value in first._asdict().items():
        if apart and name == "beside":
            if any(batch.beside is not None for batch in batches):
                raise UserError("data.tasks: a task with numbers beside its texts goes with no other", "Train it by itself.")
            continue
        arrays = [getattr(batch, name) for batch in batches]
        if value is None or name == "rows":
            fields[name] = value
        elif name in apart:
            fields[name] = tuple(arrays)
        else:
            fields[name] = functools.reduce(np.maximum if name == "items" else np.add, arrays)
    return TogetherBatch(**fields) if apart else first._replace(**fields)


def text_batch(items: list[Item], laid: list[list[int]], rows: np.ndarray, length: int) -> TextBatch:
    """TextBatch: each text predicts its own next tokens, those that are learned."""
    batch = empty_batch(rows, length)
    for row, held in enumerate(laid):
        begin, segment = 0, 0
        for number in held:
            for piece in items[number]:
                ids, segment = piece.ids, segment + 1
                span = slice(begin, begin + len(ids) - 1)
                batch.tokens[row, span], batch.targets[row, span] = ids[:-1], ids[1:]
                batch.weights[row, span] = 1.0 if piece.learned is None else piece.learned[1:]
                batch.segments[row, span], batch.positions[row, span] = segment, np.arange(len(ids) - 1)
                begin = span.stop
    return batch


def source_batch(items: list[Item], laid: list[list[int]], rows: np.ndarray, length: int, written: int, start: int) -> SourceBatch:
    """SourceBatch. written: places of what is written. start: the id that its first token follows."""
    count = len(rows)
    sources, source_segments, source_positions = (np.zeros((count, length), np.int32) for _ in range(3))
    tokens, targets, segments, positions = (np.zeros((count, written), np.int32) for _ in range(4))
    weights = np.zeros((count, written), np.float32)
    for row, held in enumerate(laid):
        read = begin = segment = 0
        for number in held:
            for piece in items[number]:
                assert piece.target is not None
                segment += 1
                span = slice(read, read + len(piece.ids))
                sources[row, span], source_segments[row, span] = piece.ids, segment
                source_positions[row, span] = np.arange(len(piece.ids))
                read, span = span.stop, slice(begin, begin + len(piece.target))
                tokens[row, span], targets[row, span] = np.concatenate([[start], piece.target[:-1]]), piece.target
                weights[row, span] = 1.0 if piece.learned is None else piece.learned
                segments[row, span], positions[row, span] = segment, np.arange(len(piece.target))
                begin = span.stop
    return SourceBatch(tokens, targets, weights, segments, positions, rows.astype(np.int32), sources, source_segments, source_positions)
