"""The files in a folder, and those that a pattern matches."""

import fnmatch
import glob
import os
from collections.abc import Iterator


def files_below(folder: str, others: list[str] | None = None) -> Iterator[str]:
    """Paths of the files in a folder and the folders in it, in the order of their names. Names that begin with a dot are left out.

    Links are followed, but a file or folder (device, inode) is given once, by the first of its paths: a link to a folder's own parent
    neither repeats files nor goes on for ever. Paths that are neither, such as broken links and pipes, are added to `others`.
    """
    yield from _below(folder, set(), [] if others is None else others)


def _below(folder: str, seen: set[tuple[int, int]], others: list[str]) -> Iterator[str]:
    if not _is_new(folder, seen):
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _below(path, seen, others)
        elif not os.path.isfile(path):
            others.append(path)
        elif _is_new(path, seen):
            yield path


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    status = os.stat(path)
    here = status.st_dev, status.st_ino
    if here in seen:
        return False
    seen.add(here)
    return True


def matching_files(pattern: str) -> list[str]:
    """Paths of the files that a glob matches, sorted, as `glob.glob(pattern, recursive=True)` has them, each file once: see `files_below`.

    A link to a folder's own parent costs nothing either where the pattern has `**`.
    """
    before, after = _at_double_star(pattern)
    seen: set[tuple[int, int]] = set()
    if not after:
        return [path for path in sorted(glob.glob(pattern)) if os.path.isfile(path) and _is_new(path, seen)]
    found = []
    for folder in sorted(glob.glob(before)) if before else [os.curdir]:
        if os.path.isdir(folder):
            found += [path for path in files_below(folder) if _matches(os.path.relpath(path, folder).split(os.sep), after)]
    found = [path for path in found if _is_new(path, seen)]
    return sorted(found if before else map(os.path.relpath, found))


def _at_double_star(pattern: str) -> tuple[str, list[str]]:
    """The folder before the first `**` of a pattern, "" for the current one; and the names from there on, none where there is no `**`."""
    names = pattern.split(os.sep)
    if "**" not in names:
        return pattern, []
    place = names.index("**")
    return os.sep.join(names[:place]) or (os.sep if pattern.startswith(os.sep) else ""), names[place:]


def _matches(names: list[str], patterns: list[str]) -> bool:
    """Whether the names of a path match patterns, of which `**` stands for any number of them."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[skipped:], patterns[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])
