"""A text as patterns read it: full-width and styled characters folded to plain ones, characters of no width left out."""

import functools
import unicodedata
from typing import NamedTuple

import numpy as np


class Folded(NamedTuple):
    """text: what patterns read. starts, ends: int64 of each of its characters, where in the original it begins and ends; None where both
    texts have one character for one."""

    text: str
    starts: np.ndarray | None = None
    ends: np.ndarray | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span of the folded text in the original; with the characters of no width inside, and none at its borders."""
        if self.starts is None or self.ends is None:
            return start, end
        return int(self.starts[start]), int(self.ends[end - 1])


def fold(text: str) -> Folded:
    """Compatibility characters folded (NFKC, Unicode Standard Annex 15), digits of all scripts made ASCII, and characters of no width (Cf)
    left out. Each character is folded by itself, so that spans can be taken back."""
    if text.isascii():
        return Folded(text)
    changed = {ord(one): folded for one in set(text) if (folded := _folded(one)) != one}
    if not changed:
        return Folded(text)
    found = text.translate(changed)
    if all(len(folded) == 1 for folded in changed.values()):
        return Folded(found)
    lengths = np.fromiter((len(changed.get(ord(one), one)) for one in text), np.int64, len(text))
    starts = np.repeat(np.arange(len(text)), lengths)
    return Folded(found, starts, starts + 1)


@functools.lru_cache(maxsize=1 << 16)
def _folded(character: str) -> str:
    if unicodedata.category(character) == "Cf":
        return ""
    digit = unicodedata.decimal(character, None)
    return str(digit) if digit is not None else DASHES.get(character) or unicodedata.normalize("NFKC", character)


DASHES = dict.fromkeys("‐‑‒–—―−﹣－", "-")
"""What people write between the groups of a number."""
