"""Slots in what people say to assistants and to banks, by a pretrained encoder.

omnia reproduce slots --data DIR
"""

import json
import sys
from pathlib import Path

from data.files import json_files
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.reproduce.tagged import MINILM, counted_f1
from train.tasks.recipe import fine_tuning
from train.tasks.tagging import Tagging

SETS = {
    "assistant": (
        "said to an assistant, 39 slots (Coucke et al. 2018, SNIPS, CC0)",
        "snips",
        "2ed69a89892be05ab173e93499d4d5370a9692f05c79439654fb1224e17aab2a",
        "3edc54f2c572ae64e29690a3ee5dfb168b3b2c83a1d042fef33172546c37b441",
    ),
    "bank": (
        "said to a bank (Peskov et al. 2019, MultiDoGO, CDLA-Permissive)",
        "multidogo_finance",
        "416d2a2a09370ce88cedabea7258ec1fa4814e327528a6bcc1b42c4b70663c5e",
        "38ca4c6922bf7cd66dba6df20f802bd0eb2292d48f3a9e89c197dab432ce78db",
    ),
}


def get_config(arg: str = "assistant") -> Experiment:
    return fine_tuning(f"slots, {arg}", Tagging(length=64), steps=400, rate=3e-4)


def get_table() -> Table:
    files = tuple(
        PublicFile(f"{name}_{part}", f"applications/{folder}/{part}.jsonl", digest)
        for name, (_, folder, *digests) in SETS.items()
        for part, digest in zip(("train", "test"), digests, strict=True)
    )
    rows = []
    for name, (what, *_) in SETS.items():
        learned, tested = (f"{{sentences}}/{name}_{part}.jsonl" for part in ("train", "test"))
        train = training(f"{{table}}:{name}", "--start {minilm}", f"--data.files {learned} --data.validation-files {tested}")
        rows += [
            Row(
                f"counted_{name}", f"{what}: windows of five words, logistic regression", (f"python {{table}} counted {learned} {tested}",)
            ),
            Row(f"encoder_{name}", f"{what}: six layers of MiniLM", (train,), read="validation/f1"),
        ]
    return Table(
        title="Slots",
        paper="Coucke et al. 2018 (SNIPS); Peskov et al. 2019 (MultiDoGO)",
        claim="An encoder that read English before finds more slots than windows of words counted.",
        metrics=(Metric("score", "F1 of slots", "share", lower_is_better=False),),
        files=files,
        shared=(MINILM, Shared("sentences", ("python {table} sentences {run} " + " ".join(f"{{{file.name}}}" for file in files),))),
        rows=tuple(rows),
        claims=(
            *(Better(f"encoder_{name}", f"counted_{name}") for name in SETS),
            Better("encoder_assistant", 0.93),
            Better("encoder_bank", 0.77),
        ),
        note="13,084 and 15,203 sentences to learn from, of which the encoder reads 12,800; 594 and 3,608 to test on. Strict F1; a "
        "conditional random field that learned from 8,000 of the sentences had .911 and .752, measured apart. The "
        "bank's words have slots without a mark of where one begins: words of the same slot beside one another count as one. Half of its "
        "sentences to test on are also among those to learn from (no, thank you).",
    )


def marked(tags: list[str]) -> list[str]:
    """As IOB2, where a run of the same tag is one slot."""
    return [tag if tag == "O" else f"{'I' if before == tag else 'B'}-{tag}" for before, tag in zip(["O", *tags], tags, strict=False)]


def write_sentences(folder: str, *paths: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = [f"{name}_{part}" for name in SETS for part in ("train", "test")]
    for name, path in zip(names, paths, strict=True):
        rows = [{"tokens": row["tokens"], "tags": row["tags"]} for row in rows_of(path)]
        if name.startswith("bank"):
            rows = [row | {"tags": marked(row["tags"])} for row in rows]
        json_files.write_lines(Path(folder, f"{name}.jsonl"), rows)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sentences", folder, *paths]:
            write_sentences(folder, *paths)
        case ["counted", train, test]:
            print(json.dumps({"score": counted_f1(train, test)}))
