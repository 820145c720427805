"""Questions on tales and on articles: answers that are pointed at in the text, or written.

omnia reproduce answers --data DIR
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of, spread
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

FILES = (
    PublicFile("tales", "applications/fairytaleqa/train.jsonl", "cc7f51d9f58e23c3dd40b9fd1a263a05c748e9d8ced6a02534675ac6b0d593f5"),
    PublicFile("other_tales", "applications/fairytaleqa/test.jsonl", "620c17b59b596cbfd978a60b84e26f4568ebc6a2dd37eb7e7307ba8124c37b18"),
    PublicFile("articles", "xquad/xquad.en.articles_00-37.json", "11ce4ba98cfb0c88ea475491c52e8d3951bb3d40f34fd5d81d3dc70e7a2af268"),
)
"""Tales with questions of teachers (Xu et al. 2022, FairytaleQA, Apache-2.0), and articles of SQuAD with questions (Artetxe et al. 2020,
XQuAD, CC BY-SA 4.0)."""
LEARNED = 29
"""Articles to learn from; of the rest, the questions are for testing."""
SETS = {"tales": 240, "articles": 240}
"""Questions of each set to answer, from all over its test part."""
SENTENCE = re.compile(r'(?<=[.!?])["”]?\s+')


def get_config(arg: str = "") -> Experiment:
    """What a language model is asked: with an answer of one line."""
    prompt = "{source}\nQuestion: {question}\nAnswer:"
    return fine_tuning("answers", SequenceToSequence(length=640, written=16, prompt=prompt, measures=("exact",)))


def get_table() -> Table:
    def scored(name: str, what: str, *commands: str) -> tuple[Row, ...]:
        made = ("python {table} folder {run}", *commands)
        return tuple(Row(f"{name}_{own}", f"{own}: {what}", tuple(command.replace("SET", own) for command in made)) for own in SETS)

    score = "python {table} score {examples}/SET_test.jsonl {run}/answers.jsonl"
    return Table(
        title="Answers from a text",
        paper="Rajpurkar et al. 2016 (SQuAD: exact match and F1); Xu et al. 2022 (FairytaleQA); Artetxe et al. 2020 (XQuAD)",
        claim="A small encoder that learned from 3,000 questions points at answers that share more words with people's than the nearest "
        "sentence does, and more than a language model of 135 million parameters writes that was shown two.",
        metrics=(
            Metric("f1", "F1", "share", lower_is_better=False),
            Metric("exact", "exact", "share", lower_is_better=False),
            Metric("words", "words of an answer", digits=1),
        ),
        files=FILES,
        shared=(
            ENCODER,
            Shared("smollm2", ("omnia import smollm2 --run-dir {run}",)),
            Shared("examples", ("python {table} examples {run} {tales} {other_tales} {articles}",)),
            Shared(
                "pointer",
                (
                    training(
                        "configs/tasks/spans.py",
                        "--start {encoder}/whole --steps 400 --batch-size 16 --evaluation.rows 64 --optimizer.learning-rate 2e-4",
                        "--data.files {examples}/questions.json",
                    ),
                ),
            ),
        ),
        rows=(
            *scored(
                "nearest", "the sentence that shares most with the question (TF-IDF)", "python {table} nearest {examples}/SET_test.jsonl"
            ),
            *scored(
                "written",
                "SmolLM2 as published, after two others of their kind",
                "omnia evaluate {smollm2} --task {table} --files {examples}/SET_test.jsonl --shots 2 --examples {examples}/SET_train.jsonl "
                "--predictions {run}/answers.jsonl --json",
                score,
            ),
            *scored(
                "pointed",
                "MiniLM, which learned to point",
                "omnia apply {pointer} --input {examples}/SET_test.jsonl --output {run}/answers.jsonl",
                score,
            ),
        ),
        claims=tuple(
            Better(f"pointed_{own}", f"{other}_{own}", metric=metric)
            for own in SETS
            for other, metric in (("nearest", "F1"), ("written", "F1"), ("written", "exact"))
        ),
        note="Questions on one section of a tale, with up to three answers of people each, which stand in the text in half of the cases; "
        "and questions on a paragraph, whose answers all do. Learned from: 3,300 of the former that do stand there, 232 tales, and "
        f"{LEARNED} articles; asked: {SETS['tales']} on 20 other tales and {SETS['articles']} on the other articles. 400 steps of 16 rows. "
        "Words are compared without case, punctuation and articles. Both texts are on the web, so SmolLM2 may have read them.",
    )


def of_tales(path: str) -> list[dict[str, Any]]:
    """Questions on one section."""
    return [
        {"source": tale["sections"][int(one["sections"]) - 1], "question": one["question"], "target": one["answers"]}
        for tale in rows_of(path)
        for one in tale["questions"]
        if one["sections"].isdigit()
    ]


def of_articles(path: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the first articles, and of the others."""
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, article in enumerate(json_files.parse(Path(path).read_bytes())["data"]):
        for paragraph in article["paragraphs"]:
            for one in paragraph["qas"]:
                answers = list(dict.fromkeys(answer["text"] for answer in one["answers"]))
                row = {"source": paragraph["context"], "question": one["question"], "target": answers}
                parts[number >= LEARNED].append(row)
    return parts


def pointed(row: dict[str, Any], number: int) -> dict[str, Any] | None:
    """A question in the form of SQuAD; None where no answer stands in the text as it is, but for case and a full stop."""
    context = row["source"]
    for answer in row["target"]:
        wanted = answer.strip().rstrip(".")
        place = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", context, re.IGNORECASE) if wanted else None
        if place:
            answers = [{"text": place[0], "answer_start": place.start()}]
            return {"context": context, "qas": [{"id": str(number), "question": row["question"], "answers": answers}]}
    return None


def write_examples(folder: str, tales: str, other_tales: str, articles: str) -> None:
    first, second = of_articles(articles)
    parts = {"tales": (of_tales(tales), of_tales(other_tales)), "articles": (first, second)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, (learned, tested) in parts.items():
        json_files.write_lines(Path(folder, f"{name}_train.jsonl"), learned)
        asked = spread(tested, SETS[name])
        json_files.write_lines(Path(folder, f"{name}_test.jsonl"), [row | {"context": row["source"]} for row in asked])
    rows = [row for learned, _ in parts.values() for row in learned]
    found = [one for number, row in enumerate(rows) if (one := pointed(row, number))]
    Path(folder, "questions.json").write_text(json.dumps({"data": [{"paragraphs": found}]}), encoding="utf-8")


def nearest(rows: list[dict[str, Any]]) -> list[str]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts, found = TfidfVectorizer(sublinear_tf=True).fit([row["source"] for row in rows]), []
    for row in rows:
        sentences = [one for one in SENTENCE.split(row["source"]) if one.strip()]
        found.append(sentences[int((counts.transform(sentences) @ counts.transform([row["question"]]).T).toarray()[:, 0].argmax())])
    return found


def scores(rows: list[dict[str, Any]], answers: list[str]) -> dict[str, float]:
    from train.tasks.metrics.spans import score_each

    exact, f1 = score_each([row["target"] for row in rows], answers)
    return {"f1": float(f1.mean()), "exact": float(exact.mean()), "words": sum(len(one.split()) for one in answers) / len(answers)}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["folder", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
        case ["examples", *rest]:
            write_examples(*rest)
        case ["nearest", path]:
            print(json.dumps(scores(rows_of(path), nearest(rows_of(path)))))
        case ["score", path, answered]:
            print(json.dumps(scores(rows_of(path), [line["answer"].partition("\n")[0].strip() for line in rows_of(answered)])))
