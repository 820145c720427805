"""Tables of text (.csv, .tsv): names in the first line, a record in each row."""

import csv

from data.errors import UserError
from data.files.text_files import decode_text
from data.media.reading.fields import Reading
from data.media.reading.json_lines import lines_before
from data.readers.documents import invalid_utf8, printable


class Table:
    """The format of a table, read from its first line: names of columns and the separator."""

    def __init__(self, path: str, reading: Reading):
        self.quoted = not path.lower().endswith(".tsv")
        # The comma is the decimal point of some countries, whose programs put semicolons between values.
        usual = "," if self.quoted else "\t"
        read = {between: self._header(path, between) for between in dict.fromkeys((usual, ",", ";", "\t"))}
        known = (one for one, (row, _, _) in read.items() if isinstance(row, list) and reading.ours(row))
        self.between = next(known, usual)
        names, self.begin, self.lines = read[self.between]
        if isinstance(names, str):
            raise UserError(f"{printable(path)}:1: {names}.", "Fix its header: UTF-8, with commas (in a .tsv tabs) between names.")
        self.names: list[str] = names or []

    def _header(self, path, between):
        self.between = between
        with open(path, "rb") as file:
            row, lines = self.row(file)
            return row, file.tell(), lines

    def row(self, file) -> tuple[list[str] | str | None, int]:
        """(values, lines) of the next row. Instead of values a text says what is wrong with the row, which then ends with its line; None at
        the end of the file."""
        begin = file.tell()
        rows = csv.reader(_decoded(file, begin), delimiter=self.between, strict=True)
        wrong = "a quote that does not end"
        try:
            return next(rows, None), rows.line_num
        except csv.Error as error:
            wrong = f"a quote that does not end, or ends within a value ({error})"
        except ValueError as error:  # of a line; of one that only an open quote leads to, if it is not the first
            here = invalid_utf8(error.start, error.object) if isinstance(error, UnicodeDecodeError) else str(error)
            wrong = wrong if rows.line_num else here
        file.seek(begin)
        line = file.readline()
        if not self.quoted and wrong.startswith("a quote"):  # most who write tabs quote nothing: 5" is a length
            return decode_text(line).rstrip("\r\n").split(self.between), 1
        return wrong, 1


def read_table(extent, reading):
    """(line, place before it, place after it, function that gives its values or raises ValueError) of the rows of a table."""
    csv.field_size_limit(1 << 24)
    table = Table(extent.path, reading)
    with open(extent.path, "rb") as file:
        number = lines_before(file, extent.start) if extent.start else table.lines
        file.seek(extent.start or table.begin)
        while (begin := file.tell()) < extent.stop:
            row, lines = table.row(file)
            if row is None:
                return
            if row:
                yield number + 1, begin, file.tell(), lambda row=row: _by_name(table.names, row)
            number += lines


def _decoded(file, begin):
    """The lines of a table from a place on."""
    while line := file.readline():
        text = decode_text(line) if not begin and file.tell() == len(line) else line.decode()
        if "\0" in text:
            raise ValueError("a NUL byte")
        yield text


def _by_name(names, row):
    if isinstance(row, str):
        raise ValueError(row)
    if len(row) != len(names):
        raise ValueError(f"not as many values as names: {len(row)} under {len(names)}")
    return {name: value for name, value in zip(names, row, strict=True) if value != ""}
