"""`omnia launch`: the processes of one job on this machine, watched from outside. A process that was killed cannot start itself again."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

from data.errors import UserError
from train.loop.exits import Exit
from train.verbs.arguments import parse

GRACE_SECONDS = 60.0
"""For the others to save, once one has been asked to stop or has ended well; then they are killed."""
ENDED_BY_REQUEST = (Exit.SAVED, Exit.INTERRUPTED)
POINTLESS = (Exit.MISTAKE, Exit.DIVERGED)
"""Ends that starting again would only repeat."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """Train or serve with several processes on this machine, and restart all of them after a crash. The command to run follows `--`."""

    processes: int = 1
    """Number of processes. Each gets its share of the cores."""
    max_restarts: int = 0
    """How often to restart the job after a crash, a kill or a stall. Training resumes from the last checkpoint."""
    join_seconds: int = 120
    """Seconds that the processes wait for each other at the start."""


def launch(arguments: list[str]) -> int:
    """Exit code: that of the process that decided how the job ended."""
    own, verb = arguments, []
    if "--" in arguments:
        place = arguments.index("--")
        own, verb = arguments[:place], arguments[place + 1 :]
    options = parse(Launch, "launch", own)
    if verb[:1] not in (["train"], ["serve"]):
        raise UserError(
            "omnia launch: what should be launched?", "Give it after --, as in: omnia launch --processes 2 -- train CONFIG.py --run-dir DIR"
        )
    if min(options.processes, options.join_seconds) < 1 or options.max_restarts < 0:
        raise UserError("omnia launch: --processes and --join-seconds must be positive, --max-restarts 0 or more")
    asked = _Forwarded()
    with asked:
        for attempt in range(options.max_restarts + 1):
            code, what = _Job(options, verb, asked).run()
            if code in (Exit.DONE, *ENDED_BY_REQUEST, *POINTLESS) or asked.to_stop:
                break
            left = options.max_restarts - attempt
            print(
                f"omnia launch: {what}; " + (f"starting again, {left} of {options.max_restarts} left" if left else "not started again"),
                flush=True,
            )
    return code if code >= 0 else Exit.OURS


class _Forwarded:
    """Signals of the launcher, kept until they are handed to the processes; use as a context."""

    def __init__(self):
        self.pending: list[int] = []
        self.to_stop = False
        self._before: dict = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._keep)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _keep(self, number, _) -> None:
        self.pending.append(number)
        self.to_stop |= number != signal.SIGUSR1


class _Job:
    """One start of all processes."""

    def __init__(self, options: Launch, verb: list[str], asked: _Forwarded):
        self._asked = asked
        cores = sorted(os.sched_getaffinity(0))
        address = f"127.0.0.1:{_free_port()}"
        self._processes = []
        for index in range(options.processes):
            job = {
                "OMNIA_PROCESSES": str(options.processes),
                "OMNIA_PROCESS": str(index),
                "OMNIA_COORDINATOR": address,
                "OMNIA_JOIN_SECONDS": str(options.join_seconds),
            }
            # A process inherits the cores it may use. In a session of its own, Ctrl-C reaches it by way of us alone, and once.
            os.sched_setaffinity(0, cores[index :: options.processes] or [cores[index % len(cores)]])
            self._processes.append(subprocess.Popen([sys.executable, "-m", "omnia", *verb], env=os.environ | job, start_new_session=True))
        os.sched_setaffinity(0, cores)

    def run(self) -> tuple[int, str]:
        """Wait for the end. Returns the exit code that decided it, and in words what happened."""
        try:
            while True:
                while self._asked.pending:
                    self._send(self._asked.pending.pop(0))
                codes = [process.poll() for process in self._processes]
                bad = [(index, code) for index, code in enumerate(codes) if code]
                if bad:
                    index, code = bad[0]
                    if code in ENDED_BY_REQUEST:
                        self._send(signal.SIGTERM)
                        self._wait(GRACE_SECONDS)
                    return code, f"process {index} of {len(codes)} " + _ended(code)
                if None not in codes:
                    return Exit.DONE, "done"
                time.sleep(0.05)
        finally:
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _send(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in self._processes):
            time.sleep(0.05)


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "stalled" if code == Exit.STALLED else f"ended with exit code {code}"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
