"""From what --input names to documents: finding it, cutting the work into tasks, and choosing the reader of each format."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from data.errors import UserError
from data.files.folders import files_below, matching_files
from data.readers import parquet, tar, text, tfds, warc
from data.readers.documents import Document, Extent, Skipped, printable
from data.readers.stream import plain_name

Unit = TypeVar("Unit")
TEXT_FIELD = "text"
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
TAR = (".tar",)
WARC = (".warc", ".wet")
TEXTS = tuple(
    ".txt .text .md .rst .tex .html .xml .py .pyi .ipynb .c .h .cc .cpp .hpp .cu .java .js .jsx .ts .tsx .go .rs .rb .php .swift .kt "
    ".scala .hs .ml .jl .r .lua .pl .sh .sql .toml .yaml .yml .cfg .ini .css".split()
)


def find_inputs(inputs: Iterable[str], tfds_dir: str = "", tfds_download: bool = False) -> list[tuple[str, int, int]]:
    """[(absolute path, bytes, time of change in ns)] of all inputs: as given, and sorted within folders and globs."""
    found: dict[str, tuple[int, int]] = {}
    inputs = list(inputs)
    tfds.check_options(inputs, tfds_dir, tfds_download)
    for item in inputs:
        if item.startswith(tfds.PREFIX):
            path, size, changed = tfds.find(item, tfds_dir, tfds_download)
            found[path] = size, changed
        else:
            for path in expand(item, _is_known, "text files (.txt, .jsonl, .parquet, .py, .md ...)"):
                status = os.stat(path)
                found[os.path.abspath(path)] = (status.st_size, status.st_mtime_ns)
    if not found:
        raise UserError("no input given.", "Name files, folders or globs after --input.")
    return [(path, *facts) for path, facts in found.items()]


def check_inputs(files: Sequence[tuple[str, int, int]], text_field: str) -> list[str]:
    """UserError for what would stop the reading of any file. Returns the packages, with versions, that the documents depend on."""
    versions = set()
    if text_field != TEXT_FIELD and not any(_has_fields(path) for path, _, _ in files):
        raise UserError(f"--text-field {text_field}: none of the inputs has fields.", "Leave it out.")
    for path, _, _ in files:
        if path.startswith(tfds.PREFIX):
            tfds.check(path, text_field)
        elif path.lower().endswith(PARQUET):
            parquet.check(path, text_field)
        elif plain_name(path).endswith(WARC):
            warc.check(path, text_field)
            versions.add(warc.version())
    return sorted(versions)


def _has_fields(path):
    return path.startswith(tfds.PREFIX) or path.lower().endswith(PARQUET) or plain_name(path).endswith((*LINES, *TAR, ".json"))


def exists(path: str) -> bool:
    """Whether an input that was found is still there."""
    return tfds.exists(path) if path.startswith(tfds.PREFIX) else os.path.exists(path)


def plan_tasks(files: Iterable[tuple[str, int, int]], task_bytes: int) -> list[list[Extent]]:
    """The files in turn, in tasks of about `task_bytes`. Divided are a plain .jsonl, Parquet files and data sets of TFDS."""
    extents: list[Extent] = []
    for path, size, _ in files:
        divided = path.startswith(tfds.PREFIX) or path.lower().endswith(LINES + PARQUET)
        extents += divide(path, size, task_bytes if divided else max(size, 1))
    return group_tasks([(extent, extent.stop - extent.start) for extent in extents], task_bytes)


def divide(path: str, size: int, step: int) -> list[Extent]:
    """Extents of up to `step` bytes of an input; an empty input is one."""
    return [Extent(path, start, min(start + step, size)) for start in range(0, max(size, 1), step)]


def group_tasks(sized: Iterable[tuple[Unit, int]], task_bytes: int) -> list[list[Unit]]:
    """Units with their bytes, in turn, in groups that each end with the unit that fills `task_bytes`."""
    tasks: list[list[Unit]] = []
    left = 0
    for unit, size in sized:
        if left <= 0:
            tasks.append([])
            left = task_bytes
        tasks[-1].append(unit)
        left -= size
    return tasks


def read_documents(
    extents: Iterable[Extent], text_field: str, report: Callable[[int], None] = lambda read: None
) -> Iterator[Document | Skipped]:
    """All documents of a task in order; `report` is told of input bytes as they are read."""
    for extent in extents:
        yield from _reader(extent.path)(extent, text_field, report)


def _reader(path):
    if path.startswith(tfds.PREFIX):
        return tfds.read_examples
    if path.lower().endswith(PARQUET):
        return parquet.read_rows
    readers = {LINES: text.read_lines, (".json",): text.read_json, TAR: tar.read_samples, WARC: warc.read_records}
    return next((reader for endings, reader in readers.items() if plain_name(path).endswith(endings)), text.read_whole)


def expand(item: str, is_known: Callable[[str], bool], endings: str) -> list[str]:
    """The files of a path, glob, or folder, of which those that are known; `endings` names some for the message."""
    if os.path.isfile(item):
        return [item]
    nothing: list[str] = []
    found = list(files_below(item, nothing)) if os.path.isdir(item) else matching_files(item)
    paths = list(filter(is_known, found)) if os.path.isdir(item) else found
    if paths and nothing:
        print(f"{item}: {len(nothing):,} links to nothing, pipes and the like are left out: {printable(nothing[0])}")
    if paths and len(paths) < len(found):
        others = collections.Counter(os.path.splitext(path)[1].lower() or "none" for path in set(found) - set(paths))
        most = sorted(others.items(), key=lambda one: (-one[1], one[0]))[:5]
        some = ", ".join(f"{ending} ({count:,})" for ending, count in most)
        print(f"{item}: {len(found) - len(paths):,} files of endings that are not read here are left out: {some}")
    if not paths:
        raise UserError(f"{item or repr(item)}: no input there.", f"Give files, folders with {endings} or globs.")
    return paths


def _is_known(path):
    return path.lower().endswith(PARQUET) or plain_name(path).endswith(TEXTS + LINES + TAR + WARC)
