"""Spans of characters that occur more than once, found as exact substrings (Lee et al. 2022, section 4.1), in bounded memory.

A suffix array needs several times the corpus in memory. Here winnowing (Schleimer et al. 2003) chooses fingerprints: of every STEP windows
in a row of `length` - STEP + 1 characters the one with the least hash. A span of `length` characters has STEP windows, so that all its
copies have a fingerprint in common. Fingerprints that occur twice lead to the texts, which are compared character by character.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from data.clean.units import codes_of, hash_windows, mix

STEP = 50
"""Windows of which one fingerprint is taken. On average there are 2 in STEP + 1 characters."""
SHORTEST = 2 * STEP
OCCURRENCES = 16
"""Earlier occurrences of a fingerprint that a later one is compared with, until one agrees as far as is asked."""

PRINT = np.dtype([("hash", "<u8"), ("text", "<u8"), ("place", "<u8")])
SPAN = np.dtype([("text", "<u8"), ("begin", "<u8"), ("end", "<u8")])


def fingerprints(text: str, number: int, length: int) -> np.ndarray:
    """PRINT of a text with this number, in the order of places."""
    codes, size = codes_of(text).astype(np.uint64), length - STEP + 1
    count = len(codes) - size + 1
    if count < STEP:
        return np.zeros(0, PRINT)
    hashes = hash_windows(mix(codes + np.uint64(1)), np.arange(count), size)
    least = _least(hashes)
    greatest = ~_least(~np.concatenate([np.zeros(STEP - 1, np.uint64), least, np.zeros(STEP - 1, np.uint64)]))
    places = np.flatnonzero(hashes == greatest)  # those that are the least of some STEP in a row
    found = np.empty(len(places), PRINT)
    found["hash"], found["text"], found["place"] = hashes[places], number, places
    return found


def _least(values):
    """Of every STEP in a row, by the running minima of blocks from both sides (van Herk 1992)."""
    count = len(values) - STEP + 1
    padded = np.concatenate([values, np.full(-len(values) % STEP, ~np.uint64(0))]).reshape(-1, STEP)
    forward = np.minimum.accumulate(padded, axis=1).ravel()
    backward = np.minimum.accumulate(padded[:, ::-1], axis=1)[:, ::-1].ravel()
    return np.minimum(backward[:count], forward[STEP - 1 : STEP - 1 + count])


def repeated(prints: np.ndarray, text: Callable[[int], str], length: int) -> np.ndarray:
    """SPAN of what of texts is a copy, of at least `length` characters, of what an earlier place has. Spans may overlap.

    prints: PRINT, all that have some hashes. text: gives the text of a number.
    """
    prints = prints[np.lexsort((prints["place"], prints["text"], prints["hash"]))]
    same = prints["hash"][1:] == prints["hash"][:-1]
    group = np.concatenate([[0], np.cumsum(~same)])[: len(prints)]
    begins = np.flatnonzero(np.concatenate([[True], ~same])[: len(prints)])
    found = []
    codes = lru_cache(maxsize=256)(lambda number: codes_of(text(number)))
    for place in np.flatnonzero(np.concatenate([[False], same])[: len(prints)]).tolist():
        first = int(begins[group[place]])
        number, at = int(prints["text"][place]), int(prints["place"][place])
        spans = set()
        for earlier in range(first, min(place, first + OCCURRENCES)):
            span = _agreement(codes(number), at, codes(int(prints["text"][earlier])), int(prints["place"][earlier]), length)
            if span[1] - span[0] >= length:
                spans.add(span)
            if span == _asked(at, length, len(codes(number))):
                break
        found += [(number, *span) for span in spans]
    return np.array(found, SPAN)


def _asked(at, length, size):
    """As far as two places are compared: what lies further has fingerprints of its own."""
    return max(at - length, 0), min(at + 2 * length, size)


def _agreement(one, at, other, there, length):
    """The span [begin, end) of `one` around `at` that equals what `other` has around `there`."""
    begin, end = _asked(at, length, len(one))
    left, right = min(at - begin, there), min(end - at, len(other) - there)
    before = np.flatnonzero(one[at - left : at][::-1] != other[there - left : there][::-1])
    behind = np.flatnonzero(one[at : at + right] != other[there : there + right])
    return at - (int(before[0]) if len(before) else left), at + (int(behind[0]) if len(behind) else right)


def merged(spans: np.ndarray) -> list[tuple[int, int]]:
    """Spans of one text as (begin, end) without overlaps, in order."""
    found: list[list[int]] = []
    for begin, end in sorted(zip(spans["begin"].tolist(), spans["end"].tolist(), strict=True)):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return [(begin, end) for begin, end in found]


def cut(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without these spans."""
    borders = [0, *(border for span in spans for border in span), len(text)]
    return "".join(text[begin:end] for begin, end in zip(borders[::2], borders[1::2], strict=True))
