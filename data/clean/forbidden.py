"""Words of a list that no document may have, found however they are written: in any case, width or style, with spaces between characters.

An entry is a row of units (data/clean/units.py). So one in a spaced script is found as whole words, and one of Chinese anywhere.
"""

import numpy as np

from data.clean.units import Units, hash_windows, units_of, windows
from data.errors import UserError
from data.files.text_files import read_text, split_lines


class ForbiddenWords:
    """The entries of a file, one on each line."""

    def __init__(self, path: str):
        entries = [line.strip() for line in split_lines(read_text(path)) if line.strip()]
        units = units_of(entries)
        empty = next((entry for entry, count in zip(entries, units.counts, strict=True) if not count), None)
        if not entries or empty is not None:
            raise UserError(
                f"{path}: {'no word' if empty is None else f'{empty!r} has no letter'}.", "Give one word or phrase on each line."
            )
        self._sizes: dict[int, tuple[np.ndarray, list[str]]] = {}
        for size in np.unique(units.counts).tolist():
            ours = np.flatnonzero(units.counts == size)
            hashes = hash_windows(units.hashes, (units.ends - units.counts)[ours], size)
            hashes, first = np.unique(hashes, return_index=True)
            self._sizes[size] = hashes, [entries[place] for place in ours[first]]

    def find(self, units: Units) -> dict[int, str]:
        """{text: an entry that it has}, of the texts that have any."""
        found: dict[int, str] = {}
        for size, (hashes, entries) in self._sizes.items():
            values, counts = windows(units, size)
            place = np.minimum(np.searchsorted(hashes, values), len(hashes) - 1)
            hit = np.flatnonzero(hashes[place] == values)
            owner = np.searchsorted(np.cumsum(counts), hit, "right")
            for text, entry in zip(owner.tolist(), place[hit].tolist(), strict=True):
                found.setdefault(text, entries[entry])
        return found
