"""The token store: a directory of shards and the manifest that describes them.

    manifest.json                       format, tokenizer, counts, digests; written last
    tokenizer/                          what made the ids
    train-00000-of-00004.tokens         the ids of all documents in turn, little-endian uint16 or uint32
    train-00000-of-00004.index          uint64: end of each document in tokens; its raw UTF-8 bytes; digest of each block of tokens

A document lies inside one shard. The files are plain arrays: any row of any document is one slice of a memory map.
"""

import os

import numpy as np
import xxhash

from data.errors import UserError
from data.files import storage
from data.files.manifest import FAILS_DIGEST, check_split, content_digest, read_index, read_manifest
from data.text.blocks import BLOCK_BYTES, token_files
from data.tokenizer import Tokenizer, load_tokenizer

FORMAT = 1
_REPAIR = "`omnia prepare text --output FOLDER --repair` on its folder"
_BUFFERED = 1 << 20  # tokens written at once


class Corpus:
    """A prepared text corpus, opened for reading. `path` is a local folder or an fsspec address such as gs://bucket/folder.

    Attributes: manifest (dict), digest (identifies tokenizer and content), document_end (id or None), document_start (input before a
    document's first token: the tokenizer's start id, or the end id; None without an end), ids (largest id in use plus one).
    """

    def __init__(self, path: str):
        self.path = str(path)
        self.manifest = read_manifest(self.path, FORMAT, self._check_kind, corpus_digest, "omnia prepare text --input FILE --output DIR")
        self._splits: dict[str, Split] = {}
        self.digest: str = self.manifest["digest"]
        self.document_end: int | None = self.manifest["document_end"]
        start: int = self.manifest["tokenizer"]["specials"].get("start", self.document_end)
        self.document_start = None if self.document_end is None else start
        self.ids: int = 1 + max(split["max_id"] for split in self.manifest["splits"].values())

    def _check_kind(self, manifest):
        if manifest.get("kind") == "media":
            raise UserError(
                f"{self.path}: holds media, not text.",
                "Prepare text with `omnia prepare text` into another folder; `inspect --media` and runs on media read this one.",
            )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was prepared with."""
        tokenizer = load_tokenizer(self.path)
        if tokenizer.digest != self.manifest["tokenizer"]["digest"]:
            raise UserError(
                f"{self.path}: the tokenizer was changed after the corpus was prepared with it.",
                f"Bring the tokenizer directory back, or run {_REPAIR}.",
            )
        return tokenizer

    def targets(self, split: str) -> int:
        """Tokens predicted in one pass over a split; 0 if the corpus lacks the split."""
        record = self.manifest["splits"].get(split, {"tokens": 0, "documents": 0})
        return record["tokens"] - (record["documents"] if self.document_end is None else 0)  # nothing stands before the first

    def split(self, name: str) -> "Split":
        """The documents of `train` or `validation`."""
        check_split(self.path, self.manifest["splits"], name, "documents")
        if name not in self._splits:  # kept: what was verified is not verified again
            self._splits[name] = Split(self.path, self.manifest, name)
        return self._splits[name]


class Split:
    """The documents of one split, numbered from 0 in the order of the input.

    Attributes: documents, tokens, raw_bytes (counts); lengths int64 [documents], in tokens, document end included.
    """

    def __init__(self, folder: str, manifest: dict, name: str):
        record = manifest["splits"][name]
        self.documents, self.tokens, self.raw_bytes = record["documents"], record["tokens"], record["raw_bytes"]
        shards, itemsize = record["shards"], np.dtype(manifest["dtype"]).itemsize
        lengths, raw_bytes, digests, bases, block = [], [], [], [], 0
        for shard in shards:
            index = _read_index(storage.join(folder, shard["file"] + ".index"), shard, itemsize)
            ends = index[: shard["documents"]].astype(np.int64)
            lengths.append(np.diff(ends, prepend=0))
            raw_bytes.append(index[shard["documents"] : 2 * shard["documents"]].astype(np.int64))
            digests.append(index[2 * shard["documents"] :])
            bases.append(ends - lengths[-1] + block * (BLOCK_BYTES // itemsize))
            block += len(digests[-1])
        self.lengths = np.concatenate(lengths)
        self.document_bytes = np.concatenate(raw_bytes)
        self._bases = np.concatenate(bases)
        self._files = token_files(
            [storage.join(folder, shard["file"] + ".tokens") for shard in shards],
            [shard["tokens"] for shard in shards],
            manifest["dtype"],
            np.concatenate(digests),
        )

    def read_many(self, documents, starts, stops):
        """Tokens [start, stop) of documents, concatenated, in the dtype of the store; and bool [n]: which are damaged (zeros).

        One call for a whole batch: what is remote is fetched in one round.
        """
        return self._files.read(self._bases[documents] + starts, np.asarray(stops) - starts)

    def read(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Tokens of one document. Raises UserError where it is damaged."""
        stop = self.lengths[document] if stop is None else stop
        tokens, damaged = self.read_many(np.array([document]), np.array([start]), np.array([stop]))
        if damaged[0]:
            raise UserError(f"{self.where(document)} {FAILS_DIGEST}.", f"Run {_REPAIR}.")
        return tokens

    def where(self, document: int) -> str:
        """The file and number of a document, for messages."""
        return f"{self._files.place(int(self._bases[document]))}: document {document}"


class ShardWriter:
    """Writes the two files of one shard, document by document, and knows its record for the manifest."""

    def __init__(self, path: str, dtype: str):
        self.path, self.dtype = path, np.dtype(dtype).newbyteorder("<")
        self.tokens = self.raw_bytes = self.max_id = 0
        self._ends: list[int] = []
        self._bytes: list[int] = []
        self._digests: list[int] = []
        self._file = open(path + ".tokens", "wb")  # noqa: SIM115
        self._whole = xxhash.xxh3_128()
        self._held: list[np.ndarray] = []  # not yet in the file
        self._flushed, self._rest = 0, b""  # tokens in the file; its bytes after the last whole block

    def write(self, ids: np.ndarray) -> None:
        """Ids of the current document, or some of them."""
        self._held.append(ids)
        self.tokens += len(ids)
        if self.tokens - self._flushed >= _BUFFERED:
            self._flush()

    def end_document(self, raw_bytes: int) -> None:
        self._ends.append(self.tokens)
        self._bytes.append(raw_bytes)
        self.raw_bytes += raw_bytes

    def close(self) -> dict:
        """Makes both files durable; returns their record, without the name."""
        self._flush()
        if self._rest:
            self._digests.append(xxhash.xxh3_64_intdigest(self._rest))
        index = b"".join(np.array(column, "<u8").tobytes() for column in (self._ends, self._bytes, self._digests))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        storage.write_atomically(self.path + ".index", index)
        return {
            "documents": len(self._ends),
            "tokens": self.tokens,
            "raw_bytes": self.raw_bytes,
            "max_id": self.max_id,
            "digest": self._whole.hexdigest(),
            "index_digest": xxhash.xxh3_128_hexdigest(index),
        }

    def _flush(self):
        ids = np.concatenate([np.zeros(0, self.dtype), *self._held])
        content = ids.astype(self.dtype).tobytes()
        self.max_id = max(self.max_id, int(ids.max(initial=0)))
        self._file.write(content)
        self._whole.update(content)
        content = self._rest + content  # blocks do not end where writes do
        whole = len(content) // BLOCK_BYTES * BLOCK_BYTES
        self._digests += [xxhash.xxh3_64_intdigest(content[i : i + BLOCK_BYTES]) for i in range(0, whole, BLOCK_BYTES)]
        self._rest, self._held, self._flushed = content[whole:], [], self.tokens


def corpus_digest(manifest: dict) -> str:
    """What identifies a corpus: all of the manifest that says what the ids are."""
    return content_digest(manifest, ("tokenizer", "document_end", "dtype", "splits"))


def _read_index(path, shard, itemsize):
    blocks = -(-shard["tokens"] * itemsize // BLOCK_BYTES)
    return np.frombuffer(read_index(path, shard, _REPAIR, 8 * (2 * shard["documents"] + blocks)), "<u8")
