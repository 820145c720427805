"""From what --input names to samples of media: finding files, cutting the work into tasks, reading records, and what a record means.

Every format gives records: named values, whose names mean the same everywhere, in capitals or not.

    image, video, audio     a file's bytes or its path (from the folder of the manifest); {"bytes": ..., "path": ...} in Parquet
    path, file, file_name   the same, of the kind that its ending or the command says
    text                    a text to read;   caption: one to be learned
    question, answer        a text to read, and one to be learned
    label, class, cls       the class: a name or a whole number; -1 is none
    parts                   the whole sample in its order: texts, or {"text": ...} and {"path"|"image"|"video"|"audio": ...}, where
                            "learned": true may stand beside a text
    conversations           as LLaVA has them, {"from": "human"|"gpt", "value": ...}: what gpt says is learned, all else read; <image>,
                            <video> and <audio> are where the media of the other fields stand
    split                   train or validation (also val, dev, test)
"""

import csv
import errno
import itertools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.files.folders import files_below, matching_files
from data.files.text_files import decode_text
from data.media.kinds import Part as Medium
from data.media.kinds import Sample
from data.readers import parquet, tar, tfds
from data.readers.documents import Part, Skipped, Unreadable, invalid_utf8, printable
from data.readers.inputs import LINES, PARQUET, TAR
from data.readers.stream import COMPRESSIONS, plain_name

ENDINGS = {
    "image": (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".3gp", ".ogv", ".wmv", ".flv"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"),
}
MEDIA = tuple(ending for endings in ENDINGS.values() for ending in endings)
TABLES = (".csv", ".tsv")
BESIDE = (".txt", ".json")  # of the same name as a file of media: what is said of it
MOST_BYTES = 1 << 31  # of one file
_MEDIA_FIELDS = ("image", "video", "audio", "path", "file", "file_name")
_LABELS = ("label", "class", "cls")
_TOLD = ("text", "caption", "question", "answer")
_WHOLE = ("parts", "conversations")
FIELDS = (*_MEDIA_FIELDS, *_LABELS, *_TOLD, *_WHOLE, "split")
SPLIT_NAMES = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev", "test"), "validation")}
_SPLIT_NAME = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)
_READERS, _WRITERS = ("human", "user", "system"), ("gpt", "assistant")
_TAG = re.compile(r"<(image|video|audio)>")


class Record(NamedTuple):
    """Named values, by our names; `folder` is where its paths begin."""

    name: str
    key: str
    folder: str
    fields: dict[str, Any]
    source: str  # the file that the names come from
    names: tuple[str, ...]  # theirs, as far as they are used
    unused: tuple[str, ...]  # the others


class Reading(NamedTuple):
    """What decides how inputs are read: the medium that a command is for ("" for any), and names of theirs for ours."""

    kind: str
    fields: tuple[str, ...]  # OURS=THEIRS
    roots: tuple[str, ...]  # folders that --input names: what lies in a folder below is of its class
    by_folder: bool
    splits: tuple[tuple[str, str], ...] = ()  # (folder or file, train or validation) of those that are named by a split

    def ours(self, names: Iterable[str]) -> dict[str, str]:
        """{their name: ours} of the names that mean something. What --fields gives a name of ours to is that alone."""
        given = {folded(theirs): _one_name(ours) for ours, _, theirs in (field.partition("=") for field in self.fields)}
        found = {}
        for name in names:
            own = folded(name)
            if own in given:
                found[name] = given[own]
            elif own in FIELDS and _one_name(own) not in given.values():
                found[name] = _one_name(own)
        return found

    def split_of(self, path: str) -> str | None:
        """The split that a file is of by its name, or by its folder's."""
        return next((split for place, split in self.splits if path == place or path.startswith(place + os.sep)), None)

    def root_of(self, path: str) -> str | None:
        """The innermost folder of --input that a file or folder lies in."""
        return max((root for root in self.roots if path.startswith(root + os.sep)), key=len, default=None)

    def class_of(self, folder: str) -> str | None:
        """The class of a folder's files by its name, or by the name of the one above where its own is of a split."""
        places = {place for place, _ in self.splits}
        while folder in places and self.root_of(folder):
            folder = os.path.dirname(folder)
        return None if folder in self.roots else os.path.basename(folder)


def folded(name: str) -> str:
    """A name of a field as names are compared."""
    return name.strip("\ufeff").strip().casefold()


def _one_name(name):
    return "label" if name in _LABELS else name


# ------------------------------------------------------------------------------------------------------------------- finding


def find_media(
    inputs: Iterable[str], kind: str, tfds_dir: str = "", tfds_download: bool = False
) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """[(absolute path, bytes, time of change in ns)]: as given, and sorted within folders and globs; those beside a medium are not listed.
    And {ending: count} of the files in folders that are passed over.

    In a folder are found the files of media of this kind (of every kind for ""), manifests, archives and Parquet files.
    """
    known = (ENDINGS[kind] if kind else MEDIA) + LINES + TABLES + PARQUET
    found: dict[str, tuple[int, int]] = {}
    passed: Counter[str] = Counter()
    for item in inputs:
        if item.startswith(tfds.PREFIX):
            path, size, changed = tfds.find(item, tfds_dir, tfds_download)
            found[path] = size, changed
            continue
        others: list[str] = []
        paths = [item] if os.path.isfile(item) else list(files_below(item, others)) if os.path.isdir(item) else matching_files(item)
        told = {os.path.splitext(path)[0] for path in paths if path.lower().endswith(MEDIA)}
        paths = [path for path in paths if not (path.endswith(BESIDE) and os.path.splitext(path)[0] in told)]
        if os.path.isdir(item):
            ours = [path.lower().endswith(known) or plain_name(path).endswith(TAR) for path in paths]
            passed.update(_ending(path) for path, one in zip(paths, ours, strict=True) if not one)
            paths = list(itertools.compress(paths, ours))
            passed.update(f"{_ending(path)} ({'broken link' if os.path.islink(path) else 'no file'})" for path in others)
        if not paths:
            raise UserError(f"{printable(item)}: no input there.", "Give files, folders with media, .csv, .jsonl, .tar or globs.")
        for path in paths:
            _check_named(path)
            status = os.stat(path)
            found[os.path.abspath(path)] = status.st_size, status.st_mtime_ns
    return [(path, *facts) for path, facts in found.items()], dict(sorted(passed.items()))


def _ending(path):
    return os.path.splitext(path)[1].lower() or "no ending"


def _check_named(path):
    """UserError for a file that looks like a manifest, but is none that is read."""
    if path.lower().endswith(".json"):
        raise UserError(
            f"{printable(path)}: one JSON value, where a line for each sample is wanted.",
            "Write it as .jsonl: jq -c '.[]' OLD > NEW.jsonl.",
        )
    if path.lower().endswith(COMPRESSIONS) and not plain_name(path).endswith(TAR):
        raise UserError(f"{printable(path)}: of compressed files only .tar can be read.", "Decompress it.")


def named_splits(files: Iterable[tuple[str, int, int]], roots: Iterable[str], classes: bool = False) -> list[tuple[str, str]]:
    """(folder or file, split) of those that are named by a split: roots, folders below them, and manifests, archives and tables anywhere.

    Names of folders are taken so where two folders in one have such, of which one is train, or where all lies in those and none is train:
    a lonely `test` beside others is a class, a lonely `train` no split. Names of files, where two have such, of which one is train.
    classes: whether folders with all that a root holds right in them are classes, however they are called. UserError where names of splits
    and others stand side by side, or splits within splits.
    """
    found: dict[str, str] = {}
    paths = [path for path, _, _ in files if not path.startswith(tfds.PREFIX)]
    by_parent: dict[str, list[str]] = {}
    for root in roots:
        by_parent.setdefault(os.path.dirname(root), []).append(root)
    for parent, beside in by_parent.items():
        named = {root: split for root in beside if (split := _split_called(root))}
        if _are_splits(named):
            _check_all_named(parent, named, [root for root in beside if any(map(_below(root), paths))])
            found |= named
    for root in set(roots) - set(found):
        found |= _splits_below(root, [path for path in paths if path.startswith(root + os.sep)], classes)
    inside = [path for path in paths if not is_medium(path) and not any(path.startswith(folder + os.sep) for folder in found)]
    matches = {path: match[1].lower() for path in inside if (match := _SPLIT_NAME.match(os.path.basename(path)))}
    if len(set(matches.values())) > 1 and "train" in matches.values():
        found |= {path: SPLIT_NAMES[name] for path, name in matches.items()}
    return sorted(found.items())


def _splits_below(root, paths, classes):
    """{folder: split} of the outermost folders below a root that are named by splits, at any depth; see `named_splits`."""
    folders = {root + os.sep + os.sep.join(names[:depth]) for names in _names_below(root, paths) for depth in range(1, len(names) + 1)}
    named: dict[str, str] = {}
    for folder in sorted(folders, key=len):
        if (split := _split_called(folder)) and not any(folder.startswith(place + os.sep) for place in named):
            named[folder] = split
    holding = {os.path.dirname(path) for path in paths if not is_manifest(path)} - {root}
    flat = all(os.path.dirname(folder) == root for folder in holding)
    if classes and flat:
        return {}
    others = [folder for folder in sorted(holding) if not any(f"{folder}{os.sep}".startswith(place + os.sep) for place in named)]
    by_parent: dict[str, dict[str, str]] = {}
    for place, split in named.items():
        by_parent.setdefault(os.path.dirname(place), {})[place] = split
    if not any(map(_are_splits, by_parent.values())):
        return {} if others or "train" in named.values() else named
    _check_all_named(root, named, [*named, *others], flat)
    if set(by_parent) != {root}:  # a class that is called train, maybe
        for place, split in named.items():
            for folder in folders:
                if folder.startswith(place + os.sep) and _split_called(folder) not in (None, split):
                    raise UserError(
                        f"{printable(folder)}: by its name of another split than {printable(os.path.basename(place))}, in which it lies.",
                        "Rename one of them, or name what is for training after --input, what is for validation after --validation-input.",
                    )
    return named


def _names_below(root, paths):
    """The folders between a root and each path, by name."""
    return {tuple(os.path.relpath(path, root).split(os.sep)[:-1]) for path in paths}


def _below(folder):
    return lambda path: path.startswith(folder + os.sep)


def _split_called(folder):
    return SPLIT_NAMES.get(os.path.basename(folder).lower())


def _are_splits(named):
    return len(named) > 1 and "train" in named.values()


def _check_all_named(parent, named, there, flat=False):
    """UserError for folders beside those that are named by splits: they could be anything."""
    others = [os.path.relpath(folder, parent) for folder in there if folder not in named]
    if others:
        splits = ", ".join(sorted({os.path.basename(folder) for folder in named}))
        raise UserError(
            f"{printable(parent)}: {printable(splits)} are named by splits, and {printable(', '.join(others[:4]))} are not.",
            "Rename them, or name what is for training after --input, what is for validation after --validation-input"
            + ("; --classes folder: all are classes." if flat else "."),
        )


def input_folders(inputs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({os.path.abspath(item) for item in inputs if os.path.isdir(item)}))


def plan_media(files: Iterable[tuple[str, int, int]], reading: Reading, task_bytes: int) -> tuple[list[list[tuple[Part, int]]], list[str]]:
    """Tasks of (part, bytes) of about `task_bytes` of media; and the names of what manifests name, with sizes and times of change.

    Divided are manifests, by what they name, Parquet files and data sets of TFDS.
    """
    units: list[tuple[Part, int]] = []
    named: set[str] = set()
    facts: list[str] = []
    for path, size, _ in files:
        if is_manifest(path):
            units += _manifest_units(path, reading, task_bytes, named, facts)
        elif path.startswith(tfds.PREFIX) or path.lower().endswith(PARQUET):
            step = task_bytes
            units += [(Part(path, start, min(start + step, size)), min(step, size - start)) for start in range(0, max(size, 1), step)]
        else:
            units.append((Part(path, 0, size), size))
            for other in _beside(path):
                status = os.stat(other)
                facts.append(f"{other} {status.st_size} {status.st_mtime_ns}")
    tasks: list[list[tuple[Part, int]]] = []
    room = 0
    for part, size in units:
        if part.path in named:  # found in a folder, and told of by the manifest there
            continue
        if room <= 0:
            tasks.append([])
            room = task_bytes
        tasks[-1].append((part, size))
        room -= max(size, 1)
    return tasks, facts


def is_manifest(path: str) -> bool:
    return path.lower().endswith(LINES + TABLES) and not path.startswith(tfds.PREFIX)


def is_medium(path: str) -> bool:
    """Whether a file is one medium, by its name: no manifest, archive or table."""
    return not (path.startswith(tfds.PREFIX) or is_manifest(path) or path.lower().endswith(PARQUET) or plain_name(path).endswith(TAR))


def _manifest_units(path, reading, task_bytes, named, facts):
    """Ranges of a manifest, and the bytes of the media that each names."""
    units, begin, held = [], 0, 0
    for record, end in _rows(Part(path, 0, os.path.getsize(path)), reading):
        if isinstance(record, Record):
            for place in _paths(record, reading):
                try:
                    status = os.stat(place)
                except (OSError, ValueError):
                    continue  # which is told when it is read
                named.add(place)
                facts.append(f"{place} {status.st_size} {status.st_mtime_ns}")
                held += status.st_size
        held += 1
        if held >= task_bytes:
            units.append((Part(path, begin, end), held))
            begin, held = end, 0
    if held:
        units.append((Part(path, begin, os.path.getsize(path)), held))
    return units


def _paths(record, reading):
    """The files that a record names."""
    values = [value for key, value in record.fields.items() if key in _MEDIA_FIELDS]
    try:
        parts = _list(record.fields.get("parts", []), "parts")
    except Unreadable:
        parts = []
    for part in parts:
        values += [value for key, value in part.items() if key in _MEDIA_FIELDS] if isinstance(part, dict) else []
    values = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [os.path.abspath(os.path.join(record.folder, value)) for value in values if isinstance(value, str) and value]


# ------------------------------------------------------------------------------------------------------------------- reading


def read_records(parts: Iterable[Part], reading: Reading, report: Callable[[int], None]) -> Iterator[Record | Skipped]:
    """All records of a task in order; `report` is told of bytes of the inputs as they are read (of manifests, not here)."""
    for part in parts:
        split = reading.split_of(part.path)
        for record in _records(part, reading, report):
            if isinstance(record, Record) and split is not None:
                record.fields.setdefault("split", split)
            yield record


def _records(part, reading, report):
    if part.path.startswith(tfds.PREFIX):
        yield from _examples(part, reading, report)
    elif part.path.lower().endswith(PARQUET):
        yield from _table_rows(part, reading, report)
    elif plain_name(part.path).endswith(TAR):
        yield from _groups(part, reading, report)
    elif is_manifest(part.path):
        yield from (record for record, _ in _rows(part, reading))
    else:
        yield _file(part.path, reading)


def check_media(files: Iterable[tuple[str, int, int]], reading: Reading) -> None:
    """UserError for a table without what is needed, or with two columns that mean the same."""
    for path, _, _ in files:
        if path.startswith(tfds.PREFIX):
            there = list(tfds.features(path))
        elif path.lower().endswith(PARQUET):
            there = parquet.columns(path)[0]
        elif path.lower().endswith(TABLES):
            there = _Table(path, reading).names
        elif path.lower().endswith(LINES):
            there = _names_of_lines(path)
        else:
            continue
        ours, path = reading.ours(there), printable(path)
        kind = reading.kind or "image"
        if there and not {*_MEDIA_FIELDS, *_WHOLE, "text"} & set(ours.values()):
            if any(name.lower().endswith(MEDIA) for name in there) and path.lower().endswith(TABLES):
                raise UserError(
                    f"{path}:1: no header: it begins with {', '.join(there)}.", f"Put names in its first line, such as {kind},caption."
                )
            raise UserError(
                f"{path}: has no {reading.kind or 'image, video or audio'}; there are {', '.join(sorted(there))}.",
                f"Say which of them it is: --fields {kind}=NAME (and caption=NAME, label=NAME ...).",
            )
        columns = there if not path.lower().endswith(LINES) else []  # of lines, no two may have the same names
        for name, count in Counter(ours[column] for column in columns if column in ours).items():
            if count > 1:
                same = ", ".join(repr(column) for column in columns if ours.get(column) == name)
                raise UserError(
                    f"{path}: {same} all mean {name}.", f"Say which of them it is: --fields {name}=NAME; or name them otherwise."
                )


def _names_of_lines(path):
    """The names in all objects of a file of JSON lines; none where there is no object."""
    names: dict[str, None] = {}
    with open(path, "rb") as file:
        for line in file:
            try:
                names |= dict.fromkeys(_json(line))
            except ValueError:
                continue  # which is told when it is read
            if len(names) > 1000:
                break
    return list(names)


def _file(path, reading):
    """A medium of its own, with what lies beside it."""
    folder, told = os.path.dirname(path), _Told(reading)
    root = reading.root_of(path) or folder
    for beside in _beside(path):
        try:
            with open(beside, "rb") as file:
                content = file.read(MOST_BYTES)
            if beside.endswith(BESIDE[0]):
                told.add("caption", decode_text(content).strip(), beside)
            else:
                told.add_all(_json(content))
        except UnicodeDecodeError as error:
            return Skipped(beside, invalid_utf8(error.start, error.object), "damaged")
        except ValueError as error:
            return Skipped(beside, str(error), "damaged")
    if "parts" not in told.fields:  # of which the file is one
        told.leave_out(*_MEDIA_FIELDS)
        told.fields["path"] = path
    if reading.by_folder and (name := reading.class_of(folder)):
        told.fields.setdefault("label", name)
    return told.record(path, printable(os.path.relpath(path, root)), folder, os.path.join(root, "**", "*.json"))


def _beside(path):
    stem = os.path.splitext(path)[0]
    return [stem + ending for ending in BESIDE if stem + ending != path and os.path.isfile(stem + ending)]


def _json(content):
    try:
        record = json.loads(content, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(invalid_utf8(error.start, content)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON ({error})") from None
    except RecursionError:
        raise ValueError("invalid JSON (nested too deeply)") from None
    if not isinstance(record, dict):
        raise ValueError("JSON, but no object")
    return record


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"a name that is there twice: {twice!r}")
    return found


class _Told:
    """What is said of a sample, by our names."""

    def __init__(self, reading):
        self.fields: dict[str, Any] = {}
        self._reading, self._from = reading, dict[str, str]()
        self._names: list[str] = []
        self.unused: list[str] = []

    def add(self, ours, value, theirs):
        """ValueError for what was said otherwise before."""
        if ours in self.fields and str(self.fields[ours]) != str(value):  # a number of a .json is a text in a .cls
            raise ValueError(f"two that mean {ours}, and are not the same: {self._from.get(ours, ours)} and {theirs}")
        self.fields[ours], self._from[ours] = value, theirs

    def add_all(self, values):
        names = self._reading.ours(values)
        self._names += names
        self.unused += [name for name in values if name not in names]
        for theirs, ours in names.items():
            if values[theirs] is not None and values[theirs] != "":
                self.add(ours, values[theirs], theirs)

    def leave_out(self, *ours):
        """Fields that another file has said."""
        for name in ours:
            if self.fields.pop(name, None) is not None:
                self.unused.append(self._from[name])

    def record(self, name, key, folder, source):
        return Record(name, key, folder, self.fields, source, tuple(self._names), tuple(self.unused))


def _record(name, key, folder, values, source, reading):
    """A record of named values: of a row, of an example. ValueError where two mean the same."""
    told = _Told(reading)
    told.add_all(values)
    return told.record(name, key, folder, source)


def _rows(part, reading):
    """(record or Skipped, place in the file after it) of the rows of a manifest that begin in the part."""
    read = _lines if part.path.lower().endswith(LINES) else _table
    folder, base = os.path.dirname(part.path), os.path.basename(part.path)
    for line, begin, place, row in read(part, reading):
        name = f"{part.path}:{line}"
        try:
            record = _record(name, printable(f"{base}@{begin}"), folder, row(), part.path, reading)
        except ValueError as error:
            yield Skipped(name, str(error), "damaged"), place
            continue
        # Its key is the first file that it names.
        key = next((value for key, value in record.fields.items() if key in _MEDIA_FIELDS and isinstance(value, str)), record.key)
        yield record._replace(key=printable(key)), place


def _lines(part, reading):
    """(line, place before it, place after it, function that gives its values or raises ValueError) of JSON lines."""
    with open(part.path, "rb") as file:
        number = _lines_before(file, part.start)
        while file.tell() < part.stop and (line := file.readline()):
            number += 1
            if line.strip():
                yield number, file.tell() - len(line), file.tell(), lambda line=line: _json(line)


def _lines_before(file, place):
    """How many lines end before a place, where the file then stands."""
    file.seek(0)
    count = 0
    while left := place - file.tell():
        count += file.read(min(left, 1 << 20)).count(b"\n")
    return count


class _Table:
    """How a table is written, by its first line: its names, and what stands between values."""

    def __init__(self, path: str, reading: Reading):
        self.quoted = not path.lower().endswith(".tsv")
        # The comma is the decimal point of some countries, whose programs put semicolons between values.
        usual = "," if self.quoted else "\t"
        read = {between: self._header(path, between) for between in dict.fromkeys((usual, ",", ";", "\t"))}
        known = (one for one, (row, _, _) in read.items() if isinstance(row, list) and reading.ours(row))
        self.between = next(known, usual)
        names, self.begin, self.lines = read[self.between]
        if isinstance(names, str):
            raise UserError(f"{printable(path)}:1: {names}.", "Mend its header: UTF-8, with commas (in a .tsv tabs) between names.")
        self.names: list[str] = names or []

    def _header(self, path, between):
        self.between = between
        with open(path, "rb") as file:
            row, lines = self.row(file)
            return row, file.tell(), lines

    def row(self, file) -> tuple[list[str] | str | None, int]:
        """The values of the row at the place of the file, or what is wrong with it, in which case the row ends with its line; None at the
        end. And its lines."""
        begin = file.tell()
        rows = csv.reader(_decoded(file, begin), delimiter=self.between, strict=True)
        wrong = "a quote that does not end"
        try:
            return next(rows, None), rows.line_num
        except csv.Error as error:
            wrong = f"a quote that does not end, or ends within a value ({error})"
        except ValueError as error:  # of a line; of one that only an open quote leads to, if it is not the first
            here = invalid_utf8(error.start, error.object) if isinstance(error, UnicodeDecodeError) else str(error)
            wrong = wrong if rows.line_num else here
        file.seek(begin)
        line = file.readline()
        if not self.quoted and wrong.startswith("a quote"):  # most who write tabs quote nothing: 5" is a length
            return decode_text(line).rstrip("\r\n").split(self.between), 1
        return wrong, 1


def _decoded(file, begin):
    """The lines of a table from a place on."""
    while line := file.readline():
        text = decode_text(line) if not begin and file.tell() == len(line) else line.decode()
        if "\0" in text:
            raise ValueError("a NUL byte")
        yield text


def _table(part, reading):
    """(line, place before it, place after it, function that gives its values or raises ValueError) of the rows of a table."""
    csv.field_size_limit(1 << 24)
    table = _Table(part.path, reading)
    with open(part.path, "rb") as file:
        number = _lines_before(file, part.start) if part.start else table.lines
        file.seek(part.start or table.begin)
        while (begin := file.tell()) < part.stop:
            row, lines = table.row(file)
            if row is None:
                return
            if row:
                yield number + 1, begin, file.tell(), lambda row=row: _by_name(table.names, row)
            number += lines


def _by_name(names, row):
    if isinstance(row, str):
        raise ValueError(row)
    if len(row) != len(names):
        raise ValueError(f"not as many values as names: {len(row)} under {len(names)}")
    return {name: value for name, value in zip(names, row, strict=True) if value != ""}


def _groups(part, reading, report):
    """Samples of a tar in the manner of WebDataset: members of one key."""
    for group in tar.read_groups(part, (*MEDIA, *BESIDE, ".cls"), report, MOST_BYTES):
        if isinstance(group, Skipped):
            yield group
            continue
        key, told, media = group[0][0], _Told(reading), []
        try:
            for _, name, content in group:
                ending = os.path.splitext(name)[1].lower()
                if ending == ".json":
                    told.add_all(_json(content))
                elif ending in (".txt", ".cls"):
                    told.add("caption" if ending == ".txt" else "label", decode_text(content).strip(), name)
                else:
                    media.append({"kind": kind_of(name), "bytes": content})
        except UnicodeDecodeError as error:
            yield Skipped(name, invalid_utf8(error.start, error.object), "damaged")
            continue
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")
            continue
        told.leave_out(*_MEDIA_FIELDS, "parts")  # its media are in the archive
        told.fields["media"] = media
        yield told.record(f"{part.path}: {printable(key.lstrip('/'))}", key.lstrip("/"), "", part.path)


def _table_rows(part, reading, report):
    columns, classes = parquet.columns(part.path)
    wanted = list(reading.ours(columns))
    unused = tuple(name for name in columns if name not in wanted)
    for row in parquet.read_columns(part, wanted, report):
        if isinstance(row, Skipped):
            yield row
            continue
        name, values = row
        try:
            fields = {column: value.as_py() for column, value in zip(wanted, values, strict=True)}
            record = _record(
                name, printable(os.path.basename(name)), os.path.dirname(part.path), _named(fields, classes), part.path, reading
            )
        except UnicodeDecodeError as error:
            yield Skipped(name, invalid_utf8(error.start, error.object), "damaged")
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")
        else:
            yield record._replace(unused=unused)


def _examples(part, reading, report):
    kinds = tfds.features(part.path)
    classes = {name: tfds.class_names(part.path, name) for name, kind in kinds.items() if kind == "ClassLabel"}
    media = [name for name, ours in reading.ours(kinds).items() if ours in _MEDIA_FIELDS]
    for name, example in tfds.read_encoded(part, report):
        fields = {}
        try:
            for key, value in example.items():
                value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                fields[key] = value.decode() if isinstance(value, bytes) and kinds[key] == "Text" and key not in media else value
            yield _record(name, name.rpartition("/")[2], "", _named(fields, classes), part.path, reading)
        except UnicodeDecodeError as error:
            yield Skipped(name, f"invalid UTF-8 at byte {error.start} of {key}", "damaged")
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")


def _named(fields, classes):
    """Numbers of classes by their names, where they are known; a negative one is none."""
    for name, names in classes.items():
        number = fields.get(name)
        if isinstance(number, int) and number >= len(names):
            raise ValueError(f"a class that there is not: {name} {number} of {len(names)}")
        if isinstance(number, int):
            fields[name] = names[number] if number >= 0 else None
    return fields


# ------------------------------------------------------------------------------------------------------------------- meaning


def label_of(record: Record) -> str | None:
    """The class of a record by its name, as it is written but for space around it and for Unicode's ways to compose a letter (NFC); None
    if it has none: "", -1, no number (NaN). Truth values are named as JSON writes them. Raises Unreadable for what is no name."""
    value = record.fields.get("label")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and (value != value or value.is_integer()):
        value = None if value != value else int(value)
    if value is None:
        return None
    if not isinstance(value, str | int):
        raise Unreadable(f"a label that is no name of a class: {printable(str(value)[:50])}")
    name = unicodedata.normalize("NFC", str(value).strip())
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"a label that is no UTF-8: {printable(name[:50])}") from None
    return None if name in ("", NO_CLASS) else name


NO_CLASS = "-1"


def class_names(labels: Iterable[str]) -> list[str]:
    """All names in the order of their numbers: sorted, numbers by their size; where all are plain small ones, 0 to the largest."""
    labels = set(labels)
    if labels and all(re.fullmatch("0|[1-9][0-9]{0,4}", label) for label in labels):
        return [str(number) for number in range(1 + max(map(int, labels)))]
    if all(re.fullmatch("-?[0-9]{1,4000}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def split_of(record: Record) -> str | None:
    """The split that a record names, if it does. Raises Unreadable for one that is none."""
    value = record.fields.get("split")
    if value is None:
        return None
    if str(value).strip().lower() not in SPLIT_NAMES:
        raise Unreadable(f"a split {str(value)[:50]!r} that is neither train nor validation")
    return SPLIT_NAMES[str(value).strip().lower()]


def kind_of(path: str) -> str | None:
    return next((kind for kind, endings in ENDINGS.items() if path.lower().endswith(endings)), None)


def sample_of(record: Record, reading: Reading, classes: dict[str, int]) -> Sample:
    """The sample that a record is. Raises Unreadable for one that is none, such as a caption with no image."""
    fields = record.fields
    whole = [name for name in _WHOLE if name in fields]
    beside = [*whole[1:], *(name for name in (*_TOLD, *(_MEDIA_FIELDS if "parts" in whole else ())) if name in fields)]
    if whole and beside:
        raise Unreadable(f"{whole[0]}, which are the whole of a sample, and beside them {beside[0]}")
    if "parts" in fields:
        parts = [_part(part, record.folder, reading) for part in _list(fields["parts"], "parts")]
    elif "conversations" in fields:
        parts = _conversation(_list(fields["conversations"], "conversations"), _media(record, reading))
    else:
        parts = _media(record, reading)
        if "text" in fields:
            parts.append(_text(fields["text"], "text", learned=False))
        if "caption" in fields:
            parts.append(_text(fields["caption"], "caption", learned=True))
        if ("question" in fields) != ("answer" in fields):
            raise Unreadable("a question without an answer" if "question" in fields else "an answer without a question")
        if "question" in fields:
            parts += [_text(fields["question"], "question", learned=False), _text(fields["answer"], "answer", learned=True)]
    if not parts:
        raise Unreadable("nothing in it")
    if reading.kind and not any(part.kind == reading.kind for part in parts):
        raise Unreadable(f"no {reading.kind} in it")
    label = label_of(record)
    return Sample(tuple(parts), record.key, -1 if label is None else classes[label])


def _media(record, reading):
    """What the fields of a record name, in the order of our names."""
    found = [_medium(member["kind"], member["bytes"], "", reading) for member in record.fields.get("media", ())]
    for name in _MEDIA_FIELDS:
        value = record.fields.get(name)
        values = value if isinstance(value, list) else [value]
        found += [_medium(name, one, record.folder, reading) for one in values if one is not None and one != ""]
    return found


def _conversation(turns, media):
    """Turns as parts, each medium where its tag stands; media that have none come first."""
    if not turns:
        raise Unreadable("conversations without a turn")
    said = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unreadable("a turn that is no object")
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if speaker not in (*_READERS, *_WRITERS):
            raise Unreadable(f"a turn of {printable(str(speaker)[:50])!r}, who is none of {', '.join((*_READERS, *_WRITERS))}")
        said.append((_text(text, "turn", learned=speaker in _WRITERS).content, speaker in _WRITERS))
    left = {kind: [medium for medium in media if medium.kind == kind] for kind in ENDINGS}
    tags = Counter(tag for text, learned in said if not learned for tag in _TAG.findall(text))
    for kind, count in tags.items():
        if count > len(left[kind]):
            raise Unreadable(f"more <{kind}> than media: {count} for {len(left[kind])}")
    parts = [medium for medium in media if medium.kind not in tags]
    for kind, count in tags.items():
        parts += left[kind][: len(left[kind]) - count]
        left[kind] = left[kind][len(left[kind]) - count :]
    for text, learned in said:
        for place, piece in enumerate([text] if learned else _TAG.split(text)):
            if place % 2:
                parts.append(left[piece].pop(0))
            elif learned or piece.strip():
                parts.append(Medium("text", piece if learned or len(piece) == len(text) else piece.strip("\r\n"), learned))
    return parts


def _list(found, name):
    if isinstance(found, str):  # in a table
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise Unreadable(f"{name} that are no JSON") from None
    if not isinstance(found, list):
        raise Unreadable(f"{name} that are no list")
    return found


def _part(part, folder, reading):
    if isinstance(part, str):
        return _text(part, "part", learned=False)
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            return _text(part["text"], "part", learned=bool(part.get("learned", False)))
        for name in _MEDIA_FIELDS:
            if part.get(name):
                return _medium(name, part[name], folder, reading)
    raise Unreadable("a part that is neither text nor a medium")


def _text(value, name, learned):
    what = f"an {name}" if name == "answer" else f"a {name}"
    try:
        value = decode_text(value) if isinstance(value, bytes) else value
        if not isinstance(value, str):
            raise Unreadable(f"{what} that is no text")
        value.encode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{what} of {invalid_utf8(error.start, error.object)}") from None
    except UnicodeEncodeError:
        raise Unreadable(f"{what} with half of a surrogate pair") from None
    if not value.strip():
        raise Unreadable(f"{what} that is empty")
    return Medium("text", value, learned)


def _medium(name, value, folder, reading):
    """A medium by the name of its field, which may say its kind, and its bytes or path."""
    path = value.get("path") if isinstance(value, dict) else value
    path = path if isinstance(path, str) else None
    kind: Any = name if name in ENDINGS else (kind_of(path) if path else None) or reading.kind
    if not kind:
        raise Unreadable("a file of which neither its ending nor its field says what it is")
    content = value if isinstance(value, bytes) else value.get("bytes") if isinstance(value, dict) else None
    if content is None:
        if path is None:
            raise Unreadable(f"a field {name} that is neither bytes nor a path")
        content = _read(os.path.join(folder, path))
    if not isinstance(content, bytes):
        raise Unreadable(f"a field {name} that is neither bytes nor a path")
    return Medium(kind, content)


def _read(path):
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise Unreadable(f"too large: {os.path.getsize(path):,} bytes")
        if not os.path.isfile(path):  # a pipe would never end
            raise Unreadable(f"no file there: {path}")
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise Unreadable(f"no file there: {path}") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise Unreadable(f"no path: {path[:100]}") from None
