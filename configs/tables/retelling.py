"""Tales, a game's next turn, and notes of a visit: what a small language model foresees, recognises and sums up.

omnia reproduce retelling --data DIR
"""

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.kinds import Data
from train.reproduce.counted import nearest
from train.reproduce.files import SESSIONS, TALES, PublicFile, rows_of, spread
from train.reproduce.likelihood import nats_of
from train.reproduce.resampling import drawn, drawn_mean
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.choice import MultipleChoice
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

FILES = (
    *TALES,
    *SESSIONS,
    PublicFile("visits", "applications/mts_dialog/train.jsonl", "0e22773a2adc902fe2e8213aaf4dc568119546d7d37862dbbaa5f2d0a4154617"),
    PublicFile("other_visits", "applications/mts_dialog/test.jsonl", "3f5a386686ab0bda515ee2bfc2301ce0816fd0fcef5b124bba4359c32bdddcf7"),
)
"""Tales, sessions of a role-play, and conversations of doctors and patients with notes (Ben Abacha et al. 2023, CC BY 4.0)."""
READ = 2000
"""Characters of a tale that count: its beginning."""
ORDERS = (6, 8)
"""Characters of the longest n-gram that is counted."""
TURNS, BEFORE, CHOICES = 120, 3, 10
"""Turns to be recognised, turns before each that are read, and turns among which it is."""
SHORTEST, LONGEST = 40, 160
"""Characters of a turn to choose; of those before, the last so many are read."""
NOTES = 120
"""Notes to write, from all over the test part."""
TASKS: dict[str, Data] = {
    "turns": MultipleChoice(length=512, prompt="{question}"),
    "notes": SequenceToSequence(length=320, written=72, prompt="{source}\nNote:", measures=("rouge",)),
}


def get_config(arg: str = "notes") -> Experiment:
    return fine_tuning(arg, TASKS[arg], steps=120, batch_size=8, rate=1e-3, weight_decay=0.0, dropout=0.0)


def get_table() -> Table:
    score = "python {table} notes {examples} {run}/answers.jsonl"
    files = "--data.files {examples}/notes_train.jsonl --data.validation-files {examples}/notes_test.jsonl --evaluation.rows 8"
    apply = "omnia apply {run} --input {examples}/notes_test.jsonl --output {run}/answers.jsonl"
    asked = "omnia evaluate {smollm2} --task {table}:notes --files {examples}/notes_test.jsonl --predictions {run}/answers.jsonl --json"
    recognised = tuple(
        f"omnia evaluate {{smollm2}} --task {{table}}:turns --files {{examples}}/{name}.jsonl --predictions {{run}}/{name}.jsonl --json"
        for name in ("turns", "alone")
    )
    return Table(
        title="Tales, turns and notes",
        paper="Xu et al. 2022 (FairytaleQA); Rameshkumar and Bailey 2020 (CRD3); Ben Abacha et al. 2023 (MTS-Dialog); "
        "Holtzman et al. 2021 (what is likely anyway taken off)",
        claim="A language model of 135 million parameters foresees tales better than counted characters do, recognises the next turn of a "
        "game, and learns to write notes of visits that are nearer to people's than the conversation itself.",
        metrics=(
            Metric("score", "of eight bits saved; right; ROUGE-1", "share", lower_is_better=False),
            Metric("bits", "bits a character", "bits"),
            Metric("rouge2", "ROUGE-2", lower_is_better=False),
            Metric("rougeL", "ROUGE-L", lower_is_better=False),
            Metric("distinct", "different notes", "share", lower_is_better=False),
        ),
        files=FILES,
        shared=(
            SMOLLM2,
            Shared("examples", ("python {table} examples {run} " + " ".join(f"{{{file.name}}}" for file in FILES),)),
            Shared("recognised", recognised),
        ),
        rows=(
            *(
                Row(
                    f"counted_{order}",
                    f"tales: {order} characters counted (Kneser-Ney)",
                    (f"python {{table}} counted {{examples}} {order}",),
                )
                for order in ORDERS
            ),
            Row("model_tales", "tales: SmolLM2 as published", ("python {table} tales {examples} {smollm2}",)),
            Row("near_turns", "the next turn: the nearest one (TF-IDF)", ("python {table} near {examples}",)),
            Row("model_turns", "the next turn: SmolLM2 as published, the likeliest", ("python {table} likeliest {recognised}",)),
            Row(
                "gained_turns",
                "the next turn: the one that gains most by those before, by SmolLM2",
                ("python {table} gained {recognised}",),
            ),
            Row("copied_notes", "notes: the whole conversation", ("python {table} copied {examples}",)),
            Row("nearest_notes", "notes: that of the nearest conversation (TF-IDF)", ("python {table} nearest {examples}",)),
            Row("asked_notes", "notes: SmolLM2 as published", (asked, score)),
            Row(
                "model_notes",
                "notes: SmolLM2 with LoRA",
                (training("{table}:notes", "--start {smollm2} --adapters lora", files), apply, score),
            ),
        ),
        claims=(
            Better("model_tales", f"counted_{ORDERS[-1]}"),
            Better("model_tales", 1.9, metric="bits a character"),
            Better("gained_turns", "model_turns"),
            Better("gained_turns", 0.25),
            Better("model_notes", "copied_notes"),
            Better("model_notes", "nearest_notes"),
            Better("model_notes", 0.28),
            Better("model_notes", 0.9, metric="different notes"),
        ),
        note=f"Tales: the first {READ:,} characters of each of 20, 232 whole ones to count in; they are of Project Gutenberg, which the "
        f"model has surely read. Turns: {TURNS} of three sessions, each of {SHORTEST} to {LONGEST} characters among {CHOICES - 1} others "
        f"of about its length, after {BEFORE} turns and the name of who speaks; one in ten is right by chance. What a turn gains is its "
        "likelihood over that after the name alone. Notes: 1,201 conversations, 120 steps of 8 rows with LoRA, "
        f"{NOTES} others from all over the test part; the end of a conversation that is longer than about 240 tokens is not read, nor what "
        "a note has beyond 72 tokens learned; the most likely token is written. Only LoRA learns, so the seeds of other rows are alike.",
    )


def tales(path: str) -> list[str]:
    return [" ".join(" ".join(row["sections"]).split()) for row in rows_of(path)]


def turns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The next turn among others of about its length from other parts of the sessions. Who speaks next is said."""
    rng = random.Random(0)
    each = [
        (part, place, speaker, text)
        for part, row in enumerate(rows)
        for place, (speaker, text) in enumerate(row["turns"])
        if SHORTEST <= len(text) <= LONGEST
    ]
    found = []
    for part, place, speaker, text in spread([one for one in each if one[1] >= BEFORE], TURNS):
        before = rows[part]["turns"][place - BEFORE : place]
        others = {own for number, _, _, own in each if number != part and own != text}
        near = sorted(others, key=lambda own: (abs(len(own) - len(text)), own))[: 10 * CHOICES]
        choices = rng.sample(near, CHOICES - 1)
        right = rng.randrange(CHOICES)
        choices.insert(right, text)
        said = "\n".join(f"{name}: {own[-LONGEST:]}" for name, own in before)
        found.append({"question": f"{said}\n{speaker}:", "choices": choices, "label": right})
    return found


def write_examples(folder: str, *paths: str) -> None:
    of = {file.name: path for file, path in zip(FILES, paths, strict=True)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    notes = {
        part: [{"source": row["dialogue"], "target": row["note"]} for row in rows_of(of[name])]
        for part, name in (("train", "visits"), ("test", "other_visits"))
    }
    asked = turns(rows_of(of["other_sessions"]))
    for name, rows in {
        "tales_train": [{"text": text} for text in tales(of["tales"])],
        "tales_test": [{"text": text[:READ]} for text in tales(of["other_tales"])],
        "turns_known": [{"text": text} for row in rows_of(of["sessions"]) for _, text in row["turns"]],
        "turns": asked,
        "alone": [row | {"question": row["question"].rpartition("\n")[2]} for row in asked],
        "notes_train": notes["train"],
        "notes_test": spread(notes["test"], NOTES),
    }.items():
        json_files.write_lines(Path(folder, f"{name}.jsonl"), rows)


def texts_of(path: str) -> list[str]:
    return [row["text"] for row in rows_of(path)]


def saved(nats_N: Any, texts: list[str]) -> dict[str, Any]:
    """nats_N: of each text."""
    import numpy as np

    bits_N, letters_N = np.asarray(nats_N) / math.log(2), np.array([len(text) for text in texts])
    bits = float(bits_N.sum() / letters_N.sum())
    draws = drawn(len(texts), lambda places: bits_N[places].sum() / letters_N[places].sum())
    return {"score": 1 - bits / 8, "bits": bits, "draws": {"score": [1 - one / 8 for one in draws], "bits": draws}}


def right_of(right_N: Any) -> dict[str, Any]:
    """right_N: of each question."""
    return {"score": float(sum(right_N) / len(right_N)), "draws": {"score": drawn_mean(right_N)}}


def counted(folder: str, order: int) -> dict[str, Any]:
    """Characters, and the end of a tale."""
    import numpy as np

    from train.evaluation.ngram import NGram

    learned, tested = texts_of(f"{folder}/tales_train.jsonl"), texts_of(f"{folder}/tales_test.jsonl")
    ids = {character: number for number, character in enumerate(sorted({*"".join([*learned, *tested])}), 1)}
    first, second = ([np.array([*(ids[character] for character in text), 0]) for text in own] for own in (learned, tested))
    model = NGram.fit(first, len(ids) + 1, order)
    return saved([model.nats_per_token([one]) * len(one) for one in second], tested)


def near(folder: str) -> list[float]:
    """Of equally near turns each one counts for its share."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(sublinear_tf=True).fit(texts_of(f"{folder}/turns_known.jsonl"))
    found = []
    for row in rows_of(f"{folder}/turns.jsonl"):
        likeness = (counts.transform(row["choices"]) @ counts.transform([row["question"]]).T).toarray()[:, 0]
        best = likeness >= likeness.max() - 1e-9
        found.append(best[row["label"]] / best.sum())
    return found


def recognised(folder: str, alone: bool) -> Any:
    """alone: whether a turn's likelihood counts over that of the turn without those before it (Holtzman et al. 2021)."""
    import numpy as np

    answered = rows_of(f"{folder}/turns.jsonl")
    likely, without = (
        np.log(np.array([row["probabilities"] for row in own]) + 1e-6) for own in (answered, rows_of(f"{folder}/alone.jsonl"))
    )
    chosen = (likely - without * alone).argmax(1)
    return chosen == np.array([row["label"] for row in answered])


def noted(rows: list[dict[str, Any]], notes: list[str]) -> dict[str, float]:
    from train.tasks.metrics.texts import text_scores

    found = text_scores([(row["target"],) for row in rows], notes, ("rouge",)).values
    return {"score": found["rouge1"], "rouge2": found["rouge2"], "rougeL": found["rougeL"], "distinct": len({*notes}) / len(notes)}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", *rest]:
            write_examples(*rest)
        case ["counted", folder, order]:
            print(json.dumps(counted(folder, int(order))))
        case ["tales", folder, model]:
            texts = texts_of(f"{folder}/tales_test.jsonl")
            print(json.dumps(saved(nats_of(texts, model), texts)))
        case ["near", folder]:
            print(json.dumps(right_of(near(folder))))
        case ["likeliest" | "gained" as what, folder]:
            print(json.dumps(right_of(recognised(folder, alone=what == "gained"))))
        case [what, folder, *answered]:
            tested = rows_of(f"{folder}/notes_test.jsonl")
            match what:
                case "copied":
                    notes = [row["source"] for row in tested]
                case "nearest":
                    learned = rows_of(f"{folder}/notes_train.jsonl")
                    places = nearest([row["source"] for row in learned], [row["source"] for row in tested])
                    notes = [learned[place]["target"] for place in places]
                case _:
                    notes = [line["answer"] for line in rows_of(answered[0])]
            print(json.dumps(noted(tested, notes)))
