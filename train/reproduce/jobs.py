"""The work of a table: each row and seed a job in a folder of its own, and what is kept of a job beside that folder."""

import dataclasses
import datetime
import hashlib
import math
import shlex
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from train.reproduce.files import find
from train.reproduce.table import PLACEHOLDER, ROOT, Row, Shared, Table, names_in


@dataclasses.dataclass(frozen=True)
class Job:
    """Commands that fill a folder. needs: the jobs that have to be finished before."""

    name: str
    seed: int | None
    folder: Path
    templates: tuple[str, ...]
    """Its commands as the table has them."""
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[Path, ...]
    row: Row | None = None
    metric: str = ""
    """Where a row's first number is in what its last command says."""
    stands_for: tuple[int, ...] = ()
    """Of a row: the seeds whose number its number is."""

    @property
    def label(self) -> str:
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def state(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.job.json")


def plan(table: Table, path: Path, folder: Path, rows: tuple[Row, ...], seeds: int, data: str | None) -> list[Job]:
    """The jobs of some rows, in an order in which each comes after what it needs.

    path: the table's file; folder: where jobs have theirs. UserError where a file is missing.
    """
    shared = {job.name: job for job in table.shared}
    seeded = table.seeded()
    wanted: set[str] = set()

    def want(job: Shared | Row) -> None:
        for name in names_in(job.commands) & set(shared):
            wanted.add(name)
            want(shared[name])

    for row in rows:
        want(row)
    needed: tuple[Shared | Row, ...] = (*(shared[name] for name in wanted), *rows)
    used = {name for job in needed for name in names_in(job.commands)}
    files = {file.name: str(find(file, data)) for file in table.files if file.name in used}

    def make(job: Shared | Row, seed: int | None) -> Job:
        places = {name: _place(folder, name, seed if name in seeded else None) for name in names_in(job.commands) & set(shared)}
        own = _place(folder, job.name, seed)
        values = files | {name: _shown(place) for name, place in places.items()}
        values |= {"run": _shown(own), "seed": str(seed), "table": _shown(path)}
        commands = tuple(
            tuple(PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in shlex.split(command)) for command in job.commands
        )
        return Job(job.name, seed, own, job.commands, commands, tuple(places.values()))

    def of_row(row: Row, seed: int, stands_for: tuple[int, ...]) -> Job:
        return dataclasses.replace(make(row, seed), row=row, metric=row.read or table.metrics[0].path, stands_for=stands_for)

    jobs = []
    for job in table.shared:
        if job.name in wanted:
            jobs += [make(job, seed) for seed in (range(seeds) if job.name in seeded else (None,))]
    for seed in range(seeds):
        for row in rows:
            if row.name in seeded:
                jobs.append(of_row(row, seed, (seed,)))
            elif seed == 0:
                jobs.append(of_row(row, seed, tuple(range(seeds))))
    return jobs


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


def _place(folder: Path, name: str, seed: int | None) -> Path:
    return folder / name if seed is None else folder / name / f"seed-{seed}"


def _shown(path: Path) -> str:
    """A path as one would type it in the project's folder, where commands run."""
    path = path.absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# -------------------------------------------------------------------------------------------------------- what is kept of a job


def state_of(job: Job) -> dict[str, Any]:
    """What is kept of a job: {"commands", "made_of", "done" (commands), "seconds", "cpu_seconds"}, and once it is finished "finished",
    "ended" (the day) and, of a row, "measures" and "hardware".

    UserError where its folder was filled by other commands, or by another config under the same name.
    """
    made_of = _made_of(job)
    if not job.state.exists():
        return {"commands": list(job.templates), "made_of": made_of, "done": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    again = f"To run it again: rm -r {shlex.quote(str(job.folder))} {shlex.quote(str(job.state))}"
    stored = json_files.read(job.state, again)
    if stored.get("commands") != list(job.templates) or stored.get("made_of") != made_of:
        raise UserError(f"{job.folder}: was made by other commands, or by another config, than the table has now", again)
    return stored


def result_of(job: Job) -> dict[str, Any] | None:
    """`state_of` a finished job; None if it is not finished."""
    stored = state_of(job)
    return stored if stored.get("finished") else None


def write_state(job: Job, stored: dict[str, Any]) -> None:
    job.state.parent.mkdir(parents=True, exist_ok=True)
    json_files.write(job.state, stored)


def finish(job: Job, stored: dict[str, Any], measures: dict[str, Any], hardware: str) -> str:
    """Note that a job is finished. Returns what is wrong, if a row lacks its number; then it is not."""
    stored = stored | {"finished": True, "ended": datetime.date.today().isoformat()}
    if job.row is not None:
        value = value_at(measures, job.metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            write_state(job, stored | {"done": len(job.commands) - 1, "finished": False})
            return f"its last command gives {'no' if value is None else f'{value} for'} {job.metric} ({job.log})"
        stored |= {"measures": measures, "hardware": hardware}
    write_state(job, stored)
    return ""


def value_at(measures: Any, path: str) -> Any:
    """What lies at keys with slashes between them, which keys may have too: image/unseen. None where nothing does."""
    if not isinstance(measures, dict):
        return None
    if path in measures:
        return measures[path]
    cuts = [place for place, letter in enumerate(path) if letter == "/" and path[:place] in measures]
    return next((found for cut in cuts if (found := value_at(measures[path[:cut]], path[cut + 1 :])) is not None), None)


def _made_of(job: Job) -> str:
    """A digest of the experiments that its commands train, so that a changed config is not taken for the one that was run.

    Of what is not as by default: a field that a newer version adds changes nothing.
    """
    from train.verbs.config_files import load_config

    targets = [words[2] for words in job.commands if words[:2] == ("omnia", "train") and len(words) > 2]
    if not targets:
        return ""
    stored = []
    for target in targets:
        path, _, variant = target.partition(":")
        place = path if Path(path).is_absolute() else str(ROOT / path)
        stored.append(json_files.dumps(_chosen(load_config(f"{place}:{variant}" if variant else place))))
    return hashlib.sha256("\n".join(stored).encode()).hexdigest()[:16]


def _chosen(value: Any) -> Any:
    """Options without the fields that have their defaults."""
    if isinstance(value, tuple):
        return [_chosen(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if getattr(value, field.name) != field.default}
    return {"kind": type(value).__qualname__} | {name: _chosen(one) for name, one in fields.items()}
