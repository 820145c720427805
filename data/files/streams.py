"""The standard streams of a process: closed, full, gone, or of an encoding that lacks a character."""

import contextlib
import os
import sys
from collections.abc import Iterator

STDOUT = "standard output"


def open_streams() -> None:
    """Give streams that are closed (`>&-`) a place, and let characters that an encoding lacks be written as escapes.

    A closed descriptor would be given to the next file that is opened, and what a library then prints would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # which takes the lowest number that is free: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Dispensable:
    """A stream whose reader may go away, or whose disk may be full: writing to it then does nothing, and never raises.

    The first failure is said on `other`, if that is possible.
    """

    def __init__(self, stream, name: str, other=None):
        self._stream, self._name, self._other = stream, name, other
        self._lost = False

    def write(self, text: str) -> int:
        if not self._lost:
            with self._forgiven():
                try:
                    self._stream.write(text)
                except UnicodeEncodeError as error:
                    self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        if not self._lost:
            with self._forgiven():
                self._stream.flush()

    def isatty(self) -> bool:
        return not self._lost and self._stream.isatty()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._lost = True
            discard(self._stream)
            if self._other is not None:
                why = error.strerror if isinstance(error, OSError) else error
                print(f"omnia: {self._name} cannot be written any more ({why}); the work goes on without it", file=self._other, flush=True)


class Named:
    """A stream that says its name when it cannot be written."""

    def __init__(self, stream, name: str):
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = self._name
            raise


def discard(stream) -> None:
    """Send to nowhere what is still held for a stream that cannot be written: at its end Python would try, and fail, again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def essential() -> Iterator[None]:
    """Standard output is what the work is for: inside, an OSError says when it is that which cannot be written."""
    before, sys.stdout = sys.stdout, Named(sys.stdout, STDOUT)
    try:
        yield
        sys.stdout.flush()  # here, where it can still be said
    finally:
        sys.stdout = before


@contextlib.contextmanager
def dispensable() -> Iterator[None]:
    """Standard output and error are not worth the work that reports to them: inside, losing one or both stops nothing."""
    before = sys.stdout, sys.stderr
    if not isinstance(before[0], Dispensable):
        errors = Dispensable(before[1], "standard error")
        sys.stdout, sys.stderr = Dispensable(before[0], STDOUT, errors), errors
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
