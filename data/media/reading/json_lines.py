"""JSON lines: one object a line, each a record."""

import json
from collections import Counter

from data.readers.documents import invalid_utf8


def read_lines(extent, reading):
    """(line, place before it, place after it, function that gives its values or raises ValueError) of JSON lines."""
    with open(extent.path, "rb") as file:
        number = lines_before(file, extent.start)
        while file.tell() < extent.stop and (line := file.readline()):
            number += 1
            if line.strip():
                yield number, file.tell() - len(line), file.tell(), lambda line=line: parse_object(line)


def lines_before(file, place):
    """Counts the lines that end before a place; the file is at that place afterwards."""
    file.seek(0)
    count = 0
    while left := place - file.tell():
        count += file.read(min(left, 1 << 20)).count(b"\n")
    return count


def names_of_lines(path):
    """The names in all objects of a file of JSON lines; none where there is no object."""
    names: dict[str, None] = {}
    with open(path, "rb") as file:
        for line in file:
            try:
                names |= dict.fromkeys(parse_object(line))
            except ValueError:
                continue  # which is told when it is read
            if len(names) > 1000:
                break
    return list(names)


def parse_object(content):
    try:
        record = json.loads(content, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(invalid_utf8(error.start, content)) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON ({error})") from None
    except RecursionError:
        raise ValueError("invalid JSON (nested too deeply)") from None
    if not isinstance(record, dict):
        raise ValueError("JSON, but no object")
    return record


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"a name that is there twice: {twice!r}")
    return found
