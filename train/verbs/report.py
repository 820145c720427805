"""`omnia report`: draws the report of a run again."""

import dataclasses
from pathlib import Path

import tyro

from train.verbs.arguments import parse


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html and its plots from what a run has logged so far."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""


def report(arguments: list[str]) -> None:
    options = parse(Report, "report", arguments)
    from train.loop.report import write_report
    from train.runs.directory import read_stored

    read_stored(Path(options.run_dir))
    print(write_report(Path(options.run_dir)))
