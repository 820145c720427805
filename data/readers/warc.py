"""Web archives (ISO 28500): texts of WET files, and pages of WARC files as text. Needs the package resiliparse (extra: warc).

Records are found here rather than by a library, so that a damaged one costs itself alone: the next is searched for after it. What a
server said is undone by FastWARC, and Resiliparse finds the main text of a page: fast enough for whole crawls, and as good to train
on as slower extractors (Li et al. 2024, "DataComp-LM", sec. 4.2).
"""

import importlib.metadata
import io
import re
from typing import NamedTuple

from data.errors import UserError
from data.readers.documents import Extent, Skipped, Unreadable, document_of, printable
from data.readers.stream import Stream

MOST_BYTES = 1 << 26
"""Of one page or text; a longer record is left out as damaged."""
_HEADER_BYTES = 1 << 16
_BEGIN = re.compile(rb"WARC/1\.\d\r?\n")
_LATER = re.compile(rb"\n(?=WARC/1\.\d\r?\n)")
_END = b"\r\n\r\n"
_HTML = ("text/html", "application/xhtml+xml")


def check(path: str, text_field: str) -> None:
    """UserError unless the packages are there."""
    _packages()


def version() -> str:
    """Of the extractor, on which the texts of pages depend."""
    return f"resiliparse {importlib.metadata.version('resiliparse')}"


def read_records(extent: Extent, text_field: str, report):
    """The texts of `conversion` records that are plain text, and those of `response` records that are HTML."""
    with Stream(extent.path, report) as stream:
        window = _Window(stream)
        while window.peek(1):
            if window.peek(2) == b"\r\n":
                window.take(2)
            elif _BEGIN.match(window.peek(_HEADER_BYTES)):
                yield from _record(window, extent.path)
            else:
                yield Skipped(f"{extent.path}: byte {window.place}", "no record begins here", "damaged")
                _seek(window)
        if window.broken:
            yield Skipped(f"{extent.path}: byte {window.place}", f"the rest {window.broken}", "damaged")


class _Window:
    """A stream with a peek. `place` counts the bytes that were taken, after decompression; `broken` says why they end early."""

    def __init__(self, stream):
        self._stream = stream
        self._held, self.place = b"", 0
        self.broken: Unreadable | None = None

    def peek(self, size: int) -> bytes:
        """The next bytes, not taken: `size` of them, or fewer at the end."""
        if len(self._held) < size and not self.broken:
            try:
                self._held += self._stream.read(max(size - len(self._held), 1 << 16))
            except Unreadable as error:
                self.broken = error
        return self._held[:size]

    def take(self, size: int) -> None:
        while size > 0 and self.peek(1):
            taken = min(size, len(self._held))
            self._held, self.place, size = self._held[taken:], self.place + taken, size - taken


def _seek(window) -> None:
    """Goes on to the next line that begins a record, or to the end of the file."""
    border = 16  # a line may lie across it
    while ahead := window.peek(_HEADER_BYTES):
        found = _LATER.search(ahead)
        if found or len(ahead) < border:
            window.take(found.end() if found else len(ahead))
            return
        window.take(len(ahead) - border + 1)


class _Header(NamedTuple):
    """Of a record or an HTTP message: field names in lower case."""

    fields: dict[str, str]
    size: int


def _record(window, path):
    begin = window.place
    header = _header(window.peek(_HEADER_BYTES))
    fields = header.fields if header else {}
    name = f"{path}: {printable(fields.get('warc-target-uri', '').strip('<>'))} at byte {begin}"
    length = fields.get("content-length", "")
    if header is None or not length.isdecimal():
        yield Skipped(name, "no length of the record" if header else "no end of the header", "damaged")
        _seek(window)
        return
    window.take(header.size)
    size, kind = int(length), fields.get("warc-type", "").lower()
    of_interest = kind == "conversion" or (kind == "response" and "http" in fields.get("content-type", "http").lower())
    ignored = _ignored(kind, fields, window.peek(min(size, _HEADER_BYTES))) if of_interest else None
    wanted = of_interest and not ignored and size <= MOST_BYTES
    content = window.peek(size + len(_END)) if wanted else b""
    if not wanted:
        window.take(size)
    end = content[size:] if wanted else window.peek(len(_END))
    if (len(content) if wanted else window.place - begin - header.size) < size:
        if not window.broken:
            yield Skipped(name, "the file ends within the record", "damaged")
        _seek(window)
    elif end not in (_END, b""):  # a wrong length; if the record was not taken yet, the next may lie within it
        yield Skipped(name, "no end of the record where its length says", "damaged")
        _seek(window)
    elif ignored:
        yield Skipped(name, ignored, "ignored")
    elif wanted:
        window.take(size)
        yield document_of(name, content[:size]) if kind == "conversion" else _page(name, content[:size])
    elif of_interest:
        yield Skipped(name, f"{size} bytes, more than {MOST_BYTES}", "damaged")


def _ignored(kind, fields, begin) -> str | None:
    """Why a record of interest is no document."""
    if kind == "conversion":
        media = fields.get("content-type", "text/plain").lower()
        return None if media.startswith("text/plain") else media
    status, http = begin.partition(b"\n")[0].split(maxsplit=2)[1:2], _header(begin)
    if http is None or not status or not status[0].startswith(b"2"):
        return f"HTTP status {printable(status[0].decode('latin-1'))}" if status else "no HTTP message"
    media = http.fields.get("content-type", "").lower()
    return None if media.startswith(_HTML) else media or "no content type"


def _header(content: bytes) -> _Header | None:
    """The fields between the first line and the first empty line; None without an empty line."""
    found = re.search(rb"\r?\n\r?\n", content)
    if not found:
        return None
    lines = re.sub(rb"\r?\n[ \t]+", b" ", content[: found.start()]).decode("utf-8", "replace").splitlines()[1:]
    pairs = (line.partition(":") for line in lines)
    return _Header({key.strip().lower(): value.strip() for key, _, value in pairs}, found.end())


def _page(name, message):
    """The main text of an HTML page that a server sent; its character set by mark, HTTP header, page, or content, in this order."""
    archive, extract, encoding = _packages()
    head = f"WARC/1.1\r\nWARC-Type: response\r\nContent-Type: application/http;msgtype=response\r\nContent-Length: {len(message)}\r\n\r\n"
    try:
        record = next(iter(archive.ArchiveIterator(io.BytesIO(head.encode() + message + _END), parse_http=True, auto_decode="all")))
        page, charset = record.reader.read(), record.http_charset
    except (OSError, StopIteration) as error:
        return Skipped(name, f"HTTP message cannot be read ({' '.join(str(error).split())[:200]})", "damaged")
    if page.startswith(b"\xef\xbb\xbf"):
        charset = "utf-8"
    elif charset:
        charset = encoding.map_encoding_to_html5(charset, fallback_utf8=False)  # None if nobody knows it
    charset = charset or encoding.detect_encoding(page, from_html_meta=True)
    text = encoding.bytes_to_str(page, charset, errors="replace")
    return document_of(name, extract.extract_plain_text(text, preserve_formatting=True, main_content=True, alt_texts=False))


def _packages():
    try:
        from fastwarc import warc
        from resiliparse.extract import html2text
        from resiliparse.parse import encoding
    except ImportError:
        raise UserError("Web archives need the package resiliparse.", "pip install -e '.[warc]'") from None
    return warc, html2text, encoding
