"""Who may do what with a run: `access.json` in its folder, checked wherever the run is opened.

{"read": ["ann", "group:research"], "train": [...], "serve": [...], "review": [...]}: names of users and groups of the system, or
"everyone". An action that the file does not list is nobody's but the owner's; without the file everything is everyone's. The file keeps
people from mistakes, and others out only as far as the system does: it is not believed where others than its owner may write it.
"""

import contextlib
import contextvars
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from data.errors import UserError
from data.files import json_files

FILE = "access.json"
ACTIONS = ("read", "train", "serve", "review")
EVERYONE, GROUP = "everyone", "group:"
OF_VERBS = {"train": "train", "launch": "train", "federate": "train", "serve": "serve", "review": "review"}
"""What a verb does with runs; all others read them."""
_acting: contextvars.ContextVar[str] = contextvars.ContextVar("acting", default="read")
_HOW = 'It is {"read": ["NAME", "group:NAME", "everyone"], "train": ..., "serve": ..., "review": ...}.'


@contextlib.contextmanager
def acting(verb: str) -> Iterator[None]:
    """Runs that are opened inside are for what a verb does."""
    token = _acting.set(OF_VERBS.get(verb, "read"))
    try:
        yield
    finally:
        _acting.reset(token)


def check(run: Path) -> None:
    """UserError where the user of this process may not do what is being done with a run."""
    path = run / FILE
    if not path.is_file():
        return
    status = path.stat()
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"{path}: others than its owner may write it", f"Take that from them: chmod go-w {path}")
    allowed = read(path)
    if os.geteuid() in (status.st_uid, 0):
        return
    action = _acting.get()
    names = allowed.get(action, [])
    if EVERYONE not in names and not {*names} & _own_names():
        who = ", ".join(names) or "its owner alone"
        raise UserError(f"{run}: you may not {action} this run", f"Ask its owner; {path.name} allows {who}.")


def read(path: Path) -> dict[str, list[str]]:
    """Names by action. UserError for a file that says something else."""
    found = json_files.read(path, _HOW)
    for action, names in found.items():
        if action not in ACTIONS:
            raise UserError(f"{path}: no action is called {action!r}", _HOW)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: {action} is no list of names", _HOW)
    return found


def user_name() -> str:
    """The user of this process, by the system and whatever its environment says; empty for a number without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _own_names() -> set[str]:
    """The user of this process and its groups."""
    found = {name} if (name := user_name()) else set()
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            found.add(GROUP + grp.getgrgid(number).gr_name)
    return found
