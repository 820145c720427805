"""Documents worth training on, out of all that there are: read and judged in tasks on all cores, compared, and written again.

What is written depends on the inputs and options alone, not on the number of workers or on interruptions. Memory holds signatures; the
texts that pass the rules for single documents wait on disk in `.prepare/`, which needs room for them. In the output directory
`prepare.json` is the plan and `clean.json` the end of the work.
"""

import dataclasses
import os
from collections import Counter
from typing import Any, Literal

import numpy as np
import xxhash

from data.clean import decide, minhash, spans, task
from data.clean.classifier import load_classifier
from data.clean.contamination import Examples, read_examples
from data.clean.forbidden import ForbiddenWords
from data.clean.language import LANGUAGES
from data.clean.rules import Rules
from data.clean.scan import Signing, scan
from data.clean.store import Texts, path_of, save
from data.errors import UserError
from data.files import json_files
from data.loading import beam, journal, preparation
from data.readers.documents import Extent
from data.readers.inputs import TEXT_FIELD, check_inputs, find_inputs, plan_tasks
from data.records.record import absolute, read_content

FORMAT = 1
MANIFEST = "clean.json"
_PRINTS = 1 << 22  # fingerprints that are sorted in one task


@dataclasses.dataclass(frozen=True)
class PrepareClean:
    """Keep the documents that are worth training on: without copies, rubbish, harmful content and evaluation sets."""

    output: str
    """Directory to write: documents-*.jsonl.zst, which `omnia prepare text` reads, removed.jsonl and clean.json. The same command resumes
    where it stopped."""
    input: tuple[str, ...] = ()
    """Files, folders, globs, or TFDS data sets, as of `omnia prepare text`."""
    exact_duplicates: bool = True
    """Remove documents that equal an earlier one but for white space, width and style of characters."""
    near_duplicates: float = 0.8
    """Remove documents whose sets of 5-grams (of words, or of characters in scripts without spaces) have this Jaccard similarity or more
    with an earlier one, 0.05 to 1. 0: off."""
    repeated_characters: int = 0
    """Cut spans of this many characters or more that an earlier place has too, at least 100. 0: off."""
    gopher: bool = True
    """Apply Gopher's rules: 50 to 100,000 words, stop words, repetition and others (Rae et al. 2021, table A1)."""
    c4: bool = False
    """Apply C4's rules (Raffel et al. 2020, section 2.2): they take out lines that are no sentences, and pages with curly brackets."""
    language: tuple[str, ...] = ()
    """Codes of languages to keep, such as en zh. Empty: all."""
    forbidden_words: str = ""
    """File with words or phrases, one on each line. Documents with any of them are removed."""
    classifier: str = ""
    """File that `omnia prepare classifier` wrote. Documents that it takes for positive are removed."""
    classifier_threshold: float = 0.0
    """Probability from which a document is removed, 0 to 1. 0: the threshold in the file."""
    evaluation: tuple[str, ...] = ()
    """Evaluation sets: documents that share 13 words in a row with a text in them, or 50 characters of scripts without spaces, are
    removed."""
    contaminated: Literal["remove", "report"] = "remove"
    """What is done about such documents. clean.json names the evaluation examples either way."""
    text_field: str = TEXT_FIELD
    """What holds the text: the field of a .jsonl record or of a .json in a .tar, the column of a .parquet, the feature of TFDS."""
    workers: int = 0
    """Number of processes. 0: one per core. The result does not depend on it."""
    shard_bytes: int = 1 << 26
    """Input bytes per shard. Only plain .jsonl, .parquet and TFDS files are divided."""
    max_damaged: int = 0
    """Damaged documents and files (invalid UTF-8 or JSON, no text field) to leave out before stopping."""
    tfds_dir: str = ""
    """Folder where TFDS keeps its data sets. Empty: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    tfds_download: bool = False
    """Let TFDS download and prepare a data set that is not there yet."""
    beam: str = ""
    """Apache Beam runner and its options, such as "DirectRunner --direct_num_workers 4", which reads and writes documents; signatures are
    compared on this machine. Every machine must see all files under the same paths. Empty: processes on this machine."""
    overwrite: bool = False
    """Delete what another preparation left in the output directory."""

    def __post_init__(self):
        if self.near_duplicates and not 0.05 <= self.near_duplicates <= 1:
            raise UserError(f"near_duplicates {self.near_duplicates} is no similarity.", "Give a number from 0.05 to 1, such as 0.8, or 0.")
        if self.repeated_characters and self.repeated_characters < spans.SHORTEST:
            raise UserError(f"repeated_characters {self.repeated_characters} is too few.", f"Give at least {spans.SHORTEST}, or 0.")
        unknown = [code for code in self.language if code not in LANGUAGES]
        if unknown:
            raise UserError(f"language {unknown[0]!r} is unknown.", f"Choose from {', '.join(LANGUAGES)}.")
        if not 0 <= self.classifier_threshold <= 1:
            raise UserError(f"classifier_threshold {self.classifier_threshold} is no probability.", "Give a number from 0 to 1.")
        for given, name, needs in (
            (self.classifier_threshold and not self.classifier, "classifier_threshold", "classifier"),
            (self.contaminated != "remove" and not self.evaluation, "contaminated", "evaluation"),
        ):
            if given:
                raise UserError(f"{name} has no effect without {needs}.", "Leave it out.")
        if min(self.workers, self.max_damaged) < 0 or self.shard_bytes < 1:
            raise UserError("workers and max_damaged must be at least 0, shard_bytes at least 1.", "Correct the option.")


def prepare_clean(options: PrepareClean) -> dict:
    """Clean documents, or resume, and return the manifest. Raises UserError for what the user can fix."""
    with journal.locked(options.output):
        examples = read_examples(options.evaluation) if options.evaluation else None
        plan = _plan(options)
        preparation.prepare(options.output, plan, options.overwrite, lambda: _clean(options, plan, examples), MANIFEST)
        manifest = journal.read_json(options.output, MANIFEST)
    _say(options.output, manifest)
    return manifest


def _plan(options) -> dict:
    """All that the result depends on."""
    files = find_inputs(options.input, options.tfds_dir, options.tfds_download)
    packages = check_inputs(files, options.text_field)
    if options.forbidden_words:
        ForbiddenWords(options.forbidden_words)
    if options.classifier:
        load_classifier(options.classifier)
    free = ("output", "input", "workers", "max_damaged", "tfds_dir", "tfds_download", "beam", "overwrite")
    chosen: dict[str, Any] = {field.name: getattr(options, field.name) for field in dataclasses.fields(options) if field.name not in free}
    chosen["language"] = list(options.language)
    for name in ("forbidden_words", "classifier"):
        chosen[name] = _file(chosen[name]) if chosen[name] else None
    chosen["evaluation"] = [_file(path) for path in options.evaluation]
    return {
        "format": FORMAT,
        "options": chosen,
        **({"packages": packages} if packages else {}),
        "files": [list(file) for file in files],
        "tasks": [[list(extent) for extent in extents] for extents in plan_tasks(files, options.shard_bytes)],
    }


def _file(path: str) -> list[str]:
    """A file that the result depends on, and its digest."""
    return [absolute(path), xxhash.xxh3_128_hexdigest(read_content(path))]


def _clean(options, plan, examples: Examples | None) -> dict:
    folder, numbers = options.output, range(len(plan["tasks"]))
    sizes = [sum(stop - start for _, start, stop in extents) for extents in plan["tasks"]]

    def stage(name, function, call, label, numbers=numbers, sizes=sizes, suffixes=(), shards=()):
        if options.beam:
            beam.run(folder, {number: call(number) for number in numbers}, function, options.beam, suffixes, name, shards)
        return preparation.run(
            folder,
            numbers,
            call,
            function,
            workers=options.workers,
            max_damaged=options.max_damaged,
            label=label,
            sizes=sizes,
            suffixes=suffixes,
            stage=name,
            shards=shards,
        )

    signing = Signing(options.exact_duplicates, _banding(options), examples is not None)
    if examples:
        save(os.path.join(folder, ".prepare", "grams"), examples.grams)
    chosen = plan["options"]
    forbidden, classifier = (tuple(chosen[name]) if chosen[name] else None for name in ("forbidden_words", "classifier"))
    rules = Rules(options.gopher, options.c4, options.language, forbidden, classifier, options.classifier_threshold)
    tasks = [[Extent(*extent) for extent in extents] for extents in plan["tasks"]]
    call = (options.text_field, rules, signing, folder)
    scanned = stage("scan-", scan, lambda number: (tasks[number], *call, number, options.max_damaged), "reading")
    counts = [result["stay"] for result in scanned]
    found = _decided(options, counts, examples)
    parts = 0
    if options.repeated_characters:
        length = options.repeated_characters
        prints = stage("prints-", task.write_prints, lambda number: (folder, counts, number, length), "fingerprints")
        parts = -(-sum(result["prints"] for result in prints) // _PRINTS)
        several, nothing = range(parts), [0] * parts
        stage("spans-", task.write_spans, lambda number: (folder, counts, number, parts, length), "spans", several, nothing)
    made = stage(
        "",
        task.write_documents,
        lambda number: (folder, counts, number, parts),
        "writing",
        suffixes=(task.SUFFIX,),
        shards=("shard",),
    )
    _join(folder, len(tasks))
    return _manifest(plan, scanned, made, examples, found)


def _banding(options):
    return minhash.banding(options.near_duplicates) if options.near_duplicates else None


def _decided(options, counts, examples) -> list[dict]:
    """Writes the decisions of every task's texts, once; returns the evaluation examples that were found."""
    done = journal.read_json(options.output, ".prepare/decided.json")
    if done is None:
        texts = Texts(options.output, counts)
        found = decide.decide(
            texts,
            exact=options.exact_duplicates,
            near=options.near_duplicates,
            bands=_banding(options),
            examples=examples,
            remove_contaminated=options.contaminated == "remove",
            workers=options.workers,
        )
        for number, part in enumerate(np.split(found.decisions, texts.first[1:-1])):
            save(path_of(options.output, number) + ".decisions", part)
        done = {"examples": found.examples}
        journal.write_json(options.output, ".prepare/decided.json", done)
    return done["examples"]


def _join(folder, count):
    """removed.jsonl of what the tasks removed, in the order of the input."""
    path = os.path.join(folder, ".prepare", "removed.jsonl")
    with open(path, "wb") as joined:
        for number in range(count):
            with open(path_of(folder, number) + ".gone", "rb") as part:
                while content := part.read(1 << 22):
                    joined.write(content)
        joined.flush()
        os.fsync(joined.fileno())
    os.replace(path, os.path.join(folder, "removed.jsonl"))


def _manifest(plan, scanned, made, examples, found):
    shards = [result["shard"] for result in made if result["shard"]]
    removed = sum((Counter(result["removed"]) for result in made), Counter())
    manifest = {
        "format": FORMAT,
        "options": plan["options"],
        "documents": sum(result["documents"] for result in scanned),
        "bytes": sum(result["bytes"] for result in scanned),
        "kept": {"documents": sum(shard["documents"] for shard in shards), "bytes": sum(shard["bytes"] for shard in shards)},
        "removed": dict(sorted(removed.items())),
        "cut": {name: sum(result["cut"][name] for result in made) for name in ("documents", "characters")},
        "shards": shards,
        **{
            kind: dict(zip(("count", "names"), preparation.add_up(one[kind] for one in scanned), strict=True))
            for kind in ("empty", "ignored")
        },
        "damaged": [one[:2] for result in scanned for one in result["damaged"]],
    }
    if examples:
        manifest["evaluation"] = {"examples": len(examples.names), "too_short": examples.short, "contaminated": found}
    if not shards:
        raise UserError(f"no document is left: {_counts(manifest['removed']) or 'there was none'}.", "Give more input, or fewer rules.")
    return {**manifest, "digest": xxhash.xxh3_128_hexdigest(json_files.dumps([shards, manifest["removed"]]).encode())}


def _counts(removed):
    return ", ".join(f"{name} {count:,}" for name, count in sorted(removed.items(), key=lambda one: (-one[1], one[0])))


def _say(folder, manifest):
    kept = manifest["kept"]
    print(f"{folder}: kept {kept['documents']:,} of {manifest['documents']:,} documents, {kept['bytes']:,} of {manifest['bytes']:,} bytes")
    if manifest["removed"]:
        print(f"  removed: {_counts(manifest['removed'])}")
    if manifest["cut"]["documents"]:
        print(f"  cut: {manifest['cut']['characters']:,} repeated characters of {manifest['cut']['documents']:,} documents")
    if evaluation := manifest.get("evaluation"):
        print(
            f"  evaluation: {len(evaluation['contaminated']):,} of {evaluation['examples']:,} examples are found; "
            f"{evaluation['too_short']:,} are too short to be"
        )
    left_out = manifest["empty"]["names"] + [name for name, _ in manifest["damaged"]]
    if left_out:
        print(f"  left out: {manifest['empty']['count']:,} empty, {len(manifest['damaged']):,} damaged: {preparation.some(left_out)}")
