"""What was read before need not be read again: keys and values of chunks of prompts, kept apart from the slots."""

import collections
import hashlib
import itertools
from typing import Any, NamedTuple

import numpy as np

MOST_COMPARED = 32
"""Chunks behind one beginning that are looked through for the one whose own beginning is shared."""


class _Held(NamedTuple):
    chunk: Any
    size: int
    before: bytes
    ids: np.ndarray


class PrefixStore:
    """Chunks by what they hold and all that stands before them, the least recently used dropped first.

    A chunk is found by a digest of the owner and of every token up to its end: nobody sees by a faster answer what another one asked.
    """

    def __init__(self, *, chunk: int, most_bytes: int):
        self._chunk, self._most = chunk, most_bytes
        self._held: collections.OrderedDict[bytes, _Held] = collections.OrderedDict()
        self._behind: dict[bytes, dict[bytes, None]] = {}
        self.bytes = 0

    def digests(self, owner: str, ids: list[int]) -> list[bytes]:
        """The owner's, then one for each whole chunk of a prompt but the last chunk, which is always read: its last logits are needed."""
        found = [hashlib.sha256(owner.encode()).digest()]
        for begin in range(0, len(ids) - self._chunk, self._chunk):
            found.append(self.digest(found[-1], ids[begin : begin + self._chunk]))
        return found

    @staticmethod
    def digest(before: bytes, ids: list[int]) -> bytes:
        """Of tokens and, by its digest, of all that stands before them."""
        return hashlib.sha256(before + np.asarray(ids, np.int32).tobytes()).digest()

    def get(self, digest: bytes) -> Any:
        """The chunk, or None."""
        if digest not in self._held:
            return None
        self._held.move_to_end(digest)
        return self._held[digest].chunk

    def begins_like(self, before: bytes, ids: list[int]) -> tuple[Any, int]:
        """Of the newest chunks that stand behind a digest, the one that begins with the most of these tokens, and with how many; (None, 0)
        without any."""
        wanted, found, most = np.asarray(ids[: self._chunk], np.int32), None, 0
        for digest in itertools.islice(reversed(self._behind.get(before, {})), MOST_COMPARED):
            held = self._held[digest].ids
            both = min(len(held), len(wanted))
            differ = held[:both] != wanted[:both]
            same = int(differ.argmax()) if differ.any() else both
            if same > most:
                found, most = digest, same
        return (self.get(found), most) if found is not None else (None, 0)

    def wants(self, digest: bytes) -> bool:
        """Whether there is room for chunks, and this one is not held: else it need not be cut out."""
        return self._most > 0 and digest not in self._held

    def put(self, digest: bytes, chunk: Any, size: int, before: bytes, ids: list[int]) -> None:
        """size: bytes of the chunk. before: digest of what stands before it. ids: its tokens; at the end of a prompt there may be fewer
        than a chunk has places."""
        if digest in self._held or size > self._most:
            return
        self._held[digest] = _Held(chunk, size, before, np.asarray(ids, np.int32))
        self._behind.setdefault(before, {})[digest] = None
        self.bytes += size
        while self.bytes > self._most:
            dropped, held = self._held.popitem(last=False)
            self.bytes -= held.size
            del self._behind[held.before][dropped]
            if not self._behind[held.before]:
                del self._behind[held.before]

    def clear(self) -> None:
        self._held.clear()
        self._behind.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)
