"""`omnia report`: draws the report of a run again, or writes its model card."""

import dataclasses
from pathlib import Path

import tyro

from train.verbs.arguments import check_belongs, parse


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html and its plots from what a run has logged so far."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    card: str = ""
    """File to write instead, .md: a model card with a page on responsible use, from the run's facts."""
    intended: str = ""
    """With --card: what the model is for, and for whom."""
    licence: str = ""
    """With --card: the licence of the model."""


def report(arguments: list[str]) -> None:
    options = parse(Report, "report", arguments)
    check_belongs("report", options, **dict.fromkeys(("intended", "licence"), (bool(options.card), "belongs to --card")))
    from train.loop.report import write_report
    from train.runs.directory import read_stored

    read_stored(Path(options.run_dir))
    if options.card:
        from train.loop.card import write_card

        print(write_card(Path(options.run_dir), Path(options.card), intended=options.intended, licence=options.licence))
        return
    print(write_report(Path(options.run_dir)))
