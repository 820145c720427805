"""Summaries of role-play: what of a session somebody who was not there is told.

omnia reproduce summaries --data DIR
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

FILES = (
    PublicFile("sessions", "applications/crd3/train.jsonl", "04f326d9d22afc7c84f6b1295366fbd10a13ef77b88bf6fe74704127e64afe90"),
    PublicFile("other_sessions", "applications/crd3/test.jsonl", "389ad21fb3828dc1c0d9662e8b172af2aa896839a77672626c70048b341032de"),
)
"""Turns of Critical Role with the summaries that its fans wrote (Rameshkumar and Bailey 2020, CRD3, CC BY-SA 4.0)."""
WORDS = 60
"""Of a summary that is taken from what was said."""
READ = 1500
"""Characters of a part of a session that are read: its central sentences, in their order."""
LEAST = 0.2
"""How well a part has to be aligned with its summary, from 0 to 1, to be learned from."""
COPIED = 12
"""Words in a row that stood in what was said."""


def get_config(arg: str = "") -> Experiment:
    task = SequenceToSequence(length=512, written=96, prompt="{source}\nSummary:", measures=("rouge",))
    return fine_tuning("summaries", task, steps=80, batch_size=4, rate=1e-3, weight_decay=0.0, dropout=0.0)


def get_table() -> Table:
    score = "python {table} score {examples}/test.jsonl {run}/answers.jsonl"
    return Table(
        title="Summaries of role-play",
        paper="Rameshkumar and Bailey 2020 (CRD3); Lin 2004 (ROUGE); Radev et al. 2004 (sentences nearest to the centroid)",
        claim="A language model of 135 million parameters that learned from 300 parts of ten sessions sums up others nearer to what people "
        "wrote than the beginning of the part does.",
        metrics=(
            Metric("rouge1", "ROUGE-1", "share", lower_is_better=False),
            Metric("rouge2", "ROUGE-2", lower_is_better=False),
            Metric("rougeL", "ROUGE-L", lower_is_better=False),
            Metric("words", "words", digits=1),
            Metric("copied", f"more than {COPIED} words copied", "share"),
            Metric("distinct", "different summaries", "share", lower_is_better=False),
        ),
        files=FILES,
        shared=(
            Shared("smollm2", ("omnia import smollm2 --run-dir {run}",)),
            Shared("examples", ("python {table} examples {run} {sessions} {other_sessions}",)),
        ),
        rows=(
            Row("first", f"the first {WORDS} words", ("python {table} first {examples}/test.jsonl",)),
            Row("last", f"the last {WORDS} words", ("python {table} last {examples}/test.jsonl",)),
            Row("central", f"sentences nearest to the whole (TF-IDF), {WORDS} words", ("python {table} central {examples}/test.jsonl",)),
            Row(
                "asked",
                "SmolLM2 as published",
                (
                    "python {table} folder {run}",
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
            Better("learned", "central"),
            Better("learned", "asked"),
            Better("learned", 0.248),
        ),
        note="71 parts of three sessions that have a summary, of 20 to 10,000 words each; summaries have 74 on average. Which turns a "
        "summary is of a program aligned, so some parts do not hold what theirs tells; those of 329 that are aligned by "
        f"{LEAST} and better are learned from, 80 steps of 4. SmolLM2 reads {READ:,} characters of the sentences nearest to the whole and "
        "writes what is likeliest, at most 96 tokens.",
    )


def sentences_of(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(who says it, a sentence) of all that are no mere exclamations."""
    each = [(name, one) for name, text in turns for one in re.split(r"(?<=[.!?])\s+", text.strip())]
    return [one for one in each if len(one[1].split()) > 3] or each


def central(texts: list[str], room: int, size: Callable[[str], int]) -> list[int]:
    """Places of the texts that are nearest to the mean of all, the first that fill the room or more."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    near = (vectors @ vectors.mean(0).A1).tolist()
    chosen = list[int]()
    for place in sorted(range(len(texts)), key=lambda place: -near[place]):
        if room > 0:
            chosen.append(place)
            room -= size(texts[place])
    return sorted(chosen)


def told(turns: list[tuple[str, str]]) -> str:
    """The central sentences with who says them."""
    sentences = sentences_of(turns)
    lines = [f"{name}: {text}" for name, text in sentences]
    return "\n".join(lines[place] for place in central([text for _, text in sentences], READ, len))[:READ]


def write_examples(folder: str, *paths: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, path in zip(("train", "test"), paths, strict=True):
        rows = [row for row in rows_of(path) if row["summary"].strip() and (name == "test" or row["score"] >= LEAST)]
        kept = [{"source": told(row["turns"]), "target": row["summary"], "turns": row["turns"]} for row in rows]
        json_files.write_lines(Path(folder, f"{name}.jsonl"), kept)


def extract(turns: list[tuple[str, str]]) -> str:
    texts = [text for _, text in sentences_of(turns)]
    chosen = central(texts, WORDS, lambda text: len(text.split()))
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
        case ["folder", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
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
