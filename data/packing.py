"""Packing documents into rows of T targets, so that each token of a corpus is predicted exactly once per epoch.

A document of length L <= T is one piece. A longer one is floor(L / T) pieces of T and one of the rest; where it is cut changes
by epoch, the lengths do not, so that one plan serves all epochs. Pieces fill slots of rows by best-fit decreasing over the
histogram of their lengths (Krell et al. 2021, arXiv 2107.02027).
"""
import bisect
import io
import os
import zipfile
from typing import NamedTuple

import numpy as np
import xxhash

from data import storage
from data.blocks import flat_ranges
from data.order import fold

_VERSION = 1
_DEAL, _OFFSET = 1, 2                                      # purposes of random numbers


class Plan(NamedTuple):
    """Row r has the slots row_start[r] to row_start[r + 1]. A slot holds `length` tokens of a document, from `start`."""
    row_start: np.ndarray                                  # int64 [rows + 1]
    document: np.ndarray                                   # int64 [slots]
    start: np.ndarray                                      # int64 [slots]
    length: np.ndarray                                     # int64 [slots]

    @property
    def rows(self) -> int:
        return len(self.row_start) - 1

    def padding_share(self, context_length: int) -> float:
        """Share of all positions that hold no target."""
        return 1 - self.length.sum() / (self.rows * context_length)


def make_plan(lengths: np.ndarray, context_length: int) -> Plan:
    """The plan for documents of `lengths` (all at least 1): a pure function. Rows are in the order of their first documents."""
    lengths = np.asarray(lengths, np.int64)
    whole, rest = np.divmod(lengths, context_length)
    full_document = np.repeat(np.arange(len(lengths)), whole)
    full_start = flat_ranges(np.zeros(len(lengths), np.int64), whole) * context_length
    rest_document = np.flatnonzero(rest)
    row_start, pieces = _pack(rest[rest_document], context_length)
    document = np.concatenate([rest_document[pieces], full_document])
    start = np.concatenate([(whole * context_length)[rest_document[pieces]], full_start])
    length = np.concatenate([rest[rest_document[pieces]], np.full(len(full_document), context_length)])
    row_start = np.concatenate([row_start, row_start[-1] + 1 + np.arange(len(full_document))])
    order = np.lexsort((start[row_start[:-1]], document[row_start[:-1]]))
    count = np.diff(row_start)[order]
    slots = flat_ranges(row_start[:-1][order], count)
    return Plan(np.concatenate([[0], np.cumsum(count)]), document[slots], start[slots], length[slots])


def load_plan(lengths: np.ndarray, context_length: int, digest: str, folder: str) -> Plan:
    """`make_plan`, kept in `folder`/.plans, or in the user's cache where that cannot be written; a damaged file is made anew."""
    name = f"{xxhash.xxh3_128_hexdigest(f'{digest} {context_length} {_VERSION}'.encode())}.npz"
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "omnia", "plans")
    folders = ([] if storage.is_remote(folder) else [os.path.join(folder, ".plans")]) + [cache]
    for place in folders:
        try:
            with np.load(os.path.join(place, name), allow_pickle=False) as arrays:
                return Plan(*(arrays[field] for field in Plan._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue                                       # not there, or damaged: the archive has a checksum
    plan = make_plan(lengths, context_length)
    content = io.BytesIO()
    np.savez(content, **plan._asdict())
    for place in folders:
        try:
            os.makedirs(place, exist_ok=True)
            storage.write_atomically(os.path.join(place, name), content.getvalue())
            break
        except OSError:
            continue                                       # read-only or full: a plan need not be kept
    return plan


def offsets(seed: int, epoch, document, lengths, context_length: int):
    """Where each document begins to be cut in an epoch: 0 for those that fit a row, else in [0, length)."""
    offset = fold(seed, _OFFSET, epoch, document) % lengths.astype(np.uint64)
    return np.where(lengths > context_length, offset.astype(np.int64), 0)


def _pack(lengths, context_length):
    """Packs pieces of 1 to T - 1: (row_start [rows + 1], the pieces in the order of their slots)."""
    counts = np.bincount(lengths, minlength=context_length)
    dealt = np.lexsort((fold(0, _DEAL, np.arange(len(lengths))), lengths))         # pieces by length, each length shuffled
    next_piece = np.cumsum(counts) - counts
    pieces, sizes = [], []
    for count, content in _best_fit(counts, context_length):
        row_pieces = np.empty((count, len(content)), np.int64)
        for column, length in enumerate(content):
            row_pieces[:, column] = dealt[next_piece[length]:next_piece[length] + count]
            next_piece[length] += count
        pieces.append(row_pieces.ravel())
        sizes.append(np.full(count, len(content)))
    flat = [np.zeros(0, np.int64)]
    return np.cumsum(np.concatenate([[0], *sizes]), dtype=np.int64), np.concatenate(flat + pieces)


def _best_fit(counts, context_length):
    """[(number of rows, lengths in each)]: the longest pieces first, each into the fullest row that has room for it."""
    rows: dict[int, list] = {}                             # room left -> [[number of rows, lengths]]
    rooms: list[int] = []                                  # the keys of `rows`, sorted

    def put(room, number, content):
        if room not in rows:
            bisect.insort(rooms, room)
            rows[room] = []
        rows[room].append([number, content])

    for length in range(context_length - 1, 0, -1):
        left = int(counts[length])
        while left and rooms and rooms[-1] >= length:
            room = rooms[bisect.bisect_left(rooms, length)]
            group = rows[room][-1]
            taken = min(left, group[0])
            left -= taken
            group[0] -= taken
            content = group[1] + (length,)
            if not group[0]:
                rows[room].pop()
                if not rows[room]:
                    del rows[room]
                    rooms.remove(room)
            put(room - length, taken, content)
        fit = context_length // length
        for number, times in ((left // fit, fit), (1, left % fit)):
            if number and times:
                put(context_length - times * length, number, (length,) * times)
    return [(number, content) for groups in rows.values() for number, content in groups]
