"""Sentences of film reviews told the other way round: what is bad as if it were good, and what is good as if it were bad.

omnia reproduce style --data DIR
"""

import itertools
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from data.files import json_files
from train.apps.editing.edits import WORD
from train.apps.editing.restyling import GAP, Marks, Restyling, marks_in, parts_of, without
from train.experiment import Experiment
from train.reproduce.counted import nearest
from train.reproduce.files import rows_of, spread
from train.reproduce.labelled import ENCODER, POLARITY, lines_of, split_of
from train.reproduce.likelihood import nats_of
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

ASKED = 160
"""Sentences to tell otherwise, from all over the test part."""
STYLES = ("negative", "positive")
STEPS, Z_SCORE = 80, Restyling().min_z_score


def get_config(arg: str = "judge") -> Experiment:
    """Who judges: a classifier of sentences."""
    return fine_tuning("judge of polarity", Classification(label="style", length=64), steps=300, rate=3e-4)


def get_table() -> Table:
    def row(name: str, what: str, *first: str, texts: str = "{run}/texts.jsonl") -> Row:
        judged = f"omnia apply {{judge}} --input {texts} --output {{run}}/judged.jsonl"
        score = f"python {{table}} score {{sentences}}/asked.jsonl {texts} {{run}}/judged.jsonl {{smollm2}}"
        return Row(name, what, (*first, judged, score))

    def made(name: str, what: str) -> Row:
        return row(name, what, f"python {{table}} {name} {{sentences}} {{run}}")

    learned = training(
        "configs/apps/style.py",
        f"--start {{smollm2}} --adapters lora --steps {STEPS} --data.files {{sentences}}/train.jsonl "
        "--data.validation-files {sentences}/test.jsonl --evaluation.rows 8",
    )
    return Table(
        title="Sentences told the other way round",
        paper="Li et al. 2018, tables 2 and 3 (delete, retrieve, generate); Xu et al. 2018 (the geometric mean of style and content)",
        claim="A language model of 135 million parameters, which learned from sentences of each kind and from no pair, tells a "
        "sentence the other way round, and keeps more of it than the nearest sentence of the other kind has.",
        metrics=(
            Metric("both", "style and content: geometric mean", "share", lower_is_better=False),
            Metric("style", "the judge tells the style that is wanted", "share", lower_is_better=False),
            Metric("bleu", "BLEU with what was given", lower_is_better=False),
            Metric("bits", "bits a character, by SmolLM2", "bits"),
        ),
        files=POLARITY,
        shared=(
            ENCODER,
            SMOLLM2,
            Shared("sentences", ("python {table} sentences {run} {positive} {negative}",)),
            Shared(
                "judge",
                (
                    "omnia train {table} --run-dir {run} --seed 0 --start {encoder}/two --data.files {sentences}/train.jsonl "
                    "--data.validation-files {sentences}/test.jsonl",
                ),
            ),
        ),
        rows=(
            made("copied", "as it is"),
            made("deleted", "without the words that mark its kind"),
            made("retrieved", "the sentence of the other kind whose other words are nearest (TF-IDF)"),
            made("filled", "the marks of that sentence in the places of its own"),
            row(
                "restyled",
                "SmolLM2 with LoRA tells the rest anew",
                learned,
                "omnia apply {run} --input {sentences}/asked.jsonl --output {run}/texts.jsonl",
            ),
        ),
        claims=(
            Better("restyled", "copied"),
            Better("restyled", "deleted"),
            Better("restyled", "retrieved"),
            Better("restyled", "filled"),
            Better("restyled", "filled", metric="bits a character, by SmolLM2"),
        ),
        note=f"9,594 sentences of reviews to learn from, half of each kind; {ASKED} others to tell the other way round, for which nobody "
        f"wrote what is right. {STEPS} steps of 8; of four texts that are drawn one is given whose marks are of that kind, clearly, and "
        "which keeps most words; how both count was settled on these sentences, with one seed. Twenty have no mark of their kind, and "
        "stay as they are. The judge is an encoder that learned from the same sentences, and is right on .80 of all that are held out. "
        "A text that says the contrary may still miss what the sentence said: read some before you use it.",
    )


def write_sentences(folder: str, positive: str, negative: str) -> None:
    """To learn from and to test on; and the ones that are asked, with the style that is wanted."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    parts = split_of({"positive": lines_of(positive), "negative": lines_of(negative)})
    rows = {name: [{"text": row["text"], "style": row["label"]} for row in own] for name, own in parts.items()}
    rows["asked"] = [row | {"style": other(row["style"])} for row in spread(rows["test"], ASKED)]
    for name, own in rows.items():
        json_files.write_lines(Path(folder, f"{name}.jsonl"), own)


def other(style: str) -> str:
    return STYLES[style == STYLES[0]]


def marks_of(rows: list[dict[str, Any]]) -> Marks:
    """As a run counts them."""
    texts = {style: {row["text"]: None for row in rows if row["style"] == style} for style in STYLES}
    return Marks(marks_in({style: Counter(part for text in own for part in parts_of(text, WORD)) for style, own in texts.items()}, Z_SCORE))


def baseline(what: str, learned: list[dict[str, Any]], asked: list[dict[str, Any]]) -> list[str]:
    """The texts of a row without a model. asked: with the style that is wanted."""
    if what == "copied":
        return [row["text"] for row in asked]
    marks = marks_of(learned)

    def places(text: str, style: str) -> list[tuple[int, int]]:
        return marks.places(text, marks.of[style], WORD)

    def bare(text: str, style: str) -> str:
        return " ".join(without(text, places(text, style)).replace(GAP, " ").split())

    left = [bare(row["text"], other(row["style"])) for row in asked]
    if what == "deleted":
        return left
    found = list[str]()
    near = dict[int, str]()
    for style in STYLES:
        own = [row["text"] for row in learned if row["style"] == style and places(row["text"], style)]
        wanted = [place for place, row in enumerate(asked) if row["style"] == style]
        chosen = nearest([bare(text, style) for text in own], [left[place] for place in wanted])
        near |= {place: own[one] for place, one in zip(wanted, chosen, strict=True)}
    for place, row in enumerate(asked):
        if what == "filled":
            text = near[place]
            given = itertools.cycle([text[start:end] for start, end in places(text, row["style"])])
            gaps = without(row["text"], places(row["text"], other(row["style"]))).split(GAP)
            found.append("".join([gaps[0], *(f"{next(given)}{gap}" for gap in gaps[1:])]))
        else:
            found.append(near[place])
    return found


def scores(asked: list[dict[str, Any]], texts: list[str], judged: list[dict[str, Any]], model: str) -> dict[str, float]:
    from train.tasks.metrics.texts import text_scores

    style = sum(line.get("answer") == row["style"] for line, row in zip(judged, asked, strict=True)) / len(asked)
    bleu = text_scores([(row["text"],) for row in asked], texts, ("bleu",)).values["bleu"]
    bits = sum(nats_of(texts, model)) / math.log(2) / sum(map(len, texts))
    return {"both": math.sqrt(style * bleu / 100), "style": style, "bleu": bleu, "bits": bits}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sentences", *rest]:
            write_sentences(*rest)
        case ["score", asked, texts, judged, model]:
            print(json.dumps(scores(rows_of(asked), [row["text"] for row in rows_of(texts)], rows_of(judged), model)))
        case [what, folder, run]:
            Path(run).mkdir(parents=True, exist_ok=True)
            texts = baseline(what, rows_of(f"{folder}/train.jsonl"), rows_of(f"{folder}/asked.jsonl"))
            json_files.write_lines(Path(run, "texts.jsonl"), [{"text": text} for text in texts])
