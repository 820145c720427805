"""The last stages, each a task for a part of the texts: fingerprints, spans, and what is written in the end."""

import json
import os
from collections.abc import Callable

import numpy as np
import xxhash
import zstandard

from data.clean.decide import RULES
from data.clean.spans import PRINT, SPAN, cut, fingerprints, merged, repeated
from data.clean.store import Texts, path_of, save
from data.files import storage

SUFFIX = ".jsonl.zst"


def write_prints(folder: str, counts: list[int], number: int, length: int, report: Callable[[int], None]) -> dict:
    """The fingerprints of a task's texts that stay. Returns how many there are."""
    texts, first = Texts(folder, counts), int(np.sum(counts[:number]))
    stays = np.load(path_of(folder, number) + ".decisions.npy")["rule"] == 0
    parts = [fingerprints(texts.text(first + row), first + row, length) for row in np.flatnonzero(stays).tolist()]
    found = np.concatenate([np.zeros(0, PRINT), *filter(len, parts)])
    save(path_of(folder, number) + ".prints", found)
    report(os.path.getsize(path_of(folder, number) + ".texts"))
    return {"prints": len(found), "damaged": []}


def write_spans(folder: str, counts: list[int], number: int, count: int, length: int, report: Callable[[int], None]) -> dict:
    """The spans that fingerprints lead to whose hashes are `number` modulo `count`."""
    texts, prints = Texts(folder, counts), []
    for task in range(len(counts)):
        ours = np.load(f"{path_of(folder, task)}.prints.npy", mmap_mode="r")
        prints.append(ours[ours["hash"] % np.uint64(count) == number])
    found = repeated(np.concatenate(prints), texts.text, length)
    save(path_of(folder, number) + ".spans", np.unique(found))
    return {"damaged": []}


def write_documents(folder: str, counts: list[int], number: int, parts: int, report: Callable[[int], None]) -> dict:
    """A shard of a task's documents that stay, and what was removed, in the order of the input. parts: files of spans.

    Returns the record of the shard, or None, counts of what was removed by rule, and how much was cut.
    """
    texts, first = Texts(folder, counts), int(np.sum(counts[:number]))
    decisions = np.load(path_of(folder, number) + ".decisions.npy")
    spans = _spans(folder, first, counts[number], parts)
    name = f"documents-{number:05d}-of-{len(counts):05d}"
    removed: dict[int, dict] = {}
    with open(path_of(folder, number) + ".removed", encoding="utf-8") as before:
        for line in before:
            order, *rest = json.loads(line)
            removed[order] = dict(zip(("name", "reason", "value"), rest, strict=True))
    order = texts.column("order", number).tolist()
    documents, size = 0, 0
    cuts = {"documents": 0, "characters": 0}
    path = os.path.join(folder, ".prepare", name + SUFFIX)
    with open(path, "wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        for row, (rule, value, kept) in enumerate(decisions.tolist()):
            text = "" if rule else texts.text(first + row)
            if row in spans:
                whole, text = len(text), cut(text, spans[row])
                if text.strip():
                    cuts["documents"] += 1
                    cuts["characters"] += whole - len(text)
                else:
                    removed[order[row]] = {"name": texts.name(first + row), "reason": "repeated_text", "value": whole}
                    continue
            if rule:
                removed[order[row]] = {"name": texts.name(first + row), "reason": RULES[rule], "value": round(value, 4)}
                if kept >= 0:
                    removed[order[row]]["copy_of"] = texts.name(kept)
                continue
            packed.write(json.dumps({"text": text, "name": texts.name(first + row)}, ensure_ascii=False).encode() + b"\n")
            documents, size = documents + 1, size + len(text.encode())
        packed.flush(zstandard.FLUSH_FRAME)
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as written:
        digest = xxhash.xxh3_128_hexdigest(written.read())
    lines = "".join(json.dumps(removed[order], ensure_ascii=False) + "\n" for order in sorted(removed))
    storage.write_atomically(path_of(folder, number) + ".gone", lines.encode("utf-8", "backslashreplace"))
    report(os.path.getsize(path_of(folder, number) + ".texts"))
    reasons = [one["reason"] for one in removed.values()]
    return {
        "shard": {"file": name, "documents": documents, "bytes": size, "digest": digest} if documents else None,
        "removed": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "cut": cuts,
        "damaged": [],
    }


def _spans(folder, first, count, parts):
    """{row: spans to cut} of a task's texts."""
    every = [np.load(f"{path_of(folder, part)}.spans.npy", mmap_mode="r") for part in range(parts)]
    ours = np.concatenate([np.zeros(0, SPAN), *(part[(part["text"] >= first) & (part["text"] < first + count)] for part in every)])
    ours = ours[np.argsort(ours["text"], kind="stable")]
    numbers, begins = np.unique(ours["text"], return_index=True)
    return {int(number) - first: merged(part) for number, part in zip(numbers, np.split(ours, begins[1:]), strict=bool(len(ours)))}
