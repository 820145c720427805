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
from train.reproduce.files import ARTICLES, TALES, rows_of, spread
from train.reproduce.labelled import ENCODER
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

LEARNED = 29
"""Articles to learn from; of the rest, the questions are for testing."""
SETS = {"tales": 240, "articles": 206}
"""Questions of each set to answer, from all over its test part; of articles all that there are."""
STEPS = 160
SENTENCE = re.compile(r'(?<=[.!?])["”]?\s+')


def get_config(arg: str = "") -> Experiment:
    """The prompt of the language model, whose answer is one line."""
    prompt = "{source}\nQuestion: {question}\nAnswer:"
    return fine_tuning("answers", SequenceToSequence(written=32, prompt=prompt, measures=("exact",)))


def get_table() -> Table:
    def scored(name: str, what: str, *commands: str) -> tuple[Row, ...]:
        return tuple(Row(f"{name}_{own}", f"{own}: {what}", tuple(command.replace("SET", own) for command in commands)) for own in SETS)

    score = "python {table} score {examples}/SET_test.jsonl {run}/answers.jsonl"
    return Table(
        title="Answers from a text",
        paper="Rajpurkar et al. 2016 (SQuAD: exact match and F1); Xu et al. 2022 (FairytaleQA); Artetxe et al. 2020 (XQuAD)",
        claim="A small encoder that learned from questions on other texts points at answers that share more words with people's than the "
        "nearest sentence does, and more than a language model of 135 million parameters writes that is shown one solved question.",
        metrics=(
            Metric("f1", "F1", "share", lower_is_better=False),
            Metric("exact", "exact", "share", lower_is_better=False),
            Metric("words", "words of an answer", digits=1),
        ),
        files=(*TALES, ARTICLES),
        shared=(
            ENCODER,
            SMOLLM2,
            Shared("examples", ("python {table} examples {run} {tales} {other_tales} {articles}",)),
            Shared(
                "pointer",
                (
                    training(
                        "configs/tasks/spans.py",
                        f"--start {{encoder}}/whole --steps {STEPS} --schedule.warmup-steps {STEPS // 10} --evaluation.every {STEPS} "
                        "--evaluation.rows 64 --data.length 256 --optimizer.learning-rate 3e-4",
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
                "SmolLM2-135M-Instruct, after one solved question of the same set",
                "omnia evaluate {smollm2} --task {table} --files {examples}/SET_test.jsonl --shots 1 --examples {examples}/SET_train.jsonl "
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
        note=f"{SETS['tales']} questions on one section of a tale, of 20 tales, each with two to six answers of people, one of which "
        f"stands in the text in half of the cases; {SETS['articles']} on a paragraph of nine articles, whose answers all do. Learned from: "
        f"3,330 of the former that do stand in theirs, the first place that has them, of 232 other tales, and 764 of {LEARNED} other "
        f"articles, less one in ten that are held out; {STEPS} steps of 16 windows of 256 tokens, hardly one pass. SmolLM2 is asked "
        "without its chat template, and writes 32 tokens at most, of which the first line counts. Words are compared without case, "
        "punctuation, a, an and the; a whole sentence loses by its length. Tales and articles are on the web, so both models may have read "
        "them; MiniLM's authors trained it on questions of SQuAD, too, beside their paragraphs.",
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
                answer = one["answers"][0]
                row = {"source": paragraph["context"], "question": one["question"], "target": [answer["text"]]}
                parts[number >= LEARNED].append(row | {"start": answer["answer_start"]})
    return parts


def pointed(row: dict[str, Any], number: int) -> dict[str, Any] | None:
    """A question in the form of SQuAD, whose answer is where its article says, or else at the first place that has one but for case and a
    full stop; None where no answer stands in the text."""
    context = row["source"]
    places = [(answer, row["start"]) for answer in row["target"][:1]] if "start" in row else []
    for answer in () if places else row["target"]:
        wanted = answer.strip().rstrip(".")
        if wanted and (found := re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", context, re.IGNORECASE)):
            places.append((found[0], found.start()))
    if not places:
        return None
    text, start = places[0]
    answers = [{"text": text, "answer_start": start}]
    return {"context": context, "qas": [{"id": str(number), "question": row["question"], "answers": answers}]}


def write_examples(folder: str, tales: str, other_tales: str, articles: str) -> None:
    parts = {"tales": (of_tales(tales), of_tales(other_tales)), "articles": of_articles(articles)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, (learned, tested) in parts.items():
        # Shown to a language model, an answer stands behind a space, as it would write one.
        shown = [row | {"target": [f" {answer}" for answer in row["target"]]} for row in learned]
        json_files.write_lines(Path(folder, f"{name}_train.jsonl"), shown)
        asked = [row | {"context": row["source"]} for row in spread(tested, SETS[name])]
        assert len(asked) == SETS[name] and (name == "tales" or len(tested) == len(asked)), (name, len(tested))
        json_files.write_lines(Path(folder, f"{name}_test.jsonl"), asked)
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
        case ["examples", *rest]:
            write_examples(*rest)
        case ["nearest", path]:
            print(json.dumps(scores(rows_of(path), nearest(rows_of(path)))))
        case ["score", path, answered]:
            print(json.dumps(scores(rows_of(path), [line["answer"].partition("\n")[0].strip() for line in rows_of(answered)])))
