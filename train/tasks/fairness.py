"""Fairness of a run that gives each text one class: by groups of its examples, and by swaps of words in them.

fairness.json in the run keeps what was found, without texts; the report has it as sections, until an evaluation of the loop replaces them.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.files import json_files
from train.kinds import Section
from train.runs.directory import FAIRNESS
from train.tasks.changes.swaps import Swapped, read_swaps, swap_scores
from train.tasks.classification import ClassificationDataset
from train.tasks.examples import Example
from train.tasks.metrics.fairness import fairness
from train.tasks.task import Judged

TITLES = ("Groups of ", "Gaps between groups of ", "Too few examples for groups of ", "Swapped words")
"""How titles of its sections begin."""
MOST_GROUPS = 200
"""Values of a column: one with more is a text or a number, and no group."""


@dataclasses.dataclass(frozen=True)
class Fairness:
    """What is measured. groups: a column, or empty. positive: the class whose rates are measured; empty: each against the rest. smallest:
    examples that a group needs. swap: a file of pairs of words, or empty."""

    groups: str = ""
    positive: str = ""
    smallest: int = 30
    swap: str = ""


Answers = Callable[[list[Example]], list[Any]]


def fairness_of(asked: Fairness, judged: Judged | None, answers: Answers) -> dict[str, Any]:
    """{"groups": {"column", ...} as of `fairness`, "swap": {"file", ...} as of `swap_scores`}, of what was asked. judged: of the
    evaluation. answers: asks the run about other examples. UserError for a run that gives no classes, for groups that are not there, and
    for texts without any of the words."""
    if judged is None or not isinstance(judged.dataset, ClassificationDataset) or judged.dataset.options.several:
        raise UserError("--groups and --swap: the run was not trained to give each text one label", "Measure a run of Classification.")
    names = judged.dataset.label_names
    if asked.positive and asked.positive not in names:
        raise UserError(f"--positive {asked.positive}: is none of the run's labels", f"They are {', '.join(names[:20])}.")
    found: dict[str, Any] = {}
    if asked.groups:
        found["groups"] = {"column": asked.groups, "positive": asked.positive} | _by_group(asked, judged, judged.dataset)
    if asked.swap:
        found["swap"] = {"file": asked.swap, "positive": asked.positive} | _by_swap(asked, judged, judged.dataset, answers)
    return found


def _by_group(asked: Fairness, judged: Judged, dataset: ClassificationDataset) -> dict[str, Any]:
    for example in judged.examples:
        if asked.groups not in example.fields:
            raise UserError(
                f"{example.where}: has no column of texts {asked.groups!r}", f"There are: {', '.join(example.fields)}: --groups NAME."
            )
        if example.label is None:
            raise UserError(f"{example.where}: has no {dataset.options.label}", "Groups are compared by the true labels.")
    groups = [example.fields[asked.groups] for example in judged.examples]
    if len(set(groups)) > MOST_GROUPS:
        raise UserError(
            f"--groups {asked.groups}: has {len(set(groups)):,} values in {len(groups):,} examples",
            f"At most {MOST_GROUPS} can be compared.",
        )
    truth = [dataset.place_of(example.label, example) for example in judged.examples]
    how: dict[str, Any] = {"positive": asked.positive, "smallest": asked.smallest}
    try:
        return fairness(truth, np.stack(judged.answers), groups, dataset.label_names, **how)
    except ValueError as error:
        raise UserError(f"--groups {asked.groups}: {error}", "Give more examples, or a smaller --smallest-group.") from None


def _by_swap(asked: Fairness, judged: Judged, dataset: ClassificationDataset, answers: Answers) -> dict[str, Any]:
    swaps, before, changed, texts = read_swaps(asked.swap), [], [], []
    for example, answer in zip(judged.examples, judged.answers, strict=True):
        own = {name: example.fields[name] for name in dataset.changeable if name in example.fields}
        other = {name: swaps.swapped(text) for name, text in own.items()}
        if other != own:
            sides = np.sum([swaps.sides(text) for text in own.values()], 0)
            texts.append(Swapped("\n".join(own.values()), "\n".join(other.values()), (int(sides[0]), int(sides[1]))))
            changed.append(example._replace(fields=example.fields | other))
            before.append(answer)
    if not texts:
        raise UserError(f"{asked.swap}: no example has any of its words", "Give pairs of words that the texts have.")
    return swap_scores(texts, np.stack(before), np.stack(answers(changed)), list(dataset.label_names), asked.positive)


def keep(run_dir: Path, found: dict[str, Any], measured: dict[str, Any]) -> list[Section]:
    """Write fairness.json, without texts of examples, and return the sections of the report. measured: what the evaluation gave beside."""
    kept = {"measured": measured, **found}
    if "swap" in kept:
        kept["swap"] = {name: value for name, value in kept["swap"].items() if name != "most"}
    json_files.write(run_dir / FAIRNESS, kept)
    return [Section(title, columns=columns, rows=rows) for title, columns, rows in tables(kept)]


Table = tuple[str, tuple[str, ...], list[list[str]]]


def tables(found: dict[str, Any]) -> list[Table]:
    """(title, columns, rows) of what `fairness_of` found, as texts."""
    made: list[Table] = []
    if "groups" in found:
        made += _group_tables(found["groups"])
    if "swap" in found:
        one = found["swap"]
        between = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in one["intervals"].items()}
        rows = [["examples with such words", f"{one['examples']:,}", ""]]
        rows.append(["other answers, share", f"{one['changed']:.4f}", between["changed"]])
        what = f"probability of {one['positive']}" if one["positive"] else "probabilities"
        rows.append([f"change of {what}, mean", f"{one['mean_change']:.4f}", between["mean_change"]])
        for name, shift in one["shift"].items():
            interval = f"{shift['low']:+.4f} to {shift['high']:+.4f}"
            rows.append([f"{name}: second words minus first, {shift['examples']:,} texts", f"{shift['mean']:+.4f}", interval])
        made.append(("Swapped words", ("", "value", "95 % interval"), rows))
    return made


def _group_tables(found: dict[str, Any]) -> list[Table]:
    column, rows = found["column"], found["groups"]
    made: list[Table] = []
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("group", "count")]
    classes = list(dict.fromkeys(name.partition("/")[2] for name in names if "/" in name))
    for of in ("", *classes):
        own = [name for name in names if name.partition("/")[2] == of]
        cells = [[str(row["group"]), *([f"{row['count']:,}"] if not of else []), *(_cell(row.get(name)) for name in own)] for row in rows]
        title = f"Groups of {column}" + (f": answers {of}" if of else "")
        made.append((title, (column, *([] if of else ["examples"]), *(name.partition("/")[0] for name in own)), cells))
    gaps = []
    for name, gap in found["gaps"].items():
        numbers = [f"{gap['gap']:.4f}", f"{gap['low']:.4f} to {gap['high']:.4f}", f"{gap['p']:.4f}", f"{gap['p_holm']:.4f}"]
        gaps.append([name, *numbers, gap["lowest"], gap["highest"], ", ".join(gap["left_out"]) or "none"])
    columns = ("measure", "gap", "95 % interval", "p", "p (Holm)", "lowest", "highest", "left out")
    made.append((f"Gaps between groups of {column}", columns, gaps))
    said = [[group, f"left out: {count:,} examples"] for group, count in found["left_out"].items()]
    said += [[name, f"no gap: {why}"] for name, why in found["unmeasured"].items()]
    return made + ([(f"Too few examples for groups of {column}", ("", ""), said)] if said else [])


def _cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def lines_of(found: dict[str, Any]) -> list[str]:
    """The tables as text, and the examples that swaps changed most."""
    lines: list[str] = []
    for title, columns, rows in tables(found):
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)]
        lines += ["", title, *(line for line in shown if line)]
    for one in found.get("swap", {}).get("most", []):
        lines += ["", f"{one['answer']} -> {one['swapped_answer']}, change {one['change']:.4f}", f"  {one['text']}", f"  {one['swapped']}"]
    return lines
