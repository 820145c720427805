"""Tasks over processes: the same results on one core or many, prompt to stop, and nothing left behind by a kill."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from data.errors import UserError
from data.loading.progress import Progress

_FEW_BYTES = 1 << 24  # not worth the start of a process
_STOP = -(1 << 62)
_counter: Any = None  # in a worker: input bytes read by all, or _STOP


def run_tasks(function: Callable, calls: Sequence[tuple], workers: int, label: str, total_bytes: int) -> Iterator[tuple[int, Any]]:
    """Calls function(*call, report) for every call; yields (number of the call, result) as they end.

    `report(count)` is for the function to tell how many input bytes it has read. workers: 0 for one on each core, and none for
    small inputs. The first exception ends the other tasks.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with Progress(label, total_bytes) as progress:
        if workers == 1 or len(calls) < 2 or (not workers and (cores == 1 or total_bytes < _FEW_BYTES)):
            yield from _run_here(function, calls, progress)
        else:
            yield from _run_in_processes(function, calls, min(workers or cores, len(calls)), progress)


def _run_here(function, calls, progress):
    done = 0

    def report(count):
        nonlocal done
        done += count
        progress.show(done)

    for number, call in enumerate(calls):
        yield number, function(*call, report)


def _run_in_processes(function, calls, workers, progress):
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as JAX's, can hang
    counter = context.Value("q", 0)
    with futures.ProcessPoolExecutor(workers, context, _start_worker, (counter,)) as pool:
        numbers = {pool.submit(_call, function, call): number for number, call in enumerate(calls)}
        waiting = set(numbers)
        try:
            while waiting:
                ended, waiting = futures.wait(waiting, timeout=0.5, return_when=futures.FIRST_COMPLETED)
                progress.show(counter.value)
                for future in ended:
                    yield numbers.pop(future), future.result()
        except BrokenProcessPool:
            raise UserError(
                'a worker process died: out of memory, or started from a script without `if __name__ == "__main__":`.',
                "Run it again with --workers 1; finished shards are kept.",
            ) from None
        finally:
            if waiting:
                counter.value = _STOP
                pool.shutdown(cancel_futures=True)


def _start_worker(counter):
    global _counter
    _counter = counter
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # parallel are the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent():
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _call(function, call):
    return function(*call, _report)


def _report(count):
    with _counter.get_lock():
        if _counter.value < 0:
            raise InterruptedError("another task failed")
        _counter.value += count
