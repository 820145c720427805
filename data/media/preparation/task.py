"""One task of a preparation of media: a list of input extents becomes one shard of each split."""

import contextlib
import os
import warnings
from collections.abc import Callable

import numpy as np
import xxhash

from data.anonymize.media import SampleAnonymizer
from data.anonymize.plans import read_key
from data.anonymize.text import Anonymizer
from data.files import storage
from data.files.manifest import SPLITS
from data.loading.preparation import NAMES_KEPT, check_damaged, close_shards, count_name, shard_paths
from data.media.kinds import Undecodable
from data.media.preparation.duplicates import FINGERPRINT
from data.media.reading.fields import Reading
from data.media.reading.finding import is_manifest, is_medium
from data.media.reading.labels import NO_CLASS, label_of
from data.media.reading.records import read_records
from data.media.reading.samples import sample_of
from data.media.reading.splits import split_of
from data.media.shards import MediaWriter
from data.media.signals.probing import examine, probe
from data.readers.documents import Extent, Skipped, Unreadable


def scan_records(extents: list[Extent], reading: Reading, report: Callable[[int], None]) -> dict:
    """Scans a task's records: {"labels": the names of all classes, "names": those of fields that are used,
    "unused": {file: the others}}."""
    labels: set[str] = set()
    names: set[str] = set()
    unused: dict[str, dict[str, None]] = {}
    for extent in extents:
        for record in read_records([extent], reading, report):
            if not isinstance(record, Skipped):
                with contextlib.suppress(Unreadable):  # which is told when it is written
                    labels.update(filter(None, [label_of(record)]))
                names.update(record.names)
                if record.unused and len(found := unused.setdefault(record.source, {})) < NAMES_KEPT:
                    found |= dict.fromkeys(record.unused)
            if is_medium(extent.path):
                report(extent.stop)
    return {"labels": sorted(labels), "names": sorted(names), "unused": {file: list(found) for file, found in unused.items()}}


def write_media_shards(
    extents: list[Extent],
    reading: Reading,
    classes: list[str],
    key_file: str,
    split: str | None,
    validation: float,
    folder: str,
    number: int,
    count: int,
    max_damaged: int | None,
    report: Callable[[int], None],
) -> dict:
    """Writes a task's samples into shards in `folder`/.prepare, after examining every medium.

    split: where all of them go; None for where each says, or by a hash of its media, `validation` being the share held out. Returns
    {split: record or None, "damaged": [...], "ignored": [count, names], "remarked": {remark: [count, names]}}, with a key also "replaced":
    {kind: count}.
    """
    key = read_key(key_file)
    anonymize = SampleAnonymizer(key)
    task = _Task(folder, number, count, validation, split, anonymize)
    numbers = {name: place for place, name in enumerate(classes)}
    damaged: list[Skipped] = []
    ignored: list = [0, []]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders; what matters of them is remarked
        for extent in extents:
            told = 0
            for record in read_records([extent], reading, report):
                if isinstance(record, Skipped) and record.kind == "ignored":
                    count_name(ignored, record.name)
                    continue
                try:
                    if isinstance(record, Skipped):
                        raise Unreadable(record.reason)
                    told += task.add(record, sample_of(record, reading, numbers))
                except (Unreadable, Undecodable) as error:
                    reason = Anonymizer(key)(str(error)) if key else str(error)  # which may quote what it is about
                    damaged.append(Skipped(record.name, reason, "damaged"))
                    check_damaged(damaged, max_damaged)
                if is_manifest(extent.path):
                    report(told)
                    told = 0
            if is_medium(extent.path):
                report(extent.stop)
    return {
        **task.close(),
        "damaged": [list(one) for one in damaged],
        "ignored": ignored,
        "remarked": task.remarked,
        **({"replaced": dict(anonymize.counts)} if key else {}),
    }


class _Task:
    """The shards of a task, and what is found out about the media in them."""

    def __init__(self, folder, number, count, validation, split, anonymize):
        self._folder, self._number, self._validation, self._split = folder, number, validation, split
        self._anonymize = anonymize
        self._writers = {split: MediaWriter(path) for split, path in shard_paths(folder, number, count).items()}
        self._fingerprints: list[tuple] = []
        self._counts = dict.fromkeys(SPLITS, 0)
        self.remarked: dict[str, list] = {}

    def add(self, record, sample):
        """Takes a sample in; returns the bytes of its parts. Raises Undecodable.

        Splits and duplicates are told by media as they were: one that is there twice gets two voices, and is still the same.
        """
        found = [examine(part.kind, part.content) for part in sample.parts]
        media = [(part, one) for part, one in zip(sample.parts, found, strict=True) if part.kind != "text"]
        digests = [xxhash.xxh3_64_intdigest(part.content) for part, _ in media]
        split = self._split or split_of(record)
        if split is None:  # equal media stay together, however often they come
            told = digests[0] if digests else xxhash.xxh3_64_intdigest(sample.parts[0].content.encode())
            split = "validation" if told < self._validation * 2**64 else "train"
        stored, notes = self._anonymize(sample)
        facts = [one.facts for one in found] if stored is sample else [probe(part.kind, part.content) for part in stored.parts]
        self._writers[split].add(stored, facts)
        for (part, one), digest in zip(media, digests, strict=True):
            picture, colour = one.fingerprint or (0, 0)
            self._fingerprints.append((digest, picture, colour, part.kind == "image", SPLITS.index(split), self._counts[split]))
        for remark in (*(remark for _, one in media for remark in one.remarks), *notes):
            count_name(self.remarked.setdefault(remark, [0, []]), record.name)
        if sample.label < 0 and str(record.fields.get("label")).strip() == NO_CLASS:
            count_name(self.remarked.setdefault(f"a label of {NO_CLASS}, which is no class", [0, []]), record.name)
        self._counts[split] += 1
        return sum(one.facts.bytes for one in found)

    def close(self):
        """{split: record, or None if it has no samples}."""
        fingerprints = np.array(self._fingerprints, FINGERPRINT).tobytes()
        storage.write_atomically(os.path.join(self._folder, ".prepare", f"{self._number:05d}.looks"), fingerprints)
        return close_shards(self._writers, "samples")
