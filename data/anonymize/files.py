"""Files and folders, anonymised into new ones, with what was done written beside them."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.anonymize.found import Found
from data.anonymize.grouping import Grouping
from data.anonymize.patterns import VERSION
from data.anonymize.pictures import FORMATS, cover
from data.anonymize.tables import RECORDS, TABLES, texts_of
from data.anonymize.text import Anonymizer, Change
from data.anonymize.videos import VIDEOS, cover_file
from data.anonymize.voices import SOUNDS, disguise
from data.errors import UserError
from data.files import folders, json_files, storage
from data.files.text_files import decode_text
from data.media.kinds import Undecodable

TEXTS = (".txt", ".md", ".log", ".srt", ".vtt")
MANIFEST, REVIEW = "anonymization.json", "review.jsonl"


@dataclasses.dataclass
class Report:
    """What was done, file by file. files: counts by kind. left_out: files of kinds that cannot be read, not copied. notes: what else
    became of a file. review: what a person may look at, as it is written. groups: who can be told apart in a table
    (data/anonymize/grouping.py)."""

    files: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    review: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    groups: dict[str, Any] | None = None

    @property
    def counts(self) -> Counter[str]:
        """Over all files."""
        return sum((Counter(counts) for counts in self.files.values()), Counter())


def anonymize(
    source: str, output: str, anonymizer: Anonymizer, said: Callable[[str], None] = print, grouping: Grouping | None = None
) -> Report:
    """Write a file, or all files of a folder, without what tells who somebody is; and the manifest and a review beside it.

    Of a file `output` is the file; manifest and review have its name and more behind it. Of a folder it is a new or empty folder, or one
    that was made so before. A file appears when it is whole. grouping: of a single table. UserError for what cannot be read.
    """
    report = Report()
    if grouping and (os.path.isdir(source) or os.path.splitext(source)[1].lower() not in RECORDS):
        raise UserError(f"{source}: --quasi-identifiers are columns of one table", f"Name a file that ends with {', '.join(RECORDS)}.")
    if os.path.isdir(source):
        _check_folder(source, output)
        written_before = _written_before(source)
        others: list[str] = []
        for path in folders.files_below(source, others):
            name = os.path.relpath(path, source)
            if name in written_before:
                continue
            if suffix_of(path) is None:
                report.left_out.append(name)
                continue
            _one(path, os.path.join(output, name), name, anonymizer, report)
        report.left_out += [os.path.relpath(path, source) for path in others]
        if not report.files:
            raise UserError(f"{source}: holds no file that can be anonymised", f"They end with {', '.join(_kinds())}.")
        manifest, review = os.path.join(output, MANIFEST), os.path.join(output, REVIEW)
    elif os.path.exists(source):
        if suffix_of(source) is None:
            raise UserError(f"{source}: is of no kind that can be anonymised", f"They end with {', '.join(_kinds())}.")
        if os.path.isdir(output):
            raise UserError(f"--output {output}: is a folder, and {source} is a file", "Name the file to write.")
        if os.path.exists(output) and os.path.samefile(source, output):
            raise UserError(f"--output {output}: is the file itself, of which nothing would be left", "Name another.")
        _one(source, output, os.path.basename(source), anonymizer, report, grouping)
        manifest, review = f"{output}.{MANIFEST}", f"{output}.{REVIEW}"
    else:
        raise UserError(f"{source}: no such file or folder")
    json_files.write_lines(review, report.review)
    json_files.write(
        manifest,
        {
            "version": VERSION,
            "key": anonymizer.key.fingerprint,
            "counts": dict(sorted(report.counts.items())),
            "files": report.files,
            "left_out": report.left_out,
            **({"notes": report.notes} if report.notes else {}),
            **({"groups": report.groups} if report.groups else {}),
        },
    )
    for name in report.left_out:
        said(f"{name}: is of no kind that can be anonymised, and is left out")
    return report


def _kinds() -> tuple[str, ...]:
    return (*TEXTS, *TABLES, *FORMATS, *SOUNDS, *VIDEOS)


def suffix_of(path: str) -> str | None:
    """The kind of a file by its name, in small letters; None where it cannot be anonymised."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix if suffix in _kinds() else None


def _check_folder(source: str, output: str) -> None:
    there, here = os.path.realpath(output), os.path.realpath(source)
    if there == here or there.startswith(here + os.sep):
        raise UserError(f"--output {output}: lies in {source}", "Name a folder beside it.")
    if os.path.isfile(output):
        raise UserError(f"--output {output}: is a file, and {source} is a folder", "Name another.")
    if os.path.isdir(output) and os.listdir(output) and not os.path.isfile(os.path.join(output, MANIFEST)):
        raise UserError(f"--output {output}: holds other things", "Name an empty folder, or one that was made so before.")


def _written_before(source: str) -> tuple[str, ...]:
    """The manifest and the review of a folder that an anonymisation wrote, which are none of its files. UserError for files of another
    kind with their names, whose places they would take."""
    names = [name for name in (MANIFEST, REVIEW) if os.path.lexists(os.path.join(source, name))]
    try:
        manifest = json_files.parse(Path(source, MANIFEST).read_bytes()) if names else {}
    except (OSError, ValueError):
        manifest = {}
    if names and not {"version", "key", "files", "left_out"} <= manifest.keys():
        path = os.path.join(source, names[-1])
        raise UserError(f"{path}: would have the place of the output's own {names[-1]}", "Rename it, and it is anonymised too.")
    return tuple(names)


def _one(path: str, output: str, name: str, anonymizer: Anonymizer, report: Report, grouping: Grouping | None = None) -> None:
    suffix, before = os.path.splitext(path)[1].lower(), Counter(anonymizer.counts)
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    found: list[Found] = []
    changes: list[Change] = []
    covered: Counter[str] = Counter()
    try:
        if suffix in VIDEOS:
            counts, found = cover_file(path, output, suffix, anonymizer.key, name)
            covered.update(counts)
        else:
            content = Path(path).read_bytes()
            if suffix in SOUNDS:
                made, voice = disguise(content, SOUNDS[suffix], anonymizer.key, name)
                found = [voice]
            elif suffix in FORMATS:
                made, found, note = cover(content, [FORMATS[suffix]])
                report.notes |= {name: note} if note else {}
            else:
                made = _text(content, suffix, anonymizer, changes, report, grouping).encode()
            covered.update(one.kind for one in found if one.covered)
            storage.write_atomically(output, made)
    except (Undecodable, UserError, ValueError) as error:
        why = f"no UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"{path}: {why}", "Mend it, or take it out: nothing of it is written.") from None
    report.review += [{"file": name, **entry} for entry in (*(change._asdict() for change in changes), *(one.entry() for one in found))]
    report.files[name] = dict(anonymizer.counts - before + covered)


def _text(content: bytes, suffix: str, anonymizer: Anonymizer, changes: list[Change], report: Report, grouping: Grouping | None) -> str:
    text = decode_text(content)
    if suffix not in TABLES:
        return anonymizer(text, changes)
    anonymizer.look_ahead(texts_of(text, suffix))
    table = TABLES[suffix](text, anonymizer, changes)
    if grouping:
        table, report.groups = grouping(table, suffix)
    return table
