"""Tasks of a preparation of media: which inputs, and which ranges of them, each one reads."""

import os
from collections.abc import Iterable

from data.media.reading.fields import MEDIA_FIELDS, Reading, Record
from data.media.reading.finding import files_beside, is_manifest
from data.media.reading.records import read_manifest
from data.media.reading.samples import list_in
from data.readers import tfds
from data.readers.documents import Extent, Unreadable
from data.readers.inputs import PARQUET, divide, group_tasks


def plan_media(
    files: Iterable[tuple[str, int, int]], reading: Reading, task_bytes: int
) -> tuple[list[list[tuple[Extent, int]]], list[str]]:
    """Tasks of (extent, bytes) of about `task_bytes` of media; and the names of what manifests name, with sizes and times of change.

    Divided are manifests, by what they name, Parquet files and data sets of TFDS.
    """
    units: list[tuple[Extent, int]] = []
    named: set[str] = set()
    facts: list[str] = []
    for path, size, _ in files:
        if is_manifest(path):
            units += _manifest_units(path, reading, task_bytes, named, facts)
        elif path.startswith(tfds.PREFIX) or path.lower().endswith(PARQUET):
            units += [(extent, extent.stop - extent.start) for extent in divide(path, size, task_bytes)]
        else:
            units.append((Extent(path, 0, size), size))
            for other in files_beside(path):
                status = os.stat(other)
                facts.append(f"{other} {status.st_size} {status.st_mtime_ns}")
    units = [unit for unit in units if unit[0].path not in named]  # a manifest names some of the files in its folder
    return group_tasks([(unit, max(unit[1], 1)) for unit in units], task_bytes), facts


def _manifest_units(path, reading, task_bytes, named, facts):
    """Ranges of a manifest, and the bytes of the media that each names."""
    units, begin, held = [], 0, 0
    for record, end in read_manifest(Extent(path, 0, os.path.getsize(path)), reading):
        if isinstance(record, Record):
            for place in _paths(record, reading):
                try:
                    status = os.stat(place)
                except (OSError, ValueError):
                    continue  # which is told when it is read
                named.add(place)
                facts.append(f"{place} {status.st_size} {status.st_mtime_ns}")
                held += status.st_size
        held += 1
        if held >= task_bytes:
            units.append((Extent(path, begin, end), held))
            begin, held = end, 0
    if held:
        units.append((Extent(path, begin, os.path.getsize(path)), held))
    return units


def _paths(record, reading):
    """The files that a record names."""
    values = [value for key, value in record.fields.items() if key in MEDIA_FIELDS]
    try:
        parts = list_in(record.fields.get("parts", []), "parts")
    except Unreadable:
        parts = []
    for part in parts:
        values += [value for key, value in part.items() if key in MEDIA_FIELDS] if isinstance(part, dict) else []
    values = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [os.path.abspath(os.path.join(record.folder, value)) for value in values if isinstance(value, str) and value]
