"""The first stage: documents are read, judged by themselves, and signed; those that may stay wait on disk for what the others are."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import xxhash

from data.clean.contamination import find_grams
from data.clean.minhash import Banding, bands_of
from data.clean.rules import Rules
from data.clean.store import Writer, path_of
from data.clean.units import plain
from data.files import storage
from data.loading.preparation import check_damaged, count_name
from data.readers.documents import Document, Extent, Skipped
from data.readers.inputs import read_documents

BATCH_CHARACTERS = 1 << 19
"""Of texts that are judged in one call. A longer document is a batch by itself."""


class Signing(NamedTuple):
    """What is kept of a text to compare it with others. bands: of MinHash, or None; evaluation: whether for its n-grams."""

    exact: bool
    bands: Banding | None
    evaluation: bool


def scan(
    extents: list[Extent],
    text_field: str,
    rules: Rules,
    signing: Signing,
    folder: str,
    number: int,
    max_damaged: int,
    report: Callable[[int], None],
) -> dict:
    """Reads a task's documents; writes those that may stay to a store (data/clean/store.py) and why the others may not beside it.

    Returns counts: "documents" and "bytes" that were read, how many "stay", and what was skipped.
    """
    left_out: dict[str, list] = {"empty": [0, []], "ignored": [0, []]}
    damaged: list[Skipped] = []
    documents, size = 0, 0
    grams = np.load(os.path.join(folder, ".prepare", "grams.npy"), mmap_mode="r") if signing.evaluation else None
    writer, removed, stay = Writer(folder, number), [], 0

    def skip(one: Skipped):
        if one.kind == "damaged":
            damaged.append(one)
            check_damaged(damaged, max_damaged)
        else:
            count_name(left_out[one.kind], one.name)

    for names, texts in _batches(read_documents(extents, text_field, report), skip):
        size += sum(len(text.encode()) for text in texts)
        judged, units, reasons = rules.judge(texts)
        left = np.array([place for place, reason in enumerate(reasons) if reason is None], np.int64)
        removed += [
            json.dumps([documents + place, names[place], *reason], ensure_ascii=False) for place, reason in enumerate(reasons) if reason
        ]
        columns = {"order": documents + left}
        if signing.exact:
            digests = [xxhash.xxh3_128_digest(plain(judged[place]).encode()) for place in left]
            columns["digests"] = np.frombuffer(b"".join(digests), ">u8").astype("<u8").reshape(-1, 2)
        if signing.bands:
            columns["bands"] = bands_of(units, signing.bands)[left]
        if grams is not None:
            found = find_grams(units, grams)
            place = np.full(len(texts), -1)
            place[left] = stay + np.arange(len(left))
            found[:, 0] = place[found[:, 0]]
            columns["grams"] = found[found[:, 0] >= 0]
        writer.add([names[place] for place in left], [judged[place] for place in left], **columns)
        documents, stay = documents + len(texts), stay + len(left)
    storage.write_atomically(
        path_of(folder, number) + ".removed", "".join(line + "\n" for line in removed).encode("utf-8", "backslashreplace")
    )
    writer.close()
    return {"documents": documents, "bytes": size, "stay": stay, **left_out, "damaged": [list(one) for one in damaged]}


def _batches(found: Iterable[Document | Skipped], skip: Callable[[Skipped], None]) -> Iterator[tuple[list[str], list[str]]]:
    """Names and texts of documents, some at a time."""
    names: list[str] = []
    texts: list[str] = []
    characters = 0
    for one in found:
        if isinstance(one, Skipped):
            skip(one)
            continue
        if names and characters + one.characters > BATCH_CHARACTERS:
            yield names, texts
            names, texts, characters = [], [], 0
        names.append(one.name)
        texts.append("".join(one.chunks()))
        characters += one.characters
    if names:
        yield names, texts
