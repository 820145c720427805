"""`omnia reproduce`: a paper's table, run and judged."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from data.errors import UserError
from data.files import json_files
from train.loop.exits import Exit
from train.verbs.arguments import check_belongs, parse

if TYPE_CHECKING:
    from train.reproduce.results import Results
    from train.reproduce.table import Table


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run the rows of a paper's table, compare them with the paper, and write both as Markdown and a picture."""

    table: Annotated[str, tyro.conf.Positional] = ""
    """Name of a file in configs/tables/, or the path of your own."""
    list: bool = False
    """List all tables with what was last measured, and run nothing."""
    rows: tuple[str, ...] = ()
    """Rows to run. Default: all of the tier."""
    tier: Literal["cpu", "gpu", "pod"] = "cpu"
    """The machine: cpu runs the small version on any machine, gpu one GPU or TPU, pod many."""
    seeds: int = 3
    """Runs of each row that a seed enters, with seeds from 0. A verdict needs at least 3."""
    jobs: int = 0
    """Runs at once. 0: one for each core on a CPU, one for each GPU otherwise; rows that measure time run alone."""
    minutes: float = 0.0
    """Stop each run after that many minutes, to see whether it works and how fast. The same command without it goes on. 0: never."""
    data: str | None = None
    """Folder of public data sets; what it lacks is downloaded once. Default: the environment variable OMNIA_DATA."""
    output: str = "runs/tables"
    """Folder for runs, results, Markdown and pictures; each table has a folder of its name in it."""
    publish: bool = False
    """Write the results into docs/tables/ and docs/tables.md too."""
    json: bool = False
    """Print one line of JSON, last."""


def reproduce(arguments: list[str]) -> int:
    options = parse(Reproduce, "reproduce", arguments)
    if options.list:
        names = ("table", "rows", "tier", "seeds", "jobs", "minutes", "publish", "data")
        check_belongs("reproduce", options, **dict.fromkeys(names, (False, "does not go with --list")))
        return _list(options)
    if not options.table:
        raise UserError("omnia reproduce: which table?", "Give one of `omnia reproduce --list`.")
    if options.seeds < 1 or options.jobs < 0 or options.minutes < 0:
        raise UserError("omnia reproduce: --seeds must be positive, --jobs and --minutes 0 or more")
    return _run(options)


def _list(options: Reproduce) -> int:
    from train.reproduce import verdict
    from train.reproduce.results import last_measured
    from train.reproduce.table import TIERS, load_table, table_names, table_path

    found: list[dict] = []
    for name in table_names():
        table, measured = load_table(table_path(name)), last_measured(name, Path(options.output))
        tiers = [tier for tier in TIERS if table.of_tier(tier)]
        verdicts = {
            tier: verdict.of_table(table, tier, measured[tier].values, measured[tier].draws) if tier in measured else "not measured"
            for tier in tiers
        }
        minutes = {tier: measured[tier].total_minutes for tier in tiers if tier in measured}
        rows = {tier: [row.name for row in table.of_tier(tier)] for tier in tiers}
        found.append({"table": name, "title": table.title, "paper": table.paper, "rows": rows, "verdicts": verdicts, "minutes": minutes})
    if options.json:
        print(json_files.dumps({"tables": found}))
        return Exit.DONE
    wide = max(len(entry["table"]) for entry in found)
    for entry in found:
        said = "; ".join(f"{tier}: {entry['verdicts'][tier]}" for tier in entry["verdicts"])
        print(f"{entry['table']:{wide}}  {said:44}  {entry['title']}")
    return Exit.DONE


def _run(options: Reproduce) -> int:
    from train.reproduce import verdict
    from train.reproduce.jobs import chosen, plan
    from train.reproduce.results import collect
    from train.reproduce.running import Runner, places
    from train.reproduce.table import TABLES, load_table, table_path

    path = table_path(options.table)
    table, name = load_table(path), path.stem
    rows = table.of_tier(options.tier)
    if not rows:
        raise UserError(f"omnia reproduce: {name} has no rows of tier {options.tier}", "Choose another --tier.")
    if unknown := set(options.rows) - {row.name for row in rows}:
        raise UserError(
            f"omnia reproduce: {name} has no row {unknown.pop()!r} of tier {options.tier}", f"It has {', '.join(row.name for row in rows)}."
        )
    if options.publish and path.parent != TABLES:
        raise UserError(f"omnia reproduce: {path} is not in configs/tables/", "Leave --publish out: its results are in its own folder.")
    everywhere = places(options.jobs, options.tier)
    folder = Path(options.output).absolute() / name
    jobs = plan(table, path, folder / options.tier, rows, options.seeds, options.data or os.environ.get("OMNIA_DATA"))
    collect(table, jobs)  # what stands against reading them is said before hours are spent
    print(f"{table.title}: {table.claim}\n({table.paper})", flush=True)
    runner = Runner(chosen(jobs, options.rows), everywhere, minutes=options.minutes, say=lambda line: print(line, flush=True))
    finished = runner.run()
    found = collect(table, jobs)
    if found.values:
        _write(folder, table, name, found, options)
    if options.json:
        result = {"table": name, "tier": options.tier, "verdict": verdict.of_table(table, options.tier, found.values, found.draws)}
        print(json_files.dumps(result | {"values": found.values, "minutes": found.minutes, "errors": runner.errors, "tried": runner.tried}))
    return Exit.SAVED if not finished else Exit.OURS if runner.errors else Exit.DONE


def _write(folder: Path, table: "Table", name: str, found: "Results", options: Reproduce) -> None:
    """Results, Markdown and picture, beside the runs and, if asked for, among the published ones."""
    from train.reproduce import page
    from train.reproduce.results import PUBLISHED, RESULTS, missing, read, store

    store(folder / RESULTS, options.tier, found)
    section = page.section(name, table, read(folder / RESULTS))
    _draw(folder / f"{name}.{options.tier}.png", table, options.tier, found)
    (folder / f"{name}.md").write_text(section.removeprefix("#") + "\n")
    print(f"\n{section}\n\n{folder / name}.md")
    if not options.publish:
        return
    if lacking := missing(table, options.tier, found, options.seeds):
        raise UserError(
            f"omnia reproduce: not published: {lacking}", "Publish what is complete: the same command goes on with what is missing."
        )
    store(PUBLISHED / f"{name}.json", options.tier, found)
    _draw(PUBLISHED / f"{name}.{options.tier}.png", table, options.tier, found)
    (PUBLISHED.parent / "tables.md").write_text(page.page())


def _draw(path: Path, table: "Table", tier: str, found: "Results") -> None:
    """The picture, where there is matplotlib; it is worth no hour of the runs."""
    from train.reproduce.picture import draw

    try:
        draw(path, table, tier, found)
    except ModuleNotFoundError:
        print(f"{path}: not drawn, since matplotlib is missing: pip install 'omnia[plots]', then the same again")
