"""The second stage: what is decided on documents by what others there are. Copies first, so that they do not make a text common, then
evaluation sets. Signatures are in memory, texts are read for those that are compared."""

from typing import NamedTuple

import numpy as np

from data.clean import minhash
from data.clean.contamination import Examples, contaminated
from data.clean.duplicates import Copies, exact_copies, near_copies
from data.clean.store import Texts
from data.clean.units import units_of
from data.loading.pool import run_tasks

RULES = ("", "exact_duplicate", "near_duplicate", "contaminated")
DECISION = np.dtype([("rule", "u1"), ("value", "<f8"), ("kept", "<i8")])
"""Of a text: place in RULES, what was measured, and the number of the text that stays in its place, or -1."""
_PAIRS = 2048  # compared in one task


class Decided(NamedTuple):
    """decisions: DECISION of every text. examples: of evaluation sets, those that were found."""

    decisions: np.ndarray
    examples: list[dict]


def decide(
    texts: Texts,
    *,
    exact: bool,
    near: float,
    bands: minhash.Banding | None,
    examples: Examples | None,
    remove_contaminated: bool,
    workers: int,
) -> Decided:
    """Which of the texts that the scan left stay. near: the Jaccard similarity from which texts are copies; 0: none are."""
    size = len(texts)
    decisions = np.zeros(size, DECISION)
    decisions["kept"] = -1
    if not size:
        return Decided(decisions, [])
    if exact:
        _remove(decisions, "exact_duplicate", exact_copies(texts.every("digests")))
    if bands:
        stays = decisions["rule"] == 0

        def one_band(number):
            values = np.concatenate([texts.column("bands", task)[:, number] for task in range(len(texts.counts)) if texts.counts[task]])
            return np.where(stays, values, 0)

        compare = _comparison(texts, workers)
        rank = texts.every("digests")[:, 0] if exact else one_band(0)
        copies = near_copies(map(one_band, range(bands.bands)), size, rank, compare, near)
        _remove(decisions, "near_duplicate", copies)
        _follow(decisions)
    if examples is None:
        return Decided(decisions, [])
    hits = [
        np.asarray(texts.column("grams", task)) + [int(texts.first[task]), 0] for task in range(len(texts.counts)) if texts.counts[task]
    ]
    every = np.concatenate(hits)
    found = contaminated(every[decisions["rule"][every[:, 0]] == 0], examples)
    if remove_contaminated:
        for text, count in found.contaminated.items():
            decisions[text] = RULES.index("contaminated"), count, -1
    return Decided(decisions, found.examples)


def _remove(decisions, rule, copies: Copies):
    decisions["rule"][copies.texts] = RULES.index(rule)
    decisions["value"][copies.texts] = copies.similarity
    decisions["kept"][copies.texts] = copies.kept


def _follow(decisions):
    """What stays in place of an exact copy may itself be a near copy of something earlier."""
    removed = np.flatnonzero(decisions["kept"] >= 0)
    kept = decisions["kept"][removed]
    further = decisions["kept"][kept]
    decisions["kept"][removed] = np.where(further >= 0, further, kept)


def _comparison(texts, workers):
    def compare(pairs):
        calls = [(texts.folder, texts.counts, pairs[begin : begin + _PAIRS]) for begin in range(0, len(pairs), _PAIRS)]
        found: list = [None] * len(calls)
        for number, similarity in run_tasks(similarities, calls, workers, "comparing", len(pairs) * _BYTES_OF_A_PAIR):
            found[number] = similarity
        return np.concatenate(found)

    return compare


_BYTES_OF_A_PAIR = 1000  # for the progress


def similarities(folder, counts, pairs, report) -> np.ndarray:
    """float64 [n]: the true Jaccard similarity of the shingles of pairs of texts, int64 [n, 2]."""
    texts = Texts(folder, counts)
    numbers, places = np.unique(pairs, return_inverse=True)
    sets: list[np.ndarray] = []
    for begin in range(0, len(numbers), 256):
        values, many = minhash.shingles(units_of([texts.text(int(number)) for number in numbers[begin : begin + 256]]))
        sets += [np.unique(part) for part in np.split(values, np.cumsum(many)[:-1])]
    found = [minhash.jaccard(sets[one], sets[other]) for one, other in places.reshape(-1, 2)]
    report(len(pairs) * _BYTES_OF_A_PAIR)
    return np.array(found)
