"""Tables as Markdown: of one that was measured, and docs/tables.md of all. `python -m train.reproduce.page` prints the latter."""

import math
from collections.abc import Iterator

from train.reproduce import results as stored
from train.reproduce import verdict
from train.reproduce.results import Results
from train.reproduce.table import TABLES, Metric, Row, Table, load_table, table_names

INTRODUCTION = """\
# Tables of papers

Each table is a claim of a paper and the commands that test it: `omnia reproduce TABLE` runs them. The small version (`--tier cpu`) tests
the order that the paper claims, on two CPU cores; its numbers are not the paper's, except where a row says so.

A claim *holds* if the difference between its rows, seed by seed, is beyond the noise (Student's t, one-sided, 95 %), *fails* if the
opposite is, and is otherwise *undecided*. A row *equals* the paper's number if that lies where one more seed would, with 95 %; this is the
tolerance. A table is *equal* if its rows of the paper's own setting are equal or better and all claims hold, of the *same order* if all
claims hold, *undecided* if some do not but none fails (more seeds may decide it), and *not reproduced* if one fails.

Each claim is tested by itself. What no seed enters runs once: its number stands for every seed. Two such numbers, or those of seeds that
are all alike, are compared over resampled cases where rows say what they are there (the 5 % quantile of 400 differences), and else as they
are. The column of minutes is the time that one seed of a row took, with other rows running beside it unless the row measures time; the
total of a table is processor time. Public files come from the folder that `--data` (or `OMNIA_DATA`) names, and otherwise from the
network. A table of your own is a file like those of `configs/tables/`: `omnia reproduce PATH.py`. This page is written by `make docs` from
what `omnia reproduce TABLE --publish` measured.
"""


def page() -> str:
    """docs/tables.md, from the files of configs/tables/ and what is published of them."""
    tables = [(name, load_table(TABLES / f"{name}.py")) for name in table_names()]
    found = {name: stored.read(stored.PUBLISHED / f"{name}.json") for name, _ in tables}
    lines = [INTRODUCTION, "| table | paper | verdict, CPU | minutes | verdict, GPU or pod |", "|---|---|---|---|---|"]
    for name, table in tables:
        larger = (
            "; ".join(f"{tier}: {_verdict(table, tier, found[name])}" for tier in ("gpu", "pod") if table.of_tier(tier)) or "no such rows"
        )
        minutes = f"{found[name]['cpu'].total_minutes:.0f}" if "cpu" in found[name] else ""
        lines.append(
            f"| [{table.title}](#{anchor(table.title)}) | {table.paper} | {_verdict(table, 'cpu', found[name])} | {minutes} | {larger} |"
        )
    sections = [section(name, table, found[name], pictures="tables/") for name, table in tables]
    return "\n".join(lines) + "\n\n" + "\n\n".join(sections) + "\n"


def anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _verdict(table: Table, tier: str, found: dict[str, Results]) -> str:
    if not table.of_tier(tier):
        return "no such rows"
    return verdict.of_table(table, tier, found[tier].values, found[tier].draws) if tier in found else "not measured"


def section(name: str, table: Table, found: dict[str, Results], *, pictures: str = "") -> str:
    """One table with all its rows, measured or not. pictures: the address of their folder, from the page."""
    lines = [f"## {table.title}", "", f"{table.claim} ({table.paper})", ""]
    for tier in dict.fromkeys(row.tier for row in table.rows):
        lines += _of_tier(name, table, tier, found.get(tier))
        if tier == "cpu" and table.note:
            lines += [table.note, ""]
        if tier in found:
            lines += [f"![{table.title}]({pictures}{name}.{tier}.png)", ""]
    return "\n".join(lines).rstrip()


def _of_tier(name: str, table: Table, tier: str, found: Results | None) -> Iterator[str]:
    rows = table.of_tier(tier)
    if found is None:
        yield f"`omnia reproduce {name} --tier {tier}`: not measured."
        yield ""
        yield from ("| row | what | paper | needs |", "|---|---|---|---|")
        for row in rows:
            yield f"| `{row.name}` | {row.what} | {_paper(row)} | {row.needs or '2 CPU cores'} |"
        yield ""
        return
    shown = [metric for metric in table.metrics if found.values.get(metric.name)]
    seeds = max((len(by_seed) for by_row in found.values.values() for by_seed in by_row.values()), default=0)
    judged = verdict.of_table(table, tier, found.values, found.draws)
    yield (
        f"`omnia reproduce {name} --tier {tier} --seeds {seeds}`: **{judged}**. {found.hardware}, "
        f"{found.total_minutes:.0f} minutes of processor time in all, {found.measured}."
    )
    yield ""
    papers, seeded = any(row.paper is not None for row in rows), table.seeded()
    head = ["row", "what", *(_head(metric) for metric in shown), "seeds", *(["paper", "verdict"] if papers else []), "minutes"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        by_metric = {metric: verdict.measured(found.values, metric.name, row.name) for metric in shown}
        once = row.name not in seeded
        cells = [_cell(metric, one and verdict.Measured(one.values[:1]) if once else one) for metric, one in by_metric.items()]
        main = verdict.measured(found.values, table.metrics[0].name, row.name)
        judged = verdict.of_row(row, main, table.metrics[0].lower_is_better)
        if judged and main is not None and not math.isnan(main.tolerance):
            judged += f" (tolerance {main.tolerance:.{table.metrics[0].digits}f})"
        minutes = f"{found.minutes[row.name]:.1f}" if row.name in found.minutes else "not measured"
        cells = [
            f"`{row.name}`",
            row.what,
            *cells,
            "0" if main is None else "once" if once else str(len(main.values)),
            *([_paper(row), judged] if papers else []),
            minutes,
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    names = {row.name for row in rows}
    for claim in table.claims:
        if claim.row in names:
            metric = table.metric(claim.metric)
            result = verdict.judge(claim, table, found.values, found.draws)
            sign = "worse by" if result.gain < 0 else "by"
            gain = "" if math.isnan(result.gain) else f": {sign} {abs(result.gain):.{metric.digits}f}"
            resampled = found.draws.get(metric.name, {})
            drawn = {claim.row, claim.than} & seeded or (
                claim.row in resampled and (claim.than in resampled or not isinstance(claim.than, str))
            )
            noise = "" if math.isnan(result.slack) or not drawn else f", of which {result.slack:.{metric.digits}f} may be noise"
            yield f"- {verdict.say(claim, table)}{gain}{noise}: **{result.verdict}**"
    yield ""


def _head(metric: Metric) -> str:
    return f"{metric.name}, {metric.unit}" if metric.unit else metric.name


def _cell(metric: Metric, found: verdict.Measured | None) -> str:
    if found is None:
        return ""
    mean = f"{found.mean:.{metric.digits}f}"
    return mean if math.isnan(found.deviation) else f"{mean} ± {found.deviation:.{metric.digits}f}"


def _paper(row: Row) -> str:
    return "" if row.paper is None else f"{row.paper:g}" + ("" if row.same_setting else " (another setting)")


if __name__ == "__main__":
    print(page(), end="")
