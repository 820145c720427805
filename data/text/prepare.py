"""Text into shards: planned as tasks that each make one shard of every split, run on all cores, resumable after any kill.

What is written depends on the inputs and options alone, not on the number of workers or on interruptions. In the output
directory `prepare.json` is the plan, `.prepare/` the journal of finished tasks while the work goes on, and `manifest.json`
the end of it.
"""

import dataclasses
import os
import shutil
from typing import Literal

from data.anonymize import plans
from data.anonymize.patterns import VERSION
from data.anonymize.surrogates import Key
from data.errors import UserError
from data.files.manifest import SPLITS, totals
from data.files.text_files import is_whole
from data.loading import preparation
from data.loading.pool import run_tasks
from data.readers.documents import Document, Extent, Skipped, SplitRule
from data.readers.inputs import TEXT_FIELD, check_inputs, find_inputs, plan_tasks, read_documents
from data.text.shards import FORMAT, Corpus, corpus_digest
from data.text.task import write_shards
from data.tokenizer import Tokenizer, byte_tokenizer, character_tokenizer, load_tokenizer
from data.tokenizer_training import SAMPLE_TASKS, scan_alphabet, scan_sample, smallest, train_sentencepiece


@dataclasses.dataclass(frozen=True)
class PrepareText:
    """Convert text files to a directory of token shards."""

    output: str
    """Directory to write. The same command resumes where it stopped."""
    input: tuple[str, ...] = ()
    """Files, folders (all files with known endings), globs, or `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`. .jsonl, .parquet, .tar (WebDataset),
    .warc and .wet hold several documents; any other file is one. All but .parquet may be .gz or .zst."""
    tokenizer: str = "byte"
    """byte, char, sentencepiece:SIZE (trained on the training documents), or a file or directory: a SentencePiece .model, a
    Hugging Face tokenizer.json, another prepared corpus."""
    validation: float = 0.1
    """Fraction held out for validation, 0 to 1. 1 makes a corpus for evaluation only."""
    split: Literal["auto", "hash", "tail"] = "auto"
    """hash: whole documents, by a hash of their content. tail: the last characters of every document. auto: tail for one
    document, hash for several."""
    text_field: str = TEXT_FIELD
    """What holds the text: the field of a .jsonl record or of a .json in a .tar, the column of a .parquet, the feature of TFDS."""
    anonymize: str = ""
    """File with a secret, as of `omnia anonymize --key-file`: what patterns find of persons is replaced before documents are split and
    tokenized. A repair needs it again. Empty: documents stay as they are."""
    workers: int = 0
    """Number of processes. 0: one per core. The result does not depend on it."""
    shard_bytes: int = 1 << 26
    """Input bytes per shard. Only plain .jsonl, .parquet and TFDS files are divided."""
    max_damaged: int = 0
    """Damaged documents and files (invalid UTF-8 or JSON, no text field) to leave out before stopping. Empty documents, and archive members
    that are not text, are always left out. The manifest names all of them."""
    tfds_dir: str = ""
    """Folder where TFDS keeps its data sets. Empty: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    tfds_download: bool = False
    """Let TFDS download and prepare a data set that is not there yet."""
    overwrite: bool = False
    """Delete what another preparation left in the output directory."""
    repair: bool = False
    """Verify every shard of a prepared directory, and rebuild damaged ones from the inputs."""

    def __post_init__(self):
        if not 0 <= self.validation <= 1:
            raise UserError(f"validation {self.validation} is not a fraction.", "Give a number from 0 to 1, such as 0.1.")
        if self.split not in ("auto", "hash", "tail"):
            raise UserError(f"split {self.split!r} is unknown.", "Choose auto, hash or tail.")
        if min(self.workers, self.max_damaged) < 0 or self.shard_bytes < 1:
            raise UserError("workers and max_damaged must be at least 0, shard_bytes at least 1.", "Correct the option.")


def prepare_text(options: PrepareText) -> Corpus:
    """Prepare a corpus, or resume or repair one, and return it opened. Raises UserError for what the user can fix."""
    preparation.carry_out(options, _prepare, _repair)
    return Corpus(options.output)


def _prepare(options):
    key = plans.read_key(options.anonymize)
    plan = _plan(options, key)

    def make():
        tokenizer = _tokenizer(options, plan, key)
        return _manifest(plan, tokenizer, _run(options, plan, tokenizer, key, range(len(plan["tasks"]))))

    preparation.prepare(options.output, plan, options.overwrite, make)
    _say(options.output)


def _repair(options):
    """Makes missing and damaged shards again; the digests in the manifest say whether they came out the same."""
    folder = options.output
    manifest, plan = Corpus(folder).manifest, preparation.read_plan(folder)
    options = dataclasses.replace(options, max_damaged=len(manifest["damaged"]), **plan["options"])
    shards, damaged = preparation.find_damage(folder, manifest, plan, ".tokens")
    if damaged and check_inputs(plan["files"], options.text_field) != plan.get("packages", []):
        raise UserError(
            f"{folder}: was made with {', '.join(plan.get('packages', []))}; the installed version differs.",
            "Install that version, or prepare the corpus again with its inputs and --overwrite.",
        )
    key = _repairing_key(options, plan) if damaged or options.anonymize else None
    tokenizer = _repaired_tokenizer(options, plan, key, manifest["tokenizer"]["digest"])
    preparation.remake(folder, shards, damaged, lambda numbers: _run(options, plan, tokenizer, key, numbers, expected=shards))


def _repairing_key(options, plan) -> Key | None:
    return plans.repairing_key(options.output, options.anonymize, plan, VERSION)


def _repaired_tokenizer(options, plan, key, digest):
    try:
        if (tokenizer := load_tokenizer(os.path.join(options.output, "tokenizer"))).digest == digest:
            return tokenizer
    except UserError:
        pass  # it is made again, and must come out the same
    shutil.rmtree(os.path.join(options.output, "tokenizer"), ignore_errors=True)
    tokenizer = _tokenizer(options, plan, key or _repairing_key(options, plan))
    if tokenizer.digest != digest:
        raise preparation.changed(options.output, "the tokenizer")
    print(f"{options.output}: the tokenizer was damaged; it is whole now.")
    return tokenizer


def _plan(options, key):
    """All that the result depends on."""
    files = find_inputs(options.input, options.tfds_dir, options.tfds_download)
    packages = check_inputs(files, options.text_field)
    tasks = plan_tasks(files, options.shard_bytes)
    split = options.split
    if split == "auto":
        split = "tail" if len(files) == 1 and _has_one_document(tasks, options.text_field) else "hash"
    return {
        "format": FORMAT,
        "options": {
            "tokenizer": options.tokenizer,
            "validation": options.validation,
            "split": split,
            "text_field": options.text_field,
            "shard_bytes": options.shard_bytes,
        },
        **({"packages": packages} if packages else {}),
        **plans.planned(key, VERSION),
        "files": [list(file) for file in files],
        "tasks": [[list(extent) for extent in extents] for extents in tasks],
    }


def _has_one_document(tasks, text_field):
    documents = (one for extents in tasks for one in read_documents(extents, text_field) if isinstance(one, Document))
    return next(documents, None) is not None and next(documents, None) is None


def _rule(plan) -> SplitRule:
    return SplitRule(plan["options"]["split"], plan["options"]["validation"])


def _tokenizer(options, plan, key) -> Tokenizer:
    """The tokenizer of the plan: the saved one, or one made now and saved."""
    folder = os.path.join(options.output, "tokenizer")
    saved = load_tokenizer(folder) if os.path.exists(os.path.join(folder, "tokenizer.json")) else None
    kind, _, size = options.tokenizer.partition(":")
    if kind in ("char", "sentencepiece") and saved:
        return saved
    if options.tokenizer == "byte":
        tokenizer = byte_tokenizer()
    elif options.tokenizer == "char":
        tokenizer = character_tokenizer("".join(_scan(options, plan["tasks"], scan_alphabet, key)))
    elif kind == "sentencepiece" and is_whole(size):
        tasks = plan["tasks"][:: -(-len(plan["tasks"]) // SAMPLE_TASKS)]
        samples = _scan(options, tasks, scan_sample, key, _rule(plan))
        tokenizer = train_sentencepiece(smallest([block for sample in samples for block in sample]), int(size))
    else:
        tokenizer = load_tokenizer(options.tokenizer)
        if tokenizer.switched_off:
            print(f"{options.tokenizer}: switched off, so that documents are encoded whole: {', '.join(tokenizer.switched_off)}")
    if saved and saved.digest != tokenizer.digest:
        raise UserError(
            f"{options.output}: was begun with another tokenizer; {options.tokenizer} has changed since.",
            "Use that one, another --output, or --overwrite.",
        )
    tokenizer.save(folder)
    return tokenizer


def _scan(options, tasks, function, *arguments):
    """The results of a function that reads every task, in their order."""
    calls = [([Extent(*extent) for extent in extents], options.text_field, *arguments) for extents in tasks]
    results: list = [None] * len(calls)
    damaged: list[Skipped] = []
    for number, (result, damage) in run_tasks(function, calls, options.workers, "reading", _bytes(tasks)):
        results[number] = result
        for one in damage:
            damaged.append(one)
            preparation.check_damaged(damaged, options.max_damaged)
    return results


def _run(options, plan, tokenizer, key, numbers, expected=None):
    """The results of tasks, by their numbers."""
    folder, tasks = options.output, [[Extent(*extent) for extent in extents] for extents in plan["tasks"]]
    settings = plan["options"]["text_field"], key, _rule(plan), folder, _dtype(tokenizer)
    return preparation.run(
        folder,
        numbers,
        lambda number: (tasks[number], *settings, number, len(tasks), options.max_damaged),
        write_shards,
        workers=options.workers,
        max_damaged=options.max_damaged,
        label="tokenizing",
        sizes=[_bytes([extents]) for extents in tasks],
        suffixes=(".tokens", ".index"),
        expected=expected,
    )


def _manifest(plan, tokenizer, results):
    splits = {}
    for split in SPLITS:
        shards = [result[split] for result in results if result[split]]
        sums = totals(shards, ("documents", "tokens", "raw_bytes"))
        splits[split] = {**sums, "max_id": max((shard["max_id"] for shard in shards), default=0), "shards": shards}
    if not splits["train"]["documents"] and not (plan["options"]["validation"] == 1 and splits["validation"]["documents"]):
        empty = [name for kind in ("empty", "ignored") for name in _left_out(kind, results)["names"]]
        why = f": without text are {preparation.some(empty)}." if empty else "."
        raise UserError(f"no document is left for training{why}", "Give more input, or a smaller --validation fraction.")
    manifest = {
        "format": FORMAT,
        "tokenizer": {"kind": tokenizer.kind, "digest": tokenizer.digest, "size": tokenizer.size, "specials": tokenizer.specials},
        "document_end": tokenizer.specials["document_end"] if plan["options"]["split"] == "hash" else None,
        "dtype": _dtype(tokenizer),
        "splits": splits,
        "options": plan["options"],
        "empty": _left_out("empty", results),
        "ignored": _left_out("ignored", results),
        "unknown": sum(result.get("unknown", 0) for result in results),
        "damaged": [one[:2] for result in results for one in result["damaged"]],
        **plans.counted(plan, (result.get("replaced", {}) for result in results)),
    }
    return {**manifest, "digest": corpus_digest(manifest)}


def _left_out(kind, results):
    """What all tasks left out without fault: how many, and the first names."""
    count, names = preparation.add_up(result[kind] for result in results)
    return {"count": count, "names": names}


def _dtype(tokenizer):
    return "uint16" if tokenizer.size <= 1 << 16 else "uint32"


def _bytes(tasks):
    return sum(stop - start for extents in tasks for _, start, stop in extents)


def _say(folder):
    corpus = Corpus(folder)
    manifest = corpus.manifest
    print(
        f"{folder}: tokenizer {manifest['tokenizer']['kind']} of {corpus.ids} ids in use; split by "
        + {"hash": "document", "tail": "tail"}[manifest["options"]["split"]]
    )
    for name, split in manifest["splits"].items():
        print(f"  {name}: {split['documents']:,} documents, {split['tokens']:,} tokens, {split['raw_bytes']:,} bytes of text")
    if manifest["options"]["validation"] and not manifest["splits"]["validation"]["documents"]:
        print("  validation has no document: there are too few for a split by hash; --split tail cuts every document")
    if manifest.get("unknown"):  # which manifests did not always have
        tokens = sum(split["tokens"] for split in manifest["splits"].values())
        print(f"  unknown to the tokenizer: {manifest['unknown']:,} tokens ({manifest['unknown'] / max(tokens, 1):.2%})")
    if manifest["empty"]["count"] or manifest["damaged"]:
        names = manifest["empty"]["names"] + [name for name, _ in manifest["damaged"]]
        print(f"  left out: {manifest['empty']['count']:,} empty, {len(manifest['damaged']):,} damaged: {preparation.some(names)}")
    if anonymized := plans.told(manifest):
        print(anonymized)
    ignored = manifest.get("ignored")  # which manifests did not always have
    if ignored and ignored["count"]:
        print(f"  no text: {ignored['count']:,} members or records of archives: {preparation.some(ignored['names'])}")
