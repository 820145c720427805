"""Tutoring: which move a teacher makes, which one comes next, and hints that hold what the pupil has not found.

omnia reproduce tutoring --data DIR
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from train.apps.education.hints import Problem, told
from train.apps.education.tutoring import STUDENT, TEACHER, Tutoring, TutoringDataset
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

FILES = tuple(
    PublicFile(f"dialogues_{part}", f"applications/mathdial/{part}.jsonl", digest)
    for part, digest in (
        ("train", "3edc4d5d585f8c5e7810abc7717f3047248556b0024692aea34d956764859342"),
        ("valid", "868df16f7247752b32d32e9317148be8180f17eea8c2d7afa02b0fcea66dae7d"),
        ("test", "bdfbd56c8250a6253cf7643dc0053db97e6c2002b6bf014328b948d696d70c99"),
    )
)
"""Teachers and a simulated pupil on word problems (Macina et al. 2023), CC BY-SA 4.0; cut from the official test part, whole problems."""


def get_table() -> Table:
    files = "--data.files {dialogues_train} --data.validation-files {dialogues_valid}"
    evaluated = "omnia evaluate {run} --files {dialogues_test} --json"
    parts = "{dialogues_train} {dialogues_test}"
    return Table(
        title="Tutoring: moves of teachers, and hints",
        paper="Macina et al. 2023 (MathDial)",
        claim="A small encoder names a move from its text more often than words counted do, and hints give away what teachers often do.",
        metrics=(
            Metric("accuracy", "moves right", "share", lower_is_better=False),
            Metric("macro_f1", "macro F1", "share", lower_is_better=False),
            Metric("given_away", "hints that hold a result not said", "share"),
            Metric("by_teachers", "teachers' own texts that do", "share"),
            Metric("told", "the next step, told, that does", "share"),
        ),
        files=FILES,
        shared=(ENCODER, Shared("tutor", (training("configs/apps/tutoring.py", "--start {encoder}/whole", files),))),
        rows=(
            Row("counted_text", "the move of a text: TF-IDF, logistic regression", (f"python {{table}} text {parts}",)),
            Row(
                "text",
                "the move of a text: MiniLM",
                (training("configs/apps/tutoring.py", "--start {encoder}/whole --data.reads text", files), evaluated),
            ),
            Row("counted_next", "the next move: TF-IDF of the dialogue so far", (f"python {{table}} before {parts}",)),
            Row("next", "the next move: MiniLM", ("omnia evaluate {tutor} --files {dialogues_test} --json",)),
            Row(
                "hints",
                "the next move, and hints of the ladder",
                (
                    "python {table} rows {dialogues_test} {run}/rows.jsonl",
                    "omnia apply {tutor} --input {run}/rows.jsonl --output {run}/hints.jsonl",
                    "python {table} hints {dialogues_test} {run}/hints.jsonl",
                ),
            ),
        ),
        claims=(
            Better("text", "counted_text"),
            Better("next", "counted_next"),
            Better("hints", 0.01, metric="hints that hold a result not said"),
        ),
        note="371 dialogues to learn from, 58 to choose by, 135 to test on, with 847 moves of four kinds; the commonest is 0.357 of them. "
        "150 steps of 24. A result is a number of the solution that stands neither in the problem nor in what the pupil said; numbers are "
        "found by a pattern of their own, apart from the filter's. Hints are asked for where a pupil has spoken, of 705 moves.",
    )


# ------------------------------------------------------------------------------------------------------------------ measures


def moves_of(path: str) -> list[dict[str, Any]]:
    """A row for each move of a teacher that follows a turn of the pupil: the dialogue before it, the move, and its text."""
    found = []
    for one in rows_of(path):
        for place, turn in enumerate(one["turns"]):
            before = one["turns"][:place]
            if turn["who"] == TEACHER and turn["move"] and any(other["who"] == STUDENT for other in before):
                row = {name: one[name] for name in ("question", "ground_truth")}
                found.append(row | {"turns": before, "move": turn["move"], "teacher": turn["text"]})
    return found


def counted(reads: str, learned: str, tested: str) -> dict[str, float]:
    """The measures of a baseline: words and pairs of words; of the dialogue so far also the last move and how far it is."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    from data.records.record import Record

    dataset = TutoringDataset(Tutoring(reads=reads), Experiment())  # type: ignore[arg-type]
    parts = [[example for one in rows_of(path) for example in dataset.moves(Record(one, path))] for path in (learned, tested)]
    texts = [[f"{one.fields['text']} {one.fields.get('pair', '')}" for one in part] for part in parts]
    labels = [[one.label for one in part] for part in parts]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=5, max_iter=500))
    given = model.fit(texts[0], labels[0]).predict(texts[1])
    return {"accuracy": float(accuracy_score(labels[1], given)), "macro_f1": float(f1_score(labels[1], given, average="macro"))}


def values(text: str) -> set[float]:
    """Numbers in digits."""
    return {float(one.replace(",", "")) for one in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)}


def given_away(rows: list[dict[str, Any]], said: list[str]) -> float:
    """The share of texts that hold a result of the solution which the pupil has not said and the problem does not have."""
    found = []
    for row, text in zip(rows, said, strict=True):
        known = values(row["question"]).union(*(values(turn["text"]) for turn in row["turns"] if turn["who"] == STUDENT))
        found.append(bool(values(text) & (values(row["ground_truth"]) - known)))
    return sum(found) / len(found)


def told_of(row: dict[str, Any]) -> str:
    problem = Problem(row["question"], row["ground_truth"])
    return told(problem, [turn["text"] for turn in row["turns"] if turn["who"] == STUDENT])


def main(what: str, *paths: str) -> dict[str, float]:
    if what in ("text", "before"):
        return counted(what, *paths)
    if what == "rows":
        lines = [json.dumps({name: value for name, value in row.items() if name != "teacher"}) for row in moves_of(paths[0])]
        Path(paths[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(paths[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return {}
    rows, lines = moves_of(paths[0]), rows_of(paths[1])
    return {
        "accuracy": sum(line["move"] == row["move"] for row, line in zip(rows, lines, strict=True)) / len(rows),
        "given_away": given_away(rows, [line["answer"] for line in lines]),
        "by_teachers": given_away(rows, [row["teacher"] for row in rows]),
        "told": given_away(rows, [told_of(row) for row in rows]),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
