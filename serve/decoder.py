"""Media of strangers, decoded in processes of their own, which a limit of processor time and one of memory end.

What a file holds is known when it has been read, and a few bytes can ask for hours: a table of a million packets, frames larger than the
header says. No decoder promises an end, so each file has a process that can be killed, and a fault in a decoder ends that process alone.
"""

import contextlib
import multiprocessing
import os
import queue
import resource
import signal
import threading
from typing import Any, NamedTuple

from data.errors import UserError
from data.media.kinds import Kind, Undecodable
from data.media.signals.packages import require
from data.media.signals.probing import probe
from data.media.signals.shapes import Cut, Shape
from data.media.source import cut

MOST_PIXELS = 16 << 20
"""Of a picture or a frame, as its header says."""
MOST_SECONDS = 3600
"""Of a recording or a video, as its header says."""


class Undecoded(Exception):
    """Why there is no medium, and a code as an error of the API has it."""

    def __init__(self, said: str, code: str):
        super().__init__(said, code)  # all that makes it, for the way between processes
        self.said, self.code = said, code


class Busy(Exception):
    """Others wait already."""


class _Worker(NamedTuple):
    process: Any
    pipe: Any


class Decoder:
    """Decodes media of these shapes; may be called on any thread. UserError where a package that decodes them is missing.

    seconds: of processor time, and memory: bytes of address space, for one file. workers: files decoded at once, for all who ask.
    """

    def __init__(self, shapes: dict[Kind, Shape], *, seconds: float = 10.0, memory: int = 2 << 30, workers: int = 2):
        for kind in shapes:
            require(kind)
        self._shapes, self._seconds, self._memory = shapes, seconds, memory
        self._free: queue.Queue[_Worker] = queue.Queue()
        self._room = threading.Semaphore(2 * workers)  # those that wait hold threads that others need
        for _ in range(workers):
            self._free.put(self._started())

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as JAX's, can hang
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._shapes, self._seconds, self._memory), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return _Worker(process, ours)

    def cut(self, kind: Kind, content: bytes) -> Cut:
        """A medium as the model reads it. Undecoded for what is none, or is larger than is read; Busy where as many wait as are at work."""
        if not self._room.acquire(blocking=False):
            raise Busy
        try:
            return self._cut(kind, content)
        finally:
            self._room.release()

    def _cut(self, kind: Kind, content: bytes) -> Cut:
        worker = self._free.get()
        try:
            worker.pipe.send((kind, content))
            found = worker.pipe.recv()
        except (EOFError, OSError):  # its end: by a limit, or by a fault in a decoder
            worker.process.join()
            slow = -worker.process.exitcode == signal.SIGPROF
            worker.pipe.close()
            worker = self._started()
            said = f"takes more than {self._seconds:g} s to decode" if slow else "ended what decoded it"
            found = Undecoded(f"the {kind} {said}", "too_large" if slow else "invalid_media")
        finally:
            self._free.put(worker)
        if isinstance(found, Undecoded):
            raise found
        return found


def _work(pipe: Any, shapes: dict[Kind, Shape], seconds: float, memory: int) -> None:
    """In a process: decode what comes, until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for kind in shapes:
        require(kind)
    _bound(memory)
    with contextlib.suppress(EOFError, OSError):
        while True:
            kind, content = pipe.recv()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            found = _decoded(kind, content, shapes[kind])
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send(found)


def _bound(memory: int) -> None:
    """The memory of this process; and it writes no file, nor a core dump."""
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))
    with contextlib.suppress(OSError):  # a system without /proc
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory,) * 2)


def _decoded(kind: Kind, content: bytes, shape: Shape) -> Cut | Undecoded:
    try:
        facts = probe(kind, content)
        if facts.width * facts.height > MOST_PIXELS or max(facts.samples, facts.frames) > MOST_SECONDS * max(facts.rate, 1):
            return Undecoded(f"the {kind} is larger than is read: {MOST_PIXELS:,} pixels, {MOST_SECONDS:,} seconds", "too_large")
        return cut(content, shape, facts, None)
    except Undecodable as error:
        return Undecoded(f"the {kind} cannot be decoded: {str(error)[:200]}", "invalid_media")
    except MemoryError:
        return Undecoded(f"the {kind} takes too much memory to decode", "too_large")
    except UserError as error:  # what the decoders say of files that are too large for them
        return Undecoded(f"the {kind} cannot be decoded: {str(error).splitlines()[0]}", "invalid_media")
