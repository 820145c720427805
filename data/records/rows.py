"""Rows of a file as records: tables (.csv, .tsv), JSON and JSON lines, Parquet, and data sets of TFDS."""

import io
import json
from typing import Any

from data.errors import UserError
from data.files import json_files
from data.files.json_files import kind_of
from data.files.text_files import split_lines
from data.readers import parquet, tfds
from data.readers.stream import plain_name
from data.readers.tables import Table
from data.records.record import LeftOut, Record, bad_row, decompressed, read_content, read_text

_JSON = "Give one JSON object a line, or a list of them."
_WRITTEN = {",": "commas", ";": "semicolons", "\t": "tabs"}


def read_bytes(path: str) -> bytes:
    """Of a file; of `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`, a prepared data set of TFDS, its examples as JSONL."""
    if path.startswith(tfds.PREFIX):
        return b"\n".join(json.dumps(record, ensure_ascii=False).encode() for record in tfds.read_records(path))  # for a digest alone
    return read_content(path)


def read_records(path: str, *, left_out: LeftOut | None = None) -> list[Record]:
    """The rows of a file, by the ending of its name (gzipped or not), or of a data set of TFDS.

    .csv, .tsv: names in the first line (RFC 4180: quotes, and line feeds within them), values as texts. Semicolons or other separators are
    used where only they cut the first line. .parquet: values as they are there (extra: parquet). Any other: a JSON object a line, or a list
    of objects. Empty lines are no rows.

    UserError with file and line for a row that cannot be read. With `left_out`, such rows are left out and counted there by their reasons.
    """
    if path.startswith(tfds.PREFIX):
        records = [Record(example, f"{path}: example {number}") for number, example in enumerate(tfds.read_records(path), 1)]
    elif plain_name(path).endswith((".csv", ".tsv")):
        records = _table(path, left_out)
    elif plain_name(path).endswith(".parquet"):
        rows = parquet.read_objects(path, decompressed(path))
        records = [Record(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    else:
        records = _objects(path, read_text(path), left_out)
    if not records:
        why = f" ({left_out.total():,} are left out, such as: {next(iter(left_out))})" if left_out else ""
        raise UserError(f"{path}: holds no records{why}", "Give one JSON object a line, or a table with a line of names.")
    return records


def _table(path: str, left_out: LeftOut | None) -> list[Record]:
    file = io.BytesIO(decompressed(path))
    table = Table(file, path)
    twice = next((name for name in table.names if table.names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: line 1: two columns are called {twice!r}", "Give each column a name of its own.")
    records, number = [], table.lines
    file.seek(table.begin)
    while True:
        row, lines = table.row(file)
        if row is None:
            return records
        where, number = f"{path}: line {number + 1}", number + lines
        if isinstance(row, str):
            bad_row(where, row, f"Correct the line. Values are read between {_WRITTEN[table.between]}.", left_out)
        elif row and len(row) != len(table.names):
            why = f"not as many values as names: {len(row)} under {len(table.names)}"
            mend = f"Put values that hold {_WRITTEN[table.between]}, which stand between them, into quotes."
            bad_row(where, why, mend, left_out)
        elif row:
            records.append(Record(dict(zip(table.names, row, strict=True)), where))


def _objects(path: str, text: str, left_out: LeftOut | None) -> list[Record]:
    if text.lstrip().startswith("["):
        try:
            values = json_files.parse(text, list)
        except ValueError as error:
            raise UserError(f"{path}: {error}", _JSON) from None
        return [record for number, value in enumerate(values, 1) for record in _record(value, f"{path}: record {number}", left_out)]
    records: list[Record] = []
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        try:
            value = json_files.parse(line, object)
        except ValueError as error:
            whole = None if records or left_out else _whole_object(text)
            if whole is not None:
                return [Record(whole, f"{path}: record 1")]
            bad_row(f"{path}: line {number}", str(error).removeprefix("line 1: "), _JSON, left_out)
        else:
            records += _record(value, f"{path}: line {number}", left_out)
    return records


def _record(value: Any, where: str, left_out: LeftOut | None) -> list[Record]:
    """A list of the record, or of nothing where it is left out."""
    if isinstance(value, dict):
        return [Record(value, where)]
    bad_row(where, f"{kind_of(value)} instead of an object", _JSON, left_out)
    return []


def _whole_object(text: str) -> dict | None:
    """The one object that a text is, over several lines; None where it is something else."""
    try:
        return json_files.parse(text)
    except ValueError:
        return None
