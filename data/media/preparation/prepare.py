"""Images, videos and recordings into shards: planned as tasks that each make one shard of every split (as data/text/prepare.py does).

What is encoded stays encoded: every file is examined for what is damaged, unusual or there twice, and decoding is for those who
read the shards. What is written depends on the inputs and options alone.
"""

import dataclasses
import json
import os
import re
from typing import Literal

import numpy as np
import xxhash

from data.anonymize import media, plans
from data.errors import UserError
from data.files.manifest import SPLITS
from data.loading import beam, journal, preparation
from data.loading.pool import run_tasks
from data.loading.preparation import NAMES_KEPT
from data.media.preparation.duplicates import FINGERPRINT, find_duplicates
from data.media.preparation.plan import KINDS, extents_of, make_plan, reading_of, task_bytes
from data.media.preparation.summary import print_summary
from data.media.preparation.task import scan_records, write_media_shards
from data.media.reading.fields import FIELDS, folded
from data.media.reading.labels import class_names
from data.media.shards import MediaCorpus, MediaSplit, media_manifest, packages
from data.readers.documents import printable

SUFFIXES = (".array_record", ".index")


@dataclasses.dataclass(frozen=True)
class PrepareMedia:
    """Convert images, videos and recordings, with their texts, to a directory of shards."""

    output: str
    """Directory to write. The same command resumes where it stopped."""
    kind: Literal["images", "video", "audio", "interleaved"] = "interleaved"
    """The medium that every sample must contain. interleaved: any."""
    input: tuple[str, ...] = ()
    """Files, folders, globs, or `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`. A file of media is a sample: a .txt or .json of the same name
    says its caption, its folder its class; folders named train, val, test and the like, above or below, are splits. In .csv, .tsv,
    .jsonl, .parquet and .tar (WebDataset) are many, under the names image, video, audio, path, text, caption, question, answer, label,
    split, parts (a list of texts and paths) and conversations (LLaVA's)."""
    validation_input: tuple[str, ...] = ()
    """Inputs that are the whole validation split."""
    validation: float = 0.1
    """Fraction held out for validation, 0 to 1, by a hash of the media, of the samples whose split is not given by a field or folder. 1
    holds out all samples, whatever their fields and folders say: shards for evaluation only."""
    fields: tuple[str, ...] = ()
    """Maps our field names to the inputs' fields, columns or features, such as image=photo caption=title."""
    classes: Literal["auto", "folder", "none"] = "auto"
    """folder: a file's class is the name of its folder below the --input folder. auto: the same, if there are several folders. none: only a
    field gives the class."""
    anonymize: str = ""
    """File with a secret, as of `omnia anonymize --key-file`: samples are stored as that command writes files, texts without what patterns
    find, faces and plates covered, voices changed. Videos become MP4, recordings that are neither WAV, FLAC nor MP3 become FLAC. A repair
    needs it again. Empty: samples stay as they are."""
    workers: int = 0
    """Number of processes. 0: one per core. The result does not depend on it."""
    shard_bytes: int = 1 << 27
    """Bytes of media per shard. A .tar is never divided."""
    max_damaged: int = -1
    """Files and records (undecodable, missing, a caption without its image) to leave out before stopping. -1: any number. The manifest
    names all of them, with the reason."""
    tfds_dir: str = ""
    """Folder where TFDS keeps its data sets. Empty: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    tfds_download: bool = False
    """Let TFDS download and prepare a data set that is not there yet."""
    beam: str = ""
    """Apache Beam runner and its options, such as "DirectRunner --direct_num_workers 4". Every machine must see the inputs, the output
    and the key of --anonymize under the same paths. Empty: processes on this machine."""
    overwrite: bool = False
    """Delete what another preparation left in the output directory."""
    repair: bool = False
    """Verify every shard of a prepared directory, and rebuild damaged ones from the inputs."""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"kind of media {self.kind!r} is unknown.", f"Choose {', '.join(KINDS)}.")
        if not 0 <= self.validation <= 1:
            raise UserError(f"validation {self.validation} is not a fraction.", "Give a number from 0 to 1, such as 0.1.")
        if self.workers < 0 or self.max_damaged < -1 or self.shard_bytes < 1:
            raise UserError("workers must be at least 0, max_damaged at least -1, shard_bytes at least 1.", "Correct the option.")
        for field in self.fields:
            ours, _, theirs = field.partition("=")
            if ours not in FIELDS or not theirs:
                raise UserError(f"--fields {field}: not OURS=THEIRS.", f"Ours are {', '.join(FIELDS)}.")
        if len({folded(field.partition("=")[2]) for field in self.fields}) < len(self.fields):
            raise UserError("--fields: one of their names stands for two of ours.", "Name each once.")


def prepare_media(options: PrepareMedia) -> MediaCorpus:
    """Prepares a corpus, or finishes or repairs one; returns it opened. Raises UserError for what the user can mend."""
    packages()
    preparation.carry_out(options, _prepare, _repair)
    return MediaCorpus(options.output)


def _prepare(options):
    folder = options.output
    plan, passed = make_plan(options)

    def make():
        scanned = _scanned(folder, plan, options.workers)
        classes, numbers = scanned["classes"], range(len(plan["tasks"]))
        if options.beam:
            calls = {number: _call(options, plan, classes, number) for number in numbers}
            beam.run(folder, calls, write_media_shards, options.beam, SUFFIXES)
        results = _run(options, plan, classes, numbers)
        return _manifest(folder, plan, classes, results, {"unused": scanned["unused"], "passed_over": passed})

    preparation.prepare(folder, plan, options.overwrite, make)
    print_summary(folder)


def _repair(options):
    """Makes missing and damaged shards again; the digests in the manifest say whether they came out the same."""
    folder = options.output
    manifest, plan = MediaCorpus(folder).manifest, preparation.read_plan(folder)
    if options.kind != plan["options"]["kind"]:
        kind = plan["options"]["kind"]
        raise UserError(
            f"{folder}: holds {kind}, not {options.kind}.", f"Repair it with `omnia prepare {kind} --output {folder} --repair`."
        )
    shards, damaged = preparation.find_damage(folder, manifest, plan, ".array_record")
    if damaged or options.anonymize:
        _check_anonymized(options, plan)
    options = dataclasses.replace(options, max_damaged=-1)
    preparation.remake(folder, shards, damaged, lambda numbers: _run(options, plan, manifest["classes"], numbers, expected=shards))


def _check_anonymized(options, plan):
    """UserError where the corpus was anonymised with another key, by other rules or with other packages."""
    key = plans.repairing_key(options.output, options.anonymize, plan, media.RULES)
    if key is not None and (now := media.packages()) != plan["packages"]:
        raise UserError(
            f"{options.output}: was anonymised with {', '.join(plan['packages'])}; here are {', '.join(now)}.",
            "Install those, or prepare the corpus again with its inputs and --overwrite.",
        )


def _scanned(folder, plan, workers):
    """What a scan of the records found, from the journal if it has it."""
    wanted = xxhash.xxh3_128_hexdigest(json.dumps(plan).encode())
    scanned = journal.read_json(folder, ".prepare/told.json")
    if scanned is None or scanned["plan"] != wanted:
        scanned = {"plan": wanted, **_scan(plan, workers)}
        journal.write_json(folder, ".prepare/told.json", scanned)
    return scanned


def _scan(plan, workers):
    """{"classes": the names of all, in the order of their numbers, "unused": {file: the names in it that mean nothing}}."""
    calls = [(extents_of(task), reading_of(plan)) for task in plan["tasks"]]
    told = [found for _, found in sorted(run_tasks(scan_records, calls, workers, "classes", sum(task_bytes(plan))), key=lambda one: one[0])]
    unused: dict[str, dict[str, None]] = {}
    for found in told:
        for file, names in found["unused"].items():
            unused.setdefault(file, {}).update(dict.fromkeys(names))
    there = {name for found in told for name in found["names"]}
    for field in plan["options"]["fields"]:
        theirs = field.partition("=")[2]
        if folded(theirs) not in set(map(folded, there)):
            others = sorted(there.union(*unused.values()))
            raise UserError(
                f"--fields {field}: no input has a {theirs!r}" + (f"; there are {printable(preparation.some(others))}." if others else "."),
                "Correct the name, or leave it out.",
            )
    classes = class_names(label for found in told for label in found["labels"])
    return {"classes": classes, "unused": {file: list(names)[:NAMES_KEPT] for file, names in unused.items()}}


def _most(options):
    return None if options.max_damaged < 0 else options.max_damaged


def _call(options, plan, classes, number):
    """The arguments of write_media_shards for a task."""
    task = plan["tasks"][number]
    return (
        *(extents_of(task), reading_of(plan), classes, os.path.abspath(options.anonymize) if options.anonymize else ""),
        *(task["split"] or None, plan["options"]["validation"]),
        *(options.output, number, len(plan["tasks"]), _most(options)),
    )


def _run(options, plan, classes, numbers, expected=None):
    return preparation.run(
        options.output,
        numbers,
        lambda number: _call(options, plan, classes, number),
        write_media_shards,
        workers=options.workers,
        max_damaged=_most(options),
        label="preparing",
        sizes=task_bytes(plan),
        suffixes=SUFFIXES,
        expected=expected,
    )


def _manifest(folder, plan, classes, results, more):
    records = {split: [result[split] for result in results if result[split]] for split in SPLITS}
    skipped: dict[str, dict] = {}
    for name, reason, _ in (one for result in results for one in result["damaged"]):
        found = skipped.setdefault(_reason(reason), {"count": 0, "first": []})
        found["count"] += 1
        if len(found["first"]) < NAMES_KEPT:
            found["first"].append([name, reason])
    if not any(records.values()):
        first = next((": " + printable(": ".join(one["first"][0])) for one in skipped.values()), "")
        raise UserError(f"no sample is left{first}.", "Give other input.")
    remarked: dict[str, dict] = {}
    for result in results:
        for remark, (count, names) in sorted(result["remarked"].items()):
            found = remarked.setdefault(remark, {"count": 0, "first": []})
            found["count"] += count
            found["first"] = (found["first"] + names)[:NAMES_KEPT]
    ignored = dict(zip(("count", "first"), preparation.add_up(result["ignored"] for result in results), strict=True))
    return media_manifest(
        records,
        classes,
        options=plan["options"],
        skipped=skipped,
        remarked=remarked,
        ignored=ignored,
        duplicates=_duplicates(folder, records, results),
        splits_by_name=[list(one) for one in reading_of(plan).splits],
        **plans.counted(plan, (result.get("replaced", {}) for result in results)),
        **more,
    )


def _reason(reason):
    """A reason without what differs from file to file."""
    return re.split(r" \(|: | after | at byte |(?<![-\w])\d", reason)[0].strip() or reason


def _duplicates(folder, records, results):
    """Media that are there more than once: how many, and the first of them by the keys of their samples."""
    fingerprints, first = [], dict.fromkeys(SPLITS, 0)
    for number, result in enumerate(results):
        with open(os.path.join(folder, ".prepare", f"{number:05d}.looks"), "rb") as file:
            found = np.frombuffer(file.read(), FINGERPRINT).copy()
        for place, split in enumerate(SPLITS):
            found["sample"][found["split"] == place] += first[split]
            first[split] += result[split]["samples"] if result[split] else 0
        fingerprints.append(found)
    every = np.concatenate(fingerprints)
    splits = {split: MediaSplit(folder, records[split]) for split in SPLITS if records[split]}

    def key(place):
        (sample,) = splits[SPLITS[every["split"][place]]].read([every["sample"][place]])
        return f"{SPLITS[every['split'][place]]} {getattr(sample, 'key', '?')}"

    return {
        name: {"count": len(pairs), "first": [[key(later), key(earlier)] for later, earlier in pairs[:NAMES_KEPT].tolist()]}
        for name, pairs in zip(("equal", "alike"), find_duplicates(every), strict=True)
    }
