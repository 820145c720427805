"""Records of inputs of any format, and the check that their columns mean something."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from data.errors import UserError
from data.files.text_files import decode_text
from data.media.reading.archives import read_groups
from data.media.reading.data_sets import read_examples, read_rows
from data.media.reading.fields import BESIDE, MEDIA, MEDIA_FIELDS, MOST_BYTES, SAMPLE_FIELDS, Fields, Reading, Record, record_of
from data.media.reading.finding import TABLES, files_beside, is_manifest
from data.media.reading.json_lines import names_of_lines, parse_object, read_lines
from data.media.reading.tables import read_table
from data.readers import parquet, tfds
from data.readers.documents import Extent, Skipped, invalid_utf8, printable
from data.readers.inputs import LINES, PARQUET, TAR
from data.readers.stream import plain_name
from data.readers.tables import Table


def read_records(extents: Iterable[Extent], reading: Reading, report: Callable[[int], None]) -> Iterator[Record | Skipped]:
    """All records of a task in order; `report` is told of bytes of the inputs as they are read (of manifests, not here)."""
    for extent in extents:
        split = reading.split_of(extent.path)
        for record in _records(extent, reading, report):
            if isinstance(record, Record) and split is not None:
                record.fields.setdefault("split", split)
            yield record


def _records(extent, reading, report):
    if extent.path.startswith(tfds.PREFIX):
        yield from read_examples(extent, reading, report)
    elif extent.path.lower().endswith(PARQUET):
        yield from read_rows(extent, reading, report)
    elif plain_name(extent.path).endswith(TAR):
        yield from read_groups(extent, reading, report)
    elif is_manifest(extent.path):
        yield from (record for record, _ in read_manifest(extent, reading))
    else:
        yield _file(extent.path, reading)


def read_manifest(extent, reading):
    """(record or Skipped, place in the file after it) of the rows of a manifest that begin in the extent."""
    read = read_lines if extent.path.lower().endswith(LINES) else read_table
    folder, base = os.path.dirname(extent.path), os.path.basename(extent.path)
    for line, begin, place, row in read(extent, reading):
        name = f"{extent.path}:{line}"
        try:
            record = record_of(name, printable(f"{base}@{begin}"), folder, row(), extent.path, reading)
        except ValueError as error:
            yield Skipped(name, str(error), "damaged"), place
            continue
        # Its key is the first file that it names.
        key = next((value for key, value in record.fields.items() if key in MEDIA_FIELDS and isinstance(value, str)), record.key)
        yield record._replace(key=printable(key)), place


def _file(path, reading):
    """A medium of its own, with what lies beside it."""
    folder, told = os.path.dirname(path), Fields(reading)
    root = reading.root_of(path) or folder
    for beside in files_beside(path):
        try:
            with open(beside, "rb") as file:
                content = file.read(MOST_BYTES)
            if beside.endswith(BESIDE[0]):
                told.add("caption", decode_text(content).strip(), beside)
            else:
                told.add_all(parse_object(content))
        except UnicodeDecodeError as error:
            return Skipped(beside, invalid_utf8(error.start, error.object), "damaged")
        except ValueError as error:
            return Skipped(beside, str(error), "damaged")
    if "parts" not in told.fields:  # of which the file is one
        told.leave_out(*MEDIA_FIELDS)
        told.fields["path"] = path
    if reading.by_folder and (name := reading.class_of(folder)):
        told.fields.setdefault("label", name)
    return told.record(path, printable(os.path.relpath(path, root)), folder, os.path.join(root, "**", "*.json"))


def check_media(files: Iterable[tuple[str, int, int]], reading: Reading) -> None:
    """UserError for a table without what is needed, or with two columns that mean the same."""
    for path, _, _ in files:
        if path.startswith(tfds.PREFIX):
            there = list(tfds.features(path))
        elif path.lower().endswith(PARQUET):
            there = parquet.columns(path)[0]
        elif path.lower().endswith(TABLES):
            with open(path, "rb") as file:
                there = Table(file, path, reading.ours).names
        elif path.lower().endswith(LINES):
            there = names_of_lines(path)
        else:
            continue
        ours, path = reading.ours(there), printable(path)
        kind = reading.kind or "image"
        if there and not {*MEDIA_FIELDS, *SAMPLE_FIELDS, "text"} & set(ours.values()):
            if any(name.lower().endswith(MEDIA) for name in there) and path.lower().endswith(TABLES):
                raise UserError(
                    f"{path}:1: no header: it begins with {', '.join(there)}.", f"Put names in its first line, such as {kind},caption."
                )
            raise UserError(
                f"{path}: has no {reading.kind or 'image, video or audio'}; there are {', '.join(sorted(there))}.",
                f"Say which of them it is: --fields {kind}=NAME (and caption=NAME, label=NAME ...).",
            )
        columns = there if not path.lower().endswith(LINES) else []  # of lines, no two may have the same names
        for name, count in Counter(ours[column] for column in columns if column in ours).items():
            if count > 1:
                same = ", ".join(repr(column) for column in columns if ours.get(column) == name)
                raise UserError(
                    f"{path}: {same} all mean {name}.", f"Say which of them it is: --fields {name}=NAME; or name them otherwise."
                )
