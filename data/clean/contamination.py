"""Documents that hold a piece of an evaluation set: a model trained on them would be tested on what it has read.

A document is contaminated by 13 words in a row of an evaluation text, unless these are found in more than 10 documents, and so are common
text (Brown et al. 2020, appendix C); in scripts without spaces by 50 characters, as GPT-4 was checked. Words are compared as they are
folded (data/clean/units.py): case, width and punctuation do not count. Texts shorter than that are never found.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.clean.quality import is_spaceless
from data.clean.units import Units, units_of, windows
from data.errors import UserError
from data.readers.documents import Document, Extent
from data.readers.inputs import LINES, PARQUET, read_documents
from data.readers.stream import plain_name
from data.records.rows import read_records

WORDS, CHARACTERS = 13, 50
COMMON = 10
"""Documents with an n-gram beyond which it counts as common text."""


class Examples(NamedTuple):
    """names of evaluation examples. grams: sorted uint64, their n-grams. owner, of: int64, pairs of an example and the place of one of its
    n-grams in `grams`. short: how many examples have no text that is long enough."""

    names: list[str]
    grams: np.ndarray
    owner: np.ndarray
    of: np.ndarray
    short: int


def read_examples(paths: Sequence[str]) -> Examples:
    """The n-grams of evaluation sets: of every text in a record (.jsonl, .json, .csv, .tsv, .parquet), at any depth; of any other file
    as a whole. No n-gram goes from one text to the next."""
    names: list[str] = []
    texts: list[str] = []
    owners: list[int] = []
    for path in paths:
        for name, parts in _examples(path):
            names.append(name)
            texts += parts
            owners += [len(names) - 1] * len(parts)
    units = units_of(texts)
    hashes, counts = _grams_of(units, np.array([is_spaceless(units.of(text)) for text in range(len(texts))], bool))
    grams, of = np.unique(hashes, return_inverse=True)
    owner = np.repeat(np.array(owners, np.int64), counts)
    if not len(grams):
        raise UserError(
            f"{paths[0]}: no evaluation text has {WORDS} words, or {CHARACTERS} characters of a script without spaces.",
            "Give other files, or leave --evaluation out.",
        )
    pairs = np.unique(np.stack([owner, of.reshape(-1)], axis=1), axis=0)
    return Examples(names, grams, pairs[:, 0], pairs[:, 1], len(names) - len(np.unique(owner)))


def _examples(path) -> Iterator[tuple[str, list[str]]]:
    if plain_name(path).endswith((*LINES, *PARQUET, ".json", ".csv", ".tsv")):
        for record in read_records(path):
            yield record.where, list(_texts(record))
    else:
        for document in read_documents([Extent(path, 0, 1 << 62)], "text"):
            if not isinstance(document, Document):
                raise UserError(f"{document.name}: {document.reason}", "Give evaluation sets that can be read.")
            yield document.name, ["".join(document.chunks())]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


def _grams_of(units, spaceless):
    """Of each text those of its kind, in order of texts."""
    long, many = windows(units, CHARACTERS)
    words, several = windows(units, WORDS)
    hashes = np.concatenate([long[np.repeat(spaceless, many)], words[np.repeat(~spaceless, several)]])
    text = np.arange(len(spaceless))
    owner = np.concatenate([np.repeat(text, many * spaceless), np.repeat(text, several * ~spaceless)])
    return hashes[np.argsort(owner, kind="stable")], many * spaceless + several * ~spaceless


def find_grams(units: Units, grams: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: (text, place in sorted `grams`) of each n-gram of the evaluation that a text has, once."""
    found = []
    for size in (WORDS, CHARACTERS):
        values, counts = windows(units, size)
        place = np.minimum(np.searchsorted(grams, values), len(grams) - 1)
        hit = np.flatnonzero(grams[place] == values)
        found.append(np.stack([np.searchsorted(np.cumsum(counts), hit, "right"), place[hit]], axis=1))
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


class Found(NamedTuple):
    """contaminated: {document: how many n-grams of the evaluation it has that are not common}. examples: for each example with any, its
    name, how many documents have a piece of it, and the part of its n-grams that are found."""

    contaminated: dict[int, int]
    examples: list[dict]


def contaminated(hits: np.ndarray, examples: Examples) -> Found:
    """hits: int64 [n, 2], (document, place in examples.grams), of the documents that are left."""
    documents = np.bincount(hits[:, 1], minlength=len(examples.grams))
    telling = hits[documents[hits[:, 1]] <= COMMON]
    whose, counts = np.unique(telling[:, 0], return_counts=True)
    there = np.zeros(len(examples.grams), bool)
    there[telling[:, 1]] = True
    have = dict(zip(*_grouped(telling), strict=True)) if len(telling) else {}
    found = []
    all_of = np.bincount(examples.owner, minlength=len(examples.names))
    shared = there[examples.of]
    shared_of = np.bincount(examples.owner[shared], minlength=len(examples.names))
    of_example: dict[int, set[int]] = {}
    for owner, gram in zip(examples.owner[shared].tolist(), examples.of[shared].tolist(), strict=True):
        of_example.setdefault(owner, set()).update(have[gram])
    for owner in sorted(of_example):
        share = round(float(shared_of[owner] / all_of[owner]), 4)
        found.append({"example": examples.names[owner], "documents": len(of_example[owner]), "share": share})
    return Found(dict(zip(whose.tolist(), counts.tolist(), strict=True)), found)


def _grouped(hits):
    """The n-grams, and the documents of each."""
    order = np.argsort(hits[:, 1], kind="stable")
    grams, first = np.unique(hits[order, 1], return_index=True)
    return grams.tolist(), [part.tolist() for part in np.split(hits[order, 0], first[1:])]
