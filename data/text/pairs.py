"""Rows of two texts of which the second follows the first, or does not (Devlin et al. 2019, sec. 3.1; Lan et al. 2020, sec. 3.1).

    [start] A [separator] B [separator]      types 0 0 .. 0 1 .. 1

A and B are neighbours in a document, cut at the end of a sentence where there is one. One pair stands in a row, padding after it.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from data.errors import UserError
from data.rows import order as orders
from data.rows.mixture import Mixture, counts_of_sizes
from data.text.rows import TextBatch, empty_batch
from data.text.shards import Corpus

_AROUND = 3  # start and two separators
_PURPOSE = 0x50414952  # apart from the numbers of corpora, which the order of rows folds into the seed
_PLACES = 32
"""Places near the drawn one that are looked at for the end of a sentence."""


class PairBatches:
    """Pairs of one split of one or several corpora: row r is a pure function of (seed, r).

    Each document is a run of windows of context_length - 3 tokens, the last one shorter; an epoch takes every window once, and cuts it in
    two. Of half of the rows B is another text: `random`, the second part of a window of another document; `swapped`, A and B change places.
    order: `shuffled` is an endless stream, in a new order each epoch; `sequential` is one pass, the same for any seed; rows past the end
    have weight 0. ends: ids that end a sentence.

    Attributes: as of data/text/batches.py.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        context_length: int,
        negatives: Literal["random", "swapped"] = "random",
        ends: Collection[int] = (),
        split: str = "train",
        seed: int = 0,
        order: Literal["shuffled", "sequential"] = "shuffled",
        max_damaged: int = 0,
    ):
        if context_length < _AROUND + 2:
            raise UserError(f"context length {context_length} has no room for a pair.", f"Give at least {_AROUND + 2}.")
        self.corpora, self.context_length, self.negatives = list(corpora), context_length, negatives
        self.seed, self.order, self.max_damaged = seed if order == "shuffled" else 0, order, max_damaged
        self.damaged: set[tuple[int, int]] = set()
        self.damage = "damaged documents (data.max_damaged)"
        specials = corpora[0].manifest["tokenizer"]["specials"]
        self.separator = specials["document_end"]
        self.start = specials.get("start", self.separator)
        self.ids = 1 + max(self.start, self.separator, *(corpus.ids - 1 for corpus in corpora))
        self._ends = np.array(sorted(ends), np.int64)
        self._room = context_length - _AROUND
        self._splits = [corpus.split(split) for corpus in corpora]
        self._windows = [self._plan(corpus, one) for corpus, one in zip(corpora, self._splits, strict=True)]
        rows = np.array([int(ends[-1]) if len(ends) else 0 for _, ends in self._windows])
        if not rows.sum():
            raise UserError(f"{corpora[0].path}: no document of {split} holds two tokens to make a pair of.", "Prepare longer documents.")
        self._documents = np.cumsum([len(documents) for documents, _ in self._windows])
        if negatives == "random" and self._documents[-1] < 2:
            raise UserError("data.negatives random needs a second document to take texts from.", "Set --data.negatives swapped.")
        self._last = np.cumsum(rows)
        self._mixture = Mixture(counts_of_sizes(rows))
        self.rows_per_epoch = int(rows.sum())
        lengths = np.concatenate([self._lengths(number, documents) for number, (documents, _) in enumerate(self._windows)])
        tokens = int((lengths - (lengths % self._room == 1)).sum())  # a last token alone is left out
        self.padding_share = 1 - (tokens / self.rows_per_epoch + _AROUND) / context_length

    def batch(self, first_row: int, count: int) -> TextBatch:
        """Rows [first_row, first_row + count)."""
        numbers = np.arange(first_row, first_row + count)
        batch = empty_batch(numbers, self.context_length)
        batch = batch._replace(types=np.zeros_like(batch.tokens), follows=np.zeros(count, np.int32))
        for place, row in enumerate(numbers.tolist()):
            found = self._pair(row)
            if found is not None:
                _write(batch, place, found, self.start, self.separator)
        return batch

    def _plan(self, corpus: Corpus, split) -> tuple[np.ndarray, np.ndarray]:
        """The documents with two tokens or more, and the number of windows of all up to each."""
        lengths = split.lengths - (corpus.document_end is not None)
        documents = np.flatnonzero(lengths >= 2)
        windows = lengths[documents] // self._room + (lengths[documents] % self._room >= 2)
        return documents, np.cumsum(windows)

    def _lengths(self, number: int, documents) -> np.ndarray:
        """Of documents, without their ends."""
        return self._splits[number].lengths[documents] - (self.corpora[number].document_end is not None)

    def _pair(self, row: int) -> tuple[np.ndarray, np.ndarray, bool] | None:
        """(A, B, whether B follows) of a row; None where there is nothing."""
        placed = self._place(row)
        if placed is None:
            return None
        number, index = placed
        key = orders.fold(self.seed, _PURPOSE, row)
        document, tokens = self._window(number, index)
        cut = self._cut(tokens, orders.fold(key, 0))
        a, b = tokens[:cut], tokens[cut:]
        follows = bool(orders.fold(key, 1) & np.uint64(1))
        if not follows and self.negatives == "swapped":
            a, b = b, a
        elif not follows:
            b = self._other(number, document, key)[: self._room - len(a)]
        if not len(a) or not len(b):  # of a damaged document
            return None
        return a, b, follows

    def _place(self, row: int) -> tuple[int, int] | None:
        """The corpus of a row and the number of its window there."""
        if self.order == "sequential":
            number = int(np.searchsorted(self._last, row, "right"))
            if number == len(self._last):
                return None
            rows = self._rows(number)
            local = row - int(self._last[number]) + rows
            return number, int(orders.permute(np.int64(local), rows, orders.fold(0, number)))
        numbers, locals_ = self._mixture(np.array([row]))
        number = int(numbers[0])
        _, index = orders.shuffled(locals_, self._rows(number), int(orders.fold(self.seed, number)))
        return number, int(index[0])

    def _rows(self, number: int) -> int:
        return int(self._windows[number][1][-1])

    def _window(self, number: int, index: int):
        """(document, tokens) of a window; no tokens where the document is damaged."""
        documents, ends = self._windows[number]
        place = int(np.searchsorted(ends, index, "right"))
        first = index - (int(ends[place - 1]) if place else 0)
        document = int(documents[place])
        length = int(self._lengths(number, document))
        start, stop = first * self._room, min((first + 1) * self._room, length)
        tokens, damaged = self._splits[number].read_many(np.array([document]), np.array([start]), np.array([stop]))
        if damaged[0]:
            self._count_damaged(number, document)
            return document, np.zeros(0, np.int32)
        return document, tokens.astype(np.int32)

    def _cut(self, tokens: np.ndarray, key) -> int:
        """Where a window is cut: behind the end of a sentence that is near a drawn place, else there."""
        if len(tokens) < 2:
            return 0
        drawn = 1 + int(key % np.uint64(len(tokens) - 1))
        places = 1 + np.flatnonzero(np.isin(tokens[:-1], self._ends))
        if not places.size:
            return drawn
        nearest = int(places[np.abs(places - drawn).argmin()])
        return nearest if abs(nearest - drawn) <= max(_PLACES, len(tokens) // 4) else drawn

    def _other(self, number: int, document: int, key) -> np.ndarray:
        """The second part of a window of another document, of any corpus."""
        own = int(np.searchsorted(self._windows[number][0], document)) + (int(self._documents[number - 1]) if number else 0)
        other = int(orders.fold(key, 2) % np.uint64(self._documents[-1] - 1))
        other += other >= own
        number = int(np.searchsorted(self._documents, other, "right"))
        place, ends = other - (int(self._documents[number - 1]) if number else 0), self._windows[number][1]
        first = int(ends[place - 1]) if place else 0
        _, tokens = self._window(number, first + int(orders.fold(key, 3) % np.uint64(int(ends[place]) - first)))
        return tokens[self._cut(tokens, orders.fold(key, 4)) :]

    def _count_damaged(self, number: int, document: int) -> None:
        self.damaged.add((number, document))
        if len(self.damaged) > self.max_damaged:
            raise UserError(
                f"{self._splits[number].where(document)} fails its digest (the file is damaged or was changed after preparation).",
                f"Run `omnia prepare text --output {self.corpora[number].path} --repair`, or go on without such documents "
                f"with --data.max-damaged N ({len(self.damaged)} so far).",
            )


def _write(batch: TextBatch, place: int, pair: tuple[np.ndarray, np.ndarray, bool], start: int, separator: int) -> None:
    """Writes a pair into a row of a batch of pairs, which is empty."""
    assert batch.types is not None and batch.follows is not None
    a, b, follows = pair
    line = np.concatenate([[start], a, [separator], b, [separator]])
    length, second = len(line), len(a) + 2
    batch.tokens[place, :length] = line
    batch.targets[place, : length - 1] = line[1:]
    batch.weights[place, : length - 1] = 1
    batch.segments[place, :length] = 1
    batch.positions[place, :length] = np.arange(length)
    batch.types[place, second:length] = 1
    batch.follows[place] = follows
