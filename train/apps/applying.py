"""Rows through an application into a file, so that whatever ends the process, no line is lost and none stands there twice.

Lines are appended; after each lot of rows OUTPUT.journal says how many bytes of them count, where the rows went on, and what the
application remembers. A process that comes back cuts off what is behind, and goes on there.
"""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import UserError
from data.files import json_files, storage
from data.records.record import Record
from data.records.rows import every_row, row_of
from train.kinds import Application

LOT = 256
"""Rows at once, at most."""
LONGEST = 1 << 20
"""Bytes of a line that is waited for, and read as a row."""
IDLE_SECONDS = 0.1
"""Between two looks at a stream that holds nothing new."""
STDIN = "-"


class Applied(NamedTuple):
    rows: int
    errors: int
    seconds: float


class Rows:
    """Of a file of any form, from the first or from a later one on."""

    def __init__(self, path: str):
        self._path = path

    def read(self, place: Any) -> Iterator[tuple[Record | UserError, Any] | None]:
        """(row, the place behind it); None where there is nothing more yet. place: None for the beginning."""
        for number, row in enumerate(itertools.islice(every_row(self._path), place or 0, None), (place or 0) + 1):
            yield row, number


class Stream:
    """A file of JSON lines that others write to, followed beyond its end. A line counts once its end is there."""

    def __init__(self, path: str):
        self._path = path

    def read(self, place: Any) -> Iterator[tuple[Record | UserError, Any] | None]:
        at, number = place or (0, 0)
        with open(self._path, "rb") as file:
            if os.fstat(file.fileno()).st_size < at:
                raise UserError(f"{self._path}: is shorter than what was read of it", "Give the file that grew, or another --output.")
            file.seek(at)
            while True:
                line = file.readline(LONGEST)
                if not line.endswith(b"\n") and len(line) < LONGEST:
                    file.seek(at)
                    yield None
                    continue
                whole = line
                while not line.endswith(b"\n"):  # the rest of one that is too long
                    at += len(line)
                    line = file.readline(LONGEST)
                    if not line:
                        yield None
                at, number = at + len(line), number + 1
                if whole.strip():
                    yield _row(whole, f"{self._path}: line {number}"), (at, number)


class StandardInput:
    """Lines that come in. anew: whether a process that goes on is given those again that were read before, as of a file."""

    def __init__(self, anew: bool):
        self._anew = anew

    def read(self, place: Any) -> Iterator[tuple[Record | UserError, Any] | None]:
        for number in itertools.count(1 if self._anew else (place or 0) + 1):
            line = sys.stdin.buffer.readline(LONGEST)
            if not line:
                return
            if line.strip() and number > (place or 0):
                yield _row(line, f"standard input: line {number}"), number


class Folder:
    """Files that are put into a folder, each whole when it has its name, in the order of their names."""

    def __init__(self, path: str, follow: bool):
        self._path, self._follow = path, follow

    def read(self, place: Any) -> Iterator[tuple[Record | UserError, Any] | None]:
        done, current, begun = (set(place[0]), *place[1:]) if place else (set(), "", 0)
        while True:
            there = self._names()
            done &= there  # those that were taken away again need not be remembered
            names = [current] if current else sorted(there - done)
            for name in names:
                number = begun
                for row in itertools.islice(every_row(str(Path(self._path, name))), begun, None):
                    number += 1
                    yield row, (sorted(done), name, number)
                done.add(name)
                current, begun = "", 0
            if not names and not self._follow:
                return
            if not names:
                yield None

    def _names(self) -> set[str]:
        return {name for name in os.listdir(self._path) if name.endswith((".jsonl", ".csv", ".json")) and not name.startswith(".")}


def _row(line: bytes, where: str) -> Record | UserError:
    if not line.endswith(b"\n") and len(line) == LONGEST:
        return UserError(f"{where}: is longer than {LONGEST:,} bytes", "Give shorter rows.")
    return row_of(line, where)


def source_of(path: str, follow: bool) -> Any:
    """What reads the rows of an input. UserError where there is none."""
    if path == STDIN:
        return StandardInput(anew=not follow)
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder", "Give one that is there, or - for standard input.")
    if os.path.isdir(path):
        return Folder(path, follow)
    return Stream(path) if follow else Rows(path)


def apply(
    application: Application,
    source: Any,
    output: Path,
    *,
    whose: dict[str, Any],
    follow: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    said: Callable[[int], Any] = lambda rows: None,
) -> Applied:
    """Write what an application makes of rows. whose: run and input, which a process that goes on must have again. follow: keep the output
    open to more rows, until `stopped`; else it gets its name once all are there. said: is told the number of rows, now and then.
    """
    began = time.monotonic()
    target = output if follow else output.with_name(output.name + ".partial")
    journal = output.with_name(output.name + ".journal")
    kept = _kept(journal, target, output, whose)
    if kept["state"] is not None:
        application.restore(kept["state"])
    rows, errors = kept["rows"], kept["errors"]
    if not follow and not target.exists() and output.exists():  # ended between its last two steps
        journal.unlink()
        return Applied(rows, errors, 0.0)
    with open(target, "ab") as file:
        file.truncate(kept["bytes"])
        file.seek(0, os.SEEK_END)

        def commit(lot: list[Record | UserError], place: Any, last: bool = False) -> None:
            nonlocal rows, errors
            lines = _answered(application, lot) + (application.finish() if last else [])
            rows, errors = rows + len(lot), errors + sum("error" in line for line in lines)
            file.write(b"".join(map(json_files.line, lines)))
            file.flush()
            os.fsync(file.fileno())
            state = {"rows": rows, "errors": errors, "bytes": file.tell(), "place": place, "state": application.state()}
            json_files.write(journal, {"of": whose} | state)
            said(rows)

        lot: list[Record | UserError] = []
        place = kept["place"]
        for one in source.read(place):
            if one is not None:
                row, place = one
                lot.append(row)
            if lot and (one is None or len(lot) == LOT):
                commit(lot, place)
                lot = []
            if stopped():
                break
            if one is None:
                time.sleep(IDLE_SECONDS)
        if lot or not follow:
            commit(lot, place, last=not follow and not stopped())
    if not follow and not stopped():
        os.replace(target, output)
        storage.sync_folder(str(output.parent))
        with contextlib.suppress(FileNotFoundError):
            journal.unlink()
    return Applied(rows, errors, time.monotonic() - began)


def _answered(application: Application, lot: list[Record | UserError]) -> list[dict[str, Any]]:
    """The lines of some rows, those that could not be read among them in their places."""
    lines: list[dict[str, Any]] = []
    for readable, some in itertools.groupby(lot, lambda row: isinstance(row, Record)):
        found = list(some)
        lines += application.answers(found) if readable else [{"error": str(row).partition("\n")[0]} for row in found]
    return lines


def _kept(journal: Path, target: Path, output: Path, whose: dict[str, Any]) -> dict[str, Any]:
    """What the journal says, or the beginning. UserError for an output of something else."""
    if not journal.is_file():
        if output.exists():
            raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
        return {"rows": 0, "errors": 0, "bytes": 0, "place": None, "state": None}
    kept = json_files.read(journal, f"Remove it and {target}: the rows are then read anew.")
    if kept.get("of") != whose:
        raise UserError(f"{journal}: is of another run or input", f"Give those, or remove it and {target}.")
    named = not target.exists() and output.is_file() and output.stat().st_size == kept["bytes"]
    if not named and (not target.is_file() or target.stat().st_size < kept["bytes"]):
        raise UserError(f"{target}: is shorter than {journal.name} says", f"Remove {journal.name}: the rows are then read anew.")
    return kept
