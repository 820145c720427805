"""Corpora made of given ids, without a preparation."""

import json
import os

import numpy as np
import pytest

from data.text.shards import FORMAT, Corpus, ShardWriter, corpus_digest
from data.tokenizer import byte_tokenizer


def write_corpus(folder, train, validation=(), *, document_end=None, shards=2, dtype="uint32", tokenizer=None) -> Corpus:
    """Arrays of ids as documents of a corpus, in `shards` shards; raw bytes are made up: the number of the document."""
    os.makedirs(folder)
    tokenizer = tokenizer or byte_tokenizer()
    tokenizer.save(os.path.join(folder, "tokenizer"))
    splits = {}
    for split, documents in (("train", train), ("validation", validation)):
        records = []
        for i, part in enumerate(np.array_split(np.arange(len(documents)), shards) if len(documents) else []):
            if len(part):
                name = f"{split}-{i:05d}-of-{shards:05d}"
                writer = ShardWriter(os.path.join(folder, name), dtype)
                for document in part:
                    writer.write(np.asarray(documents[document]))
                    writer.end_document(int(document))
                records.append({"file": name, **writer.close()})
        totals = {key: sum(record[key] for record in records) for key in ("documents", "tokens", "raw_bytes")}
        splits[split] = {**totals, "max_id": max((record["max_id"] for record in records), default=0), "shards": records}
    manifest = {
        "format": FORMAT,
        "document_end": document_end,
        "dtype": dtype,
        "splits": splits,
        "tokenizer": {"kind": tokenizer.kind, "digest": tokenizer.digest, "size": tokenizer.size, "specials": tokenizer.specials},
        "empty": {"count": 0, "names": []},
        "damaged": [],
    }
    with open(os.path.join(folder, "manifest.json"), "w") as file:
        json.dump({**manifest, "digest": corpus_digest(manifest)}, file)
    return Corpus(str(folder))


def distinct_documents(lengths):
    """Documents in which no id occurs twice: a prediction tells which token of which document it is of."""
    ends = np.cumsum(lengths)
    return [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def flip_bit(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 16]))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def make_corpus():
    return write_corpus


@pytest.fixture(scope="session")
def make_documents():
    return distinct_documents


@pytest.fixture(scope="session")
def flip():
    return flip_bit
