"""`omnia audit`: whether a log is what was written."""

import dataclasses
import os
from pathlib import Path

import tyro

from data.errors import UserError
from data.files import json_files
from data.files.chain import Broken, Head, check, head_of, read_head
from train.verbs.arguments import below, parse


def audit(arguments: list[str]) -> int:
    does = "check the chain of a log that `omnia serve --audit FILE` wrote: exit code 1 where it is broken"
    return below("audit", arguments, {"verify": (verify, "FILE", does)})


@dataclasses.dataclass(frozen=True)
class VerifyLog:
    """Check that no line of a log was changed, taken out, added or moved, by its chain and FILE.head. Whoever may write both can forge
    both; a head that was kept elsewhere shows that."""

    file: tyro.conf.Positional[str]
    """The log."""
    head: str = ""
    """What FILE.head held once, "LINES DIGEST", kept where nobody who writes the log could change it. Empty: FILE.head alone."""
    json: bool = False
    """Print one line of JSON."""


def verify(arguments: list[str]) -> int:
    o = parse(VerifyLog, "audit verify", arguments)
    if not os.path.isfile(o.file):
        raise UserError(f"{o.file}: no such file", "Give the FILE of `omnia serve --audit FILE`.")
    kept = head_of(o.head)
    if o.head and kept is None:
        raise UserError(f"--head {o.head}: is no head", "Give what FILE.head held: a number of lines and a digest.")
    own, content = read_head(o.file), Path(o.file).read_bytes()  # a server may be writing: its head is read before and after
    later = read_head(o.file)
    found = check(content, own, later)
    if kept is not None and isinstance(found, Head):
        found = check(content, kept)
    head = kept or later
    passed = isinstance(found, Head) and head is not None
    beyond = max(0, found.lines - head.lines) if isinstance(found, Head) and head is not None else 0
    if o.json:
        said = {"lines": found.lines, "beyond_head": beyond} if isinstance(found, Head) else found._asdict()
        print(json_files.dumps({"passed": passed} | said | {"head": head is not None}))
    elif isinstance(found, Broken):
        print(f"{o.file}: line {found.line} {found.why}")
    elif head is None:
        print(f"{o.file}: {found.lines:,} lines fit together, but {o.file}.head is missing, so an end may have been cut off.")
        print('       Give a head that was kept elsewhere: --head "LINES DIGEST".')
    elif kept is not None:
        print(f"{o.file}: {found.lines:,} lines, all as they were written; {beyond:,} of them came after that head")
    else:
        unknown = "; its head does not know the last one, which a crash may have left, or somebody added" if beyond else ""
        print(f"{o.file}: {found.lines:,} lines, all as they were written{unknown}")
    return 0 if passed else 1
