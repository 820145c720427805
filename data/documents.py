"""Raw inputs as documents: finding files, cutting the work into tasks, reading texts, and saying which split they go to."""

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import xxhash

from data.errors import UserError

CHUNK_BYTES = 1 << 22
LINES = (".jsonl", ".ndjson")
TEXTS = (
    ".txt",
    ".text",
    ".md",
    ".rst",
    ".tex",
    ".html",
    ".xml",
    ".py",
    ".pyi",
    ".ipynb",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".hpp",
    ".cu",
    ".java",
    ".js",
    ".jsx",
    ".ts",
    ".tsx",
    ".go",
    ".rs",
    ".rb",
    ".php",
    ".swift",
    ".kt",
    ".scala",
    ".hs",
    ".ml",
    ".jl",
    ".r",
    ".lua",
    ".pl",
    ".sh",
    ".sql",
    ".toml",
    ".yaml",
    ".yml",
    ".cfg",
    ".ini",
    ".css",
)
COMPRESSIONS = (".gz", ".zst")


class Part(NamedTuple):
    """Bytes [start, stop) of an input file: a whole file, or the lines of a .jsonl that begin there."""

    path: str
    start: int
    stop: int


class Document(NamedTuple):
    """A text, in chunks that can be read again and again; `name` is its file, with the line if it has one."""

    name: str
    chunks: Callable[[], Iterable[str]]
    characters: int
    digest: int  # xxh3_64 of the UTF-8 bytes


class Skipped(NamedTuple):
    """What is no document: empty, which is no fault, or damaged."""

    name: str
    reason: str
    damaged: bool


class SplitRule(NamedTuple):
    """Which part of a document is for training: `hash` decides for the whole document, `tail` cuts off its last part.

    `hash` looks at the content alone: a document stays where it is when others are added.
    """

    kind: str
    validation: float

    def portions(self, document: Document) -> list[tuple[str, int, int]]:
        """[(split, first character, end)], without empty ones."""
        if self.kind == "hash":
            held_out = document.digest < self.validation * 2**64
            return [("validation" if held_out else "train", 0, document.characters)]
        cut = int(document.characters * (1 - self.validation) + 1e-6)
        return [portion for portion in (("train", 0, cut), ("validation", cut, document.characters)) if portion[1] < portion[2]]


def find_files(inputs: Iterable[str]) -> list[tuple[str, int, int]]:
    """[(absolute path, bytes, time of change in ns)] of all input files: as given, and sorted within folders and globs."""
    found = {}
    for item in inputs:
        pattern = os.path.join(glob.escape(item), "**", "*") if os.path.isdir(item) else item
        paths = (
            [item]
            if os.path.isfile(item)
            else [
                path
                for path in sorted(glob.iglob(pattern, recursive=True))  # which leaves hidden ones out
                if os.path.isfile(path) and (pattern == item or _is_text(path))
            ]
        )
        if not paths:
            raise UserError(f"{item}: no input there.", "Give files, folders with text files (.txt, .jsonl, .py, .md ...) or globs.")
        for path in paths:
            status = os.stat(path)
            found[os.path.abspath(path)] = (status.st_size, status.st_mtime_ns)
    if not found:
        raise UserError("no input given.", "Name files, folders or globs after --input.")
    return [(path, *facts) for path, facts in found.items()]


def plan_tasks(files: Iterable[tuple[str, int, int]], task_bytes: int) -> list[list[Part]]:
    """The files in turn, in tasks of about `task_bytes`. Only a plain .jsonl is divided."""
    tasks, room = [], 0
    for path, size, _ in files:
        step = task_bytes if path.lower().endswith(LINES) else max(size, 1)
        for start in range(0, max(size, 1), step):
            part = Part(path, start, min(start + step, size))
            if room <= 0:
                tasks.append([])
                room = task_bytes
            tasks[-1].append(part)
            room -= part.stop - part.start
    return tasks


def read_documents(
    parts: Iterable[Part], text_field: str, report: Callable[[int], None] = lambda read: None
) -> Iterator[Document | Skipped]:
    """All documents of a task in order; `report` is told of input bytes as they are read."""
    for part in parts:
        name = part.path.lower().removesuffix(".gz").removesuffix(".zst")
        yield from _read_lines(part, text_field, report) if name.endswith(LINES) else _read_text(part, report)


def between(chunks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """Characters [start, stop) of a text in chunks."""
    position = 0
    for chunk in chunks:
        inside = chunk[max(start - position, 0) : max(stop - position, 0)]
        position += len(chunk)
        if inside:
            yield inside


def _is_text(path):
    for suffix in COMPRESSIONS:
        path = path.removesuffix(suffix)
    return path.lower().endswith(TEXTS + LINES)


def _read_text(part, report):
    """A whole file is one document. It is read twice if it does not fit one chunk: a digest comes before a split."""
    characters, digest, first, count = 0, xxhash.xxh3_64(), "", 0
    try:
        for chunk in _text_chunks(part.path, lambda read: None):
            count += 1
            first = first or chunk
            characters += len(chunk)
            digest.update(chunk.encode())
    except _Unreadable as error:
        report(part.stop)
        yield Skipped(part.path, str(error), True)
        return
    if not characters:
        report(part.stop)
        yield Skipped(part.path, "empty", False)
    elif count == 1:
        report(part.stop)
        yield Document(part.path, _in_one_chunk(first), characters, digest.intdigest())
    else:
        yield Document(part.path, lambda: _text_chunks(part.path, report), characters, digest.intdigest())


def _text_chunks(path, report):
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    for content in _byte_chunks(path, report):
        held = len(decoder.getstate()[0])  # the begun character of the chunk before
        try:
            text = decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            raise _Unreadable(f"invalid UTF-8 at byte {position - held + error.start}") from None
        position += len(content)
        if text:
            yield text


def _byte_chunks(path, report):
    """The content of a file, decompressed; at the end an empty chunk."""
    with open(path, "rb") as raw, _decompressed(raw, path) as file:
        done = 0
        while True:
            try:
                content = file.read(CHUNK_BYTES)
            except _decompression_errors() as error:
                raise _Unreadable(f"cannot be decompressed ({error})") from None
            report(raw.tell() - done)
            done = raw.tell()
            yield content
            if not content:
                return


def _read_lines(part, text_field, report):
    number = 0
    lines = _lines(part, report)
    while True:
        try:
            line = next(lines, None)
        except _Unreadable as error:
            yield Skipped(part.path, str(error), True)
            return
        if line is None:
            return
        number += 1
        try:
            text = _text_of(line, text_field) if line.strip() else None
        except ValueError as error:
            yield Skipped(f"{part.path}:{_lines_before(part) + number}", str(error), True)
            continue
        name = f"{part.path}: line {number} after byte {part.start}" if part.start else f"{part.path}:{number}"
        if text:
            yield Document(name, _in_one_chunk(text), len(text), xxhash.xxh3_64_intdigest(text.encode()))
        elif text is not None:
            yield Skipped(name, "empty", False)


def _in_one_chunk(text):
    return lambda: [text]


def _lines(part, report):
    if part.path.endswith(COMPRESSIONS):
        rest = b""
        for content in _byte_chunks(part.path, report):
            *lines, rest = (rest + content).split(b"\n")
            yield from lines
        if rest:
            yield rest
        return
    with open(part.path, "rb") as file:
        if part.start:
            file.seek(part.start - 1)
            file.readline()  # the line that began in the part before
        while file.tell() < part.stop and (line := file.readline()):
            report(len(line))
            yield line


def _text_of(line, text_field):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON ({error})") from None
    text = record.get(text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"no text in the field {text_field!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"half of a surrogate pair in the field {text_field!r}") from None
    return text


def _lines_before(part):
    """How many lines of the file begin before the part."""
    count, left = int(part.start > 0), part.start - 1
    with open(part.path, "rb") as file:
        while left > 0:
            content = file.read(min(CHUNK_BYTES, left))
            count += content.count(b"\n")
            left -= len(content)
    return count


def _decompressed(raw, path):
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if path.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return raw


def _decompression_errors():
    import zstandard

    return EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError


class _Unreadable(UserError):
    """A file that cannot be read as text, and why."""
