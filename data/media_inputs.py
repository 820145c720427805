"""From what --input names to samples of media: finding files, cutting the work into tasks, reading records, and what a record means.

Every format gives records: named values, whose names mean the same everywhere.

    image, video, audio     a file's bytes or its path (from the folder of the manifest); {"bytes": ..., "path": ...} in Parquet
    path, file, file_name   the same, of the kind that its ending or the command says
    text                    a text to read;   caption: one to be learned
    question, answer        a text to read, and one to be learned
    label, class, cls       the class
    parts                   the whole sample in its order: texts, or {"text": ...} and {"path"|"image"|"video"|"audio": ...}, where
                            "learned": true may stand beside a text
    split                   train or validation (also val, dev, test)
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data.documents import Part, Skipped, Unreadable, printable
from data.errors import UserError
from data.inputs import LINES, PARQUET, TAR, expand
from data.media import Part as Medium
from data.media import Sample
from data.readers import parquet, tar, tfds
from data.readers.stream import plain_name

ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".gif"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"),
}
MEDIA = tuple(ending for endings in ENDINGS.values() for ending in endings)
TABLES = (".csv", ".tsv")
BESIDE = (".txt", ".json")  # of the same name as a file of media: what is said of it
MOST_BYTES = 1 << 31  # of one file
_MEDIA_FIELDS = ("image", "video", "audio", "path", "file", "file_name")
_LABELS = ("label", "class", "cls")
_OTHERS = ("text", "caption", "question", "answer", "parts", "split")
FIELDS = (*_MEDIA_FIELDS, *_LABELS, *_OTHERS)
_SPLITS = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev", "test"), "validation")}


class Record(NamedTuple):
    """Named values; `folder` is where its paths begin."""

    name: str
    key: str
    folder: str
    fields: dict[str, Any]


class Reading(NamedTuple):
    """What decides how inputs are read: the medium that a command is for ("" for any), and names of theirs for ours."""

    kind: str
    fields: tuple[str, ...]  # OURS=THEIRS
    roots: tuple[str, ...]  # folders that --input names: what lies in a folder below is of its class
    by_folder: bool

    def names(self) -> dict[str, str]:
        """{their name: ours}."""
        return {theirs: ours for ours, _, theirs in (field.partition("=") for field in self.fields)}


# ------------------------------------------------------------------------------------------------------------------- finding


def find_media(inputs: Iterable[str], kind: str, tfds_dir: str = "", tfds_download: bool = False) -> list[tuple[str, int, int]]:
    """[(absolute path, bytes, time of change in ns)]: as given, and sorted within folders and globs; those beside a medium are not listed.

    In a folder are found the files of media of this kind (of every kind for ""), manifests, archives and Parquet files.
    """
    known = (ENDINGS[kind] if kind else MEDIA) + LINES + TABLES + PARQUET
    found: dict[str, tuple[int, int]] = {}
    for item in inputs:
        if item.startswith(tfds.PREFIX):
            path, size, changed = tfds.find(item, tfds_dir, tfds_download)
            found[path] = size, changed
            continue
        for path in expand(item, lambda path: path.lower().endswith(known) or plain_name(path).endswith(TAR), "media, .csv, .jsonl, .tar"):
            status = os.stat(path)
            found[os.path.abspath(path)] = status.st_size, status.st_mtime_ns
    if not found:
        raise UserError("no input given.", "Name files, folders or globs after --input.")
    return [(path, *facts) for path, facts in found.items()]


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
        parts = _list_of_parts(record.fields.get("parts", []))
    except Unreadable:
        parts = []
    for part in parts:
        values += [value for key, value in part.items() if key in _MEDIA_FIELDS] if isinstance(part, dict) else []
    return [os.path.abspath(os.path.join(record.folder, value)) for value in values if isinstance(value, str) and value]


# ------------------------------------------------------------------------------------------------------------------- reading


def read_records(parts: Iterable[Part], reading: Reading, report: Callable[[int], None]) -> Iterator[Record | Skipped]:
    """All records of a task in order; `report` is told of bytes of the inputs as they are read (of manifests, not here)."""
    for part in parts:
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
    """UserError for a table without what is needed."""
    names = reading.names()
    for path, _, _ in files:
        if path.startswith(tfds.PREFIX):
            there = set(tfds.features(path))
        elif path.lower().endswith(PARQUET):
            there = set(parquet.columns(path)[0])
        else:
            continue
        ours = {names.get(name, name) for name in there}
        if not ours & {*_MEDIA_FIELDS, "parts", "text"}:
            raise UserError(
                f"{path}: has no {reading.kind or 'image, video or audio'}; there are {', '.join(sorted(there))}.",
                f"Say which of them it is: --fields {reading.kind or 'image'}=NAME (and caption=NAME, label=NAME ...).",
            )


def _file(path, reading):
    """A medium of its own, with what lies beside it."""
    root = max((root for root in reading.roots if path.startswith(root + os.sep)), key=len, default=os.path.dirname(path))
    folder, fields = os.path.dirname(path), {"path": path}
    for beside in _beside(path):
        with open(beside, "rb") as file:
            content = file.read(MOST_BYTES)
        try:
            fields |= {"caption": content.decode().strip()} if beside.endswith(BESIDE[0]) else _renamed(_json(content), reading)
        except (ValueError, UnicodeDecodeError) as error:
            return Skipped(beside, str(error), "damaged")
    if reading.by_folder and folder != root and not set(_LABELS) & set(fields):
        fields["label"] = os.path.basename(folder)
    return Record(path, os.path.relpath(path, root), folder, fields)


def _beside(path):
    stem = os.path.splitext(path)[0]
    return [stem + ending for ending in BESIDE if stem + ending != path and os.path.isfile(stem + ending)]


def _json(content):
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("JSON, but no object")
    return record


def _renamed(fields, reading):
    names = reading.names()
    return {names.get(name, name): value for name, value in fields.items() if value is not None and value != ""}


def _rows(part, reading):
    """(record or Skipped, place in the file after it) of the rows of a manifest that begin in the part."""
    folder, base = os.path.dirname(part.path), os.path.basename(part.path)
    if part.path.lower().endswith(LINES):
        with open(part.path, "rb") as file:
            file.seek(part.start)
            while file.tell() < part.stop and (line := file.readline()):
                place = file.tell()
                if not line.strip():
                    continue
                name = f"{part.path}: byte {place - len(line)}"
                try:
                    yield _row(name, f"{base}@{place - len(line)}", folder, _json(line), reading), place
                except ValueError as error:
                    yield Skipped(name, str(error), "damaged"), place
        return
    csv.field_size_limit(1 << 24)
    place = 0

    def lines(file):
        nonlocal place
        for line in file:
            place += len(line)
            yield line.decode("utf-8-sig" if place == len(line) else "utf-8")

    with open(part.path, "rb") as file:
        rows = csv.reader(lines(file), delimiter="\t" if part.path.lower().endswith(".tsv") else ",")
        try:
            names = next(rows, [])
            if part.start:
                file.seek(part.start)
                place = part.start
            while place < part.stop:
                begin = place
                row = next(rows, None)
                if row is None:
                    return
                name = f"{part.path}: byte {begin}"
                if not row:
                    continue
                if len(row) != len(names):
                    yield Skipped(name, f"{len(row)} values under {len(names)} names", "damaged"), place
                else:
                    yield _row(name, f"{base}@{begin}", folder, dict(zip(names, row, strict=True)), reading), place
        except (csv.Error, UnicodeDecodeError) as error:
            yield Skipped(part.path, f"the rest cannot be read ({error})", "damaged"), part.stop


def _row(name, place, folder, fields, reading):
    """A row of a manifest; its key is the first file that it names, or its place."""
    fields = _renamed(fields, reading)
    key = next((value for key, value in fields.items() if key in _MEDIA_FIELDS and isinstance(value, str)), place)
    return Record(name, key, folder, fields)


def _groups(part, reading, report):
    """Samples of a tar in the manner of WebDataset: members of one key."""
    for group in tar.read_groups(part, (*MEDIA, *BESIDE, ".cls"), report, MOST_BYTES):
        if isinstance(group, Skipped):
            yield group
            continue
        key, fields, media = group[0][0], {}, []
        try:
            for _, name, content in group:
                ending = os.path.splitext(name)[1].lower()
                if ending == ".json":
                    fields |= _renamed(_json(content), reading)
                elif ending in (".txt", ".cls"):
                    fields.setdefault("caption" if ending == ".txt" else "cls", content.decode().strip())
                else:
                    media.append({"kind": kind_of(name), "bytes": content})
        except (ValueError, UnicodeDecodeError) as error:
            yield Skipped(name, str(error), "damaged")
            continue
        members = {name: value for name, value in fields.items() if name not in (*_MEDIA_FIELDS, "parts")}  # its media are in the archive
        yield Record(f"{part.path}: {printable(key.lstrip('/'))}", key.lstrip("/"), "", {"media": media, **members})


def _table_rows(part, reading, report):
    columns, classes = parquet.columns(part.path)
    names = reading.names()
    wanted = [name for name in columns if names.get(name, name) in FIELDS]
    for row in parquet.read_columns(part, wanted, report):
        if isinstance(row, Skipped):
            yield row
            continue
        name, values = row
        try:
            fields = {column: value.as_py() for column, value in zip(wanted, values, strict=True)}
        except UnicodeDecodeError as error:
            yield Skipped(name, f"invalid UTF-8 at byte {error.start}", "damaged")
            continue
        yield Record(name, os.path.basename(name), os.path.dirname(part.path), _renamed(_with_class_names(fields, classes), reading))


def _examples(part, reading, report):
    kinds = tfds.features(part.path)
    classes = {name: tfds.class_names(part.path, name) for name, kind in kinds.items() if kind == "ClassLabel"}
    for name, example in tfds.read_encoded(part, report):
        fields = {}
        for key, value in example.items():
            value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            if isinstance(value, bytes) and kinds[key] == "Text" and reading.names().get(key, key) not in _MEDIA_FIELDS:
                try:
                    value = value.decode()
                except UnicodeDecodeError:
                    continue
            fields[key] = value
        yield Record(name, name.rpartition("/")[2], "", _renamed(_with_class_names(fields, classes), reading))


def _with_class_names(fields, classes):
    """Numbers of classes by their names, where they are known; a negative one is none."""
    for name, names in classes.items():
        if isinstance(number := fields.get(name), int):
            fields[name] = names[number] if 0 <= number < len(names) else None
    return fields


# ------------------------------------------------------------------------------------------------------------------- meaning


def label_of(record: Record) -> str | None:
    """The class of a record, by name; None if it has none."""
    for name in _LABELS:
        value = record.fields.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() not in ("", "-1"):
            return str(value).strip()
    return None


def class_names(labels: Iterable[str]) -> list[str]:
    """All names in the order of their numbers: sorted; or, where all are numbers, 0 to the largest."""
    labels = set(labels)
    if labels and all(label.isascii() and label.isdigit() and len(label) <= 5 for label in labels):
        return [str(number) for number in range(1 + max(map(int, labels)))]
    return sorted(labels)


def split_of(record: Record) -> str | None:
    """The split that a record names, if it does. Raises Unreadable for one that is none."""
    value = record.fields.get("split")
    if value is None:
        return None
    if str(value).strip().lower() not in _SPLITS:
        raise Unreadable(f"a split {str(value)[:50]!r} that is neither train nor validation")
    return _SPLITS[str(value).strip().lower()]


def kind_of(path: str) -> str | None:
    return next((kind for kind, endings in ENDINGS.items() if path.lower().endswith(endings)), None)


def sample_of(record: Record, reading: Reading, classes: dict[str, int]) -> Sample:
    """The sample that a record is. Raises Unreadable for one that is none, such as a caption with no image."""
    fields, parts = record.fields, []
    if "parts" in fields:
        parts = [_part(part, record.folder, reading) for part in _list_of_parts(fields["parts"])]
    else:
        for member in fields.get("media", ()):
            parts.append(_medium(member["kind"], member["bytes"], "", reading))
        for name in _MEDIA_FIELDS:
            if fields.get(name):
                parts.append(_medium(name, fields[name], record.folder, reading))
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


def _list_of_parts(found):
    if isinstance(found, str):  # in a table
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise Unreadable("parts that are no JSON") from None
    if not isinstance(found, list):
        raise Unreadable("parts that are no list")
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
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(value, str):
        raise Unreadable(f"a {name} that is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"a {name} with half of a surrogate pair") from None
    if not value.strip():
        raise Unreadable(f"a {name} that is empty")
    return Medium("text", value, learned)


def _medium(name, value, folder, reading):
    """A medium by the name of its field, which may say its kind, and its bytes or path."""
    path = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) else None
    kind: Any = name if name in ENDINGS else (kind_of(path) if path else None) or reading.kind
    if not kind:
        raise Unreadable("a file of which neither its ending nor its field says what it is")
    content = value if isinstance(value, bytes) else value.get("bytes") if isinstance(value, dict) else None
    if content is None:
        if not isinstance(path, str):
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
