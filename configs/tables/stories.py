"""Descriptions of spells, monsters and magic items, written to sheets of facts: whether they keep the facts, and what they repeat.

omnia reproduce stories --data DIR
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.reproduce.counted import nearest
from train.reproduce.files import PublicFile, rows_of, spread
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table

FILES = tuple(
    PublicFile(f"sheets_{part}", f"applications/srd5e/{part}.jsonl", digest)
    for part, digest in (
        ("train", "f85c5f05fd4a6280a06b51ff201313f74b8bff6fa0e61c4900ae032ba921fcf2"),
        ("test", "56567486a38122f6856526046f23bf2d84db9d48f18ff273dc982cf21a8cce18"),
    )
)
"""The System Reference Document 5.1 (Open Gaming License 1.0a), as 5e-bits/5e-database has it."""
CLOSED = ("size", "type", "alignment", "school", "category", "rarity")
"""Facts of few values that are words."""
CONTROLS = ("kind", "name", "size", "type", "alignment", "level", "school", "classes", "range", "duration", "category", "rarity")
LONGEST, TESTS = 350, 120
"""Characters of a text, which ends with the last sentence that fits; and sheets to test on."""
WORDS = 12
"""A text copies if a longer part of it, in words, stands so in one that was learned from."""
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def get_table() -> Table:
    def written(count: int) -> tuple[str, str]:
        asked = f"python {{table}} asked {{sheets}} {{run}} {count} {{seed}}"
        return asked, "omnia apply {writer} --input {run}/asked.jsonl --output {run}/stories.jsonl"

    score = "python {table} score {sheets} {writer}"
    train = (
        f"omnia train configs/apps/story.py --run-dir {{run}} --seed {{seed}} --start {{smollm2}} "
        "--adapters lora --data.files {sheets}/train.jsonl --data.validation-files {sheets}/test.jsonl --data.target text "
        f"--data.controls {' '.join(CONTROLS)} --data.length 224 --data.written 112"
    )
    return Table(
        title="Descriptions to sheets of facts",
        paper="Keskar et al. 2019 (CTRL: texts by what stands before them); Li et al. 2016 (distinct-n); Zhu et al. 2018 (self-BLEU)",
        claim="A small language model describes a spell, a monster or a thing by its sheet, and of four texts the first one that a program "
        "finds no contradiction in names fewer wrong facts, as varied as before.",
        metrics=(
            Metric("kept", "texts that name no other value", "share", lower_is_better=False),
            Metric("told", "texts that name a value of their sheet", "share", lower_is_better=False),
            Metric("answered", "sheets answered", "share", lower_is_better=False),
            Metric("distinct", "different pairs of words, people's being 1", lower_is_better=False),
            Metric("self_bleu", "self-BLEU", digits=1),
            Metric("loops", "texts in a loop", "share"),
            Metric("copied", f"texts with more than {WORDS} words copied", "share"),
            Metric("rouge1", "ROUGE-1", lower_is_better=False),
            Metric("bits", "bits a character", "bits"),
        ),
        files=FILES,
        shared=(
            SMOLLM2,
            Shared("sheets", ("python {table} sheets {sheets_train} {sheets_test} {run}",)),
            Shared("writer", (train,)),
            Shared("singly", written(1)),
            Shared("fourfold", written(4)),
        ),
        rows=(
            Row("people", "what people wrote", ("python {table} people {sheets}",)),
            Row("nearest", "the text of the nearest sheet (TF-IDF)", ("python {table} nearest {sheets}",)),
            Row("drawn", "SmolLM2 with LoRA, one text as it is drawn", (f"{score} {{singly}}/stories.jsonl drawn",)),
            Row("one", "the same without sentences that contradict", (f"{score} {{singly}}/stories.jsonl text",)),
            Row("chosen", "the first of four that contradicts nothing", (f"{score} {{fourfold}}/stories.jsonl text",)),
            Row("likeliest", "the likeliest of four that contradicts nothing", (f"{score} {{fourfold}}/stories.jsonl likeliest",)),
        ),
        claims=(
            Better("chosen", 0.95),
            Better("chosen", "drawn"),
            Better("chosen", "nearest"),
            Better("chosen", 0.99, metric="sheets answered"),
            Better("chosen", 0.9, metric="different pairs of words, people's being 1"),
            Better("chosen", "likeliest", metric="different pairs of words, people's being 1"),
            Better("chosen", 0.01, metric="texts in a loop"),
            Better("chosen", 0.01, metric=f"texts with more than {WORDS} words copied"),
        ),
        note=f"666 sheets to learn from, 100 steps of 8 rows; {TESTS} others, from all over the test part. A text is the first "
        f"{LONGEST} characters of a description, to the end of a sentence; of a monster without one, of its abilities. Other values are "
        f"looked up as words, of {', '.join(CLOSED)}, and not by the application's check: so a giant elk that is called giant, which is "
        "also a type, counts as wrong, and people's texts show how many do. Different pairs: in as many words of each text as people's "
        "text has too, over those of people's. Drawn at a temperature of 0.8 with top-p 0.95. The texts have been on the web for years, "
        "so bits a character may be of what the model has read.",
    )


def beginning(text: str) -> str:
    """Its first sentences, as many as fit; of a first one that is too long, what fits."""
    found = ""
    for sentence in SENTENCE.split(" ".join(text.split())):
        if found and len(found) + 1 + len(sentence) > LONGEST:
            break
        found = f"{found} {sentence}".strip()
    return found[:LONGEST]


def examples(path: str) -> list[dict[str, Any]]:
    """Sheets with their texts. A monster that has no description is described by its abilities."""
    found = []
    for row in rows_of(path):
        abilities = " ".join(f"{name}. {text}" for name, text in row.get("abilities", ()))
        if text := beginning(row["description"] or abilities):
            found.append({name: row[name] for name in CONTROLS if name in row} | {"text": text})
    return found


def write_sheets(learned: str, tested: str, folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    json_files.write_lines(Path(folder, "train.jsonl"), examples(learned))
    json_files.write_lines(Path(folder, "test.jsonl"), spread(examples(tested), TESTS))


def scored(folder: str, texts: list[str]) -> dict[str, float]:
    """Of texts to the test sheets, in their order. Different pairs are those of people's texts over as many words of each."""
    from train.tasks.metrics.diversity import distinct, longest_copy, repeats, self_bleu
    from train.tasks.metrics.texts import text_scores
    from train.tasks.metrics.words import units

    learned, tested = rows_of(f"{folder}/train.jsonl"), rows_of(f"{folder}/test.jsonl")
    values = {name: sorted({row[name].casefold() for row in learned if name in row}) for name in CLOSED}

    def named(words: str, value: str) -> bool:
        return re.search(rf"\b{re.escape(value)}\b", words.casefold()) is not None

    def wrong(row: dict[str, Any], text: str) -> bool:
        own = {name: row[name].casefold() for name in CLOSED if name in row}
        return any(named(text, other) for name in own for other in values[name] if not named(own[name], other))

    people, written = ([units(text, "en") for text in own] for own in ([row["text"] for row in tested], texts))
    pairs = [(one[: len(other)], other[: len(one)]) for one, other in zip(written, people, strict=True)]
    known = [units(row["text"], "en") for row in learned]
    own = [[row[name].casefold() for name in CLOSED if name in row] for row in tested]
    each: dict[str, list[bool]] = {
        "kept": [not wrong(row, text) for row, text in zip(tested, texts, strict=True)],
        "told": [any(named(text, value) for value in facts) for facts, text in zip(own, texts, strict=True)],
        "answered": [bool(text.strip()) for text in texts],
        "loops": [repeats(words) for words in written],
        "copied": [longest_copy(words, known) > WORDS for words in written],
    }
    found = {name: sum(values) / len(values) for name, values in each.items()}
    return found | {
        "distinct": distinct([one for one, _ in pairs], 2) / distinct([other for _, other in pairs], 2),
        "self_bleu": self_bleu(written),
        "rouge1": text_scores([(row["text"],) for row in tested], texts, ("rouge",)).values["rouge1"],
    }


def bits(folder: str, run: str) -> float:
    """A character of the test texts, their ends included."""
    from data.tokenizer import load_tokenizer

    texts, tokenizer = [row["text"] for row in rows_of(f"{folder}/test.jsonl")], load_tokenizer(run)
    tokens = sum(len(tokenizer.encode_inside(text)) + 1 for text in texts)
    loss = json.loads(Path(run, "summary.json").read_text(encoding="utf-8"))["validation"]["loss"]
    return loss * tokens / sum(map(len, texts)) / math.log(2)


def told(line: dict[str, Any], which: str) -> str:
    """The text of a row: what the application gives, of several the likeliest that contradicts nothing, or the first as it was drawn."""
    candidates = line.get("candidates", [])
    if which == "likeliest":
        candidates = sorted(candidates, key=lambda one: (bool(one["contradictions"]), -one["score"]))
    return line.get("text", "") if which == "text" or not candidates else candidates[0]["text"]


def nearest_texts(folder: str) -> list[str]:
    learned, tested = rows_of(f"{folder}/train.jsonl"), rows_of(f"{folder}/test.jsonl")
    first, second = (["\n".join(f"{name}: {row[name]}" for name in CONTROLS if name in row) for row in own] for own in (learned, tested))
    return [learned[place]["text"] for place in nearest(first, second)]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sheets", learned, tested, folder]:
            write_sheets(learned, tested, folder)
        case ["asked", folder, run, count, seed]:
            Path(run).mkdir(parents=True, exist_ok=True)
            more = [{"n": int(count), "seed": 1000 * int(seed) + number} for number in range(TESTS)]
            tested = [row | own for row, own in zip(rows_of(f"{folder}/test.jsonl"), more, strict=True)]
            json_files.write_lines(Path(run, "asked.jsonl"), tested)
        case ["people", folder]:
            print(json.dumps(scored(folder, [row["text"] for row in rows_of(f"{folder}/test.jsonl")])))
        case ["nearest", folder]:
            print(json.dumps(scored(folder, nearest_texts(folder))))
        case ["score", folder, run, stories, which]:
            texts = [told(line, which) for line in rows_of(stories)]
            print(json.dumps(scored(folder, texts) | {"bits": bits(folder, run)}))
