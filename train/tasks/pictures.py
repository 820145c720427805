"""What a report shows of a task: confusions, calibration, each class, and the worst errors."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.kinds import Section
from train.loop.report import BLUE, GREY, ORANGE
from train.tasks.metrics.scores import Scores

MOST_CLASSES, WORST, CHARACTERS = 30, 20, 400
"""What a page shows at most: classes of a picture, errors, and characters of a text."""


def task_sections(scores: Scores, lines: Sequence[dict[str, Any]], losses: Sequence[float] = ()) -> list[Section]:
    """The sections of what was scored. lines: each example and its answer, as in a file of predictions; losses: theirs, if known."""
    tables = scores.tables
    classes = tables.get("per_class") or tables.get("per_type") or []
    drawn = {
        "confusion": (confusion_picture, tables.get("confusion")),
        "classes": (classes_picture, classes),
        "calibration": (calibration_picture, tables.get("calibration")),
    }
    pictures = {name: draw(rows) for name, (draw, rows) in drawn.items() if rows}
    lowest = sorted(enumerate(classes), key=lambda one: one[1]["f1"])[:MOST_CLASSES]
    cells = [[str(number), *(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values())] for number, row in lowest]
    by_class = [Section("Answers by class", pictures, ("number", *(classes[0] if classes else ())), cells)] if pictures or cells else []
    return [score_section(scores), *by_class, worst_errors(lines, losses)]


def score_section(scores: Scores) -> Section:
    """Every value, and where it lies with other examples of the same kind, 95 % of the time."""
    between = scores.intervals()
    rows = [
        [name, _number(value), " to ".join(_number(one) for one in between[name]) if name in between else ""]
        for name, value in scores.values.items()
    ]
    return Section("Scores", {}, ("measure", "value", "95 % interval"), rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def worst_errors(lines: Sequence[dict[str, Any]], losses: Sequence[float]) -> Section:
    """The examples with the highest losses, the worst first."""
    order = sorted(range(len(losses)), key=lambda number: -losses[number])[:WORST]
    columns = list(dict.fromkeys(name for number in order for name in lines[number] if name != "probabilities"))
    rows = [[f"{losses[number]:.3g}", *(_cut(lines[number].get(name)) for name in columns)] for number in order]
    return Section("Worst errors", {}, ("loss", *columns), rows)


def _cut(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 4]} ..."


# ----------------------------------------------------------------------------------------------------------------- pictures
# Each takes a table of Scores and gives a PNG; b"" without matplotlib (extra: plots).


def confusion_picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Shares of the answers to each true class. Of many classes those with the most errors, in both directions."""
    names = [str(row["true"]) for row in rows]
    counts = np.array([[row["answers"][name] for name in names] for row in rows], float)
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    shares = counts[np.ix_(kept, kept)] / np.maximum(counts[kept].sum(1, keepdims=True), 1)
    size = 2.4 + 0.22 * max(len(kept), 6)
    figure, axes = figure_and_axes((size + 1.0, size))
    if figure is None:
        return b""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba

    clear = LinearSegmentedColormap.from_list("share", [to_rgba(BLUE, 0.03), to_rgba(BLUE, 1.0)])  # also on black
    drawn = axes.imshow(shares, cmap=clear, norm=PowerNorm(0.5, 0, 1))  # few errors of many classes are seen too
    if len(kept) <= 12:
        for (true, answer), share in np.ndenumerate(shares):
            text = f"{counts[kept[true], kept[answer]]:,.0f}" if share else ""
            axes.text(answer, true, text, ha="center", va="center", fontsize=8, color="white" if share > 0.3 else GREY)
    labels = _labels([(place, names[place]) for place in kept.tolist()])
    axes.set_xticks(range(len(kept)), labels, rotation=90 if len(kept) > 6 else 0, fontsize=8)
    axes.set_yticks(range(len(kept)), labels, fontsize=8)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=GREY)
    part = f", the {len(kept)} of {len(names)} classes with the most errors" if len(kept) < len(names) else ""
    return png_of(figure, axes, f"Share of the answers to each true class{part}", grid=False)


def calibration_picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """How often answers are right, by how sure the model is; below, how many are so sure."""
    figure, both = figure_and_axes((6.4, 3.8), rows=2, height_ratios=(3, 1), sharex=True)
    if figure is None:
        return b""
    curve, amount = both
    width = [row["high"] - row["low"] for row in rows]
    confidence, accuracy, count = ([row[name] for row in rows] for name in ("confidence", "accuracy", "count"))
    error = [math.sqrt(max(p * (1 - p), 1e-12) / n) for p, n in zip(accuracy, count, strict=True)]
    curve.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="as sure as right")
    curve.errorbar(confidence, accuracy, yerr=error, color=BLUE, marker="o", markersize=4, linewidth=1.2, label="model, ± 1 standard error")
    curve.set_ylim(0, 1.02)
    curve.set_ylabel("accuracy")
    curve.legend(frameon=False, labelcolor=GREY, loc="upper left")
    amount.bar([row["low"] for row in rows], count, [0.92 * one for one in width], align="edge", color=ORANGE)
    amount.set_ylabel("examples")
    amount.set_xlabel("confidence")
    amount.set_xlim(0, 1)
    return png_of(figure, both, "Calibration")


def classes_picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """F1 of each class, or type of entity, the lowest first; of many, the lowest."""
    there = [(number, row) for number, row in enumerate(rows) if row["count"]]
    name = "class" if "class" in rows[0] else "type"
    shown = sorted(there, key=lambda one: one[1]["f1"])[:MOST_CLASSES]
    figure, axes = figure_and_axes((6.4, 1.2 + 0.24 * max(len(shown), 3)))
    if figure is None or not shown:
        return b""
    places = range(len(shown))
    axes.barh(places, [row["f1"] for _, row in shown], color=BLUE, height=0.7)
    for place, (_, row) in zip(places, shown, strict=True):
        axes.text(row["f1"] + 0.01, place, f"{row['f1']:.2f}  ({row['count']:,})", va="center", fontsize=8, color=GREY)
    axes.set_yticks(places, _labels([(number, row[name]) for number, row in shown]), fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("F1 (examples)")
    part = f", the lowest {len(shown)} of {len(there)}" if len(shown) < len(there) else ""
    return png_of(figure, axes, f"F1 by {name}{part}")


def _labels(classes: Sequence[tuple[int, str]]) -> list[str]:
    """Names of classes, cut; the number of one that the font cannot write, such as a Chinese one: the table beside it says whose it is."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    names = [(number, name if len(name) <= 24 else f"{name[:21]}...") for number, name in classes]
    return [name.replace("$", r"\$") if all(ord(letter) in known for letter in name) else str(number) for number, name in names]


def figure_and_axes(size: tuple[float, float], rows: int = 1, **options: Any):
    """A figure and its axes; None for both without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None, None
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def png_of(figure, axes, title: str, *, grid: bool = True) -> bytes:
    """The picture in the report's style, which is read on white and on black."""
    for one in np.atleast_1d(axes):
        if grid:
            one.grid(color=GREY, alpha=0.2)
            one.set_axisbelow(True)
        one.tick_params(colors=GREY)
        for label in (one.xaxis.label, one.yaxis.label):
            label.set_color(GREY)
        for side in one.spines.values():
            side.set_visible(False)
    figure.suptitle(title, color=GREY, fontsize="medium")
    content = io.BytesIO()
    figure.savefig(content, format="png", transparent=True, metadata={"Software": None})
    return content.getvalue()
