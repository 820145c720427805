"""The work of a table: each row and seed a job in a folder of its own, several at once, resumed where they stopped."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from train.loop.exits import Exit
from train.reproduce.files import find
from train.reproduce.table import PLACEHOLDER, ROOT, Row, Shared, Table

STATE = "job.json"
GRACE_SECONDS = 120.0
"""For jobs to save when they are asked to stop."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Commands that fill a folder. needs: the jobs that have to be finished before."""

    name: str
    seed: int | None
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[Path, ...]
    row: Row | None = None

    @property
    def label(self) -> str:
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"


def chosen(jobs: list[Job], rows: tuple[str, ...]) -> list[Job]:
    """The jobs of some rows, by their names, with all that they need; every job for none."""
    if not rows:
        return jobs
    by_folder = {job.folder: job for job in jobs}
    wanted: set[Path] = set()

    def want(job: Job) -> None:
        wanted.add(job.folder)
        for need in job.needs:
            want(by_folder[need])

    for job in jobs:
        if job.row is not None and job.name in rows:
            want(job)
    return [job for job in jobs if job.folder in wanted]


def plan(table: Table, path: Path, folder: Path, rows: tuple[Row, ...], seeds: int, data: str | None) -> list[Job]:
    """The jobs of some rows, in an order in which each comes after what it needs.

    path: the table's file; folder: where jobs have theirs. UserError where a file is not to be had.
    """
    shared = {job.name: job for job in table.shared}
    by_seed: dict[str, bool] = {}
    for job in table.shared:  # each names only those above it
        names = _names(job.commands)
        by_seed[job.name] = "seed" in names or any(by_seed.get(name, False) for name in names)
    wanted: set[str] = set()

    def want(job: Shared | Row) -> None:
        for name in _names(job.commands) & set(shared):
            wanted.add(name)
            want(shared[name])

    for row in rows:
        want(row)
    needed: tuple[Shared | Row, ...] = (*(shared[name] for name in wanted), *rows)
    used = {name for job in needed for name in _names(job.commands)}
    files = {file.name: str(find(file, data)) for file in table.files if file.name in used}

    def make(job: Shared | Row, seed: int | None) -> Job:
        places = {name: _place(folder, name, seed if by_seed[name] else None) for name in _names(job.commands) & set(shared)}
        own = _place(folder, job.name, seed)
        values = files | {name: _shown(place) for name, place in places.items()}
        values |= {"run": _shown(own), "seed": str(seed), "table": _shown(path)}
        commands = tuple(
            tuple(PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in shlex.split(command)) for command in job.commands
        )
        return Job(job.name, seed, own, commands, tuple(places.values()), job if isinstance(job, Row) else None)

    jobs = []
    for job in table.shared:
        if job.name in wanted:
            jobs += [make(job, seed) for seed in (range(seeds) if by_seed[job.name] else (None,))]
    return jobs + [make(row, seed) for seed in range(seeds) for row in rows]


def _names(commands: tuple[str, ...]) -> set[str]:
    return {name for command in commands for name in PLACEHOLDER.findall(command)}


def _place(folder: Path, name: str, seed: int | None) -> Path:
    return folder / name if seed is None else folder / name / f"seed-{seed}"


def _shown(path: Path) -> str:
    """A path as one would type it in the project's folder, where commands run."""
    path = path.absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def result_of(job: Job) -> dict[str, Any] | None:
    """What a finished job left: {"commands", "seconds", "cpu_seconds", "measures", ...}; None if it is not finished.

    UserError where its folder was filled by other commands.
    """
    stored = _read(job)
    return stored if stored.get("finished") else None


def _read(job: Job) -> dict[str, Any]:
    path = job.folder.with_name(f"{job.folder.name}.{STATE}")
    if not path.exists():
        return {"commands": [list(command) for command in job.commands], "done": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    stored = json_files.read(path, f"Remove {job.folder} and {path} to run it again.")
    if stored.get("commands") != [list(command) for command in job.commands]:
        raise UserError(f"{job.folder}: was made by other commands than the table has now", f"To run it again: rm -r {job.folder} {path}")
    return stored


def _write(job: Job, stored: dict[str, Any]) -> None:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    json_files.write(job.folder.with_name(f"{job.folder.name}.{STATE}"), stored)


class Running:
    """A job's process: one of its commands after the other, each with the cores or the device that it was given."""

    def __init__(self, job: Job, place: "Place"):
        self.job, self.place, self.error = job, place, ""
        self.stopped = self._stopping = False
        self._stored = _read(job)
        self._output = job.folder.with_name(f"{job.folder.name}.log")
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        self._start()

    def _start(self) -> None:
        words = self.job.commands[self._stored["done"]]
        command = [sys.executable, "-m", "omnia", *words[1:]] if words[0] == "omnia" else [sys.executable, *words[1:]]
        self._began = time.monotonic()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.place.cores)  # which a process inherits
        with self._output.open("ab") as log:
            self._from = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self.place.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.sched_setaffinity(0, before)

    def poll(self) -> bool:
        """Whether the job has ended; starts its next command where one has."""
        found, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if not found:
            return False
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        stored = self._stored
        stored["seconds"] += time.monotonic() - self._began
        stored["cpu_seconds"] += usage.ru_utime + usage.ru_stime
        if code:
            _write(self.job, stored)
            self.stopped = self._stopping and (code in (Exit.SAVED, Exit.INTERRUPTED) or code < 0)
            self.error = "was stopped" if self.stopped else f"exit code {code}: {self._last_words()}"
            return True
        stored["done"] += 1
        if stored["done"] < len(self.job.commands):
            _write(self.job, stored)
            if self._stopping:
                self.stopped, self.error = True, "was stopped"
                return True
            self._start()
            return False
        if self.job.row is not None:
            stored["measures"] = self._measures()
            stored["hardware"] = hardware(self.job.folder)
            if not stored["measures"]:
                self.error = f"its last command printed no line of JSON, and there is no {self.job.row.file}"
                return True
        stored["finished"] = True
        _write(self.job, stored)
        return True

    def stop(self) -> None:
        if self._process.returncode is None and not self._stopping:
            self._process.send_signal(signal.SIGTERM)
        self._stopping = True

    def kill(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _said(self) -> list[str]:
        with self._output.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace").splitlines()

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said() if line.strip()]
        ours = [line for line in lines if line.startswith("omnia: ")]
        return f"{(ours or lines or ['nothing was printed'])[-1]} ({self._output})"

    def _measures(self) -> dict[str, Any]:
        for line in reversed(self._said()):
            if line.startswith("{"):
                try:
                    return json_files.parse(line)
                except (ValueError, json.JSONDecodeError):
                    continue
        path = self.job.folder / (self.job.row.file if self.job.row else "")
        return json_files.read(path, "Remove the folder and run it again.") if path.is_file() else {}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one of several jobs at once runs."""

    cores: tuple[int, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def places(count: int, tier: str) -> list[Place]:
    """Of `count` jobs at once: a share of the cores each on a CPU, and a GPU each where there are several.

    count: 0 for as many as go well together. UserError where a tier needs an accelerator and there is none.
    """
    cores, devices = sorted(os.sched_getaffinity(0)), accelerators()
    if tier == "cpu":
        count, environments = count or len(cores), [{"JAX_PLATFORMS": "cpu"}]
    elif not devices:
        raise UserError(
            f"--tier {tier}: this machine has no GPU or TPU", "Run it where there is one; --tier cpu tests the small version here."
        )
    else:
        several = tier == "gpu" and len(devices) > 1
        environments = [{"CUDA_VISIBLE_DEVICES": device} for device in devices] if several else [{}]
        count = count or len(environments)
    shares = [tuple(cores[index::count]) or (cores[index % len(cores)],) for index in range(count)]
    return [Place(share, environments[index % len(environments)]) for index, share in enumerate(shares)]


def accelerators() -> list[str]:
    """NVIDIA's GPUs by the numbers that CUDA_VISIBLE_DEVICES takes, or the files of a TPU's chips. Starts no driver."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in given.split(",") if device]
    if found := sorted(Path("/dev").glob("nvidia[0-9]*")):
        return [path.name.removeprefix("nvidia") for path in found]
    return [path.name for path in (*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*"))]


def last_metrics(run: Path) -> dict[str, Any]:
    """The numbers of the last training step that a run logged; none where it is no run, or logged none."""
    from train.loop.telemetry import read_metrics

    rows = [row for row in read_metrics(run) if row["kind"] == "train"] if (run / "metrics.jsonl").is_file() else []
    return {name: value for name, value in rows[-1].items() if name != "kind"} if rows else {}


def hardware(run: Path) -> str:
    """The devices of a run by its environment.json, and otherwise the processor of this machine with the cores that are allowed."""
    path = run / "environment.json"
    kind = str(json_files.read(path, "").get("device", "")) if path.exists() else ""
    return kind if kind and "cpu" not in kind.lower() else f"CPU ({processor()})"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


class Runner:
    """Runs jobs, as many at once as there are places; what fails stops nothing else but what needs it."""

    def __init__(self, jobs: list[Job], places: list[Place], *, minutes: float = 0.0, say=print):
        """minutes: after which a job is stopped; 0 for never.

        errors: what went wrong, by job. tried: of the jobs that were stopped in time, the last metrics of their runs.
        """
        self._jobs, self._places, self._limit, self._say = jobs, places, 60 * minutes, say
        self.errors: dict[str, str] = {}
        self.tried: dict[str, dict[str, Any]] = {}
        self._unfinished: set[Path] = set()
        self._asked = False

    def run(self) -> bool:
        """Run all that is not finished. Returns False where a signal stopped it."""
        waiting = [job for job in self._jobs if result_of(job) is None]
        done = {job.folder for job in self._jobs} - {job.folder for job in waiting}
        running: dict[Running, tuple[float, Place]] = {}
        free = list(self._places)
        cores = tuple(core for place in self._places for core in place.cores)
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        self._say(f"{len(waiting)} of {len(self._jobs)} jobs to run, {len(self._places)} at once")
        try:
            while waiting or running:
                if self._asked:
                    return self._stop(list(running))
                for job in [job for job in waiting if self._unfinished.intersection(job.needs)]:
                    waiting.remove(job)
                    self._failed(job, "what it needs is not finished")
                for job in list(waiting):
                    alone = job.row is not None and job.row.alone
                    busy = any(other.job.row is not None and other.job.row.alone for other in running)
                    if not free or busy or (alone and running) or not done.issuperset(job.needs):
                        continue
                    waiting.remove(job)
                    place = free.pop(0)
                    one = Running(job, dataclasses.replace(place, cores=cores) if alone else place)
                    running[one] = time.monotonic(), place
                for one, (began, place) in list(running.items()):
                    if self._limit and time.monotonic() - began > self._limit:
                        one.stop()
                    if one.poll():
                        del running[one]
                        free.append(place)
                        self._ended(one, time.monotonic() - began, len(waiting) + len(running))
                        if not one.error:
                            done.add(one.job.folder)
                time.sleep(0.1)
            return True
        finally:
            for one in running:
                one.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, *_) -> None:
        self._asked = True

    def _stop(self, running: list[Running]) -> bool:
        for one in running:
            one.stop()
        end = time.monotonic() + GRACE_SECONDS
        while running and time.monotonic() < end:
            running = [one for one in running if not one.poll()]
            time.sleep(0.05)
        return False

    def _ended(self, one: Running, seconds: float, left: int) -> None:
        if one.stopped and self._limit:
            self._unfinished.add(one.job.folder)
            self.tried[one.job.label] = last_metrics(one.job.folder)
            self._say(f"  {one.job.label}: stopped after {seconds / 60:.1f} min")
        elif one.error:
            self._failed(one.job, one.error)
        else:
            self._say(f"  {one.job.label}: {seconds / 60:.1f} min; {left} jobs left")

    def _failed(self, job: Job, error: str) -> None:
        self._unfinished.add(job.folder)
        self.errors[job.label] = error
        self._say(f"  {job.label}: {error}")
