"""The sample that a record stands for: its media and texts in their order."""

import errno
import json
import os
import re
from collections import Counter
from typing import Any

from data.files.text_files import decode_text
from data.media.kinds import Part, Sample
from data.media.reading.fields import ENDINGS, MEDIA_FIELDS, MOST_BYTES, SAMPLE_FIELDS, TEXT_FIELDS, Reading, Record, kind_of
from data.media.reading.labels import label_of
from data.readers.documents import Unreadable, invalid_utf8, printable

_READERS, _WRITERS = ("human", "user", "system"), ("gpt", "assistant")
_TAG = re.compile(r"<(image|video|audio)>")


def sample_of(record: Record, reading: Reading, classes: dict[str, int]) -> Sample:
    """The sample of a record. Raises Unreadable for an incomplete one, such as a caption without an image."""
    fields = record.fields
    whole = [name for name in SAMPLE_FIELDS if name in fields]
    beside = [*whole[1:], *(name for name in (*TEXT_FIELDS, *(MEDIA_FIELDS if "parts" in whole else ())) if name in fields)]
    if whole and beside:
        raise Unreadable(f"{whole[0]}, which are the whole of a sample, and beside them {beside[0]}")
    if "parts" in fields:
        parts = [_part(part, record.folder, reading) for part in list_in(fields["parts"], "parts")]
    elif "conversations" in fields:
        parts = _conversation(list_in(fields["conversations"], "conversations"), _media(record, reading))
    else:
        parts = _media(record, reading)
        if "text" in fields:
            parts.append(_text(fields["text"], "text", learned=False))
        if "caption" in fields:
            parts.append(_text(fields["caption"], "caption", learned=True))
        if ("question" in fields) != ("answer" in fields):
            raise Unreadable("a question without an answer" if "question" in fields else "an answer without a question")
        if "question" in fields:
            parts += [_text(fields["question"], "question", learned=False), _text(fields["answer"], "answer", learned=True)]
    if not parts:
        raise Unreadable("nothing in it")
    if reading.kind and not any(part.kind == reading.kind for part in parts):
        raise Unreadable(f"no {reading.kind} in it")
    label = label_of(record)
    return Sample(tuple(parts), record.key, -1 if label is None else classes[label])


def _media(record, reading):
    """What the fields of a record name, in the order of our names."""
    found = [_medium(member["kind"], member["bytes"], "", reading) for member in record.fields.get("media", ())]
    for name in MEDIA_FIELDS:
        value = record.fields.get(name)
        values = value if isinstance(value, list) else [value]
        found += [_medium(name, one, record.folder, reading) for one in values if one is not None and one != ""]
    return found


def _conversation(turns, media):
    """Turns as parts, each medium where its tag stands; media that have none come first."""
    if not turns:
        raise Unreadable("conversations without a turn")
    said = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unreadable("a turn that is no object")
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if speaker not in (*_READERS, *_WRITERS):
            raise Unreadable(f"a turn of {printable(str(speaker)[:50])!r}, who is none of {', '.join((*_READERS, *_WRITERS))}")
        said.append((_text(text, "turn", learned=speaker in _WRITERS).content, speaker in _WRITERS))
    left = {kind: [medium for medium in media if medium.kind == kind] for kind in ENDINGS}
    tags = Counter(tag for text, learned in said if not learned for tag in _TAG.findall(text))
    for kind, count in tags.items():
        if count > len(left[kind]):
            raise Unreadable(f"more <{kind}> than media: {count} for {len(left[kind])}")
    parts = [medium for medium in media if medium.kind not in tags]
    for kind, count in tags.items():
        parts += left[kind][: len(left[kind]) - count]
        left[kind] = left[kind][len(left[kind]) - count :]
    for text, learned in said:
        for place, piece in enumerate([text] if learned else _TAG.split(text)):
            if place % 2:
                parts.append(left[piece].pop(0))
            elif learned or piece.strip():
                parts.append(Part("text", piece if learned or len(piece) == len(text) else piece.strip("\r\n"), learned))
    return parts


def list_in(found, name):
    if isinstance(found, str):  # in a table
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise Unreadable(f"{name} that are no JSON") from None
    if not isinstance(found, list):
        raise Unreadable(f"{name} that are no list")
    return found


def _part(part, folder, reading):
    if isinstance(part, str):
        return _text(part, "part", learned=False)
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            return _text(part["text"], "part", learned=bool(part.get("learned", False)))
        for name in MEDIA_FIELDS:
            if part.get(name):
                return _medium(name, part[name], folder, reading)
    raise Unreadable("a part that is neither text nor a medium")


def _text(value, name, learned):
    what = f"an {name}" if name == "answer" else f"a {name}"
    try:
        value = decode_text(value) if isinstance(value, bytes) else value
        if not isinstance(value, str):
            raise Unreadable(f"{what} that is no text")
        value.encode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{what} of {invalid_utf8(error.start, error.object)}") from None
    except UnicodeEncodeError:
        raise Unreadable(f"{what} with half of a surrogate pair") from None
    if not value.strip():
        raise Unreadable(f"{what} that is empty")
    return Part("text", value, learned)


def _medium(name, value, folder, reading):
    """A medium by the name of its field, which may say its kind, and its bytes or path."""
    path = value.get("path") if isinstance(value, dict) else value
    path = path if isinstance(path, str) else None
    kind: Any = name if name in ENDINGS else (kind_of(path) if path else None) or reading.kind
    if not kind:
        raise Unreadable("a file of which neither its ending nor its field says what it is")
    content = value if isinstance(value, bytes) else value.get("bytes") if isinstance(value, dict) else None
    if content is None:
        if path is None:
            raise Unreadable(f"a field {name} that is neither bytes nor a path")
        content = _read(os.path.join(folder, path))
    if not isinstance(content, bytes):
        raise Unreadable(f"a field {name} that is neither bytes nor a path")
    return Part(kind, content)


def _read(path):
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise Unreadable(f"too large: {os.path.getsize(path):,} bytes")
        if not os.path.isfile(path):  # a pipe would never end
            raise Unreadable(f"no file there: {path}")
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise Unreadable(f"no file there: {path}") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise Unreadable(f"no path: {path[:100]}") from None
