"""What readers give: documents and what they skip. And the rule that assigns documents to splits."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import xxhash

from data.errors import UserError
from data.files.text_files import decode_text


class Extent(NamedTuple):
    """What begins at bytes [start, stop) of an input: a whole file, or the lines or rows of one that can be divided."""

    path: str
    start: int
    stop: int


class Document(NamedTuple):
    """A text, in chunks that can be read again and again; `name` is its file, with the place in it if it has one."""

    name: str
    chunks: Callable[[], Iterable[str]]
    characters: int
    digest: int  # xxh3_64 of the UTF-8 bytes


class Skipped(NamedTuple):
    """Input that is left out: damaged, empty, or no text (archives hold much of that)."""

    name: str
    reason: str
    kind: Literal["damaged", "empty", "ignored"]


class SplitRule(NamedTuple):
    """Which characters of a document are for training: `hash` decides for the whole document, `tail` cuts off its end.

    `hash` looks at the content alone: a document stays where it is when others are added.
    """

    kind: str
    validation: float

    def portions(self, document: Document) -> list[tuple[str, int, int]]:
        """[(split, first character, end)], without empty ones."""
        if self.kind == "hash":
            held_out = document.digest < self.validation * 2**64
            return [("validation" if held_out else "train", 0, document.characters)]
        cut = int(document.characters * (1 - self.validation) + 1e-6)
        return [portion for portion in (("train", 0, cut), ("validation", cut, document.characters)) if portion[1] < portion[2]]


class Unreadable(UserError):
    """An input, or what is left of it, that cannot be read, and why."""


def document_of(name: str, text: str | bytes) -> Document | Skipped:
    """A text in hand as a document; bytes must be UTF-8."""
    try:
        text = text if isinstance(text, str) else decode_text(text)
        content = text.encode()
    except UnicodeEncodeError:
        return Skipped(name, "half of a surrogate pair", "damaged")
    except UnicodeDecodeError as error:
        return Skipped(name, invalid_utf8(error.start, error.object), "damaged")
    if not text:
        return Skipped(name, "empty", "empty")
    return Document(name, lambda: [text], len(text), xxhash.xxh3_64_intdigest(content))


_LOOKS_LIKE = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
    b"%PDF": "PDF",
}


def invalid_utf8(place: int, begin: bytes) -> str:
    """Why bytes are no text; begin: the first of them, which may tell what they are instead."""
    what = next((what for mark, what in _LOOKS_LIKE.items() if begin.startswith(mark)), None)
    return f"invalid UTF-8 at byte {place}" + (f": it looks like {what}" if what else "")


def between(chunks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """Characters [start, stop) of a text in chunks."""
    position = 0
    for chunk in chunks:
        inside = chunk[max(start - position, 0) : max(stop - position, 0)]
        position += len(chunk)
        if inside:
            yield inside


def printable(name: str) -> str:
    """A name from an archive, with control characters replaced: a terminal would obey them."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
