"""Signals and stalls: what must be noticed while the loop is busy, or stuck."""

import contextlib
import enum
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from train.devices import hosts
from train.loop.exits import Exit


class Request(enum.IntEnum):
    """What was asked for, by how much it interrupts."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Stopped(Exception):
    """Raised in the middle of an evaluation that is not worth finishing: the run was asked to stop."""


class Sentinel:
    """Turns signals into requests that the loop polls, and ends the process when the loop no longer moves; use as a context.

    SIGTERM (a scheduler, a preemption), SIGHUP (the terminal was closed; not below `nohup`) and SIGINT (Ctrl-C) ask to save and stop,
    SIGUSR1 to save and go on. A second one of the first three acts as if nobody listened. In a process of `omnia launch`, so does the
    end of its parent. With several processes, what one is asked all do.

    stall_seconds: without a `beat` or `poll` for so long, the stacks of all threads go to stderr and `stacks`, and the process exits with
    Exit.STALLED; 0: never.

    A thread does the watching: Python's own handlers wait for the interpreter, which may be minutes inside the compiler. Until `started`
    is called there is nothing to save, so the thread ends the process at once.
    """

    def __init__(self, stall_seconds: float, stacks: Path):
        self.reason = Exit.DONE
        self._stall, self._stacks = stall_seconds, stacks
        self._asked, self._nothing_to_save = Request.NOTHING, True
        self._agreement = hosts.Agreement(2)
        self._last = time.monotonic()
        self._before: dict = {}
        self._closed = False
        self._parent = os.getppid() if "OMNIA_PROCESSES" in os.environ else None

    def __enter__(self):
        self._wake, wakened = socket.socketpair()
        for end in (self._wake, wakened):
            end.setblocking(False)
        with contextlib.suppress(ValueError):  # not the main thread: a notebook's server handles signals itself
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
            self._fd_before = signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
        self._wakened = wakened
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="sentinel", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closed = True
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with contextlib.suppress(BlockingIOError):
            self._wakened.send(b"\0")
        self._thread.join(timeout=5)
        self._wake.close()
        self._wakened.close()

    def beat(self) -> None:
        """Something moved."""
        self._last = time.monotonic()

    def started(self) -> None:
        """From now on there is something to save."""
        self._nothing_to_save = False

    def poll(self) -> Request:
        """What is asked of this run, the same for all its processes, which must poll equally often. A request to save is given once."""
        self.beat()
        own = self._asked
        if own == Request.SAVE:
            self._asked = Request.NOTHING
        asked, reason = self._agreement([own, self.reason])
        if asked == Request.STOP:
            self.reason = Exit(reason)
        return Request(asked)

    def stop_early(self) -> None:
        """Poll between the parts of something long: raises Stopped."""
        if self.poll() == Request.STOP:
            raise Stopped

    def _handle(self, number, _) -> None:
        if number == signal.SIGUSR1:
            self._asked = max(self._asked, Request.SAVE)
            return
        self.reason = Exit.INTERRUPTED if number == signal.SIGINT else Exit.SAVED
        self._asked = Request.STOP
        signal.signal(number, self._before[number])

    def _watch(self) -> None:
        """The thread: wakes for every signal, and often enough to notice a stall within a twentieth of its time-out."""
        pause = min(1.0, self._stall / 20) if self._stall else 1.0
        self._wake.setblocking(True)
        self._wake.settimeout(pause)
        while not self._closed:
            try:
                numbers = self._wake.recv(64)
            except TimeoutError:
                numbers = b""
            if self._closed:
                return
            if self._nothing_to_save:
                codes = {signal.SIGTERM: Exit.SAVED, signal.SIGHUP: Exit.SAVED}
                if "ipykernel" not in sys.modules:  # in a notebook, what interrupts a cell must not end the kernel
                    codes[signal.SIGINT] = Exit.INTERRUPTED
                for number, code in codes.items():
                    if number in numbers and number in self._before:
                        print(f"stopped by {signal.Signals(number).name} before anything was trained", flush=True)
                        os._exit(code)
            if self._parent is not None and os.getppid() != self._parent:
                self._parent = None
                os.kill(os.getpid(), signal.SIGTERM)
            if self._stall and time.monotonic() - self._last > self._stall:
                self._give_up()

    def _give_up(self) -> None:
        print(
            f"omnia: nothing has moved for {self._stall:g} s (faults.stall_seconds): a device, a storage or another host hangs.\n"
            f"       The stacks of all threads are in {self._stacks}; the same command goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        with contextlib.suppress(OSError), self._stacks.open("w") as file:  # the storage may be what hangs, or full
            faulthandler.dump_traceback(file, all_threads=True)
        os._exit(Exit.STALLED)
