"""MinHash: signatures by which texts that share most of their shingles are found (Broder 1997; Lee et al. 2022, section 4.2).

Locality-sensitive hashing: the signature is cut into bands, and two texts are compared if a band agrees. Texts whose shingles have Jaccard
similarity s agree in a band of r hashes with probability s^r, and in any of b bands with 1 - (1 - s^r)^b.
"""

from typing import NamedTuple

import numpy as np

from data.clean.units import Units, hash_windows, mix, windows
from data.errors import UserError

HASHES = 128
"""The most hashes of a signature."""
LEAST_FOUND = 0.9
"""Probability with which a pair exactly at the threshold is found; for pairs above it it is higher."""
SHINGLE = 5
"""Units of a shingle: words, or characters of scripts without spaces (Lee et al. 2022 take 5 words)."""


class Banding(NamedTuple):
    """bands of rows hashes each."""

    bands: int
    rows: int

    def found(self, similarity):
        """Probability that a pair of this Jaccard similarity is compared."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def banding(threshold: float) -> Banding:
    """The longest bands, and so the fewest needless comparisons, with which a pair at the threshold is found often enough."""
    for rows in range(HASHES, 0, -1):
        if (made := Banding(HASHES // rows, rows)).found(threshold) >= LEAST_FOUND:
            return made
    raise UserError(f"near duplicates of Jaccard similarity {threshold} cannot be found.", "Give a threshold of at least 0.05.")


def shingles(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint64 of all shingles of texts, and int64 [texts], how many each has. A shorter text is one shingle, an empty one none."""
    return windows(units, SHINGLE, shorter=True)


def minima(values: np.ndarray, counts: np.ndarray, hashes: int) -> np.ndarray:
    """uint64 [texts, hashes]: the least value that each of the permutations of 64-bit integers takes on a text's shingles.

    Two texts agree in each with probability of their Jaccard similarity. A text without shingles has zeros.
    """
    found = np.zeros((len(counts), hashes), np.uint64)
    full = counts > 0
    starts = (np.cumsum(counts) - counts)[full]
    if not len(starts):
        return found
    factors, shifts = permutations(hashes)
    columns = np.empty((hashes, len(starts)), np.uint64)
    moved = np.empty_like(values)
    for number in range(hashes):
        np.multiply(values, factors[number], out=moved)
        moved += shifts[number]
        np.minimum.reduceat(moved, starts, out=columns[number])
    found[full] = columns.T
    return found


def permutations(hashes: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd factors and shifts: x -> factor * x + shift modulo 2^64, always the same ones."""
    drawn = mix(np.arange(1, 2 * hashes + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return drawn[:hashes] | np.uint64(1), drawn[hashes:]


def bands_of(units: Units, made: Banding) -> np.ndarray:
    """uint64 [texts, bands]: a hash of each band of each text; 0 of a text without units, which has no duplicate."""
    values, counts = shingles(units)
    least = minima(values, counts, made.bands * made.rows)
    first = np.arange(len(least) * made.bands) * made.rows
    hashed = hash_windows(mix(least).ravel(), first, made.rows).reshape(len(least), made.bands)
    hashed[counts == 0] = 0
    return hashed


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Of two sorted arrays without repetition."""
    both = np.concatenate([one, other])
    both.sort()
    shared = int((both[1:] == both[:-1]).sum())
    return shared / max(len(both) - shared, 1)
