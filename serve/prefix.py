"""What was read before need not be read again: keys and values of whole chunks of prompts, kept apart from the slots."""

import collections
import hashlib
from typing import Any

import numpy as np


class PrefixStore:
    """Chunks by what they hold and all that stands before them, the least recently used dropped first.

    A chunk is found by a digest of the owner and of every token up to its end: nobody sees by a faster answer what another one asked.
    """

    def __init__(self, *, chunk: int, most_bytes: int):
        self._chunk, self._most = chunk, most_bytes
        self._held: collections.OrderedDict[bytes, tuple[Any, int]] = collections.OrderedDict()
        self.bytes = 0

    def digests(self, owner: str, ids: list[int]) -> list[bytes]:
        """One for each whole chunk of a prompt but the last chunk, which is always read: its last logits are needed."""
        found, before = [], hashlib.sha256(owner.encode()).digest()
        for begin in range(0, len(ids) - self._chunk, self._chunk):
            before = hashlib.sha256(before + np.asarray(ids[begin : begin + self._chunk], np.int32).tobytes()).digest()
            found.append(before)
        return found

    def get(self, digest: bytes) -> Any:
        """The chunk, or None."""
        if digest not in self._held:
            return None
        self._held.move_to_end(digest)
        return self._held[digest][0]

    def wants(self, digest: bytes) -> bool:
        """Whether there is room for chunks, and this one is not held: else it need not be cut out."""
        return self._most > 0 and digest not in self._held

    def put(self, digest: bytes, chunk: Any, size: int) -> None:
        """size: bytes of the chunk."""
        if digest in self._held or size > self._most:
            return
        self._held[digest] = chunk, size
        self.bytes += size
        while self.bytes > self._most:
            _, (_, freed) = self._held.popitem(last=False)
            self.bytes -= freed

    def clear(self) -> None:
        self._held.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)
