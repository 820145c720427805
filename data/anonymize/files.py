"""Files and folders, anonymised into new ones, with what was done written beside them."""

import csv
import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.anonymize.patterns import VERSION
from data.anonymize.pictures import FORMATS, cover
from data.anonymize.text import Anonymizer, Change
from data.errors import UserError
from data.files import folders, json_files, storage
from data.files.text_files import decode_text, split_lines

TEXTS = (".txt", ".md", ".log", ".srt", ".vtt")
MANIFEST, REVIEW = "anonymization.json", "review.jsonl"


@dataclasses.dataclass
class Report:
    """What was done, file by file. changes: counts by kind. left_out: files of kinds that cannot be read, which are not copied."""

    files: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    changes: list[tuple[str, Change]] = dataclasses.field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """Over all files."""
        return sum((Counter(counts) for counts in self.files.values()), Counter())


def anonymize(source: str, output: str, anonymizer: Anonymizer, said: Callable[[str], None] = print) -> Report:
    """Write a file, or all files of a folder, without what tells who somebody is; and the manifest and a review beside it.

    Of a file `output` is the file; manifest and review have its name and more behind it. Of a folder it is a new or empty folder, or one
    that was made so before. A file appears when it is whole. UserError for what cannot be read.
    """
    report = Report()
    if os.path.isdir(source):
        _check_folder(source, output)
        others: list[str] = []
        for path in folders.files_below(source, others):
            name = os.path.relpath(path, source)
            if name in (MANIFEST, REVIEW):  # of what was anonymised before
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
        _one(source, output, os.path.basename(source), anonymizer, report)
        manifest, review = f"{output}.{MANIFEST}", f"{output}.{REVIEW}"
    else:
        raise UserError(f"{source}: no such file or folder")
    json_files.write_lines(review, ({"file": name, **change._asdict()} for name, change in report.changes))
    json_files.write(
        manifest,
        {
            "version": VERSION,
            "key": anonymizer.key.fingerprint,
            "counts": dict(sorted(report.counts.items())),
            "files": report.files,
            "left_out": report.left_out,
        },
    )
    for name in report.left_out:
        said(f"{name}: is of no kind that can be anonymised, and is left out")
    return report


def _kinds() -> tuple[str, ...]:
    return (*TEXTS, *TABLES, *FORMATS)


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


def _one(path: str, output: str, name: str, anonymizer: Anonymizer, report: Report) -> None:
    suffix, before = os.path.splitext(path)[1].lower(), Counter(anonymizer.counts)
    content = Path(path).read_bytes()
    covered: dict[str, int] = {}
    try:
        if suffix in FORMATS:
            made, covered = cover(content, suffix)
        else:
            changes: list[Change] = []
            text = decode_text(content)
            if suffix in TABLES:
                anonymizer.look_ahead(texts_of(text, suffix))
                made = TABLES[suffix](text, anonymizer, changes).encode()
            else:
                made = anonymizer(text, changes).encode()
            report.changes += [(name, change) for change in changes]
    except (UserError, ValueError) as error:
        why = f"no UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"{path}: {why}", "Mend it, or take it out: nothing of it is written.") from None
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    storage.write_atomically(output, made)
    report.files[name] = dict(anonymizer.counts - before) | covered


# -------------------------------------------------------------------------------------------------------------------- tables

Replace = Callable[[str, list[Change]], str]
"""A text, to which changes are added."""


def texts_of(content: str, suffix: str) -> list[str]:
    """All texts of a table, in order."""
    found: list[str] = []

    def keep(text: str, changes: list[Change]) -> str:
        found.append(text)
        return text

    TABLES[suffix](content, keep, [])
    return found


def _json_lines(text: str, replace: Replace, changes: list[Change]) -> str:
    found = []
    for number, line in enumerate(split_lines(text), 1):
        found.append(_object(line, number, replace, changes) if line.strip() else line)
    return "".join(f"{line}\n" for line in found)


def _json(text: str, replace: Replace, changes: list[Change]) -> str:
    return json.dumps(_value(json_files.parse(text, (dict, list)), 1, replace, changes), ensure_ascii=False, indent=1) + "\n"


def _object(line: str, number: int, replace: Replace, changes: list[Change]) -> str:
    try:
        value = json_files.parse(line, (dict, list, str))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    return json.dumps(_value(value, number, replace, changes), ensure_ascii=False)


def _value(value: Any, line: int, replace: Replace, changes: list[Change]) -> Any:
    """Texts at any depth, and whole numbers that are something as a whole; keys stay."""
    if isinstance(value, str):
        return _text(value, line, replace, changes)
    if isinstance(value, dict):
        return {key: _value(below, line, replace, changes) for key, below in value.items()}
    if isinstance(value, list):
        return [_value(below, line, replace, changes) for below in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGE:
        found = _text(str(value), line, replace, changes)
        return value if found == str(value) else found
    return value


LARGE = 10**9
"""Smaller numbers are amounts and counts."""


def _text(text: str, line: int, replace: Replace, changes: list[Change]) -> str:
    own: list[Change] = []
    found = replace(text, own)
    changes += [change._replace(line=line) for change in own]
    return found


def _separated(delimiter: str) -> Callable[[str, Replace, list[Change]], str]:
    def table(text: str, replace: Replace, changes: list[Change]) -> str:
        written = io.StringIO()
        writer = csv.writer(written, delimiter=delimiter, lineterminator="\n")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                writer.writerow([_text(cell, reader.line_num, replace, changes) for cell in row])
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        return written.getvalue()

    return table


TABLES: dict[str, Callable[[str, Replace, list[Change]], str]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
