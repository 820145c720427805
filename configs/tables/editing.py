"""Sentences of learners of English, corrected: how near to what people made of them, and how often right ones are changed.

omnia reproduce editing --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

from train.apps.editing.editing import Editing
from train.apps.editing.edits import WORD, Comparison
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table
from train.tasks.metrics.corrections import edit_scores, gleu

FILES = tuple(
    PublicFile(f"learners_{part}", f"applications/jfleg/{part}.jsonl", digest)
    for part, digest in (
        ("train", "4bda60dc5605f0a13de90f3c958adad27cfeec918dd39cfa7db2dcd7325a8dc3"),
        ("valid", "53ec40001a0bc01712f9c66af86b09ba2711029a99d413c4d94735440074c653"),
        ("test", "c39c1a3d6d6ebe84ee38c831bd6691742308c50ad19227e13880609a1aadd87c"),
    )
)
"""JFLEG (Napoles et al. 2017), CC BY-NC-SA 4.0: sentences of learners, each with four corrections."""
RIGHT = Editing().spoiled
"""Share of right sentences that may be changed."""


def get_table() -> Table:
    def edited(name: str, what: str) -> Row:
        apply = f"omnia apply {{editor}} --input {{sentences}}/{name}.jsonl --output {{run}}/edited.jsonl"
        return Row(name, what, (apply, f"python {{table}} score {{sentences}}/{name}.jsonl {{run}}/edited.jsonl"))

    train = (
        "omnia train configs/apps/editing.py --run-dir {run} --seed {seed} --start {smollm2} --adapters lora "
        "--data.target references "
        "--data.files {learners_train} --data.validation-files {learners_valid}"
    )
    return Table(
        title="Sentences of learners, corrected",
        paper="Napoles et al. 2017, table 3 (GLEU on the whole test part: 40.5 as they are; published since 46.0 to 65.0)",
        claim="A small language model, taught by 599 sentences, corrects more than a spelling checker does, also where it may change one "
        "right sentence in twenty.",
        metrics=(
            Metric("gleu", "GLEU", lower_is_better=False, digits=2),
            Metric("spoiled", "right sentences changed", "share"),
            Metric("f0.5", "F0.5 of edits", lower_is_better=False),
        ),
        files=FILES,
        shared=(
            SMOLLM2,
            Shared("sentences", ("python {table} sentences {learners_test} {run}",)),
            Shared("editor", (train,)),
        ),
        rows=(
            Row("source", "as they are", ("python {table} column {learners_test} source",)),
            Row("spelling", "a spelling checker's first proposal (theirs)", ("python {table} column {learners_test} spellchecked",)),
            edited("sure", "SmolLM2 with LoRA, edits that are sure"),
            edited("all", "SmolLM2 with LoRA, all edits"),
        ),
        claims=(
            Better("all", "spelling"),
            Better("sure", "spelling"),
            Better("sure", "spelling", metric="right sentences changed"),
            Better("sure", 0.06, metric="right sentences changed"),
        ),
        note="599 sentences with four corrections each, 180 steps of 16, a quarter of them beside right sentences; 155 on which it is "
        f"learned how sure an edit must be so that {RIGHT:.0%} of right sentences are changed; 638 to test on. Right sentences: those that "
        "one of the four people left as they are. The spelling checker is Enchant, by the authors of the set; the first letters of "
        "sentences, which it made small, are as they were.",
    )


def sentences(path: str, folder: str) -> None:
    """The test sentences, to be edited with usual strength, and with all edits."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, more in (("sure", {}), ("all", {"strength": 1})):
        rows = [{"source": row["source"], "references": row["references"]} | more for row in rows_of(path)]
        Path(folder, f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def score(rows: list[dict[str, Any]], texts: list[str]) -> dict[str, float]:
    found = gleu([row["source"] for row in rows], [row["references"] for row in rows], texts)
    changed = [text != row["source"] for row, text in zip(rows, texts, strict=True) if row["source"] in row["references"]]
    sources = [row["source"] for row in rows]
    true = [[edits_of(source, one) for one in row["references"]] for source, row in zip(sources, rows, strict=True)]
    edits = edit_scores([edits_of(source, text) for source, text in zip(sources, texts, strict=True)], true).values
    return found.values | {"spoiled": sum(changed) / len(changed), "f0.5": edits["edit_f0.5"]}


def edits_of(text: str, other: str) -> set[tuple[int, int, str]]:
    return {(edit.start, edit.end, edit.new) for edit in Comparison(text, other, WORD).edits}


def capital(text: str, source: str) -> str:
    """With the first letter of its source, which their spelling checker made small."""
    return source[:1] + text[1:] if text[:1].lower() == source[:1].lower() else text


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sentences", path, folder]:
            sentences(path, folder)
        case ["score", asked, edited]:
            print(json.dumps(score(rows_of(asked), [line["text"] for line in rows_of(edited)])))
        case ["column", path, name]:
            print(json.dumps(score(rows_of(path), [capital(row[name], row["source"]) for row in rows_of(path)])))
