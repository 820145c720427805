"""`omnia audit`: whether a log is what was written."""

import dataclasses
import os
from pathlib import Path

import tyro

from data.errors import UserError
from data.files import json_files
from data.files.chain import Broken, Head, check, read_head
from train.verbs.arguments import below, parse


def audit(arguments: list[str]) -> int:
    does = "check the chain of a log that `omnia serve --audit FILE` wrote: exit code 1 where it is broken"
    return below("audit", arguments, {"verify": (verify, "FILE", does)})


@dataclasses.dataclass(frozen=True)
class VerifyLog:
    """Check that no line of a log was changed, taken out, added in between or moved. Whether its end was cut off is known by FILE.head, or
    by a head that was kept elsewhere."""

    file: tyro.conf.Positional[str]
    """The log."""
    head: str = ""
    """What FILE.head held once, "LINES DIGEST", kept where nobody who writes the log could change it. Empty: FILE.head itself."""
    json: bool = False
    """Print one line of JSON."""


def verify(arguments: list[str]) -> int:
    o = parse(VerifyLog, "audit verify", arguments)
    if not os.path.isfile(o.file):
        raise UserError(f"{o.file}: no such file", "Give the FILE of `omnia serve --audit FILE`.")
    head = read_head(o.file)
    if o.head:
        words = o.head.split()
        if len(words) != 2 or not words[0].isdigit():
            raise UserError(f"--head {o.head}: is no head", "Give what FILE.head held: a number of lines and a digest.")
        head = Head(int(words[0]), words[1])
    found = check(Path(o.file).read_bytes(), head)
    if o.json:
        whole = isinstance(found, Head)
        said = {"passed": whole, "lines": found.lines} if isinstance(found, Head) else {"passed": whole, **found._asdict()}
        print(json_files.dumps(said | {"head": head is not None}))
    elif isinstance(found, Broken):
        print(f"{o.file}: line {found.line} {found.why}")
    else:
        unknown = "" if head is not None else "; there is no head, so its end may have been cut off"
        print(f"{o.file}: {found.lines:,} lines, all as they were written{unknown}")
    return 1 if isinstance(found, Broken) else 0
