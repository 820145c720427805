"""A file from its first byte to its last, decompressed on the way."""

import contextlib
import gzip
import zlib

from data.readers.documents import Unreadable

CHUNK_BYTES = 1 << 22
COMPRESSIONS = (".gz", ".zst")


def plain_name(path: str) -> str:
    """The path in lower case, without the endings of compressions."""
    path = path.lower()
    for suffix in COMPRESSIONS:
        path = path.removesuffix(suffix)
    return path


MARKS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
"""The first bytes of what is compressed. They count for more than the name: servers and browsers compress on the way."""


def compression_of(path: str) -> str:
    """The ending that a file's name should have by its content; "" for none."""
    with open(path, "rb") as file:
        begin = file.read(4)
    return next((ending for ending, mark in MARKS.items() if begin.startswith(mark)), "")


class Stream:
    """The content of a file, decompressed. `report` is told of bytes of the file as they are read: compressed ones, where they are.

    Use as a context. Reading raises Unreadable where the content cannot be decompressed.
    """

    def __init__(self, path: str, report):
        self._path, self._report, self._done = path, report, 0
        self._broken: Unreadable | None = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._raw = stack.enter_context(open(self._path, "rb"))
            self._file = stack.enter_context(_decompressed(self._raw, compression_of(self._path) or _named(self._path)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def read(self, size: int) -> bytes:
        """The next bytes: `size` of them, or fewer at the end and before what cannot be decompressed."""
        contents, left = [], size
        while left > 0 and not self._broken:
            try:
                content = self._file.read1(left)
            except _decompression_errors() as error:
                self._broken = Unreadable(f"cannot be decompressed ({error})")
                break
            if not content:
                break
            contents.append(content)
            left -= len(content)
        done = self._raw.tell()
        self._report(done - self._done)
        self._done = done
        if self._broken and not contents:
            raise self._broken
        return b"".join(contents)

    def chunks(self):
        """All that is left; at the end an empty chunk."""
        while content := self.read(CHUNK_BYTES):
            yield content
        yield b""


def _named(path):
    """The compression that a name claims. Content that is not compressed counts as damage, such as a saved error page."""
    return next((ending for ending in COMPRESSIONS if path.lower().endswith(ending)), "")


def _decompressed(raw, compression):
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
    return contextlib.nullcontext(raw)


def _decompression_errors():
    import zstandard

    return EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError
