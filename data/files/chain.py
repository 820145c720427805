"""A log that is only added to: each line holds a digest of itself and of the line before, so that no change of what was written passes.

The last field of a line, `chain`, is the SHA-256 of the chain before (64 zeros at the start), a line feed, and the line without that field.
FILE.head has the number of lines and the last digest, so that an end cannot be cut off, nor one added, unseen. There is no secret in it:
whoever may write both files can write another history. Copy the head to where they cannot, and give it to `omnia audit verify`.
"""

import fcntl
import hashlib
import json
import os
import re
import threading
from typing import Any, NamedTuple

from data.errors import UserError

START = "0" * 64
_FIELD = ', "chain": "'


class Broken(NamedTuple):
    """line: from 1 on; 0: of the whole. why: what is wrong there."""

    line: int
    why: str


class Head(NamedTuple):
    """How far a log went: lines, and the digest of the last."""

    lines: int
    digest: str


def _digest(before: str, content: bytes) -> str:
    return hashlib.sha256(before.encode() + b"\n" + content).hexdigest()


class ChainLog:
    """The one writer of a log; another one is refused. What a crash left of a line is taken out when it is opened again, and said in it."""

    def __init__(self, path: str, *, mode: int = 0o644):
        """mode: of the log's file, where it is made now; one that is there keeps its own."""
        kept, self._lock = read_head(path), threading.Lock()
        self._file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115 - open as long as this is
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path}: another process writes this log", "Give each server one of its own.") from None
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole and kept is None:
            self._file.close()
            raise UserError(f"{path}: its head is gone: {path}.head", "Bring it back, or keep this as evidence and write to another file.")
        found = check(content[:whole], kept)
        if isinstance(found, Broken):
            self._file.close()
            raise UserError(f"{path}: line {found.line}: {found.why}", "Keep it as evidence, and write to another file.")
        self._head = found
        self._head_file = os.open(f"{path}.head", os.O_WRONLY | os.O_CREAT, 0o644)
        self._file.truncate(whole)
        beyond = found.lines - (kept.lines if kept is not None else 0)
        if beyond > 1:  # neither file waits for the disk, so a loss of power can leave an older head; or somebody wrote them
            self.add({"event": "lines beyond the head are taken as they are", "lines": beyond})
        if whole < len(content):
            self.add({"event": "a line that was not finished is taken out", "bytes": len(content) - whole})
        else:
            self._write_head()

    def add(self, record: dict[str, Any]) -> None:
        """Write a record; it is on the disk's way when this returns."""
        line = json.dumps(record, ensure_ascii=False)
        if not record or "chain" in record:
            raise ValueError("a record has fields, and none of them is `chain`")
        with self._lock:
            content = line.encode("utf-8", "backslashreplace")  # half of a pair of surrogates, as JSON writes it
            digest = _digest(self._head.digest, content)
            self._file.write(content[:-1] + f'{_FIELD}{digest}"}}\n'.encode())
            self._file.flush()
            self._head = Head(self._head.lines + 1, digest)
            self._write_head()

    def _write_head(self) -> None:
        # Of one length, so that one small write in its place changes it as a whole; a request does not wait for the disk.
        os.pwrite(self._head_file, f"{self._head.lines:020} {self._head.digest}\n".encode(), 0)

    def close(self) -> None:
        self._file.close()
        os.close(self._head_file)


def head_of(text: str) -> Head | None:
    """What a head says, "LINES DIGEST"; None for what is none."""
    found = re.fullmatch(r"\s*([0-9]{1,20})\s+([0-9a-f]{64})\s*", text)
    return Head(int(found[1]), found[2]) if found else None


def read_head(path: str) -> Head | None:
    """What FILE.head says; None where there is none, or nothing in it yet. UserError for a damaged one."""
    if not os.path.isfile(f"{path}.head"):
        return None
    with open(f"{path}.head", encoding="utf-8", errors="replace") as file:
        text = file.read()
    if text and head_of(text) is None:
        raise UserError(f"{path}.head: is damaged", "Compare the log with a copy of its head.")
    return head_of(text)


def check(content: bytes, head: Head | None, later: Head | None = None) -> Head | Broken:
    """How far a log goes, or where it is broken.

    head: how far it was known to go, None where that is not known; a longer one is fine. later: FILE.head, read after the log, which may
    have one line more: a line is written before its head, and a crash may come between.
    """
    before, number = START, 0
    known = {one.lines: one.digest for one in (head, later) if one is not None}
    if known.get(0, START) != START:
        return Broken(0, "its head is of another log")
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        payload, separator, digest = line.rpartition(_FIELD.encode())
        if not separator or len(digest) != 67 or not digest.endswith(b'"}\n'):
            return Broken(number, "has no digest at its end")
        if _digest(before, payload + b"}") != digest[:-3].decode("ascii", "replace"):
            return Broken(number, "is not what was written, or not where it was")
        before = digest[:-3].decode()
        if known.get(number, before) != before:
            return Broken(number, "is another line than the head knows")
    if head is not None and number < head.lines:
        return Broken(number + 1, f"is missing: the log had {head.lines:,} lines, and has {number:,}")
    if later is not None and number > later.lines + 1:
        return Broken(later.lines + 1, f"was added: the log had {later.lines:,} lines by its head, and has {number:,}")
    return Head(number, before)
