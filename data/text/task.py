"""One task of a preparation: a list of input extents becomes one shard of each split."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from data.anonymize.documents import anonymized
from data.anonymize.surrogates import Key
from data.loading.preparation import check_damaged, close_shards, count_name, shard_paths
from data.readers.documents import Document, Extent, SplitRule, between
from data.readers.inputs import read_documents
from data.text.shards import ShardWriter
from data.tokenizer import load_tokenizer

_BATCH_CHARACTERS = 1 << 21  # tokenized in one call


def write_shards(
    extents: list[Extent],
    text_field: str,
    key: Key | None,
    rule: SplitRule,
    folder: str,
    dtype: str,
    number: int,
    count: int,
    max_damaged: int,
    report: Callable[[int], None],
) -> dict:
    """Tokenizes a task's documents into shards in `folder`/.prepare.

    key: anonymises the documents. Returns {split: record or None, "empty": [count, names], "ignored": [count, names], "unknown": tokens,
    "damaged": [...]}, with a key also "replaced": {kind: count}.
    """
    writer = _Writer(folder, dtype, shard_paths(folder, number, count), ends=rule.kind == "hash")
    left_out: dict[str, list] = {"empty": [0, []], "ignored": [0, []]}
    damaged = []
    replaced: Counter[str] = Counter()
    for document in anonymized(read_documents(extents, text_field, report), key, replaced):
        if isinstance(document, Document):
            for split, start, stop in rule.portions(document):
                writer.add(document, split, start, stop)
        elif document.kind == "damaged":
            damaged.append(document)
            check_damaged(damaged, max_damaged)
        else:
            count_name(left_out[document.kind], document.name)
    return {
        **writer.close(),
        "unknown": writer.unknown,
        **left_out,
        "damaged": [list(one) for one in damaged],
        **({"replaced": dict(replaced)} if key else {}),
    }


class _Writer:
    """Writes documents in their order: short ones are tokenized together, long ones as a stream of chunks."""

    def __init__(self, folder, dtype, paths, ends):
        self._tokenizer = load_tokenizer(os.path.join(folder, "tokenizer"))
        self._ending = np.array([self._tokenizer.specials["document_end"]] if ends else [], np.int32)
        self._writers = {split: ShardWriter(path, dtype) for split, path in paths.items()}
        self.unknown = 0  # tokens of what the vocabulary lacks, and characters that have none
        self._batch: list[tuple[str, str]] = []  # (split, text)
        self._batched = 0

    def add(self, document: Document, split: str, start: int, stop: int) -> None:
        """Characters [start, stop) of a document become one of the split."""
        chunks = between(document.chunks(), start, stop)
        if stop - start > _BATCH_CHARACTERS:
            self._flush()
            sizes: list[int] = []
            for ids in self._tokenizer.encode_stream(_measured(chunks, sizes)):
                self._write(split, ids)
            self._end(split, sum(sizes))
        else:
            self._batch.append((split, "".join(chunks)))
            self._batched += stop - start
            if self._batched > _BATCH_CHARACTERS:
                self._flush()

    def close(self) -> dict:
        """{split: record, or None if it has no documents}."""
        self._flush()
        self.unknown += self._tokenizer.lost
        return close_shards(self._writers, "documents")

    def _flush(self):
        encoded = self._tokenizer.encode_batch([text for _, text in self._batch])
        for (split, text), ids in zip(self._batch, encoded, strict=True):
            self._write(split, ids)
            self._end(split, len(text.encode()))
        self._batch, self._batched = [], 0

    def _write(self, split, ids):
        self._writers[split].write(ids)
        if self._tokenizer.unknown is not None:
            self.unknown += int((ids == self._tokenizer.unknown).sum())

    def _end(self, split, raw_bytes):
        self._writers[split].write(self._ending)
        self._writers[split].end_document(raw_bytes)


def _measured(chunks: Iterable[str], sizes: list[int]) -> Iterator[str]:
    for chunk in chunks:
        sizes.append(len(chunk.encode()))
        yield chunk
