"""`omnia reproduce`: a paper's table, run and judged."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.errors import UserError
from data.files import json_files
from train.loop.exits import Exit
from train.verbs.arguments import check_belongs, parse


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
    """Runs of each row, with seeds from 0. A verdict needs at least 2."""
    jobs: int = 0
    """Runs at once. 0: one for each core on a CPU, one for each GPU otherwise; rows that measure time run alone."""
    minutes: float = 0.0
    """Stop each run after that many minutes, to try whether it works. The same command without it goes on. 0: never."""
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
        check_belongs(
            "reproduce", options, **{name: (False, "does not go with --list") for name in ("table", "rows", "minutes", "publish", "data")}
        )
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

    found = []
    for name in table_names():
        table, measured = load_table(table_path(name)), last_measured(name, Path(options.output))
        tiers = [tier for tier in TIERS if table.of_tier(tier)]
        verdicts = {tier: verdict.of_table(table, tier, measured[tier].values) if tier in measured else "not measured" for tier in tiers}
        minutes = {tier: measured[tier].total_minutes for tier in tiers if tier in measured}
        found.append({"table": name, "title": table.title, "paper": table.paper, "verdicts": verdicts, "minutes": minutes})
    if options.json:
        print(json_files.dumps({"tables": found}))
        return Exit.DONE
    wide = max(len(entry["table"]) for entry in found)
    for entry in found:
        print(
            f"{entry['table']:{wide}}  {'; '.join(f'{tier}: {verdict}' for tier, verdict in entry['verdicts'].items()):44}  {entry['title']}"
        )
    return Exit.DONE


def _run(options: Reproduce) -> int:
    import os

    from train.reproduce import page, verdict
    from train.reproduce.jobs import Runner, places, plan
    from train.reproduce.picture import draw
    from train.reproduce.results import PUBLISHED, RESULTS, collect, read, store
    from train.reproduce.table import load_table, table_path

    path = table_path(options.table)
    table, name = load_table(path), path.stem
    rows = table.of_tier(options.tier)
    if unknown := set(options.rows) - {row.name for row in rows}:
        raise UserError(
            f"omnia reproduce: {name} has no row {unknown.pop()!r} of tier {options.tier}", f"It has {', '.join(row.name for row in rows)}."
        )
    if not rows:
        raise UserError(
            f"omnia reproduce: {name} has no rows of tier {options.tier}", f"Its tiers: {', '.join({row.tier for row in table.rows})}."
        )
    if options.publish and path.parent != page.TABLES:
        raise UserError(f"omnia reproduce: {path} is not in configs/tables/", "Leave --publish out: its results are in its folder.")
    folder, data = Path(options.output).absolute() / name, options.data or os.environ.get("OMNIA_DATA")
    everywhere = places(options.jobs, options.tier)
    chosen = tuple(row for row in rows if row.name in options.rows) if options.rows else rows
    print(f"{table.title}: {table.claim}\n({table.paper})", flush=True)
    runner = Runner(
        plan(table, path, folder / options.tier, chosen, options.seeds, data),
        everywhere,
        minutes=options.minutes,
        say=lambda line: print(line, flush=True),
    )
    finished = runner.run()
    everything = plan(table, path, folder / options.tier, rows, options.seeds, data)
    found = collect(table, everything)
    if found.values:
        store(folder / RESULTS, options.tier, found)
        (folder / f"{name}.md").write_text(
            page.section(name, table, read(folder / RESULTS), picture=f"{name}.png").replace("## ", "# ", 1) + "\n"
        )
        draw(folder / f"{name}.png", table, options.tier, found)
        print((folder / f"{name}.md").read_text())
        print(folder / f"{name}.md")
    if options.publish and finished and found.values:
        store(PUBLISHED / f"{name}.json", options.tier, found)
        draw(PUBLISHED / f"{name}.png", table, options.tier, found)
        (PUBLISHED.parent / "tables.md").write_text(page.page())
    if options.json:
        result = {
            "table": name,
            "tier": options.tier,
            "verdict": verdict.of_table(table, options.tier, found.values),
            "values": found.values,
        }
        errors = {str(folder): error for folder, error in runner.errors.items()}
        print(json_files.dumps(result | {"minutes": found.minutes, "errors": errors}))
    return Exit.SAVED if not finished else Exit.OURS if runner.errors else Exit.DONE
