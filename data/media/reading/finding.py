"""Finding the files of media, manifests, archives and tables that --input names."""

import itertools
import os
from collections import Counter
from collections.abc import Iterable

from data.errors import UserError
from data.files.folders import files_below, matching_files
from data.media.reading.fields import BESIDE, ENDINGS, MEDIA
from data.readers import tfds
from data.readers.documents import printable
from data.readers.inputs import LINES, PARQUET, TAR
from data.readers.stream import COMPRESSIONS, plain_name

TABLES = (".csv", ".tsv")


def find_media(
    inputs: Iterable[str], kind: str, tfds_dir: str = "", tfds_download: bool = False
) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """[(absolute path, bytes, time of change in ns)]: as given, and sorted within folders and globs; those beside a medium are not listed.
    And {ending: count} of the files in folders that are passed over.

    In a folder are found the files of media of this kind (of every kind for ""), manifests, archives and Parquet files.
    """
    known = (ENDINGS[kind] if kind else MEDIA) + LINES + TABLES + PARQUET
    found: dict[str, tuple[int, int]] = {}
    passed: Counter[str] = Counter()
    for item in inputs:
        if item.startswith(tfds.PREFIX):
            path, size, changed = tfds.find(item, tfds_dir, tfds_download)
            found[path] = size, changed
            continue
        others: list[str] = []
        paths = [item] if os.path.isfile(item) else list(files_below(item, others)) if os.path.isdir(item) else matching_files(item)
        told = {os.path.splitext(path)[0] for path in paths if path.lower().endswith(MEDIA)}
        paths = [path for path in paths if not (path.endswith(BESIDE) and os.path.splitext(path)[0] in told)]
        if os.path.isdir(item):
            ours = [path.lower().endswith(known) or plain_name(path).endswith(TAR) for path in paths]
            passed.update(_ending(path) for path, one in zip(paths, ours, strict=True) if not one)
            paths = list(itertools.compress(paths, ours))
            passed.update(f"{_ending(path)} ({'broken link' if os.path.islink(path) else 'no file'})" for path in others)
        if not paths:
            raise UserError(f"{printable(item)}: no input there.", "Give files, folders with media, .csv, .jsonl, .tar or globs.")
        for path in paths:
            _check_named(path)
            status = os.stat(path)
            found[os.path.abspath(path)] = status.st_size, status.st_mtime_ns
    return [(path, *facts) for path, facts in found.items()], dict(sorted(passed.items()))


def _ending(path):
    return os.path.splitext(path)[1].lower() or "no ending"


def _check_named(path):
    """UserError for files of formats that are not read but look like manifests."""
    if path.lower().endswith(".json"):
        raise UserError(
            f"{printable(path)}: holds one JSON value; one line for each sample is needed.",
            "Write it as .jsonl: jq -c '.[]' OLD > NEW.jsonl.",
        )
    if path.lower().endswith(COMPRESSIONS) and not plain_name(path).endswith(TAR):
        raise UserError(f"{printable(path)}: only .tar may be compressed.", "Decompress it.")


def input_folders(inputs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({os.path.abspath(item) for item in inputs if os.path.isdir(item)}))


def is_manifest(path: str) -> bool:
    return path.lower().endswith(LINES + TABLES) and not path.startswith(tfds.PREFIX)


def is_medium(path: str) -> bool:
    """Whether a file is one medium, by its name: no manifest, archive or table."""
    return not (path.startswith(tfds.PREFIX) or is_manifest(path) or path.lower().endswith(PARQUET) or plain_name(path).endswith(TAR))


def files_beside(path):
    stem = os.path.splitext(path)[0]
    return [stem + ending for ending in BESIDE if stem + ending != path and os.path.isfile(stem + ending)]
