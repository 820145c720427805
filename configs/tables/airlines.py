"""How writers feel about an airline that nobody showed to the monitor: each of two, learned from posts to the other four of five.

omnia reproduce airlines --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.counted import words_and_letters
from train.reproduce.files import POSTS, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

AIRLINES = {"american": "American", "southwest": "Southwest"}
"""Those that are asked about."""
STEPS = 200


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("airlines", Classification(label="sentiment", length=48), steps=STEPS, rate=3e-4)


def get_table() -> Table:
    def asked(name: str, run: str) -> str:
        return f"omnia apply {run} --input {{posts}}/{name}_test.jsonl --output {{run}}/{name}.jsonl"

    def learned(run: str, file: str) -> str:
        return f"omnia train {{table}} --run-dir {run} --seed {{seed}} --start {{encoder}}/two --data.files {{posts}}/{file}_train.jsonl"

    score = "python {table} score {posts} {run}"
    others = [command for name in AIRLINES for command in (learned(f"{{run}}/of_{name}", f"but_{name}"), asked(name, f"{{run}}/of_{name}"))]
    return Table(
        title="An airline that is new",
        paper="Rosenthal et al. 2017 (SemEval-2017, task 4: opinions of topics that were not learned from)",
        claim="A small encoder tells how writers feel about an airline that it never saw better than words counted do, and hardly worse "
        "than one that saw it.",
        metrics=(
            Metric("macro_f1", "macro F1, mean of two airlines", "share", lower_is_better=False),
            Metric("accuracy", "accuracy", "share", lower_is_better=False),
            *(Metric(name, f"macro F1: {what}", lower_is_better=False) for name, what in AIRLINES.items()),
        ),
        files=POSTS,
        shared=(ENCODER, Shared("posts", ("python {table} posts {run} {posts_train} {posts_test}",))),
        rows=(
            Row("counted_known", "words and letters counted, of posts to all five", ("python {table} counted {posts} known",)),
            Row("counted_new", "the same, of posts to the other four", ("python {table} counted {posts} new",)),
            Row(
                "encoder_known",
                "two layers of MiniLM, posts to all five",
                (learned("{run}/of_all", "all"), *(asked(name, "{run}/of_all") for name in AIRLINES), score),
            ),
            Row("encoder_new", "the same, posts to the other four", (*others, score)),
        ),
        claims=(
            Better("encoder_new", "counted_new"),
            Better("encoder_new", 0.64),
            Better("encoder_new", "encoder_known", by=-0.02, metric="macro F1: Southwest"),
        ),
        note="4,565 posts of 16 to 20 February 2015, less those to the airline that is asked about, which are 3 and 1,312; asked are 2,755 "
        f"posts to American and 738 to Southwest, of 22 to 24 February. {STEPS} steps of 32, with one post in ten held out. Of the posts "
        "to American seven in ten are negative, of those to Southwest half; macro F1 counts three sentiments alike. American is nearly new "
        "to all rows, since the collection began to ask for it on the 22nd; what it is worth to have seen an airline, Southwest shows, and "
        "the claim allows 2 points. Counted: TF-IDF of words, pairs of them and two to four characters, linear support vectors that weigh "
        "the sentiments alike.",
    )


def write_posts(folder: str, train: str, test: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    learned, tested = rows_of(train), rows_of(test)
    json_files.write_lines(Path(folder, "all_train.jsonl"), learned)
    for name, airline in AIRLINES.items():
        json_files.write_lines(Path(folder, f"but_{name}_train.jsonl"), [row for row in learned if row["topic"] != airline])
        json_files.write_lines(Path(folder, f"{name}_test.jsonl"), [row for row in tested if row["topic"] == airline])


def scores(folder: str, answers: dict[str, list[str]]) -> dict[str, float]:
    """answers: of each airline, to its posts of later days."""
    from sklearn.metrics import f1_score

    truth = {name: [row["sentiment"] for row in rows_of(f"{folder}/{name}_test.jsonl")] for name in AIRLINES}
    f1 = {name: float(f1_score(truth[name], answers[name], average="macro")) for name in AIRLINES}
    right = [one == other for name in AIRLINES for one, other in zip(truth[name], answers[name], strict=True)]
    return f1 | {"macro_f1": sum(f1.values()) / len(f1), "accuracy": sum(right) / len(right)}


def counted(folder: str, which: str) -> dict[str, float]:
    """which: known or new."""
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    def fitted(part: str) -> Any:
        rows = rows_of(f"{folder}/{part}_train.jsonl")
        return make_pipeline(words_and_letters(), LinearSVC(class_weight="balanced")).fit(
            [row["text"] for row in rows], [row["sentiment"] for row in rows]
        )

    known = fitted("all") if which == "known" else None
    models = {name: known or fitted(f"but_{name}") for name in AIRLINES}
    asked = {name: [row["text"] for row in rows_of(f"{folder}/{name}_test.jsonl")] for name in AIRLINES}
    return scores(folder, {name: [*models[name].predict(asked[name])] for name in AIRLINES})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["posts", folder, train, test]:
            write_posts(folder, train, test)
        case ["counted", folder, which]:
            print(json.dumps(counted(folder, which)))
        case ["score", folder, run]:
            print(json.dumps(scores(folder, {name: [line["answer"] for line in rows_of(f"{run}/{name}.jsonl")] for name in AIRLINES})))
