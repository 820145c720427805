"""Pictures of runs at work, in the report's style; b"" without matplotlib (extra: plots)."""

from collections.abc import Sequence

from train.loop.report import BLUE, GREY, ORANGE
from train.tasks.pictures import figure_and_axes, png_of


def coverage_picture(points: Sequence[Sequence[float]], wanted: float) -> bytes:
    """How often answers are right, by the share that is given, the most confident first. wanted: drawn as a line."""
    figure, axes = figure_and_axes((6.4, 3.4))
    if figure is None:
        return b""
    axes.plot([share for share, _ in points], [precision for _, precision in points], color=BLUE)
    axes.axhline(wanted, color=GREY, linewidth=1.2, linestyle="--", label="wanted")
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the questions answered")
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
