"""Splits that folders, files and fields name."""

import os
import re
from collections.abc import Iterable

from data.errors import UserError
from data.media.reading.fields import Record
from data.media.reading.finding import is_manifest, is_medium
from data.readers import tfds
from data.readers.documents import Unreadable, printable

SPLIT_NAMES = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev", "test"), "validation")}
_SPLIT_NAME = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


def split_of(record: Record) -> str | None:
    """The split that a record names, or None. Raises Unreadable for an unknown one."""
    value = record.fields.get("split")
    if value is None:
        return None
    if str(value).strip().lower() not in SPLIT_NAMES:
        raise Unreadable(f"a split {str(value)[:50]!r} that is neither train nor validation")
    return SPLIT_NAMES[str(value).strip().lower()]


def named_splits(files: Iterable[tuple[str, int, int]], roots: Iterable[str], classes: bool = False) -> list[tuple[str, str]]:
    """(folder or file, split) of those that are named by a split: roots, folders below them, and manifests, archives and tables anywhere.

    Names of folders are taken so where two folders in one have such, of which one is train, or where all lies in those and none is train:
    a lonely `test` beside others is a class, a lonely `train` no split. Names of files, where two have such, of which one is train.
    classes: whether folders with all that a root holds right in them are classes, however they are called. UserError where names of splits
    and others stand side by side, or splits within splits.
    """
    found: dict[str, str] = {}
    paths = [path for path, _, _ in files if not path.startswith(tfds.PREFIX)]
    by_parent: dict[str, list[str]] = {}
    for root in roots:
        by_parent.setdefault(os.path.dirname(root), []).append(root)
    for parent, beside in by_parent.items():
        named = {root: split for root in beside if (split := _split_called(root))}
        if _are_splits(named):
            _check_all_named(parent, named, [root for root in beside if any(map(_below(root), paths))])
            found |= named
    for root in set(roots) - set(found):
        found |= _splits_below(root, [path for path in paths if path.startswith(root + os.sep)], classes)
    inside = [path for path in paths if not is_medium(path) and not any(path.startswith(folder + os.sep) for folder in found)]
    matches = {path: match[1].lower() for path in inside if (match := _SPLIT_NAME.match(os.path.basename(path)))}
    if len(set(matches.values())) > 1 and "train" in matches.values():
        found |= {path: SPLIT_NAMES[name] for path, name in matches.items()}
    return sorted(found.items())


def _splits_below(root, paths, classes):
    """{folder: split} of the outermost folders below a root that are named by splits, at any depth; see `named_splits`."""
    folders = {root + os.sep + os.sep.join(names[:depth]) for names in _names_below(root, paths) for depth in range(1, len(names) + 1)}
    named: dict[str, str] = {}
    for folder in sorted(folders, key=len):
        if (split := _split_called(folder)) and not any(folder.startswith(place + os.sep) for place in named):
            named[folder] = split
    holding = {os.path.dirname(path) for path in paths if not is_manifest(path)} - {root}
    flat = all(os.path.dirname(folder) == root for folder in holding)
    if classes and flat:
        return {}
    others = [folder for folder in sorted(holding) if not any(f"{folder}{os.sep}".startswith(place + os.sep) for place in named)]
    by_parent: dict[str, dict[str, str]] = {}
    for place, split in named.items():
        by_parent.setdefault(os.path.dirname(place), {})[place] = split
    if not any(map(_are_splits, by_parent.values())):
        return {} if others or "train" in named.values() else named
    _check_all_named(root, named, [*named, *others], flat)
    if set(by_parent) != {root}:  # a class that is called train, maybe
        for place, split in named.items():
            for folder in folders:
                if folder.startswith(place + os.sep) and _split_called(folder) not in (None, split):
                    raise UserError(
                        f"{printable(folder)}: its name says another split than its folder {printable(os.path.basename(place))}.",
                        "Rename one of them, or name training data after --input and validation data after --validation-input.",
                    )
    return named


def _names_below(root, paths):
    """The folders between a root and each path, by name."""
    return {tuple(os.path.relpath(path, root).split(os.sep)[:-1]) for path in paths}


def _below(folder):
    return lambda path: path.startswith(folder + os.sep)


def _split_called(folder):
    return SPLIT_NAMES.get(os.path.basename(folder).lower())


def _are_splits(named):
    return len(named) > 1 and "train" in named.values()


def _check_all_named(parent, named, there, flat=False):
    """UserError for folders that lie beside splits and name none: they could be anything."""
    others = [os.path.relpath(folder, parent) for folder in there if folder not in named]
    if others:
        splits = ", ".join(sorted({os.path.basename(folder) for folder in named}))
        raise UserError(
            f"{printable(parent)}: {printable(splits)} are named like splits, {printable(', '.join(others[:4]))} are not.",
            "Rename them, or name training data after --input and validation data after --validation-input"
            + ("; --classes folder: all are classes." if flat else "."),
        )
