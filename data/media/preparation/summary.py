"""What a preparation of media tells at its end: counts, and all that was left out, unusual or taken in a way that may surprise."""

import numpy as np

from data.anonymize import plans
from data.loading.preparation import some
from data.media.reading.splits import SPLIT_NAMES
from data.media.shards import MediaCorpus
from data.readers.documents import printable


def print_summary(folder: str) -> None:
    """Prints it of the corpus in a folder."""
    corpus = MediaCorpus(folder)
    manifest = corpus.manifest
    print(f"{folder}: {manifest['options']['kind']}, {len(manifest['classes'])} classes")
    for name, split in manifest["splits"].items():
        parts = ", ".join(f"{count:,} {kind}" for kind, count in split["parts"].items() if count)
        print(f"  {name}: {split['samples']:,} samples" + (f" ({parts}), {split['bytes']:,} bytes" if parts else ""))
        if split["samples"]:
            found = corpus.split(name)
            learned, classed = np.count_nonzero(found.has_learned()), np.count_nonzero(found.labels >= 0)
            print(f"    {learned:,} with a learned text, {classed:,} with a class")
    if anonymized := plans.told(manifest):
        print(anonymized)
    _print_meanings(manifest)
    _print_left_out(manifest)


def _print_meanings(manifest):
    """What names of folders and fields were taken to mean."""
    for place, split in manifest.get("splits_by_name", ()):  # which manifests did not always have, as what is not used and passed over
        print(f"  taken as {split} by its name: {printable(place)}")
    if manifest["options"]["classes"] == "auto" and (called := [name for name in manifest["classes"] if name.lower() in SPLIT_NAMES]):
        print(f"  taken as classes, not as splits: {printable(', '.join(called))} (--validation-input names what is for validation)")
    files: dict[tuple[str, ...], list[str]] = {}
    for file, names in manifest.get("unused", {}).items():
        files.setdefault(tuple(names), []).append(file)
    for names, (first, *others) in files.items():
        where = printable(first) + (f" and {len(others):,} others" if others else "")
        print(f"  {where}: not used: {printable(', '.join(names))} (--fields OURS=THEIRS gives a name a meaning)")


def _print_left_out(manifest):
    if passed := manifest.get("passed_over"):
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in passed.items())
        print(f"  passed over: {sum(passed.values()):,} files that are no input: {printable(kinds)}")
    for reason, found in manifest["skipped"].items():
        left_out = [name if why == reason else f"{name} ({why})" for name, why in found["first"]]
        print(f"  left out: {found['count']:,}, {reason}: {_shown(left_out)}")
    for remark, found in manifest["remarked"].items():
        print(f"  {remark}: {found['count']:,}: {_shown(found['first'])}")
    for name, found in manifest["duplicates"].items():
        if found["count"]:
            print(f"  {name} to an earlier one: {found['count']:,}: {_shown([later for later, _ in found['first']])}")
    if manifest["ignored"]["count"]:
        print(f"  no media: {manifest['ignored']['count']:,} members of archives: {_shown(manifest['ignored']['first'])}")


def _shown(names):
    return printable(some(names))
