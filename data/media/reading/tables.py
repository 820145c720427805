"""Manifests that are tables (.csv, .tsv): a record in each row."""

from data.media.reading.json_lines import lines_before
from data.readers.tables import Table


def read_table(extent, reading):
    """(line, place before it, place after it, function that gives its values or raises ValueError) of the rows of a table."""
    with open(extent.path, "rb") as file:
        table = Table(file, extent.path, reading.ours)
        number = lines_before(file, extent.start) if extent.start else table.lines
        file.seek(extent.start or table.begin)
        while (begin := file.tell()) < extent.stop:
            row, lines = table.row(file)
            if row is None:
                return
            if row:
                yield number + 1, begin, file.tell(), lambda row=row: _by_name(table.names, row)
            number += lines


def _by_name(names, row):
    if isinstance(row, str):
        raise ValueError(row)
    if len(row) != len(names):
        raise ValueError(f"not as many values as names: {len(row)} under {len(names)}")
    return {name: value for name, value in zip(names, row, strict=True) if value != ""}
