"""Samples of several media: parts of text, image, video and audio, in reading order."""

import dataclasses
import json
from typing import Literal, NamedTuple

Kind = Literal["text", "image", "video", "audio"]
KINDS: tuple[Kind, ...] = ("text", "image", "video", "audio")
_LENGTH_BYTES = 4  # of the header, little-endian
_read_json = json.JSONDecoder().raw_decode  # which is a third of json.loads


@dataclasses.dataclass(frozen=True)
class Part:
    """One medium of a sample: a text, or the bytes of an encoded file (JPEG, mp4, flac ...), which stay as they are."""

    kind: Kind
    content: str | bytes
    learned: bool = False
    """Text that a model is to produce: a caption, an answer."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Parts in their order: [image, caption], [image, question, answer], a document with pictures in it."""

    parts: tuple[Part, ...]
    key: str = ""
    """Where it comes from; for messages."""
    label: int = -1
    """Number of its class in the corpus; -1 for none."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a part without decoding it; 0 where it does not apply. A picture's width and height are those it is shown with."""

    width: int = 0
    height: int = 0
    frames: int = 0
    """Of a video."""
    rate: float = 0.0
    """Frames per second of a video, samples per second of a recording."""
    samples: int = 0
    """Of a recording, in each channel."""
    bytes: int = 0
    """Of the content; a text's in UTF-8."""


class Examined(NamedTuple):
    """What decoding a whole file found."""

    facts: Facts
    remarks: tuple[str, ...]  # what is unusual, but no fault
    fingerprint: tuple[int, int] | None  # of an image: see `perceptual_hash`


class Undecodable(Exception):
    """A file that cannot be decoded; the message says why."""


@dataclasses.dataclass(frozen=True)
class Damaged:
    """Takes the place of a sample that cannot be read."""

    where: str
    why: str


def text_facts(text: str) -> Facts:
    return Facts(bytes=len(text.encode()))


def encode_sample(sample: Sample) -> bytes:
    """A header (its length, then JSON) and the contents of the parts behind it. Equal samples have equal bytes."""
    contents = [part.content.encode() if isinstance(part.content, str) else part.content for part in sample.parts]
    parts = [[part.kind, len(content), int(part.learned)] for part, content in zip(sample.parts, contents, strict=True)]
    header = json.dumps([sample.key, sample.label, parts], separators=(",", ":")).encode()
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, *contents))


def decode_sample(record: bytes) -> Sample:
    """The sample of a record. Raises ValueError for bytes that are none."""
    start = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "little")
    try:
        (key, label, described), _ = _read_json(record[_LENGTH_BYTES:start].decode())
        parts = []
        for kind, length, learned in described:
            content = record[start : start + length]
            start += length
            parts.append(Part(kind, content.decode() if kind == "text" else content, bool(learned)))
    except (TypeError, RecursionError) as error:  # JSON of another form
        raise ValueError(f"not a sample ({error})") from None
    if start != len(record):
        raise ValueError(f"a sample of {start} bytes in a record of {len(record)}")
    return Sample(tuple(parts), key, label)
