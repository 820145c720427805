"""Jobs as processes: several at once, each in cores or on a GPU of its own, stopped without losing what they have done."""

import contextlib
import ctypes
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from train.loop.exits import Exit
from train.reproduce.jobs import Job, finish, result_of, state_of, write_state
from train.reproduce.table import ROOT

GRACE_SECONDS = 60.0
"""For jobs to save when they are asked to stop; then they are killed."""
PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one of several jobs at once runs. cores: of the CPU; none where the system does not let us choose."""

    cores: tuple[int, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def places(count: int, tier: str) -> list[Place]:
    """Of `count` jobs at once: a share of the cores each on a CPU, and an NVIDIA GPU each where there are several.

    count: 0 for as many as go well together. UserError where a tier needs an accelerator and there is none, or more jobs are asked for than
    there are GPUs.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    kind, devices = accelerators()
    if tier == "cpu":
        count, environments = count or max(len(cores), 1), [{"JAX_PLATFORMS": "cpu"}]
    elif not devices:
        raise UserError(f"--tier {tier}: this machine has no GPU or TPU", "--tier cpu tests the small version here.")
    else:
        # A platform that is named is used or refused: with a JAX for CPUs alone, a GPU would lie idle otherwise.
        single = tier == "pod" or kind == "tpu"
        environments = [{"JAX_PLATFORMS": kind}] if single else [{"JAX_PLATFORMS": kind, "CUDA_VISIBLE_DEVICES": one} for one in devices]
        count = count or len(environments)
        if count > len(environments):
            raise UserError(f"--jobs {count}: there is room for {len(environments)}", "A run takes a device for itself.")
    shares = [tuple(cores[index::count]) or tuple(cores[index % len(cores) :][:1] if cores else ()) for index in range(count)]
    return [Place(share, environments[index % len(environments)]) for index, share in enumerate(shares)]


def accelerators() -> tuple[str, list[str]]:
    """JAX's name of the platform, and its devices: NVIDIA's by the numbers that CUDA_VISIBLE_DEVICES takes, or a TPU. Starts no driver."""
    found = [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        found = [device for device in given.split(",") if device and device != "-1"]
    if found:
        return "cuda", found
    chips = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
    return ("tpu", ["all"]) if any(chips) else ("", [])


class Running:
    """A job's process: one of its commands after the other. What they start is ended with them."""

    def __init__(self, job: Job, place: Place):
        self.job, self.error = job, ""
        self.began, self.stopped = time.monotonic(), False
        self._place, self._asked_at, self._stored = place, 0.0, state_of(job)
        job.folder.mkdir(parents=True, exist_ok=True)  # so that any command can write into it
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self._start()

    def _start(self) -> None:
        words = self.job.commands[self._stored["done"]]
        command = [sys.executable, "-m", "omnia", *words[1:]] if words[0] == "omnia" else [sys.executable, *words[1:]]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._started = time.monotonic()
        with self.job.log.open("ab") as log, on_cores(self._place.cores):
            self._from = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self._place.environment | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def poll(self) -> bool:
        """Whether the job has ended; starts its next command where one has."""
        if self._asked_at and time.monotonic() - self._asked_at > GRACE_SECONDS:
            self.kill()
        found, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if not found:
            return False
        self.kill()  # what it has started and left
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        stored = self._stored
        stored["seconds"] += time.monotonic() - self._started
        stored["cpu_seconds"] += usage.ru_utime + usage.ru_stime
        if code:
            write_state(self.job, stored)
            self.stopped = bool(self._asked_at) and (code in (Exit.SAVED, Exit.INTERRUPTED) or code < 0)
            self.error = "was stopped" if self.stopped else f"exit code {code}: {self._last_words()}"
            return True
        stored["done"] += 1
        if stored["done"] < len(self.job.commands):
            write_state(self.job, stored)
            if self._asked_at:
                self.stopped, self.error = True, "was stopped"
                return True
            self._start()
            return False
        self.error = finish(self.job, stored, self._measures() if self.job.row else {}, hardware(self.job.folder))
        return True

    def stop(self) -> None:
        """Ask it to save and end."""
        if not self._asked_at:
            self._asked_at = time.monotonic()
            if self._process.returncode is None:
                # Not by Popen.send_signal, which would reap a process that has just ended, and its exit code with it.
                os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _said(self) -> list[str]:
        with self.job.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace").splitlines()

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said() if line.strip()]
        ours = [line for line in lines if line.startswith("omnia: ")]
        return f"{(ours or lines or ['nothing was printed'])[-1]} ({self.job.log})"

    def _measures(self) -> dict[str, Any]:
        for line in reversed(self._said()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    return json_files.parse(line)
        path = self.job.folder / "summary.json"
        return json_files.read(path, "Remove the folder and run it again.") if path.is_file() else {}


def die_with_parent() -> None:
    """In a new process: be killed when the one that started it dies, however that happens, and leave no device in use. Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """Whatever is started here may use these cores alone."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def last_metrics(run: Path) -> dict[str, Any]:
    """The numbers of the last training step that a run logged; none where it is no run, or logged none."""
    from train.loop.telemetry import read_metrics

    rows = [row for row in read_metrics(run) if row["kind"] == "train"] if (run / "metrics.jsonl").is_file() else []
    return {name: value for name, value in rows[-1].items() if name != "kind"} if rows else {}


def hardware(run: Path) -> str:
    """The device of a run by its environment.json, and otherwise the processor of this machine."""
    path = run / "environment.json"
    kind = str(json_files.read(path, "").get("device", "")) if path.exists() else ""
    return kind if kind and "cpu" not in kind.lower() else f"CPU ({_processor()})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


class Runner:
    """Runs jobs, as many at once as there are places; what fails stops nothing else but what needs it.

    errors: what went wrong, by job. tried: of the jobs that were stopped after their minutes, the last metrics of their runs.
    """

    def __init__(self, jobs: list[Job], places: list[Place], *, minutes: float = 0.0, say: Callable[[str], None] = print):
        """minutes: after which a job is stopped; 0 for never."""
        self._jobs, self._limit, self._say = jobs, 60 * minutes, say
        self.errors: dict[str, str] = {}
        self.tried: dict[str, dict[str, Any]] = {}
        self._waiting: list[Job] = []
        self._running: dict[Running, Place] = {}
        self._free = list(places)
        self._cores = tuple(core for place in places for core in place.cores)
        self._done: set[Path] = set()
        self._unfinished: set[Path] = set()
        self._asked = 0

    def run(self) -> bool:
        """Run all that is not finished. Returns False where a signal stopped it. UserError where another process runs this table."""
        self._waiting = [job for job in self._jobs if result_of(job) is None]
        self._done = {job.folder for job in self._jobs} - {job.folder for job in self._waiting}
        self._say(f"{len(self._waiting)} of {len(self._jobs)} jobs to run, {len(self._free)} at once")
        with alone_in(self._jobs[0].folder.parent), contextlib.ExitStack() as ended:
            for number in ASKING:
                ended.callback(signal.signal, number, signal.signal(number, self._ask))
            ended.callback(self._kill)
            while self._running or (self._waiting and not self._asked):
                if not self._asked:
                    self._begin()
                self._look()
                time.sleep(0.1)
        return not self._asked

    def _begin(self) -> None:
        """Start what has a place and all that it needs."""
        for job in [job for job in self._waiting if self._unfinished.intersection(job.needs)]:
            self._waiting.remove(job)
            self._unfinished.add(job.folder)
            if not self._limit:
                self._failed(job, "what it needs is not finished")
        for job in list(self._waiting):
            alone = job.row is not None and job.row.alone
            busy = any(other.job.row is not None and other.job.row.alone for other in self._running)
            if not self._free or busy or (alone and self._running) or not self._done.issuperset(job.needs):
                continue
            self._waiting.remove(job)
            place = self._free.pop(0)
            self._say(f"  {job.label}: started, {job.log}")
            self._running[Running(job, dataclasses.replace(place, cores=self._cores) if alone else place)] = place

    def _look(self) -> None:
        """See to what runs."""
        for one in list(self._running):
            minutes = (time.monotonic() - one.began) / 60
            if self._asked > 1:
                one.kill()
            if self._asked or (self._limit and 60 * minutes > self._limit):
                one.stop()
            if not one.poll():
                continue
            self._free.append(self._running.pop(one))
            if not one.error:
                self._done.add(one.job.folder)
                self._say(f"  {one.job.label}: {minutes:.1f} min; {len(self._waiting) + len(self._running)} jobs left")
            elif one.stopped and self._limit:
                self._unfinished.add(one.job.folder)
                self.tried[one.job.label] = last_metrics(one.job.folder)
                self._say(f"  {one.job.label}: stopped after {minutes:.1f} min")
            else:
                self._failed(one.job, one.error)

    def _kill(self) -> None:
        for one in self._running:
            one.kill()

    def _ask(self, *_) -> None:
        self._asked += 1
        if self._asked == 1:
            self._say(f"stopping: runs save what they have, which may take {GRACE_SECONDS:.0f} s; once more kills them")

    def _failed(self, job: Job, error: str) -> None:
        self._unfinished.add(job.folder)
        self.errors[job.label] = error
        self._say(f"  {job.label}: {error}")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder; UserError where another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process runs this table", "Wait for it, or give another --output.") from None
        yield
