"""Texts as hashes of what they are made of: words, and the characters of scripts that write no spaces.

All functions take many texts at once, since a call of NumPy costs more than a short text. Nothing reaches over the end of a text.
"""

import functools
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.anonymize.folding import fold

SCRIPTS = {
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F),),
    "hebrew": ((0x590, 0x5FF),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "devanagari": ((0x900, 0x97F),),
    "thai": ((0xE00, 0xEFF),),  # and Lao
    "burmese": ((0x1000, 0x109F),),
    "khmer": ((0x1780, 0x17FF),),
    "hangul": ((0x1100, 0x11FF), (0xAC00, 0xD7AF)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF)),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
}
NAMES = ("other", *SCRIPTS)
SPACELESS = np.isin(NAMES, ("thai", "burmese", "khmer", "kana", "han"))
"""Of each script, whether it writes no spaces between words."""
_LETTER, _ALONE = 1, 2  # kinds of a character: of a word, a unit by itself; 0 stands between units

BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(BASE, -1, 1 << 64)


class Units(NamedTuple):
    """hashes uint64, scripts uint8 (into NAMES), lengths int64 (characters) of the units of all texts, in order; ends int64 [texts]: how
    many units there are up to the end of each text."""

    hashes: np.ndarray
    scripts: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """int64 [texts]: units of each."""
        return np.diff(self.ends, prepend=0)

    def of(self, text: int) -> "Units":
        """Those of one text."""
        begin, end = (self.ends[text - 1] if text else 0), self.ends[text]
        return Units(self.hashes[begin:end], self.scripts[begin:end], self.lengths[begin:end], np.array([end - begin]))


def folded(text: str) -> str:
    """A text without what is not heard: width, style, case, characters of no width (NFKC and case folding, data/anonymize/folding.py)."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", fold(text).text).casefold()


def plain(text: str) -> str:
    """A text as its exact copies are known by: folded characters of its own case, one space where there is white space."""
    text = text if text.isascii() else unicodedata.normalize("NFC", fold(text).text)
    return " ".join(text.split())


def units_of(texts: Sequence[str]) -> Units:
    """The units of texts, as they are folded: runs of letters, marks and digits; each character of a script without spaces is one."""
    parts = [folded(text) for text in texts]
    codes = codes_of("\n".join([*parts, ""]))
    kinds, scripts = _tables()
    kind = kinds[codes]
    letter = kind == _LETTER
    begins = kind == _ALONE
    begins[0:1] |= letter[0:1]
    begins[1:] |= letter[1:] & ~letter[:-1]
    starts = np.flatnonzero(begins)
    text_ends = np.cumsum([len(part) + 1 for part in parts], dtype=np.int64)
    ends = np.searchsorted(starts, text_ends)
    if not len(starts):
        return Units(np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.int64), ends)
    inside = kind > 0
    place = np.arange(len(codes))
    place[starts[0] :] -= np.repeat(starts, np.diff(starts, append=len(codes)))
    values = codes.astype(np.uint64)
    values *= _powers()[0][np.minimum(place, _LONGEST - 1)]
    values[~inside] = 0
    lengths = np.add.reduceat(inside, starts, dtype=np.int64)
    return Units(mix(np.add.reduceat(values, starts)), scripts[codes[starts]], lengths, ends)


def codes_of(text: str) -> np.ndarray:
    """uint32: the code points."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def windows(units: Units, length: int, *, shorter: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint64 of all `length` units in a row, text by text, and int64 [texts], how many each text has.

    shorter: a text of fewer units, but any, has one window, of all of them.
    """
    counts = units.counts
    lengths = np.minimum(counts, length) if shorter else np.full_like(counts, length)
    found = np.where(counts > 0, np.maximum(counts - lengths + 1, 0), 0)
    owner = np.repeat(np.arange(len(counts)), found)
    first = (units.ends - counts)[owner] + np.arange(len(owner)) - (np.cumsum(found) - found)[owner]
    return hash_windows(units.hashes, first, lengths[owner]), found


def hash_windows(values: np.ndarray, first: np.ndarray, length) -> np.ndarray:
    """uint64: hashes of values[first : first + length] (uint64), for every first, which ascend. length: a number, or one for each.

    Equal values give the same anywhere. Polynomials modulo 2^64 from a cumulative sum, so that time does not depend on the length (Karp
    and Rabin 1987).
    """
    found = np.empty(len(first), np.uint64)
    lengths = np.broadcast_to(np.asarray(length, np.int64), first.shape)
    powers, inverses = _powers()
    begin = 0
    while begin < len(first):
        low = int(first[begin])
        end = int(np.searchsorted(first, low + _BLOCK))
        places = first[begin:end] - low
        stops = places + lengths[begin:end]
        sums = np.zeros(int(stops.max()) + 1, np.uint64)
        np.cumsum(values[low : low + len(sums) - 1] * powers[: len(sums) - 1], out=sums[1:])
        found[begin:end] = (sums[stops] - sums[places]) * inverses[places]
        begin = end
    return mix(found)


_BLOCK, _LONGEST = 1 << 16, 1 << 18
"""Units of a block; the most with a window, whose length is below the difference, or letters of a word that count by their place."""


@functools.cache
def _powers():
    """BASE^j and BASE^-j modulo 2^64."""
    base = np.full(_LONGEST, BASE, np.uint64)
    inverse = np.full(_LONGEST, _INVERSE, np.uint64)
    base[0] = inverse[0] = 1
    return np.cumprod(base), np.cumprod(inverse)


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3: uint64 to uint64, one to one, every bit depends on every other."""
    values = values ^ (values >> np.uint64(33))
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Of each code point its kind, and the number of its script."""
    scripts = np.zeros(sys.maxunicode + 1, np.uint8)
    for number, ranges in enumerate(SCRIPTS.values(), 1):
        for first, last in ranges:
            scripts[first : last + 1] = number
    letter = np.array([unicodedata.category(chr(code))[0] in "LMN" for code in range(0x32000)])
    letter = np.concatenate([letter, np.zeros(len(scripts) - len(letter), bool)])
    kinds = np.where(letter, np.where(SPACELESS[scripts], _ALONE, _LETTER), 0).astype(np.uint8)
    return kinds, np.where(letter, scripts, 0).astype(np.uint8)
