"""A row of a file with the place where it stands, and what all readers of such files share."""

import contextlib
import difflib
import gzip
import math
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from data.errors import MissingData, UserError
from data.files.json_files import kind_of
from data.files.text_files import decode_text
from data.readers import tfds
from data.readers.documents import invalid_utf8

_GZIP = b"\x1f\x8b"
LeftOut = Counter[str]
"""How often each reason was why a row was left out. A reader that is given one leaves bad rows out; without, the first one is an error."""


class Record(dict):
    """An object of a file. where: the file and the line, as an error names it."""

    def __init__(self, fields: dict, where: str):
        super().__init__(fields)
        self.where = where


class InPlace(LeftOut):
    """Given to a reader, asks for a UserError in the place of each row that is left out."""


def bad_row(where: str, why: str, mend: str, left_out: LeftOut | None) -> list[UserError]:
    """Count a row that is left out; UserError where nothing may be left out. Returns what stands in its place."""
    error = UserError(f"{where}: {why}", mend)
    if left_out is None:
        raise error
    left_out[why] += 1
    return [error] if isinstance(left_out, InPlace) else []


def absolute(path: str) -> str:
    """The path, as it is from any folder. A data set of TFDS is known by its name, and a URL by itself."""
    return path if "://" in path or path.startswith(tfds.PREFIX) else os.path.abspath(path)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file to read from. UserError where it cannot be opened."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise MissingData(f"{path}: No such file or directory", "Give a file that can be read.", path) from None
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}", "Give a file that can be read.") from None
    with file:
        yield file


@contextlib.contextmanager
def opened_plain(path: str) -> Iterator[IO[bytes]]:
    """The same, without gzip around it: what is inside lies on disk for as long as it is read, since readers go back in it."""
    with opened(path) as file:
        if file.peek(2)[:2] != _GZIP:  # type: ignore[attr-defined]
            yield file
            return
        try:
            plain = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        except OSError as error:
            raise UserError(f"{path}: no room to decompress it ({error})", "Make some, or name another folder: TMPDIR.") from None
        with plain:
            try:
                shutil.copyfileobj(gzip.GzipFile(fileobj=file), plain)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UserError(f"{path}: damaged gzip: {error}", "Bring the whole file here again.") from None
            except OSError as error:
                raise UserError(f"{path}: cannot be decompressed ({error})", "Make room, or name another folder: TMPDIR.") from None
            plain.seek(0)
            yield plain


def read_content(path: str) -> bytes:
    """The bytes of a file. UserError where it cannot be read."""
    with opened(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}", "Give a file that can be read.") from None


def decompressed(path: str) -> bytes:
    """The same, without gzip around them."""
    content = read_content(path)
    try:
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip: {error}", "Bring the whole file here again.") from None


def read_text(path: str) -> str:
    """The text of a file, gzipped or not. UserError for what is no UTF-8."""
    content = decompressed(path)
    try:
        return decode_text(content)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {invalid_utf8(error.start, content)}", "Give UTF-8 text, gzipped or not.") from None


def lacks(record: Record, name: str, verdict: str = "") -> UserError:
    """For a record without a field that is needed, or with null there. verdict: what it therefore is not, as in `is not a comparison: `."""
    near = difflib.get_close_matches(name, [*record], 1)
    listed = [field for field, value in record.items() if isinstance(value, list) and value and all(isinstance(x, dict) for x in value)]
    mend = f"It has: {', '.join(record) or 'nothing'}."
    if near:
        mend = f"Did you mean {near[0]!r}? {mend}"
    elif listed:
        mend += f" If {listed[0]!r} holds the records, give that list alone."
    return UserError(f"{record.where}: {verdict}" + (f"{name} is null" if name in record else f"has no field {name!r}"), mend)


def check_text(value: Any, what: str) -> str:
    """The value, which must be text that can be written as UTF-8; UserError, with `what` it is, for anything else."""
    if not isinstance(value, str):
        raise UserError(f"{what} is {kind_of(value)}", "Give text.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f"{what} holds half of a surrogate pair, which is no character", "Leave it out.") from None
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold. Truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large
        return False
