"""Plain files: a whole one as a document, or one document on each line of a .jsonl."""

import codecs
import json
import os

import xxhash

from data.readers.documents import Document, Extent, Skipped, Unreadable, document_of, invalid_utf8
from data.readers.stream import CHUNK_BYTES, COMPRESSIONS, Stream, compression_of


def read_whole(extent: Extent, text_field: str, report):
    """A whole file is one document. It is read twice if it does not fit one chunk: a digest comes before a split."""
    characters, digest, first, count = 0, xxhash.xxh3_64(), "", 0
    try:
        for chunk in _text_chunks(extent.path, lambda read: None):
            count += 1
            first = first or chunk
            characters += len(chunk)
            digest.update(chunk.encode())
    except Unreadable as error:
        report(extent.stop)
        yield Skipped(extent.path, str(error), "damaged")
        return
    if count <= 1:
        report(extent.stop)
        yield document_of(extent.path, first)
    else:
        yield Document(extent.path, lambda: _text_chunks(extent.path, report), characters, digest.intdigest())


def _text_chunks(path, report):
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, begin = 0, b""
    with Stream(path, report) as stream:
        for content in stream.chunks():
            begin = begin or content[:8]
            held = len(decoder.getstate()[0])  # the begun character of the chunk before
            skipped = len(codecs.BOM_UTF8) if not position and content.startswith(codecs.BOM_UTF8) else 0
            try:
                text = decoder.decode(content[skipped:], final=not content)
            except UnicodeDecodeError as error:
                raise Unreadable(invalid_utf8(position - held + skipped + error.start, begin)) from None
            position += len(content)
            if text:
                yield text


def read_lines(extent: Extent, text_field: str, report):
    """The lines that begin in the extent; the field `text_field` of each is a document."""
    number = 0
    if not extent.path.lower().endswith(COMPRESSIONS) and (compression := compression_of(extent.path)):
        yield Skipped(
            extent.path, f"compressed, and its name does not say so: call it {os.path.basename(extent.path)}{compression}", "damaged"
        )
        report(extent.stop - extent.start)
        return
    lines = _lines(extent, report)
    while True:
        try:
            line = next(lines, None)
        except Unreadable as error:
            yield Skipped(extent.path, str(error), "damaged")
            return
        if line is None:
            return
        number += 1
        if not line.strip():
            continue
        name = f"{extent.path}: line {number} after byte {extent.start}" if extent.start else f"{extent.path}:{number}"
        document = document_of_json(name, line, text_field)
        if extent.start and isinstance(document, Skipped) and document.kind == "damaged":  # a number that can be looked up
            document = document._replace(name=f"{extent.path}:{_lines_before(extent) + number}")
        yield document


def read_json(extent: Extent, text_field: str, report):
    """A .json file: the records of JSON lines, which some call so, or of a list; any other is a document as it is written."""
    with Stream(extent.path, lambda read: None) as stream:
        try:
            begin = stream.read(CHUNK_BYTES).lstrip(codecs.BOM_UTF8).lstrip()
        except Unreadable:
            begin = b""
    if _has_text(begin.partition(b"\n")[0], text_field):
        yield from read_lines(extent, text_field, report)
        return
    documents = list(read_whole(extent, text_field, report))
    (whole,) = documents
    records = _records("".join(whole.chunks())) if begin.startswith(b"[") and isinstance(whole, Document) else []
    if not records or not any(isinstance(record, dict) and isinstance(record.get(text_field), str) for record in records):
        yield whole
        return
    for number, record in enumerate(records, 1):
        yield _document_of_record(f"{extent.path}: record {number}", record, text_field)


def _has_text(line: bytes, text_field: str) -> bool:
    """Whether a line is a record of JSON lines."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get(text_field), str)


def _records(text: str) -> list:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return []


def document_of_json(name: str, content: bytes, text_field: str) -> Document | Skipped:
    """The field `text_field` of a JSON object as a document."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        return Skipped(name, f"invalid JSON ({error})", "damaged")
    return _document_of_record(name, record, text_field)


def _document_of_record(name, record, text_field):
    text = record.get(text_field) if isinstance(record, dict) else None
    return document_of(name, text) if isinstance(text, str) else Skipped(name, f"no text in the field {text_field!r}", "damaged")


def _lines(extent, report):
    if extent.path.lower().endswith(COMPRESSIONS):
        rest = b""
        with Stream(extent.path, report) as stream:
            for content in stream.chunks():
                *lines, rest = (rest + content).split(b"\n")
                yield from lines
        if rest:
            yield rest
        return
    with open(extent.path, "rb") as file:
        if extent.start:
            file.seek(extent.start - 1)
            file.readline()  # the line that began in the extent before
        while file.tell() < extent.stop and (line := file.readline()):
            report(len(line))
            yield line


def _lines_before(extent):
    """How many lines of the file begin before the extent."""
    count, left = int(extent.start > 0), extent.start - 1
    with open(extent.path, "rb") as file:
        while left > 0:
            content = file.read(min(CHUNK_BYTES, left))
            count += content.count(b"\n")
            left -= len(content)
    return count
