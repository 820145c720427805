"""Summaries of parts of role-play sessions: what of a part somebody who was not there is told.

omnia reproduce summaries --data DIR
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import SESSIONS, rows_of
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

WORDS = 71
"""Words of a summary that is taken from what was said: the mean of those to learn from."""
READ = 1500
"""Characters of a part of a session that are read: its central sentences, in their order."""
LEAST = 0.2
"""How well a part has to be aligned with its summary to be learned from. A program said so; half of all have 0.44 or more."""
COPIED = 12
"""Words in a row that stood in what was said."""


def get_config(arg: str = "") -> Experiment:
    task = SequenceToSequence(length=576, written=128, prompt="{source}\nSummary:", measures=("rouge",))
    return fine_tuning("summaries", task, steps=80, batch_size=4, rate=1e-3, weight_decay=0.0, dropout=0.0)


def get_table() -> Table:
    score = "python {table} score {examples}/test.jsonl {run}/answers.jsonl"
    return Table(
        title="Summaries of parts of role-play sessions",
        paper="Rameshkumar and Bailey 2020 (CRD3); Lin 2004 (ROUGE); Radev et al. 2004 (sentences nearest to the centroid)",
        claim="A language model of 135 million parameters that learned from 254 parts of ten sessions sums up others nearer to what people "
        "wrote than the beginning of the part does.",
        metrics=(
            Metric("rouge1", "ROUGE-1", "share", lower_is_better=False),
            Metric("rouge2", "ROUGE-2", lower_is_better=False),
            Metric("rougeL", "ROUGE-L", lower_is_better=False),
            Metric("words", "words", digits=1),
            Metric("copied", f"more than {COPIED} words copied", "share"),
            Metric("distinct", "different summaries", "share", lower_is_better=False),
        ),
        files=SESSIONS,
        shared=(
            SMOLLM2,
            Shared("examples", ("python {table} examples {run} {sessions} {other_sessions}",)),
        ),
        rows=(
            Row("first", f"the first {WORDS} words", ("python {table} first {examples}/test.jsonl",)),
            Row("last", f"the last {WORDS} words", ("python {table} last {examples}/test.jsonl",)),
            Row("central", f"sentences nearest to the whole (TF-IDF), {WORDS} words", ("python {table} central {examples}/test.jsonl",)),
            Row(
                "asked",
                "SmolLM2-135M-Instruct as published",
                (
                    "omnia evaluate {smollm2} --task {table} --files {examples}/test.jsonl --predictions {run}/answers.jsonl --json",
                    score,
                ),
            ),
            Row(
                "learned",
                "SmolLM2 with LoRA",
                (
                    training(
                        "{table}",
                        "--start {smollm2} --adapters lora",
                        "--data.files {examples}/train.jsonl --data.validation-files {examples}/test.jsonl --evaluation.rows 8",
                    ),
                    "omnia apply {run} --input {examples}/test.jsonl --output {run}/answers.jsonl",
                    score,
                ),
            ),
        ),
        claims=(
            Better("learned", "first"),
            Better("learned", "last"),
            Better("learned", "central"),
            Better("learned", "asked"),
        ),
        note="66 different parts of three sessions, of 28 to 10,737 words; their summaries have 73 on average. Which turns a summary is of "
        "a program aligned, so some parts do not hold what theirs tells; of 329 parts the 254 that have a summary and are aligned by "
        f"{LEAST} and better are learned from, 80 steps of 4. SmolLM2 reads the sentences nearest to the whole, {READ:,} characters of "
        "them, and writes what is likeliest, at most 128 tokens; as published it is asked without its chat template, "
        "and ends with a line.",
    )


def sentences_of(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(who says it, a sentence) of all that are no mere exclamations."""
    each = [(name, one) for name, text in turns for one in re.split(r"(?<=[.!?])\s+", text.strip())]
    return [one for one in each if len(one[1].split()) > 3] or each


def central(texts: list[str], sizes: list[int], room: int) -> list[int]:
    """Places of texts that are nearest to the mean of all, of the nearer half as many as fit."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    near = (vectors @ vectors.mean(0).A1).tolist()
    chosen = list[int]()
    order = sorted(range(len(texts)), key=lambda place: -near[place])
    for place in order[: (len(order) + 1) // 2]:
        if sizes[place] <= room or not chosen:
            chosen.append(place)
            room -= sizes[place]
    return sorted(chosen)


def told(turns: list[tuple[str, str]]) -> str:
    """The central sentences with who says them, a line each."""
    sentences = sentences_of(turns)
    lines = [f"{name}: {text}" for name, text in sentences]
    chosen = central([text for _, text in sentences], [len(line) + 1 for line in lines], READ)
    return "\n".join(lines[place] for place in chosen)[:READ]


def write_examples(folder: str, *paths: str) -> None:
    """Parts with a summary; of those to test on, one of each that have the same turns."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, path in zip(("train", "test"), paths, strict=True):
        rows = [row for row in rows_of(path) if row["summary"].strip()]
        if name == "train":
            rows = [row for row in rows if row["score"] >= LEAST]
        else:
            rows = [*{json.dumps(row["turns"]): row for row in reversed(rows)}.values()][::-1]
        kept = [{"source": told(row["turns"]), "target": row["summary"], "turns": row["turns"]} for row in rows]
        json_files.write_lines(Path(folder, f"{name}.jsonl"), kept)


def extract(turns: list[tuple[str, str]]) -> str:
    texts = [text for _, text in sentences_of(turns)]
    chosen = central(texts, [len(text.split()) for text in texts], WORDS)
    return " ".join(" ".join(texts[place] for place in chosen).split()[:WORDS])


def scores(rows: list[dict[str, Any]], summaries: list[str]) -> dict[str, float]:
    from train.tasks.metrics.diversity import longest_copy
    from train.tasks.metrics.texts import text_scores

    found = text_scores([(row["target"],) for row in rows], summaries, ("rouge",)).values
    copied = [
        longest_copy(one.split(), [text.split() for _, text in row["turns"]]) > COPIED for one, row in zip(summaries, rows, strict=True)
    ]
    return {name: found[name] for name in ("rouge1", "rouge2", "rougeL")} | {
        "words": sum(len(one.split()) for one in summaries) / len(summaries),
        "copied": sum(copied) / len(copied),
        "distinct": len({*summaries}) / len(summaries),
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", *rest]:
            write_examples(*rest)
        case [what, path, *answered]:
            tested = rows_of(path)
            match what:
                case "first" | "last":
                    said = [" ".join(text for _, text in row["turns"]).split() for row in tested]
                    given = [" ".join(words[:WORDS] if what == "first" else words[-WORDS:]) for words in said]
                case "central":
                    given = [extract(row["turns"]) for row in tested]
                case _:
                    given = [line["answer"] for line in rows_of(answered[0])]
            print(json.dumps(scores(tested, given)))
