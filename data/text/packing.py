"""Packing documents into rows of T targets, so that each token of a corpus is predicted exactly once per epoch.

A document of length L is floor(L / T) pieces of T, which are rows of their own, and one of the rest. The rests share rows, by
best-fit decreasing over the histogram of their lengths (Krell et al. 2021, arXiv 2107.02027). Where a document longer than T is
cut changes by epoch, the lengths of its pieces do not: one plan serves all epochs.
"""

import bisect
import io
import os
import zipfile
from typing import NamedTuple

import numpy as np
import xxhash

from data.files import storage
from data.rows.order import fold
from data.text.blocks import flat_ranges

_VERSION = 1
_DEAL, _OFFSET = 1, 2  # purposes of random numbers


class Slots(NamedTuple):
    """Pieces of documents in rows, all int64 [slots], in the order of rows and columns."""

    row: np.ndarray
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


class Plan:
    """First come the rows that one whole piece fills, in the order of documents, then those that rests share.

    Only the latter are stored: packed row r holds the rests of document[row_start[r]:row_start[r + 1]].
    """

    def __init__(self, lengths: np.ndarray, context_length: int, row_start: np.ndarray, document: np.ndarray):
        self.lengths, self.context_length = lengths, context_length
        self.row_start, self.document = row_start, document
        self.whole_end = np.cumsum(lengths // context_length)
        self.whole_rows = int(self.whole_end[-1])
        self.rows = self.whole_rows + len(row_start) - 1

    def slots(self, rows: np.ndarray) -> Slots:
        """What rows [n] of the plan hold; slots.row counts in `rows`."""
        packed = rows >= self.whole_rows
        first = self.row_start[np.where(packed, rows - self.whole_rows, 0)]
        count = np.where(packed, self.row_start[np.where(packed, rows - self.whole_rows + 1, 0)] - first, 1)
        row = np.repeat(np.arange(len(rows)), count)
        packed = packed[row]
        document = np.searchsorted(self.whole_end, rows[row], "right")
        document[packed] = self.document[flat_ranges(first, count)[packed]]
        whole, rest = np.divmod(self.lengths[document], self.context_length)
        number = np.where(packed, whole, rows[row] - (self.whole_end[document] - whole))  # of the piece in its document
        return Slots(row, document, number * self.context_length, np.where(packed, rest, self.context_length))


def make_plan(lengths: np.ndarray, context_length: int) -> Plan:
    """The plan for documents of `lengths` (all at least 1): a pure function."""
    lengths = np.asarray(lengths, np.int64)
    rest = lengths % context_length
    documents = np.flatnonzero(rest)
    row_start, pieces = _pack(rest[documents], context_length)
    return Plan(lengths, context_length, row_start, documents[pieces])


def load_plan(lengths: np.ndarray, context_length: int, digest: str, folder: str) -> Plan:
    """`make_plan`, kept in `folder`/.plans, or in the user's cache where that cannot be written; a damaged file is made anew."""
    name = f"{xxhash.xxh3_128_hexdigest(f'{digest} {context_length} {_VERSION}'.encode())}.npz"
    cache = storage.cache_folder()
    folders = [] if storage.is_remote(folder) else [os.path.join(folder, ".plans")]
    folders += [os.path.join(cache, "plans")] if cache else []
    for place in folders:
        try:
            with np.load(os.path.join(place, name), allow_pickle=False) as arrays:
                return Plan(lengths, context_length, arrays["row_start"], arrays["document"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue  # not there, or damaged: the archive has a checksum
    plan = make_plan(lengths, context_length)
    content = io.BytesIO()
    np.savez(content, row_start=plan.row_start, document=plan.document)
    for place in folders:
        try:
            os.makedirs(place, exist_ok=True)
            storage.write_atomically(os.path.join(place, name), content.getvalue())
            break
        except OSError:
            continue  # read-only or full: a plan need not be kept
    return plan


def offsets(seed: int, epoch, document, lengths, context_length: int):
    """Where each document begins to be cut in an epoch: 0 for those that fit a row, else in [0, length)."""
    offset = fold(seed, _OFFSET, epoch, document) % lengths.astype(np.uint64)
    return np.where(lengths > context_length, offset.astype(np.int64), 0)


def _pack(lengths, context_length):
    """Packs pieces of 1 to T - 1: (row_start [rows + 1], the pieces in the order of their slots)."""
    counts = np.bincount(lengths, minlength=context_length)
    shuffled = fold(0, _DEAL, np.arange(len(lengths))) >> np.uint64(32)
    dealt = np.argsort(shuffled | lengths.astype(np.uint64) << np.uint64(32), kind="stable")  # by length, then in no order
    next_piece = np.cumsum(counts) - counts
    pieces, sizes = [], []
    for count, content in _best_fit(counts, context_length):
        row_pieces = np.empty((count, len(content)), np.int64)
        for column, length in enumerate(content):
            row_pieces[:, column] = dealt[next_piece[length] : next_piece[length] + count]
            next_piece[length] += count
        pieces.append(row_pieces.ravel())
        sizes.append(np.full(count, len(content)))
    flat = [np.zeros(0, np.int64)]
    return np.cumsum(np.concatenate([[0], *sizes]), dtype=np.int64), np.concatenate(flat + pieces)


def _best_fit(counts, context_length):
    """[(number of rows, lengths in each)]: the longest pieces first, each into the fullest row that has room for it."""
    rows: dict[int, list] = {}  # capacity left -> [[number of rows, lengths]]
    capacities: list[int] = []  # the keys of `rows`, sorted

    def put(capacity, number, content):
        if capacity not in rows:
            bisect.insort(capacities, capacity)
            rows[capacity] = []
        rows[capacity].append([number, content])

    for length in range(context_length - 1, 0, -1):
        left = int(counts[length])
        while left and capacities and capacities[-1] >= length:
            capacity = capacities[bisect.bisect_left(capacities, length)]
            group = rows[capacity][-1]
            taken = min(left, group[0])
            left -= taken
            group[0] -= taken
            content = group[1] + (length,)
            if not group[0]:
                rows[capacity].pop()
                if not rows[capacity]:
                    del rows[capacity]
                    capacities.remove(capacity)
            put(capacity - length, taken, content)
        fit = context_length // length
        for number, times in ((left // fit, fit), (1, left % fit)):
            if number and times:
                put(context_length - times * length, number, (length,) * times)
    return [(number, content) for groups in rows.values() for number, content in groups]
