"""The store of samples of several media: a directory of shards and the manifest that describes them.

    manifest.json                            format, kind "media", counts, classes, digests; written last
    train-00000-of-00004.array_record        one record a sample (data/media/kinds.py)
    train-00000-of-00004.index               what is known of the samples and their parts, so that rows are planned without decoding

The index is a row of flat little-endian arrays: of each sample its digest, count of parts and label; of each part its facts, kind and
whether it is learned.
"""

import json
import os
import threading
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from data.errors import UserError
from data.files import storage
from data.files.manifest import FAILS_DIGEST, check_split, content_digest, read_index, read_manifest, totals
from data.media.kinds import KINDS, Damaged, Facts, Sample, decode_sample, encode_sample

FORMAT = 1
_SAMPLE_COLUMNS = (("digest", "<u8"), ("parts", "<i4"), ("label", "<i4"))
_PART_COLUMNS = (
    *(("rate", "<f8"), ("samples", "<i8"), ("bytes", "<i8"), ("width", "<i4"), ("height", "<i4"), ("frames", "<i4")),
    *(("kind", "u1"), ("learned", "u1")),
)
_REPAIR = "`omnia prepare` on its folder with --repair"
_WRITE = "group_size:1,uncompressed"  # a record is read alone, and what is in it is encoded already
_READ = "readahead_buffer_size:0,max_parallelism:0"


class MediaCorpus:
    """A prepared media corpus, opened for reading. Attributes: path, manifest (dict), digest (identifies the content), classes (names)."""

    def __init__(self, path: str):
        self.path = str(path)
        self.manifest = read_manifest(self.path, FORMAT, self._check_kind, media_digest, "omnia prepare images|video|audio|interleaved")
        self.digest: str = self.manifest["digest"]
        self.classes: list[str] = self.manifest["classes"]
        self._splits: dict[str, MediaSplit] = {}

    def _check_kind(self, manifest):
        if manifest.get("kind") != "media":
            raise UserError(f"{self.path}: holds text, not media.", "Prepare media with `omnia prepare images|video|audio|interleaved`.")

    def parts(self, split: str) -> dict[str, int]:
        """Parts of each kind in a split."""
        return {kind: self.manifest["splits"].get(split, {}).get("parts", {}).get(kind, 0) for kind in KINDS}

    def split(self, name: str) -> "MediaSplit":
        """The samples of `train` or `validation`."""
        splits = self.manifest["splits"]
        check_split(self.path, splits, name, "samples")
        if name not in self._splits:
            self._splits[name] = MediaSplit(self.path, splits[name]["shards"])
        return self._splits[name]


class MediaSplit:
    """The samples of one split, numbered from 0 in the order of the input.

    Attributes: samples (count); labels int32 [samples], -1 for none; first_part int64 [samples + 1]: the parts of sample i are
    first_part[i] to first_part[i + 1]; and of all parts, in arrays: kinds (places in KINDS), learned, widths, heights, frames, rates,
    samples_ (of recordings, in each channel), bytes_.

    May be sent to another process, which opens the files for itself; may be read by several threads.
    """

    def __init__(self, folder: str, shards: list[dict]):
        self._folder, self._shards = folder, shards
        indices = [_read_index(storage.join(folder, shard["file"] + ".index"), shard) for shard in shards]
        column = {name: np.concatenate([index[name] for index in indices]) for name, _ in (*_SAMPLE_COLUMNS, *_PART_COLUMNS)}
        self.samples = len(column["digest"])
        self.labels = column["label"]
        self.first_part = np.concatenate([np.zeros(1, np.int64), np.cumsum(column["parts"], dtype=np.int64)])
        self.kinds, self.learned = column["kind"], column["learned"].astype(bool)
        self.widths, self.heights, self.frames = column["width"], column["height"], column["frames"]
        self.rates, self.samples_, self.bytes_ = column["rate"], column["samples"], column["bytes"]
        self._digests = column["digest"]
        self._first = np.cumsum([0, *(shard["samples"] for shard in shards)])  # sample of each shard
        self._open()

    def _open(self):
        self._readers: dict = {}  # by shard; what makes one unreadable in its place
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self):
        return MediaSplit, (self._folder, self._shards)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Sample | Damaged]:
        """The samples of these numbers, in their order; Damaged, with the reason, for one that fails its digest."""
        return [
            record if isinstance(record, Damaged) else self._decoded(index, record)
            for index, record in zip(indices, self.records(indices), strict=True)
        ]

    def records(self, indices: Sequence[int] | np.ndarray) -> list[bytes | Damaged]:
        """The samples as they are stored, verified."""
        numbers = np.asarray(indices, np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.samples:
            raise IndexError(f"samples are numbered 0 to {self.samples - 1}")
        shards = np.searchsorted(self._first, numbers, side="right") - 1
        digests = self._digests[numbers].tolist()
        found: list[bytes | Damaged] = [Damaged("", "")] * len(numbers)
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            records = self._read_shard(shard, (numbers[places] - self._first[shard]).tolist())
            for place, record in zip(places.tolist(), records, strict=True):
                if isinstance(record, str):
                    found[place] = Damaged(self.where(int(numbers[place])), record)
                elif xxhash.xxh3_64_intdigest(record) != digests[place]:
                    found[place] = Damaged(self.where(int(numbers[place])), FAILS_DIGEST)
                else:
                    found[place] = record
        return found

    def where(self, index: int) -> str:
        """The file and number of a sample, for messages."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return f"{self._file(shard)[0]}: sample {index - self._first[shard]}"

    def has_learned(self) -> np.ndarray:
        """bool [samples]: whether any text of a sample is to be learned."""
        parts = np.repeat(np.arange(self.samples), np.diff(self.first_part))
        return np.bincount(parts[self.learned], minlength=self.samples) > 0

    def facts(self, part: int) -> Facts:
        """What is known of a part, by its place among all parts of the split."""
        columns = (self.widths, self.heights, self.frames, self.rates, self.samples_, self.bytes_)
        return Facts(*(column[part].item() for column in columns))

    def _decoded(self, index, record):
        try:
            return decode_sample(record)
        except ValueError as error:
            return Damaged(self.where(index), f"cannot be understood ({error})")

    def _read_shard(self, shard, places) -> list[bytes | str]:
        """Records of one shard; a text says why one cannot be read."""
        if os.getpid() != self._process:  # a fork: files and their positions belong to the parent
            self._open()
        with self._lock:
            reader = self._readers.get(shard)
            if reader is None:
                reader = self._readers[shard] = _open_records(*self._file(shard))
            # One by one: a call with all places goes by way of a pool of threads, and costs three to five times the CPU time.
            records: list[bytes | str] = []
            for place in places:
                if isinstance(reader, str):
                    records.append(reader)
                    continue
                try:
                    (record,) = reader.read(place, place + 1)
                    records.append(record)
                except (RuntimeError, ValueError, IndexError):
                    records.append("cannot be read: its file is damaged there")
                    reader = self._readers[shard] = _open_records(*self._file(shard))  # as a fault may stay with it
            return records

    def _file(self, shard):
        """The path of a shard, and its samples."""
        return storage.join(self._folder, self._shards[shard]["file"] + ".array_record"), self._shards[shard]["samples"]


class MediaWriter:
    """Writes the two files of one shard, sample by sample, and knows its record for the manifest."""

    def __init__(self, path: str):
        self.path = path
        self._writer = packages().ArrayRecordWriter(path + ".array_record", _WRITE)
        self._columns: dict[str, list] = {name: [] for name, _ in (*_SAMPLE_COLUMNS, *_PART_COLUMNS)}

    def add(self, sample: Sample, facts: Sequence[Facts]) -> None:
        """A sample, and the facts of each of its parts (data/media/signals/probing.py: probe)."""
        record = encode_sample(sample)
        self._writer.write(record)
        add = {name: column.append for name, column in self._columns.items()}
        add["digest"](xxhash.xxh3_64_intdigest(record))
        add["parts"](len(sample.parts))
        add["label"](sample.label)
        for part, known in zip(sample.parts, facts, strict=True):
            for name in ("rate", "samples", "bytes", "width", "height", "frames"):
                add[name](getattr(known, name))
            add["kind"](KINDS.index(part.kind))
            add["learned"](part.learned)

    def close(self) -> dict:
        """Makes both files durable; returns their record, without the name."""
        self._writer.close()
        columns = {name: np.array(self._columns[name], dtype) for name, dtype in (*_SAMPLE_COLUMNS, *_PART_COLUMNS)}
        index = b"".join(column.tobytes() for column in columns.values())
        whole = xxhash.xxh3_128()
        with open(self.path + ".array_record", "rb+") as file:
            while chunk := file.read(1 << 22):
                whole.update(chunk)
            os.fsync(file.fileno())
        storage.write_atomically(self.path + ".index", index)
        return {
            "samples": len(columns["parts"]),
            "parts": {kind: int((columns["kind"] == number).sum()) for number, kind in enumerate(KINDS)},
            "bytes": int(columns["bytes"].sum()),
            "digest": whole.hexdigest(),
            "index_digest": xxhash.xxh3_128_hexdigest(index),
        }


def write_media(
    folder: str, splits: dict[str, Iterable[tuple[Sample, Sequence[Facts]]]], classes: Sequence[str] = (), shard_samples: int = 4096
) -> MediaCorpus:
    """A corpus of samples that a program has in hand, with their facts; files come by way of `omnia prepare` (data/media/preparation/)."""
    os.makedirs(folder, exist_ok=True)
    records: dict[str, list[dict]] = {"train": [], "validation": []}
    for split, samples in splits.items():
        writer, held = None, 0
        for sample, facts in samples:
            if writer is None:
                writer, held = MediaWriter(os.path.join(folder, f"{split}-{len(records[split]):05d}")), 0
            writer.add(sample, facts)
            held += 1
            if held == shard_samples:
                records[split].append({"file": os.path.basename(writer.path), **writer.close()})
                writer = None
        if writer:
            records[split].append({"file": os.path.basename(writer.path), **writer.close()})
    manifest = media_manifest(records, list(classes))
    storage.write_atomically(os.path.join(folder, "manifest.json"), json.dumps(manifest, indent=1).encode())
    return MediaCorpus(folder)


def media_manifest(records: dict[str, list[dict]], classes: list[str], **more) -> dict:
    """The manifest of shards by split, with totals and digest; `more` is added as it is and does not count for the digest."""
    splits = {}
    for split, shards in records.items():
        parts = {kind: sum(shard["parts"][kind] for shard in shards) for kind in KINDS}
        splits[split] = {**totals(shards, ("samples", "bytes")), "parts": parts, "shards": shards}
    manifest = {"format": FORMAT, "kind": "media", "classes": classes, "splits": splits, **more}
    return {**manifest, "digest": media_digest(manifest)}


def media_digest(manifest: dict) -> str:
    """What identifies a corpus: all of the manifest that says what the samples are."""
    return content_digest(manifest, ("classes", "splits"))


def packages():
    """The module of ArrayRecord."""
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise UserError("Shards of media need the package array_record.", 'pip install "omnia[media]"') from None
    return array_record_module


def _open_records(path, count):
    """A reader of a shard, or what makes it unreadable."""
    if storage.is_remote(path):
        raise UserError(f"{path}: shards of media are read from a local disk.", "Copy the folder to this machine, or mount it.")
    if not os.path.exists(path):
        raise UserError(f"{path}: missing.", f"Copy the file again, or run {_REPAIR}.")
    try:
        reader = packages().ArrayRecordReader(path, _READ)
        if reader.ok() and reader.num_records() == count:
            return reader
    except (RuntimeError, ValueError):
        pass
    return "cannot be read: its file is damaged"


def _read_index(path, shard):
    content = read_index(path, shard, _REPAIR)
    samples, parts = shard["samples"], sum(shard["parts"].values())
    columns, start = {}, 0
    for names, count in ((_SAMPLE_COLUMNS, samples), (_PART_COLUMNS, parts)):
        for name, dtype in names:
            columns[name] = np.frombuffer(content, dtype, count, start)
            start += columns[name].nbytes
    return columns
