"""Text as it lies in files: UTF-8, perhaps behind a byte order mark, in lines that line feeds end."""

import os
from pathlib import Path

from data.errors import UserError

BYTE_ORDER_MARK = "\ufeff"


def decode_text(content: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark at its start: the mark belongs to the file, not to the text.

    UnicodeDecodeError for what is no UTF-8.
    """
    return content.decode("utf-8-sig")


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends (LF or CR LF). Unlike `str.splitlines`, form feeds, U+2028 and the like end no line."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_text(path: str | os.PathLike) -> str:
    """The text of a local file; UserError when it cannot be read as one."""
    try:
        return decode_text(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: {error.strerror or error}", "Give the path of a text file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{os.fspath(path)}: invalid UTF-8 at byte {error.start}", "Give UTF-8 text.") from None


def is_whole(text: str) -> bool:
    """Whether a text is a whole number in the digits 0 to 9: str.isdigit takes ² too, which int does not."""
    return text.isascii() and text.isdecimal()
