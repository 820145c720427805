"""JSON as this project writes and reads it: valid for every reader, files replaced whole, damage named."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import storage

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""The strings that stand for numbers that JSON does not have. `float` reads each of them."""


def dumps(value: Any, *, indent: int | None = None) -> str:
    """One JSON value. Numbers that are not finite become the strings of NOT_FINITE; NumPy's scalars and arrays become plain values."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def write(path: str | os.PathLike, value: Any) -> None:
    """Replace a local file by the value, whole or not at all, also across a power cut."""
    storage.write_atomically(os.fspath(path), (dumps(value, indent=1) + "\n").encode())


def write_lines(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """The same for a file with a value on each line, text in it as it is."""
    storage.write_atomically(os.fspath(path), b"".join(map(line, values)))


def line(value: Any) -> bytes:
    """A value on a line of a file, text in it as it is."""
    return (json.dumps(_plain(value), allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read(path: str | os.PathLike, mend: str, kind: type = dict) -> Any:
    """The value in a local file, of the Python type `kind`. UserError, with `mend` as its second line, when the file is damaged."""
    try:
        return parse(Path(path).read_bytes(), kind)
    except ValueError as error:
        raise UserError(f"{os.fspath(path)}: damaged ({error})", mend) from None


def parse(content: str | bytes, kind: type | tuple[type, ...] = dict) -> Any:
    """The value in JSON text, of the Python type `kind`; ValueError, which says what is wrong, for anything else.

    A name that stands twice in an object is wrong too: only one of the two values could be used.
    """
    try:
        value = json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}" if content.strip() else "empty") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError("a number has too many digits" if "integer string conversion" in str(error) else str(error)) from None
    if not isinstance(value, kind):
        raise ValueError(f"{kind_of(value)} instead of {_wanted(kind)}")
    return value


def depth(value: Any, most: int) -> int:
    """Levels of values within values, counted to most + 1: the value itself is the first."""
    level, deepest = [value], 0
    while level and deepest <= most:
        deepest += 1
        level = [inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
    return deepest


def is_unicode(value: Any) -> bool:
    """Whether all texts of a value, names too, can be written in UTF-8: escapes may spell half of a surrogate pair, which cannot."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of(value: Any) -> str:
    """What JSON calls such a value, as a word of an error."""
    return _NAMES.get(type(value), type(value).__name__)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return value


_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}


def _wanted(kind) -> str:
    return " or ".join(_NAMES[one] for one in (kind if isinstance(kind, tuple) else (kind,)))


def _plain(value):
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # NumPy's and JAX's
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE[0 if math.isnan(value) else 1 if value > 0 else 2]
    return value
