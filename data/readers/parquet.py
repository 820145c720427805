"""Parquet: each row of one column is a document. Needs the package pyarrow (extra: parquet)."""

import json
import os
from collections.abc import Iterator
from typing import IO, Any

from data.errors import UserError
from data.readers.documents import Extent, Skipped, document_of

_ROWS = 256  # of a column in memory at once


def check(path: str, text_field: str) -> None:
    """UserError unless the file has the column, and texts in it."""
    arrow, parquet = _packages()
    try:
        schema = parquet.read_schema(path)
    except arrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file ({error}).", "Remove it, or name the other files.") from None
    if schema.names.count(text_field) != 1:
        raise UserError(f"{path}: no column {text_field!r}; there are {', '.join(schema.names)}.", "Name one of them with --text-field.")
    kind = schema.field(text_field).type
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if str(kind).removeprefix("large_").removesuffix("_view") not in ("string", "binary"):
        raise UserError(f"{path}: the column {text_field!r} holds {kind}, not text.", "Name another with --text-field.")


def read_rows(extent: Extent, text_field: str, report):
    """The rows of the extent, one column of them as documents."""
    for row in read_columns(extent, [text_field], report):
        yield row if isinstance(row, Skipped) else _document(row[0], row[1][0], text_field)


def read_columns(extent: Extent, columns: list[str], report):
    """(name, values of pyarrow) of the rows in the row groups that belong to the extent.

    A group begins where the compressed bytes of those before it end. That is near its place in the file, and never out of order.
    """
    arrow, parquet = _packages()
    size, told = os.path.getsize(extent.path), 0
    try:
        with parquet.ParquetFile(extent.path) as file:
            facts, begin, row = file.metadata, 0, 0
            for number in range(file.num_row_groups):
                group = facts.row_group(number)
                if extent.start <= begin < extent.stop:
                    first = row
                    for batch in file.iter_batches(_ROWS, row_groups=[number], columns=columns, use_threads=False):
                        for values in zip(*(batch.column(column) for column in columns), strict=True):
                            first += 1
                            yield f"{extent.path}: row {first}", values
                    share = min(_bytes(group), extent.stop - extent.start - told)
                    report(share)
                    told += share
                begin = min(begin + _bytes(group), size - 1)
                row += group.num_rows
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # one without a number is of the content, such as a page that cannot be decoded
            raise
        yield Skipped(extent.path, f"cannot be read ({' '.join(str(error).split())})", "damaged")
    report(extent.stop - extent.start - told)


def iter_objects(path: str, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """All rows of a file, some in memory at once. path: its name, for errors."""
    arrow, parquet = _packages()
    twice: list[str] = []
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            twice = [name for name in names if names.count(name) > 1]
            for batch in opened.iter_batches(_ROWS, use_threads=False) if not twice else ():
                yield from batch.to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file, or damaged ({' '.join(str(error).split())[:200]}).", "Write it again.") from None
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0]!r}.", "Give each column a name of its own.")


def columns(path: str) -> tuple[list[str], dict[str, list[str]]]:
    """The columns of a file; and the names of classes where a column of Hugging Face's Datasets has such."""
    arrow, parquet = _packages()
    try:
        schema = parquet.read_schema(path)
    except arrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file ({error}).", "Remove it, or name the other files.") from None
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = {key: value["names"] for key, value in features.items() if value.get("_type") == "ClassLabel"}
    except (TypeError, KeyError, ValueError, AttributeError):
        names = {}
    return schema.names, names


def _document(name, scalar, text_field):
    try:
        text = scalar.as_py()
    except UnicodeDecodeError as error:  # a writer is not forced to check it
        return Skipped(name, f"invalid UTF-8 at byte {error.start}", "damaged")
    return Skipped(name, f"no text in the column {text_field!r}", "damaged") if text is None else document_of(name, text)


def _bytes(group):
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def _packages():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet files need the package pyarrow.", "pip install -e '.[parquet]'") from None
    return pyarrow, pyarrow.parquet
