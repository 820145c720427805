"""The picture of a table: each seed a dot, means, and the paper's numbers; or curves, where rows stand on an axis."""

from pathlib import Path

from train.loop.report import BLUE, GREY, ORANGE
from train.reproduce import verdict
from train.reproduce.results import Results
from train.reproduce.table import Metric, Row, Table

COLORS = (BLUE, ORANGE, "#3a923a", "#8a5a9e", "#8c6d4f", GREY)

WIDE = 8
"""Ratio of the largest x to the smallest from which on the axis is logarithmic."""


def draw(path: Path, table: Table, tier: str, found: Results) -> None:
    """Write a PNG. ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure

    rows = [row for row in table.of_tier(tier) if row.name in found.values.get(table.metrics[0].name, {})]
    curves = bool(table.across) or (bool(rows) and all(row.x is not None for row in rows))
    height = 3.2 if curves else 1.1 + 0.3 * len(rows)
    figure = Figure(figsize=(6.4, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    _curves(axes, table, rows, found) if curves else _dots(axes, table, rows, found)
    axes.set_title(table.title, fontsize=10, loc="left")
    axes.grid(color=GREY, alpha=0.2)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _label(metric: Metric) -> str:
    better = "lower" if metric.lower_is_better else "higher"
    return f"{metric.name}{', ' + metric.unit if metric.unit else ''}\n({better} is better)"


def _dots(axes, table: Table, rows: list[Row], found: Results) -> None:
    main = table.metrics[0]
    for place, row in enumerate(rows):
        values = verdict.measured(found.values, main.name, row.name)
        assert values is not None  # or it would be no row here
        axes.plot(values.values, [place] * len(values.values), "o", color=BLUE, alpha=0.45, markersize=5)
        axes.plot(values.mean, place, "|", color=BLUE, markersize=16, markeredgewidth=2)
        if row.paper is not None and row.same_setting:
            axes.plot(row.paper, place, "D", color=ORANGE, markersize=6, fillstyle="none", label="paper")
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(_label(main), fontsize=8)
    if handles := axes.get_legend_handles_labels()[0]:
        axes.legend(handles=handles[:1], frameon=False)


def _curves(axes, table: Table, rows: list[Row], found: Results) -> None:
    main = table.metrics[0]
    for number, series in enumerate(dict.fromkeys(row.series for row in rows)):
        color = COLORS[number % len(COLORS)]
        points = []
        for row in rows:
            values = verdict.measured(found.values, main.name, row.name)
            where = verdict.measured(found.values, table.across, row.name) if table.across else None
            if row.series != series or values is None or (table.across and where is None):
                continue
            xs = where.values if where else (row.x,) * len(values.values)
            points.append((where.mean if where else row.x, values.mean))
            axes.plot(xs, values.values, "o", color=color, alpha=0.45, markersize=4)
            if table.across:
                axes.annotate(row.name, points[-1], textcoords="offset points", xytext=(5, 5), fontsize=7, color=GREY)
        axes.plot(*zip(*sorted(points), strict=True), color=color, linewidth=1.2, label=series or None)
    axes.set_xlabel(_label(table.metric(table.across)) if table.across else table.x, fontsize=8)
    axes.set_ylabel(_label(main), fontsize=8)
    places = sorted({row.x for row in rows if row.x})
    if not table.across and len(places) > 1 and places[-1] >= WIDE * places[0] and all(row.x for row in rows):
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [f"{place:g}" for place in places])
    if any(row.series for row in rows):
        axes.legend(frameon=False)
