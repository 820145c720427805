"""People, places and things that move in English novels: entities that are seldom names.

omnia reproduce novels --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.reproduce.tagged import MINILM, counted_f1
from train.tasks.recipe import fine_tuning
from train.tasks.tagging import Tagging

NOVELS = tuple(
    PublicFile(f"novels_{part}", f"applications/litbank/{part}.jsonl", digest)
    for part, digest in (
        ("train", "b43436452391443d63d671034c35dc3a64bc53e9387f2610f04f5af512c0d08b"),
        ("valid", "088839a0b96d9e541ccb3896018a12d686883c121a2265b3cd099e33a88c3057"),
        ("test", "c15103edea133ec19e016ac402338fda3cf7c016150525e7b3f24c0068970748"),
    )
)
"""Beginnings of novels (Bamman et al. 2019, LitBank, CC BY 4.0)."""


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("novels", Tagging(length=64), steps=250, rate=3e-4)


def get_table() -> Table:
    learned, tested = (f"{{sentences}}/{part}.jsonl" for part in ("train", "test"))
    train = training("{table}", "--start {minilm}", f"--data.files {learned} --data.validation-files {tested}")
    return Table(
        title="Entities in novels",
        paper="Bamman et al. 2019 (LitBank; nested entities, other splits)",
        claim="An encoder that read English before finds more of whom and what a novel speaks than windows of words counted.",
        metrics=(Metric("score", "F1 of entities", "share", lower_is_better=False),),
        files=NOVELS,
        shared=(MINILM, Shared("sentences", ("python {table} sentences {run} {novels_train} {novels_valid} {novels_test}",))),
        rows=(
            Row("counted", "windows of five words, logistic regression", (f"python {{table}} counted {learned} {tested}",)),
            Row("encoder", "six layers of MiniLM", (train,), read="validation/f1"),
        ),
        claims=(Better("encoder", "counted"), Better("encoder", 0.5)),
        note="2,000 words each of 86 novels to learn from, and of ten others to test on. Outermost entities alone: of those "
        "that lie within others, as in the lord chancellor's court, the longer one. Six kinds, of which people are two in three. Strict "
        "F1; a conditional random field had .465, measured apart. The encoder learns from 250 steps of 32 sentences.",
    )


def outermost(entities: list[list[Any]]) -> list[tuple[int, int, str]]:
    """Of places in a text, those that lie within no other; of two that cross, the earlier one."""
    found = list[tuple[int, int, str]]()
    for start, end, kind in sorted(entities, key=lambda one: (one[0], -one[1])):
        if not found or start >= found[-1][1]:
            found.append((start, end, kind))
    return found


def sentences_of(row: dict[str, Any]) -> list[dict[str, list[str]]]:
    """Of a text whose words are parted by spaces and whose sentences by lines: words and IOB2 tags."""
    found, place, entities = list[dict[str, list[str]]](), 0, outermost(row["entities"])
    for line in row["text"].split("\n"):
        tokens, tags = list[str](), list[str]()
        for token in line.split(" "):
            if token:
                inside = next((one for one in entities if one[0] <= place < one[1]), None)
                tokens.append(token)
                tags.append("O" if inside is None else f"{'B' if place == inside[0] else 'I'}-{inside[2]}")
            place += len(token) + 1
        if tokens:
            found.append({"tokens": tokens, "tags": tags})
    return found


def write_sentences(folder: str, train: str, valid: str, test: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, paths in (("train", (train, valid)), ("test", (test,))):
        rows = [sentence for path in paths for row in rows_of(path) for sentence in sentences_of(row)]
        json_files.write_lines(Path(folder, f"{name}.jsonl"), rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sentences", *rest]:
            write_sentences(*rest)
        case ["counted", train, test]:
            print(json.dumps({"score": counted_f1(train, test)}))
