"""Repairs of short Java methods: what is to be taken out, and whether the method is then the one that people mended.

omnia reproduce repairs --data DIR
"""

import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.resampling import drawn_mean
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.recipe import fine_tuning
from train.tasks.spans import Spans

METHODS = tuple(
    PublicFile(f"methods_{part}", f"applications/codexglue_refine_small/{part}.jsonl", digest)
    for part, digest in (
        ("train", "eed77ab3d1402e5c68e1685c47ae2a519b8285e34f00ba71b4501c7371098530"),
        ("valid", "39bec395c59fe0be126f6c3f407d15e710974f04ac8e088ef2a96ce7185c1ab0"),
        ("test", "c74a245528a881fd8d53301d6d4f07033952e08e28cf60e0113ad537e0765bd5"),
    )
)
"""Methods before and after a repair, whose names are numbered (Tufano et al. 2019, of CodeXGLUE: Lu et al. 2021; C-UDA)."""
QUESTION = "What is to be taken out?"
STEPS = 350
PARTS = {"(": ")", "{": "}", "[": "]"}


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("repairs", Spans(length=192, longest=60), steps=STEPS, batch_size=16, rate=3e-4)


def get_table() -> Table:
    asked, answered = "{examples}/test.jsonl", "{run}/answers.jsonl"
    return Table(
        title="Repairs of Java methods",
        paper="Tufano et al. 2019; Lu et al. 2021 (CodeXGLUE, table 3; from 46,680 methods exact .100 by an LSTM, .147 by a Transformer "
        "that write them anew, .164 by CodeBERT)",
        claim="A small encoder that points at what is to be taken out repairs one method in twenty exactly as people did, and more than "
        "statements counted do.",
        metrics=(
            Metric("exact", "as people repaired it", "share", lower_is_better=False),
            Metric("deletions", "of those from which one piece was taken", "share", lower_is_better=False),
        ),
        files=METHODS,
        shared=(ENCODER, Shared("examples", ("python {table} examples {run} {methods_train} {methods_valid} {methods_test}",))),
        rows=(
            Row("copied", "as it is", (f"python {{table}} copied {asked}",)),
            Row("counted", "the likeliest statement taken out, logistic regression", ("python {table} counted {examples}",)),
            Row(
                "pointed",
                "two layers of MiniLM point at what is taken out",
                (
                    training("{table}", "--start {encoder}/two --data.files {examples}/questions.json"),
                    f"omnia apply {{run}} --input {asked} --output {answered}",
                    f"python {{table}} score {asked} {answered}",
                ),
            ),
        ),
        claims=(Better("pointed", "counted"), Better("pointed", 0.05)),
        note="2,068 methods of at most 50 words to test on, of 584 of which one piece was taken out; the others were changed otherwise, "
        "which is never tried. Learned from: the pieces of 1,727 methods, less one in ten that are held out. "
        f"{STEPS} steps of 16. Counted: words and pairs of words of each statement, or of several in a row, which seven in ten of the "
        "pieces are, and what stands before and behind. Copying has a BLEU of .785, and repairs none.",
    )


def taken(row: dict[str, Any]) -> tuple[int, int] | None:
    """The words that were taken out of a method, first and behind the last, where that was all."""
    before, after = row["buggy"].split(), row["fixed"].split()
    steps = [step for step in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes() if step[0] != "equal"]
    return (steps[0][1], steps[0][2]) if [step[0] for step in steps] == ["delete"] else None


def write_examples(folder: str, train: str, valid: str, test: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    found = []
    for number, row in enumerate([*rows_of(train), *rows_of(valid)]):
        if place := taken(row):
            words = row["buggy"].split()
            start = len("".join(f"{word} " for word in words[: place[0]]))
            answer = {"text": " ".join(words[slice(*place)]), "answer_start": start}
            question = {"id": str(number), "question": QUESTION, "answers": [answer]}
            found.append({"context": " ".join(words), "qas": [question]})
    Path(folder, "questions.json").write_text(json.dumps({"data": [{"paragraphs": found}]}), encoding="utf-8")
    for name, paths in (("learned", (train, valid)), ("test", (test,))):
        rows = [row for path in paths for row in rows_of(path)]
        asked = [{"context": " ".join(row["buggy"].split()), "question": QUESTION, "fixed": " ".join(row["fixed"].split())} for row in rows]
        json_files.write_lines(Path(folder, f"{name}.jsonl"), asked)


def scores(rows: list[dict[str, Any]], repaired: list[str]) -> dict[str, Any]:
    right = [" ".join(one.split()) == row["fixed"] for row, one in zip(rows, repaired, strict=True)]
    deleted = [taken({"buggy": row["context"], "fixed": row["fixed"]}) is not None for row in rows]
    return {
        "exact": sum(right) / len(right),
        "deletions": sum(one for one, own in zip(right, deleted, strict=True) if own) / sum(deleted),
        "draws": {"exact": drawn_mean(right)},
    }


def statements(words: list[str]) -> Iterator[tuple[int, int]]:
    """One statement, or several in a row, with all that they hold: behind a mark that ends one, to another, and balanced between."""
    for first in range(1, len(words)):
        if words[first - 1] not in (";", "{", "}"):
            continue
        opened = list[str]()
        for last in range(first, len(words)):
            word = words[last]
            if word in PARTS:
                opened.append(PARTS[word])
            elif word in PARTS.values() and (not opened or opened.pop() != word):
                break
            if not opened and word in (";", "}"):
                yield first, last + 1


def counted(folder: str) -> dict[str, Any]:
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import LogisticRegression

    def features(words: list[str], first: int, last: int) -> list[str]:
        own = words[first:last]
        found = [*own, *(f"{one} {other}" for one, other in zip(own, own[1:], strict=False)), f"{min(len(own), 30)} words"]
        return [*found, f"before {words[first - 1]}", f"behind {words[last] if last < len(words) else ''}", f"begins {own[0]}"]

    hashed = FeatureHasher(2**18, input_type="string", alternate_sign=False)
    given, labels = list[list[str]](), list[bool]()
    for row in rows_of(f"{folder}/learned.jsonl"):
        words = row["context"].split()
        every = [*statements(words)]
        right = [" ".join(words[:first] + words[last:]) == row["fixed"] for first, last in every]
        if any(right):
            given += [features(words, *one) for one in every]
            labels += right
    model = LogisticRegression(C=1, max_iter=300).fit(hashed.transform(given), labels)
    rows, repaired = rows_of(f"{folder}/test.jsonl"), []
    for row in rows:
        words = row["context"].split()
        if every := [*statements(words)]:
            likely = model.decision_function(hashed.transform(features(words, *one) for one in every))
            first, last = every[int(likely.argmax())]
            words = words[:first] + words[last:]
        repaired.append(" ".join(words))
    return scores(rows, repaired)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", *rest]:
            write_examples(*rest)
        case ["copied", path]:
            print(json.dumps(scores(rows_of(path), [row["context"] for row in rows_of(path)])))
        case ["counted", folder]:
            print(json.dumps(counted(folder)))
        case ["score", path, answered]:
            rows = rows_of(path)
            places = [(line.get("start", 0), line.get("end", 0)) for line in rows_of(answered)]
            texts = [row["context"][:start] + row["context"][end:] for row, (start, end) in zip(rows, places, strict=True)]
            print(json.dumps(scores(rows, texts)))
