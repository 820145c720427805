"""What was measured of a table: kept beside its runs, and, once published, in docs/tables/, from which docs/tables.md is made."""

import dataclasses
import math
import shlex
from pathlib import Path

from data.files import json_files
from train.reproduce.jobs import Job, result_of, value_at
from train.reproduce.table import ROOT, Table
from train.reproduce.verdict import SEEDS_AT_LEAST

PUBLISHED = ROOT / "docs" / "tables"
RESULTS = "results.json"
MEND = "Remove it and measure the table again."


@dataclasses.dataclass(frozen=True)
class Results:
    """Of one table on one tier. values: of each metric's name, of each row, its value by seed."""

    values: dict[str, dict[str, dict[int, float]]]
    minutes: dict[str, float]
    """Of each row, the minutes that one seed took, on average."""
    total_minutes: float
    """Of processor time, all rows and what they share."""
    hardware: str
    measured: str
    """The day, as in 2026-01-31."""
    commands: dict[str, list[str]]
    """Of each row, as they were run for the first seed."""
    draws: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
    """Of each metric's name, of rows that say so, its value on resampled cases: see train/reproduce/resampling.py."""


def collect(table: Table, jobs: list[Job]) -> Results:
    """What the finished jobs of a table say. A row lacks a metric that its last command did not give."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    draws: dict[str, dict[str, list[float]]] = {}
    minutes: dict[str, list[float]] = {}
    commands: dict[str, list[str]] = {}
    machines, days, total = set(), set(), 0.0
    for job in jobs:
        found = result_of(job)
        if found is None:
            continue
        total += found["cpu_seconds"] / 60
        if job.row is None:
            continue
        machines.add(found["hardware"])
        days.add(found["ended"])
        minutes.setdefault(job.name, []).append(found["seconds"] / 60)
        commands.setdefault(job.name, [shlex.join(command) for command in job.commands])
        for metric in table.metrics:
            path = job.metric if metric == table.metrics[0] else metric.path
            value, resampled = value_at(found["measures"], path), value_at(found["measures"].get("draws"), path)
            if isinstance(resampled, list) and job.stands_for[0] == 0:
                draws.setdefault(metric.name, {})[job.name] = resampled
            if isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(metric.name, {}).setdefault(job.name, {}).update(dict.fromkeys(job.stands_for, float(value)))
    average = {name: sum(spent) / len(spent) for name, spent in minutes.items()}
    return Results(values, average, total, ", ".join(sorted(machines)), max(days, default=""), commands, draws)


def store(path: Path, tier: str, results: Results) -> None:
    """Write the results of a tier into a file that may have those of others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json_files.read(path, MEND) if path.exists() else {}
    json_files.write(path, stored | {tier: dataclasses.asdict(results)})


def read(path: Path) -> dict[str, Results]:
    """The results of a file by tier; none where there is no file."""
    if not path.exists():
        return {}
    stored = json_files.read(path, MEND)
    return {tier: Results(**found | {"values": _with_seeds(found["values"])}) for tier, found in stored.items()}


def _with_seeds(values: dict) -> dict:
    """JSON's keys are texts; seeds are numbers."""
    return {
        metric: {row: {int(seed): value for seed, value in seeds.items()} for row, seeds in rows.items()} for metric, rows in values.items()
    }


def last_measured(name: str, folder: Path) -> dict[str, Results]:
    """Of each tier, what was measured last: in `folder`, where tables are run, or what is published."""
    published, here = read(PUBLISHED / f"{name}.json"), read(folder / name / RESULTS)
    return published | {tier: found for tier, found in here.items() if tier not in published or found.measured >= published[tier].measured}


def missing(table: Table, tier: str, found: Results, seeds: int) -> str:
    """What stands against publishing: "" for nothing."""
    if seeds < SEEDS_AT_LEAST:
        return f"{seeds} seeds, and a verdict needs {SEEDS_AT_LEAST}"
    by_row = found.values.get(table.metrics[0].name, {})
    lacking = [row.name for row in table.of_tier(tier) if len(by_row.get(row.name, {})) < seeds]
    return f"{', '.join(lacking)} not measured with all {seeds} seeds" if lacking else ""
