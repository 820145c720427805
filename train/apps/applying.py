"""Rows through an application into a file, so that whatever ends the process, no line is lost and none stands there twice.

Lines are appended; after each lot of rows OUTPUT.journal says how many bytes of them count, where the rows went on, and what the
application remembers. A process that comes back cuts off what is behind, and goes on there. What standard input gave to a process that was
ended before it answered is gone, unless the same is given again from its beginning.
"""

import codecs
import contextlib
import fcntl
import itertools
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from data.errors import UserError
from data.files import json_files, storage
from data.records.record import Record
from data.records.rows import every_row, row_of
from train.apps.web_socket import SCHEME, WebSocket
from train.kinds import Application

LOT = 256
"""Rows at once, at most."""
LONGEST = 1 << 20
"""Bytes of a line that is read as a row."""
IDLE_SECONDS = 0.1
"""Between two looks at a stream that holds nothing new."""
STDIN = "-"
FORMS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Files of a folder that are read, gzipped or not."""
DEEPEST = 32
"""Values within values of a row."""
HEAD = 1024
"""Bytes by which a file is known again that grows."""

Rows = Iterator[tuple[Record | UserError, Any] | None]
"""Each row, or what is wrong with it, and the place behind it; None where there is nothing more yet."""


class Applied(NamedTuple):
    rows: int
    errors: int
    seconds: float
    ended: bool
    """Whether all rows of the input are answered; never so of what is followed."""


class Table:
    """A file of any form, from its first row or from a later one on. place: rows."""

    def __init__(self, path: str):
        self._path = path

    @property
    def known_by(self) -> Any:
        """What tells that it is still the same."""
        found = os.stat(self._path)
        return [os.path.abspath(self._path), found.st_size, found.st_mtime_ns]

    def read(self, place: int | None) -> Rows:
        for number, row in enumerate(itertools.islice(every_row(self._path), place or 0, None), (place or 0) + 1):
            yield row, number


class Stream:
    """A file of JSON lines that others write to, followed beyond its end, and to the one that takes its name when it is put away. A line
    counts once its end is there. place: bytes and lines that were read, and a digest of its first bytes with their number."""

    def __init__(self, path: str):
        self._path = path

    @property
    def known_by(self) -> Any:
        return [os.path.abspath(self._path)]

    def read(self, place: Any) -> Rows:
        at, number, size, digest = place or (0, 0, 0, "")
        while True:
            with open(self._path, "rb") as file:
                if size and _head(file, size) != [size, digest]:
                    raise UserError(f"{self._path}: is not the file that was read", "Give the file that grew, or another --output.")
                if os.fstat(file.fileno()).st_size < at:
                    raise UserError(f"{self._path}: is shorter than what was read of it", "Give the file that grew, or another --output.")
                head = _head(file, HEAD)
                file.seek(at)
                lines = _Lines()
                while True:
                    replaced = self._is_replaced(file, at + lines.read)  # looked at before the file is read to its end
                    piece = file.read(1 << 16)
                    if piece and head[0] < HEAD:  # it was shorter when it was opened
                        head = _head(file, HEAD)
                    for line, behind in lines.of(piece):
                        number += 1
                        if line is None or line.strip():
                            yield _row(line, f"{self._path}: line {number}", number), (at + behind, number, *head)
                    if piece:
                        continue
                    if replaced:
                        at, number, size = 0, 0, 0
                        break
                    yield None

    def _is_replaced(self, file: Any, at: int) -> bool:
        """Whether the name is another file's by now, or the file was emptied."""
        with contextlib.suppress(FileNotFoundError):  # put away, and the next is not there yet
            now, own = os.stat(self._path), os.fstat(file.fileno())
            return (now.st_ino, now.st_dev) != (own.st_ino, own.st_dev) or now.st_size < at
        return False


class StandardInput:
    """Lines that come in. anew: whether a process that goes on is given those again that were read before, as of a file. place: lines."""

    known_by = STDIN

    def __init__(self, anew: bool, descriptor: int = 0):
        self._anew, self._descriptor = anew, descriptor

    def read(self, place: int | None) -> Rows:
        before, number, lines = place or 0, 0 if self._anew else place or 0, _Lines()
        while True:
            if not select.select([self._descriptor], [], [], IDLE_SECONDS)[0]:
                yield None
                continue
            piece = os.read(self._descriptor, 1 << 16)
            for line, _ in lines.of(piece or b"\n"):
                number += 1
                if number > before and (line is None or line.strip()):
                    yield _row(line, f"standard input: line {number}", number), number
            if not piece:
                return


class Folder:
    """Files that are put into a folder, each whole when it has its name, in the order of their names. A file that cannot be read is an
    error in its place. place: files that were read, the one that is being read, and its rows."""

    def __init__(self, path: str, follow: bool):
        self._path, self._follow = path, follow

    @property
    def known_by(self) -> Any:
        return [os.path.abspath(self._path)]

    def read(self, place: Any) -> Rows:
        done, current, begun = (set(place[0]), *place[1:]) if place else (set(), "", 0)
        while True:
            there = self.names()
            done &= there  # those that were taken away again need not be remembered
            names = sorted(there - done)
            if current:
                names = [current] if current in there else names
            for name in names:
                whole, number = sorted(done), begun if name == current else 0
                try:
                    for row in itertools.islice(every_row(os.path.join(self._path, name)), number, None):
                        number += 1
                        yield row, (whole, name, number)
                except (UserError, OSError) as error:
                    number += 1
                    wrong = error if isinstance(error, UserError) else UserError(f"{name}: {error.strerror or error}")
                    yield wrong, (sorted({*done, name}), "", 0)
                done.add(name)
            begun, current = 0, ""
            if not names and not self._follow:
                return
            if not names:
                yield None

    def names(self) -> set[str]:
        with os.scandir(self._path) as entries:
            return {one.name for one in entries if one.name.removesuffix(".gz").endswith(FORMS) and not one.name.startswith(".")}


class _Lines:
    """Whole lines of what comes in pieces. One that is too long is None, and is not kept."""

    def __init__(self):
        self._rest, self._long = b"", False
        self.read = 0
        """Bytes of all lines that were given."""

    def of(self, piece: bytes) -> Iterator[tuple[bytes | None, int]]:
        """(a line without its end, bytes up to there) of each that is whole by now."""
        *whole, rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self.read += len(line) + 1
            yield (None if self._long or len(line) > LONGEST else line), self.read
            self._long = False
        if len(rest) > LONGEST:
            self._long, self.read, rest = True, self.read + len(rest), b""
        self._rest = rest


def _head(file: Any, size: int) -> list[Any]:
    """The number and a digest of a file's first bytes."""
    first = os.pread(file.fileno(), size, 0)
    return [len(first), xxhash.xxh3_128_hexdigest(first)]


def _row(line: bytes | None, where: str, number: int) -> Record | UserError:
    if line is None:
        return UserError(f"{where}: is longer than {LONGEST:,} bytes", "Give shorter rows.")
    return row_of(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, where)


def source_of(path: str, follow: bool, output: Path) -> Any:
    """What reads the rows of an input. UserError where there is none, or it cannot be followed."""
    if path == STDIN:
        return StandardInput(anew=not follow)
    if path.startswith(SCHEME):
        return WebSocket(path, follow)
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder", "Give one that is there, or - for standard input.")
    if os.path.isdir(path):
        if os.path.realpath(path) == os.path.realpath(output.absolute().parent):
            raise UserError(f"{output}: is in the folder that is read", "Choose another --output.")
        folder = Folder(path, follow)
        if not follow and not folder.names():
            raise UserError(f"{path}: holds no file of rows", f"Give some that end with {', '.join(FORMS)}, gzipped or not.")
        return folder
    if follow and path.endswith((".csv", ".tsv", ".parquet", ".gz")):
        raise UserError(f"{path}: lines of JSON alone can be followed", "Give such a file, or a folder of files, or leave --follow out.")
    return Stream(path) if follow else Table(path)


def apply(
    application: Application,
    source: Any,
    output: Path,
    *,
    whose: Any,
    follow: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    said: Callable[[int], Any] = lambda rows: None,
) -> Applied:
    """Write what an application makes of rows. whose: what the lines depend on beside the rows, which a process that goes on must have
    again. follow: keep the output open to more rows, until `stopped`; else it gets its name once all are there. said: is told the number of
    rows, now and then.
    """
    began = time.monotonic()
    target = output if follow else output.with_name(output.name + ".partial")
    journal = output.with_name(output.name + ".journal")
    of = {"application": whose, "input": source.known_by, "follow": follow}
    with _alone(output):
        kept = _kept(journal, target, output, of)
        if kept["state"] is not None:
            application.restore(kept["state"])
        if not kept["ended"]:
            if not journal.is_file():  # before there is a file that a process which comes back would take for another's
                _keep(journal, {"of": of} | kept)
            with open(target, "ab") as file:
                file.truncate(kept["bytes"])
                file.seek(0, os.SEEK_END)
                for kept in _written(application, source.read(kept["place"]), file, kept, follow, stopped):  # noqa: B020 - goes on from the last
                    _keep(journal, {"of": of} | kept)
                    said(kept["rows"])
        if kept["ended"] and not follow:
            if target.exists():
                os.replace(target, output)
                storage.sync_folder(str(output.absolute().parent))
            journal.unlink()
    return Applied(kept["rows"], kept["errors"], time.monotonic() - began, kept["ended"])


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Two processes that write one output would cut off each other's lines: the second is a UserError."""
    path = output.with_name(output.name + ".lock")
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                raise BlockingIOError  # whoever had it has ended since, and its lock is no longer the one that others would meet
        except BlockingIOError:
            raise UserError(f"{output}: another process writes it", "Wait for its end, or choose another --output.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _keep(journal: Path, value: Any) -> None:
    """On one line, which is written many times faster than an indented one: with --follow a lot may be a single row."""
    storage.write_atomically(str(journal), json_files.line(value))


def _written(
    application: Application, rows: Rows, file: Any, kept: dict[str, Any], follow: bool, stopped: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """What the journal is to say after each lot, whose lines are in the file. What is followed never ends: more may come another day."""

    def written(lot: list[Record | UserError], ended: bool) -> dict[str, Any]:
        lines = _answered(application, lot) + (application.finish() if ended else [])
        file.write(b"".join(map(json_files.line, lines)))
        file.flush()
        os.fsync(file.fileno())
        counts = {"rows": kept["rows"] + len(lot), "errors": kept["errors"] + sum("error" in line for line in lines)}
        return counts | {"bytes": file.tell(), "place": place, "ended": ended, "state": application.state()}

    lot: list[Record | UserError] = []
    place, ended = kept["place"], not follow
    for one in rows:
        if one is not None:
            row, place = one
            lot.append(row)
        if lot and (one is None or len(lot) == LOT):
            kept, lot = written(lot, False), []
            yield kept
        if stopped():
            ended = False
            break
        if one is None:
            time.sleep(IDLE_SECONDS)
    if lot or ended:
        yield written(lot, ended)


def _answered(application: Application, lot: list[Record | UserError]) -> list[dict[str, Any]]:
    """The lines of some rows, those that could not be read among them in their places."""
    lines: list[dict[str, Any]] = []
    for readable, some in itertools.groupby(map(_sound, lot), lambda row: isinstance(row, Record)):
        found = list(some)
        lines += application.answers(found) if readable else [{"error": str(row).partition("\n")[0]} for row in found]
    return lines


def _sound(row: Record | UserError) -> Record | UserError:
    """A row whose texts are all Unicode, and which is not nested beyond reason; else what is wrong with it."""
    if isinstance(row, UserError):
        return row
    if json_files.depth(row, DEEPEST) > DEEPEST:
        return UserError(f"{row.where}: has more than {DEEPEST} values within values", "Give flatter rows.")
    if not json_files.is_unicode(row):
        return UserError(f"{row.where}: a text holds half of a surrogate pair, which is no character", "Leave it out.")
    return row


def _kept(journal: Path, target: Path, output: Path, of: dict[str, Any]) -> dict[str, Any]:
    """What the journal says, or the beginning. UserError for an output of something else."""
    if not journal.is_file():
        if output.exists():
            raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
        return {"rows": 0, "errors": 0, "bytes": 0, "place": None, "ended": False, "state": None}
    mend = f"Remove {journal} and {target}: the rows are then read anew."
    kept = json_files.read(journal, mend)
    if kept.get("of") != of:
        raise UserError(f"{journal}: is of another run, checkpoint or input", f"Give those again. Or else: {mend}")
    size = target.stat().st_size if target.is_file() else output.stat().st_size if kept["ended"] and output.is_file() else 0
    if size < kept["bytes"]:
        raise UserError(f"{target}: is shorter than {journal.name} says", mend)
    return kept
