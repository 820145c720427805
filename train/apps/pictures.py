"""Pictures of runs at work, in the report's style; b"" without matplotlib (extra: plots)."""

import math
from collections.abc import Sequence
from typing import Any

from train.loop.report import BLUE, GREY, ORANGE
from train.tasks.pictures import figure_and_axes, png_of


def coverage_picture(points: Sequence[Sequence[float]], wanted: float, what: str = "questions") -> bytes:
    """How often answers are right, by the share that is given, the most confident first. wanted: drawn as a line. what: is answered."""
    figure, axes = figure_and_axes((6.4, 3.4))
    if figure is None:
        return b""
    axes.plot([share for share, _ in points], [precision for _, precision in points], color=BLUE)
    axes.axhline(wanted, color=GREY, linewidth=1.2, linestyle="--", label="wanted")
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of the {what} answered")
    axes.set_ylabel("right among them")
    axes.legend(frameon=False, labelcolor=GREY)
    return png_of(figure, axes, "Answers that are right, by how many are given")


def trend_picture(topic: str, windows: Sequence[Sequence], names: Sequence[str], seconds: int) -> bytes:
    """Items of each label by window, one above the other. windows: (number, counts) of those that had items."""
    figure, axes = figure_and_axes((6.4, 2.2))
    if figure is None:
        return b""
    from datetime import UTC, datetime

    colours = {"negative": ORANGE, "positive": BLUE}
    times = [datetime.fromtimestamp(number * seconds, UTC) for number, _ in windows]
    below = [0] * len(windows)
    for place, name in enumerate(names):
        counts = [counts[place] for _, counts in windows]
        axes.bar(times, counts, width=seconds / 86400, bottom=below, color=colours.get(name, GREY), label=name)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.tick_params(axis="x", labelrotation=20, labelsize=7)
    axes.legend(frameon=False, labelcolor=GREY, fontsize=7)
    return png_of(figure, axes, topic[:60].replace("$", r"\$"))


def agreement_picture(questions: Sequence[dict[str, Any]]) -> bytes:
    """Quadratic kappa of the model and a teacher by question, beside that of two graders where there are some."""
    figure, axes = figure_and_axes((6.4, 3.0))
    if figure is None:
        return b""
    known = sorted((one for one in questions if not math.isnan(one["kappa"])), key=lambda one: -one["kappa"])
    axes.plot(range(1, len(known) + 1), [one["kappa"] for one in known], "o", color=BLUE, markersize=4, label="model and teacher")
    graders = [(place, one["graders"]) for place, one in enumerate(known, 1) if "graders" in one]
    if graders:
        axes.plot(*zip(*graders, strict=True), "o", color=ORANGE, markersize=4, fillstyle="none", label="two graders")
    axes.axhline(0, color=GREY, linewidth=1.0)
    axes.set_xlabel("questions, from most to least agreement")
    axes.set_ylabel("quadratic kappa")
    axes.legend(frameon=False, labelcolor=GREY)
    return png_of(figure, axes, "Agreement by question")


def patches_picture(values: Sequence[Sequence[float]]) -> bytes:
    """How much answers rest on each patch of an image. values: of rows of patches, from above, none below 0."""
    figure, axes = figure_and_axes((3.2, 3.0))
    if figure is None:
        return b""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    clear = LinearSegmentedColormap.from_list("weight", [to_rgba(BLUE, 0.03), to_rgba(BLUE, 1.0)])
    drawn = axes.imshow(values, cmap=clear, vmin=0)
    axes.set_xticks([])
    axes.set_yticks([])
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=GREY, labelsize=7)
    return png_of(figure, axes, "Change of the log-odds without a patch", grid=False)


def expected_picture(bins: Sequence[Sequence[float]]) -> bytes:
    """How often answers were right, by how often that was expected. bins: (expected, right, answers)."""
    figure, axes = figure_and_axes((4.2, 3.4))
    if figure is None:
        return b""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--", label="as expected")
    axes.plot([given for given, _, _ in bins], [right for _, right, _ in bins], "o-", color=BLUE, markersize=4, label="answers held out")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of a right answer")
    axes.set_ylabel("right")
    axes.legend(frameon=False, labelcolor=GREY)
    return png_of(figure, axes, "Expected and right answers")


def counts_picture(counts: Sequence[tuple[str, int]], what: str, title: str) -> bytes:
    """A bar for each name."""
    figure, axes = figure_and_axes((4.6, 2.4))
    if figure is None:
        return b""
    axes.barh([name for name, _ in reversed(counts)], [count for _, count in reversed(counts)], color=BLUE)
    axes.set_xlabel(what)
    return png_of(figure, axes, title)
