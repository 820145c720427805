"""The next batches, computed by processes beside the one that trains: for work such as decoding, which threads would share one core for.

Arrays come back through shared memory, in files that have no name: nothing can be left behind, whoever is killed.
"""

import contextlib
import functools
import itertools
import mmap
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import connection, reduction
from typing import Any

import numpy as np

from data.errors import UserError

_ALIGNMENT = 64  # bytes, of an array in a slot: what accelerators' runtimes can use without a copy
_arena: Any = None  # in a worker: the slot of the batch in the making


class ProcessPrefetch:
    """Yields maker(start), maker(start + 1), ... in order, up to `depth` of them made ahead by `processes` processes.

    maker: picklable; maker(number) gives a dict or NamedTuple of NumPy arrays (other values should be small) that depends on the number
    alone. Worker k makes every processes-th batch from start + k on. An exception of the maker is raised where its batch would have
    come. Close it, or use it as a context. `waited_s`: seconds in which the consumer had to wait.
    """

    def __init__(self, maker: Callable[[int], Any], start: int, processes: int, depth: int):
        self.waited_s = 0.0
        depth, count = max(depth, 1), max(min(processes, depth), 1)
        self._workers: list[_Worker] = []
        self._turns = itertools.cycle(self._workers)
        self._closed = False
        try:
            for k in range(count):
                self._workers.append(_Worker(maker, start + k, count, ahead=depth // count + (k < depth % count)))
        except BaseException:
            self.close()
            raise

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed:
            raise StopIteration
        begin = time.monotonic()
        try:
            result, error = next(self._turns).receive()
        except UserError:
            self.close()
            raise
        finally:
            self.waited_s += time.monotonic() - begin
        if error:
            self.close()
            raise error
        return result

    def close(self) -> None:
        """Ends the workers, whatever they are at. Batches that were given stay valid."""
        self._closed = True
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def shared_empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """As np.empty, for an array of the batch in the making: in a worker it lies where the consumer reads it, and is not copied."""
    return np.empty(shape, dtype) if _arena is None else _arena.empty(shape, np.dtype(dtype))


class _Worker:
    """The parent's side of one process: `ahead` batches may be made or waiting, and one more in the consumer's hands."""

    def __init__(self, maker, first, stride, ahead):
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as JAX's, can hang
        self._slots = [_Slot(_nameless_file()) for _ in range(ahead + 1)]
        self._free = deque(range(ahead + 1))
        self._ahead, self._pending, self._viewed = ahead, 0, 0
        self._returned: deque[int] = deque()  # slots of batches that nobody holds any more
        self._connection, child = context.Pipe()
        files = [_Passed(slot.file) for slot in self._slots]
        self.process = context.Process(target=_work, args=(maker, first, stride, files, child), name="prefetch", daemon=True)
        self.process.start()
        child.close()
        self._grant()

    def receive(self):
        """(batch, None) or (None, exception) of the next number of this worker."""
        self._reclaim()
        self._grant()
        connection.wait([self._connection, self.process.sentinel])
        try:
            slot, header, error = self._connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            raise UserError(
                f"a process that makes batches died (exit code {self.process.exitcode}): out of memory, killed, or started from a script "
                'without `if __name__ == "__main__":`.',
                "Train with fewer processes, or smaller batches.",
            ) from None
        self._pending -= 1
        if error:
            return None, error
        self._reclaim()
        # With a batch in the consumer's hands already, the next is copied: the worker must not run out of places.
        view = self._viewed == 0
        if view:
            self._viewed += 1
            batch = self._slots[slot].unpack(header, functools.partial(self._returned.append, slot))
        else:
            batch = self._slots[slot].unpack(header, None)
            self._free.append(slot)
        self._grant()
        return batch, None

    def close(self):
        self._connection.close()
        for slot in self._slots:
            slot.close()

    def _reclaim(self):
        while self._returned:
            self._free.append(self._returned.popleft())
            self._viewed -= 1

    def _grant(self):
        while self._free and self._pending < self._ahead:
            with contextlib.suppress(OSError):  # of a worker that died; which is told in its turn
                self._connection.send(self._free.popleft())
            self._pending += 1


class _Slot:
    """A place in shared memory for the arrays of one batch, which grows to the largest."""

    def __init__(self, file: int):
        self.file = file
        self._map: mmap.mmap | None = None
        self._used = 0  # bytes

    def empty(self, shape, dtype):
        """A new array, here if there is room."""
        count, used = int(np.prod(shape)), self._used
        place = self._place(dtype.itemsize * count)
        if self._map is None or self._used > len(self._map):
            self._used = used  # `pack` will find a place for it
            return np.empty(shape, dtype)
        return np.frombuffer(self._map, dtype, count, place).reshape(shape)

    def pack(self, batch) -> tuple:
        """Puts the arrays of a batch here, but for those that are; returns what `unpack` needs."""
        kind, values = (dict, batch) if isinstance(batch, dict) else (type(batch), batch._asdict())
        fields, missing = [], []
        for name, value in values.items():
            if not isinstance(value, np.ndarray) or value.dtype.hasobject:
                fields.append((name, value, None, None))
                continue
            place = self._where(value)
            if place is None:
                place = self._place(value.nbytes)
                missing.append((place, value))
            fields.append((name, place, value.dtype, value.shape))
        needed = max(self._used, 1)
        if self._map is None or needed > len(self._map):
            os.ftruncate(self.file, needed)
            self._map = mmap.mmap(self.file, needed)  # of the same memory: what lies there already stays
        for place, value in missing:
            np.frombuffer(self._map, value.dtype, value.size, place).reshape(value.shape)[...] = value
        return kind, fields, needed

    def unpack(self, header, when_gone: Callable[[], None] | None):
        """The batch: as it lies here, with a call when nobody holds any of its arrays; or, without, a copy."""
        kind, fields, needed = header
        if self._map is None or len(self._map) < needed:
            self._map = mmap.mmap(self.file, needed)
        whole = np.frombuffer(self._map, np.uint8, needed)
        if when_gone:
            held = _Held(whole)
            weakref.finalize(held, when_gone).atexit = False
            whole = np.asarray(held)
        values = {}
        for name, place, dtype, shape in fields:
            if dtype is None:
                values[name] = place
                continue
            size = dtype.itemsize * int(np.prod(shape))
            value = whole[place : place + size].view(dtype).reshape(shape)
            values[name] = value if when_gone else value.copy()
        return values if kind is dict else kind(**values)

    def begin(self):
        """Forgets the batch before."""
        self._used = 0

    def close(self):
        self._map = None  # the memory itself goes with the last array in it
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    def _place(self, size):
        place = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        self._used = place + size
        return place

    def _where(self, array):
        """The place of an array that lies here, whole and in order."""
        if self._map is None or not array.flags.c_contiguous or not array.size:
            return None
        start = np.frombuffer(self._map, np.uint8).ctypes.data
        place = array.ctypes.data - start
        return place if place >= 0 and place + array.nbytes <= len(self._map) else None


class _Held:
    """Memory that tells when the last array in it is gone."""

    def __init__(self, whole):
        self._whole = whole
        self.__array_interface__ = whole.__array_interface__


class _Passed:
    """An open file on its way to a process that is being started."""

    def __init__(self, file):
        self._file = file

    def __getstate__(self):
        return reduction.DupFd(self._file)

    def __setstate__(self, duplicate):
        self._file = duplicate.detach()

    def file(self):
        return self._file


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _work(maker, first, stride, files, parent):
    global _arena
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()
    slots = [_Slot(file.file()) for file in files]
    with contextlib.suppress(EOFError, OSError):  # the parent has closed
        for number in itertools.count(first, stride):
            slot = parent.recv()
            _arena = slots[slot]
            _arena.begin()
            try:
                header = _arena.pack(maker(number))
            except BaseException as error:  # the consumer's to see
                parent.send((slot, None, _portable(error)))
                return
            parent.send((slot, header, None))


def _follow_parent():
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _portable(error):
    """The exception, or a description of one that cannot be pickled; with the worker's traceback."""
    error.add_note("In the process that made the batch:\n" + "".join(traceback.format_exception(error)))
    try:
        reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(error))
        return error
    except Exception:  # of whatever class the error is
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = error.__notes__
        return told
