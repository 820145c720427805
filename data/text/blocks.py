"""Token files read by verified blocks: memory-mapped where they are local, fetched by ranges where they are remote.

The token files of a split form one address space, counted in tokens, in which every file begins at a block of its own:
address = block * tokens_per_block + offset. A range never leaves its file. Every block has a digest; a local one is checked
when it is first touched in this process, a remote one whenever it is fetched.
"""

import collections
import mmap
import os
import threading

import numpy as np
import xxhash

from data.errors import UserError
from data.files import storage

BLOCK_BYTES = 1 << 16
CACHE_BYTES = 1 << 28  # of remote blocks, for each split that is open
_GOOD, _DAMAGED = 1, 2


def flat_ranges(starts, lengths):
    """The concatenation of arange(start, start + length), int64."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


class TokenFiles:
    """Files of one dtype as one address space; `digests` holds xxh3_64 of every block of all files in turn."""

    def __init__(self, paths, tokens, dtype, digests):
        self.paths = paths
        self.dtype = np.dtype(dtype)
        self.tokens_per_block = BLOCK_BYTES // self.dtype.itemsize
        self.sizes = np.asarray(tokens, np.int64) * self.dtype.itemsize
        self.first_block = np.concatenate([[0], np.cumsum(-(-self.sizes // BLOCK_BYTES))])
        self.digests = digests
        self.state = np.zeros(len(digests), np.uint8)
        self._open()

    def read(self, starts, lengths):
        """Tokens of address ranges, concatenated, and for each range whether it touches a damaged block (then zeros)."""
        first = starts // self.tokens_per_block
        count = np.where(lengths > 0, (starts + lengths - 1) // self.tokens_per_block - first + 1, 0)
        touched = flat_ranges(first, count)
        slices = self._slices(starts, lengths, np.unique(touched))
        tokens = np.concatenate(slices) if slices else np.zeros(0, self.dtype)
        damaged = np.zeros(len(starts), bool)
        hit = self.state[touched] == _DAMAGED
        if hit.any():
            damaged[np.repeat(np.arange(len(starts)), count)[hit]] = True
            tokens[np.repeat(damaged, lengths)] = 0
        return tokens, damaged

    def place(self, address: int) -> str:
        """Where an address lies, for messages."""
        block = address // self.tokens_per_block
        file = self._file_of(block)
        return f"{self.paths[file]}: bytes from {(block - self.first_block[file]) * BLOCK_BYTES}"

    def _open(self):
        """Opens the files, or finds that they are missing or not of their size."""
        raise NotImplementedError

    def _slices(self, starts, lengths, blocks):
        """Arrays that make up the ranges in turn; checks those of `blocks`, all that are touched, that need it."""
        raise NotImplementedError

    def _file_of(self, block):
        return np.searchsorted(self.first_block, block, "right") - 1

    def _check(self, block, content):
        good = xxhash.xxh3_64_intdigest(content) == self.digests[block]
        self.state[block] = _GOOD if good else _DAMAGED


class LocalTokenFiles(TokenFiles):
    def _open(self):
        self._arrays = []
        for path, size in zip(self.paths, self.sizes, strict=True):
            with _opened(path) as file:
                _check_size(path, os.fstat(file.fileno()).st_size, size)
                self._arrays.append(np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), self.dtype))

    def _slices(self, starts, lengths, blocks):
        for block in blocks[self.state[blocks] == 0].tolist():
            file = self._file_of(block)
            start = (block - self.first_block[file]) * self.tokens_per_block
            self._check(block, self._arrays[file][start : start + self.tokens_per_block])
        files = self._file_of(starts // self.tokens_per_block)
        begins = starts - self.first_block[files] * self.tokens_per_block
        arrays = self._arrays
        return [
            arrays[file][begin:end] for file, begin, end in zip(files.tolist(), begins.tolist(), (begins + lengths).tolist(), strict=True)
        ]


class RemoteTokenFiles(TokenFiles):
    def _open(self):
        self._cache = collections.OrderedDict()  # block -> its tokens, the least recently used first
        self._lock = threading.Lock()
        self._system = storage.remote(self.paths[0])[0]
        self._inner = [storage.remote(path)[1] for path in self.paths]
        for path, inner, size in zip(self.paths, self._inner, self.sizes, strict=True):
            try:
                _check_size(path, self._system.size(inner), size)
            except FileNotFoundError:
                raise _missing(path) from None

    def _slices(self, starts, lengths, blocks):
        with self._lock:
            held = self._fetch(blocks.tolist())
        width, slices = self.tokens_per_block, []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            end = start + length
            slices += [
                held[block][max(start - block * width, 0) : end - block * width]
                for block in range(start // width, -(-end // width) if length else 0)
            ]
        return slices

    def _fetch(self, blocks):
        """{block: its tokens}; what the cache lacks comes in one round of requests, neighbours in one range."""
        held = {block: self._cache[block] for block in blocks if block in self._cache}
        ranges: list[list[int]] = []  # [file, first block, last block]
        for block in blocks:
            if block not in held:
                file = int(self._file_of(block))
                if ranges and ranges[-1][0] == file and ranges[-1][2] == block - 1:
                    ranges[-1][2] = block
                else:
                    ranges.append([file, block, block])
        begins = [(first - self.first_block[file]) * BLOCK_BYTES for file, first, _ in ranges]
        ends = [min((last + 1 - self.first_block[file]) * BLOCK_BYTES, self.sizes[file]) for file, _, last in ranges]
        fetched = (
            self._system.cat_ranges([self._inner[file] for file, _, _ in ranges], [int(i) for i in begins], [int(i) for i in ends])
            if ranges
            else []
        )
        for (_, first, last), content in zip(ranges, fetched, strict=True):
            for block in range(first, last + 1):
                block_bytes = content[(block - first) * BLOCK_BYTES : (block - first + 1) * BLOCK_BYTES]
                self._check(block, block_bytes)
                held[block] = np.frombuffer(block_bytes, self.dtype)
        for block in blocks:
            self._cache[block] = held[block]
            self._cache.move_to_end(block)
        while len(self._cache) * BLOCK_BYTES > CACHE_BYTES:
            self._cache.popitem(last=False)
        return held


def token_files(paths, tokens, dtype, digests) -> TokenFiles:
    """Opens token files, all local or all on one remote file system; checks that they are there and whole in size."""
    kind = RemoteTokenFiles if paths and storage.is_remote(paths[0]) else LocalTokenFiles
    return kind(paths, tokens, dtype, digests)


def _opened(path):
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise _missing(path) from None


def _missing(path):
    return UserError(f"{path}: missing.", "Bring the file back, or run `omnia prepare text --output FOLDER --repair` on its folder.")


def _check_size(path, found, expected):
    if found != expected:
        raise UserError(
            f"{path}: {found} bytes where the manifest has {expected} (truncated, or changed after preparation).",
            "Copy the file again, or run `omnia prepare text --output FOLDER --repair` on its folder.",
        )
