"""Rows of a file as records: tables (.csv, .tsv), JSON and JSON lines, Parquet, and data sets of TFDS."""

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import xxhash

from data.errors import UserError
from data.files import json_files
from data.files.json_files import kind_of
from data.files.text_files import decode_text
from data.readers import parquet, tfds
from data.readers.documents import invalid_utf8
from data.readers.stream import plain_name
from data.readers.tables import Table
from data.records.record import InPlace, LeftOut, Record, bad_row, opened, opened_plain

_PIECE = 1 << 22
_JSON = "Give one JSON object a line, or a list of them."
_WRITTEN = {",": "commas", ";": "semicolons", "\t": "tabs"}


def contents(path: str) -> Iterator[bytes]:
    """The bytes of a file, in pieces; of `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`, a prepared data set of TFDS, its examples as JSONL."""
    if path.startswith(tfds.PREFIX):
        for number, record in enumerate(tfds.iter_records(path)):
            yield b"\n" * bool(number) + json.dumps(record, ensure_ascii=False).encode()
        return
    with opened(path) as file:
        while piece := file.read(_PIECE):
            yield piece


def digest_of(path: str) -> str:
    """Of `contents`: 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for piece in contents(path):
        digest.update(piece)
    return digest.hexdigest()


def read_records(path: str, *, left_out: LeftOut | None = None) -> list[Record]:
    """The rows of a file, as of `iter_records`, all at once."""
    return list(iter_records(path, left_out=left_out))


def iter_records(path: str, *, left_out: LeftOut | None = None) -> Iterator[Record]:
    """The rows of a file one by one, by the ending of its name (gzipped or not), or of a data set of TFDS.

    .csv, .tsv: names in the first line (RFC 4180: quotes, and line feeds within them), values as texts. Semicolons or other separators are
    used where only they cut the first line. .parquet: values as they are there (extra: parquet). Any other: a JSON object a line, or a list
    of objects. Empty lines are no rows. Of the file a part is in memory, but of a list, and of an object over several lines, all.

    UserError with file and line for a row that cannot be read. With `left_out`, such rows are left out and counted there by their reasons.
    """
    count = 0
    for count, record in enumerate(_rows(path, left_out), 1):  # noqa: B007 - looked at when all are read
        assert isinstance(record, Record)
        yield record
    if not count:
        why = f" ({left_out.total():,} are left out, such as: {next(iter(left_out))})" if left_out else ""
        raise UserError(f"{path}: holds no records{why}", "Give one JSON object a line, or a table with a line of names.")


def every_row(path: str) -> Iterator[Record | UserError]:
    """The rows of a file as of `iter_records`, and for each that cannot be read the error in its place."""
    return _rows(path, InPlace())


def row_of(line: bytes, where: str) -> Record | UserError:
    """A row of JSON, or what is wrong with it."""
    try:
        return Record(json_files.parse(line.decode(), dict), where)
    except UnicodeDecodeError as error:
        return UserError(f"{where}: {invalid_utf8(error.start, line)}", "Give UTF-8 text.")
    except ValueError as error:
        return UserError(f"{where}: {str(error).removeprefix('line 1: ')}", _JSON)


def _rows(path: str, left_out: LeftOut | None) -> Iterator[Record | UserError]:
    if path.startswith(tfds.PREFIX):
        for number, example in enumerate(tfds.iter_records(path), 1):
            yield Record(example, f"{path}: example {number}")
        return
    with opened_plain(path) as file:
        if plain_name(path).endswith((".csv", ".tsv")):
            yield from _table(path, file, left_out)
        elif plain_name(path).endswith(".parquet"):
            for number, row in enumerate(parquet.iter_objects(path, file), 1):
                yield Record(row, f"{path}: row {number}")
        else:
            yield from _objects(path, file, left_out)


def _table(path: str, file: IO[bytes], left_out: LeftOut | None) -> Iterator[Record | UserError]:
    table = Table(file, path)
    twice = next((name for name in table.names if table.names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: line 1: two columns are called {twice!r}", "Give each column a name of its own.")
    number = table.lines
    file.seek(table.begin)
    while True:
        row, lines = table.row(file)
        if row is None:
            return
        where, number = f"{path}: line {number + 1}", number + lines
        if isinstance(row, str):
            yield from bad_row(where, row, f"Correct the line. Values are read between {_WRITTEN[table.between]}.", left_out)
        elif row and len(row) != len(table.names):
            why = f"not as many values as names: {len(row)} under {len(table.names)}"
            mend = f"Put values that hold {_WRITTEN[table.between]}, which stand between them, into quotes."
            yield from bad_row(where, why, mend, left_out)
        elif row:
            yield Record(dict(zip(table.names, row, strict=True)), where)


def _objects(path: str, file: IO[bytes], left_out: LeftOut | None) -> Iterator[Record | UserError]:
    begun = read = False
    for number, content in enumerate(file, 1):
        where = f"{path}: line {number}"
        try:
            line = (decode_text(content) if number == 1 else content.decode()).rstrip("\r\n")
        except UnicodeDecodeError as error:
            begun = True
            yield from bad_row(where, invalid_utf8(error.start, content), "Give UTF-8 text, gzipped or not.", left_out)
            continue
        if not line.strip():
            continue
        if not begun and line.lstrip().startswith("["):
            del content, line  # which may be all of the file
            yield from _list(path, _whole(path, file), left_out)
            return
        begun = True
        try:
            value = json_files.parse(line, object)
        except ValueError as error:
            whole = None if read or left_out else _whole_object(path, file)
            if whole is not None:
                yield Record(whole, f"{path}: record 1")
                return
            yield from bad_row(where, str(error).removeprefix("line 1: "), _JSON, left_out)
        else:
            read = read or isinstance(value, dict)
            yield from _record(value, where, left_out)


def _list(path: str, text: str, left_out: LeftOut | None) -> Iterator[Record | UserError]:
    try:
        values = json_files.parse(text, list)
    except ValueError as error:
        raise UserError(f"{path}: {error}", _JSON) from None
    for number, value in enumerate(values, 1):
        yield from _record(value, f"{path}: record {number}", left_out)


def _record(value: Any, where: str, left_out: LeftOut | None) -> Sequence[Record | UserError]:
    """A list of the record, or of what stands in its place where it is left out."""
    if isinstance(value, dict):
        return [Record(value, where)]
    return bad_row(where, f"{kind_of(value)} instead of an object", _JSON, left_out)


def _whole(path: str, file: IO[bytes]) -> str:
    """All of a file's text."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    try:
        return decode_text(content)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {invalid_utf8(error.start, content)}", "Give UTF-8 text, gzipped or not.") from None


def _whole_object(path: str, file: IO[bytes]) -> dict | None:
    """The one object that a file is, over several lines; None where it is something else."""
    try:
        return json_files.parse(_whole(path, file))
    except (ValueError, UserError):
        return None
