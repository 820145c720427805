"""The next batches, computed by a thread while the accelerator is at work."""

import collections
import threading
import time
from collections.abc import Callable


class Prefetch:
    """Yields make(start), make(start + 1), ... in order, up to `depth` of them computed ahead.

    An exception of `make` is raised where its result would have come. Close it, or use it as a context; a `make` that is running
    then is not waited for longer than a second. `waited_s`: seconds in which the consumer had to wait.
    """

    def __init__(self, make: Callable[[int], object], start: int, depth: int):
        self.waited_s = 0.0
        self._make, self._depth = make, depth
        self._ready = collections.deque()  # (result, exception)
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, args=(start,), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        begin = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed)
            self.waited_s += time.monotonic() - begin
            if self._closed:
                raise StopIteration
            result, error = self._ready.popleft()
            self._changed.notify_all()
        if error:
            self.close()
            raise error
        return result

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _work(self, step):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                if self._closed:
                    return
            result, error = None, None
            try:
                result = self._make(step)
            except BaseException as raised:  # the consumer's to see
                error = raised
            with self._changed:
                self._ready.append((result, error))
                self._changed.notify_all()
            if error:
                return
            step += 1


def prefetch(make: Callable[[int], object], start: int, depth: int = 2) -> Prefetch:
    """Iterates make(start), make(start + 1), ... with a thread that computes up to `depth` (at least 1) ahead."""
    return Prefetch(make, start, max(depth, 1))
