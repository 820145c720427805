"""`omnia apply`: a run at work, on rows that somebody gives."""

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import tyro

from data.errors import UserError
from data.files import json_files
from train.loop.exits import Exit
from train.verbs.arguments import parse, start_jax

REPORT_SECONDS = 30
"""From one page of what is followed to the next."""


@dataclasses.dataclass(frozen=True)
class Apply:
    """Answer rows by a run: labels and spans of a task, or what an application makes of them. A row that cannot be answered gets a line
    with its error and stops nothing. The same command again goes on where a process ended."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    input: str = ""
    """Rows: a file (.jsonl, .csv, .parquet, ...), a folder of them, - for lines of JSON from standard input, or ws://127.0.0.1:PORT."""
    output: str = ""
    """JSONL file to write."""
    text: str = ""
    """Instead of files: one text, whose answer is printed."""
    follow: bool = False
    """Keep on reading what comes to the input, until the process is told to end: lines of JSON in a file, files in a folder, messages."""
    report: bool = False
    """Put what was found into the run's report.html, in place of what was there; with --follow each half minute, in a page that renews
    itself."""
    step: int | None = None
    """Checkpoint. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""
    json: bool = False
    """Print one line of JSON, last."""


def apply(arguments: list[str]) -> int:
    """The exit code: SAVED or INTERRUPTED where a signal came before the end of the input; what is followed has none."""
    o = parse(Apply, "apply", arguments)
    if bool(o.text) == bool(o.input) or bool(o.input) != bool(o.output):
        raise UserError("omnia apply: rows are read from one place", "Give --input and --output, or --text alone.")
    if o.text and (o.follow or o.report):
        raise UserError("omnia apply: --text is one row", "Leave --follow and --report out.")
    if o.output and not o.output.endswith(".jsonl"):
        raise UserError(f"omnia apply: --output {o.output}: lines of JSON are written", "Name a file that ends with .jsonl.")
    output = Path(o.output)
    if o.output and not output.absolute().parent.is_dir():
        raise UserError(f"{output.parent}: no such folder", "Make it, or choose another --output.")
    from train.apps.applying import apply as applied
    from train.apps.applying import source_of
    from train.kinds import Application
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    run = open_run(o.run_dir)
    source = source_of(o.input, o.follow, output) if o.input else None
    dataset = dataset_of(run.experiment)
    dataset.place = run.path
    if o.text and dataset.watches:
        raise UserError(f"{o.run_dir}: watches a stream, and says nothing of one text", "Give --input and --output.")
    start_jax()
    application = dataset.application(run, step=o.step, raw=o.raw)
    if o.report and type(application).sections is Application.sections:
        raise UserError(f"{o.run_dir}: its answers have no page of the report", "Leave --report out.")
    if source is None:
        from data.records.record import Record

        (line,) = application.answers([Record({application.text: o.text}, "--text")])
        print(json_files.line(line).decode(), end="")
        return Exit.DONE
    from rich.progress import Progress

    def report(renewed: int = 0) -> None:
        from train.loop.report import write_report
        from train.loop.sections import add_sections

        sections = application.sections()
        add_sections(run.path, sections, tuple(section.title for section in sections))
        write_report(run.path, renewed=renewed)

    due = [time.monotonic() + REPORT_SECONDS]

    def said(rows: int) -> None:
        progress.update(task, completed=rows)
        if o.report and o.follow and time.monotonic() > due[0]:
            report(renewed=REPORT_SECONDS)
            due[0] = time.monotonic() + REPORT_SECONDS

    came: list[int] = []

    def stop(number: int, _: Any) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)  # once more ends it at once

    for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(which, stop)
    with Progress(*Progress.get_default_columns()[:1], "{task.completed:,} rows", disable=o.follow) as progress:
        task = progress.add_task("answering", total=None)
        whose = application.reads
        found = applied(application, source, output, whose=whose, follow=o.follow, stopped=lambda: bool(came), said=said)
    if o.report:
        report()
    numbers = {"rows": found.rows, "errors": found.errors, "seconds": found.seconds} | application.summary()
    stopped = bool(came) and not found.ended
    code = Exit.DONE if o.follow or not stopped else Exit.INTERRUPTED if came[0] == signal.SIGINT else Exit.SAVED
    if o.json:
        print(json_files.dumps(numbers))
        return code
    for name, value in numbers.items():
        print(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
    if stopped:
        print(f"stopped: the same command goes on with {output}")
    return code
