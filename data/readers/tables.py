"""Tables of text (.csv, .tsv): names in the first line, a row in each other, which quotes may extend over several lines."""

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from data.errors import UserError
from data.files.text_files import decode_text
from data.readers.documents import invalid_utf8, printable
from data.readers.stream import plain_name

csv.field_size_limit(1 << 24)


class Table:
    """The format of a table, read from its first line: names of columns, the separator, and where the rows begin.

    file: of bytes. path: its name, as an error names it; tabs separate values in a .tsv. ours: whether names are those that one looks for;
    without, any two names are.
    """

    def __init__(self, file: IO[bytes], path: str, ours: Callable[[Sequence[str]], object] = lambda names: len(names) > 1):
        self.names: list[str] = []
        self.quoted = not plain_name(path).endswith(".tsv")
        # The comma is the decimal point of some countries, whose programs put semicolons between values.
        usual = "," if self.quoted else "\t"
        read = {between: self._header(file, between) for between in dict.fromkeys((usual, ",", ";", "\t"))}
        known = (one for one, (row, _, _) in read.items() if isinstance(row, list) and ours(row))
        self.between = next(known, usual)
        names, self.begin, self.lines = read[self.between]
        if isinstance(names, str):
            raise UserError(f"{printable(path)}:1: {names}.", "Fix its header: UTF-8, with commas (in a .tsv tabs) between names.")
        self.names = names or []

    def _header(self, file, between):
        self.between = between
        file.seek(0)
        row, lines = self.row(file)
        return row, file.tell(), lines

    def row(self, file: IO[bytes]) -> tuple[list[str] | str | None, int]:
        """(values, lines) of the next row. Instead of values a text says what is wrong with the row, which then ends with its line; None at
        the end of the file."""
        begin = file.tell()
        rows = csv.reader(_decoded(file, begin), delimiter=self.between, strict=True)
        wrong = "a quote that does not end"
        try:
            row = next(rows, None)
            if self.quoted or rows.line_num < 2 or not self._are_rows(file, begin):
                return row, rows.line_num
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

    def _are_rows(self, file, begin):
        """Whether each of the lines that quotes join is a whole row itself, of what stands before the place in the file."""
        size = file.tell() - begin
        file.seek(begin)
        lines = decode_text(file.read(size)).removesuffix("\n").split("\n")
        return len(self.names) > 1 and all(line.count(self.between) == len(self.names) - 1 for line in lines)


def _decoded(file: IO[bytes], begin: int) -> Iterator[str]:
    """The lines of a table from a place on."""
    while line := file.readline():
        text = decode_text(line) if not begin and file.tell() == len(line) else line.decode()
        if "\0" in text:
            raise ValueError("a NUL byte")
        yield text
