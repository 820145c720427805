"""Tables and records: their texts replaced at any depth, and single columns of them, in their form."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data.anonymize.text import Change
from data.errors import UserError
from data.files import json_files
from data.files.text_files import split_lines

Replace = Callable[[str, list[Change]], str]
"""A text, to which changes are added."""


def texts_of(content: str, suffix: str) -> list[str]:
    """All texts of a table, in order."""
    found: list[str] = []

    def keep(text: str, changes: list[Change]) -> str:
        found.append(text)
        return text

    TABLES[suffix](content, keep, [])
    return found


def _json_lines(text: str, replace: Replace, changes: list[Change]) -> str:
    found = []
    for number, line in enumerate(split_lines(text), 1):
        found.append(_object(line, number, replace, changes) if line.strip() else line)
    return "".join(f"{line}\n" for line in found)


def _json(text: str, replace: Replace, changes: list[Change]) -> str:
    return json.dumps(_value(json_files.parse(text, (dict, list)), 1, replace, changes), ensure_ascii=False, indent=1) + "\n"


def _object(line: str, number: int, replace: Replace, changes: list[Change]) -> str:
    try:
        value = json_files.parse(line, (dict, list, str))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    return json.dumps(_value(value, number, replace, changes), ensure_ascii=False)


def _value(value: Any, line: int, replace: Replace, changes: list[Change]) -> Any:
    """Texts at any depth, and whole numbers that are something as a whole; keys stay."""
    if isinstance(value, str):
        return _text(value, line, replace, changes)
    if isinstance(value, dict):
        return {key: _value(below, line, replace, changes) for key, below in value.items()}
    if isinstance(value, list):
        return [_value(below, line, replace, changes) for below in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= LARGE:
        found = _text(str(value), line, replace, changes)
        return value if found == str(value) else found
    return value


LARGE = 10**9
"""Smaller numbers are amounts and counts."""


def _text(text: str, line: int, replace: Replace, changes: list[Change]) -> str:
    own: list[Change] = []
    found = replace(text, own)
    changes += [change._replace(line=line) for change in own]
    return found


def _separated(delimiter: str) -> Callable[[str, Replace, list[Change]], str]:
    def table(text: str, replace: Replace, changes: list[Change]) -> str:
        written = io.StringIO()
        writer = csv.writer(written, delimiter=delimiter, lineterminator="\n")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                writer.writerow([_text(cell, reader.line_num, replace, changes) for cell in row])
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        return written.getvalue()

    return table


TABLES: dict[str, Callable[[str, Replace, list[Change]], str]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}


# ------------------------------------------------------------------------------------------------------------------- columns


RECORDS = (".csv", ".tsv", ".jsonl")
"""Tables whose rows have columns with names."""


def columns_of(content: str, suffix: str, names: Sequence[str]) -> list[list[str]]:
    """The cells of columns, "" for what is missing. UserError for a column that is not there, ValueError for a row that is none."""
    found: list[list[str]] = [[] for _ in names]
    for cells in _rows(content, suffix, names):
        for own, cell in zip(found, cells, strict=True):
            own.append(cell)
    return found


def with_columns(content: str, suffix: str, names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The table with other cells in columns."""
    rows = zip(*cells, strict=True)
    written = io.StringIO()
    if suffix == ".jsonl":
        for line in split_lines(content):
            if line.strip():
                record = json_files.parse(line, (dict,))
                changed = {name: cell for name, cell in zip(names, next(rows), strict=True) if cell != _cell(record.get(name))}
                line = json.dumps(record | changed, ensure_ascii=False)
            written.write(f"{line}\n")
        return written.getvalue()
    delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    writer = csv.writer(written, delimiter=delimiter, lineterminator="\n")
    header = next(reader)
    writer.writerow(header)
    places = [header.index(name) for name in names]
    for row in reader:
        if row:
            for place, cell in zip(places, next(rows), strict=True):
                row[place] = cell
        writer.writerow(row)
    return written.getvalue()


def _rows(content: str, suffix: str, names: Sequence[str]) -> Iterator[list[str]]:
    if suffix == ".jsonl":
        missing = set(names)
        for number, line in enumerate(split_lines(content), 1):
            if not line.strip():
                continue
            record = json_files.parse(line, (dict,))
            nested = next((name for name in names if isinstance(record.get(name), dict | list)), None)
            if nested:
                raise ValueError(f"line {number}: {nested} is no single value")
            missing -= record.keys()
            yield [_cell(record.get(name)) for name in names]
        if missing:
            raise UserError(f"has no field {', '.join(sorted(missing))}")
        return
    reader = csv.reader(io.StringIO(content, newline=""), delimiter={".csv": ",", ".tsv": "\t"}[suffix], strict=True)
    header = next(reader, [])
    for name in names:
        if header.count(name) != 1:
            raise UserError(f"has {'two columns' if name in header else 'no column'} {name}; there are {', '.join(header)}")
    places = [header.index(name) for name in names]
    for row in reader:
        if row and len(row) != len(header):
            raise ValueError(f"line {reader.line_num}: {len(row)} cells, and {len(header)} columns")
        if row:
            yield [row[place] for place in places]


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
