"""Coherence of dialogues: are turns of other places and planted contradictions told from what people said?

omnia reproduce coherence --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.apps.dialogue.coherence import Coherence, turns_of
from train.apps.dialogue.planted import KINDS, plant_one
from train.reproduce.files import DIALOGUES, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

TESTS = 100
"""Dialogues that are spoiled, each in up to six ways, and judged turn by turn; of contradictions the end alone."""
STEPS = 400
BEFORE = Coherence().before
UNSEEN = "opposite"
"""The kind of contradiction that one row does not learn from."""


def get_table() -> Table:
    def judged(name: str, what: str, options: str = "") -> Row:
        return Row(
            name,
            what,
            (
                training(
                    "configs/apps/coherence.py",
                    options,
                    f"--steps {STEPS} --start {{encoder}}/whole --data.turns dialogue "
                    "--data.files {dialogues} --data.validation-files {other_dialogues} "
                    "--evaluation.rows 500",
                ),
                "omnia apply {run} --input {planted}/rows.jsonl --output {run}/judged.jsonl",
                "python {table} score {planted}/rows.jsonl {run}/judged.jsonl",
            ),
        )

    return Table(
        title="Coherence of dialogues",
        paper="Welleck et al. 2019 (contradictions in dialogues); Mehri and Eskenazi 2020 (whether a turn follows, as a measure)",
        claim="An encoder that learned from dialogues alone tells contradictions, also of a kind that it never saw, which nearness of "
        "meaning does not.",
        metrics=(
            Metric("contradiction", "AUROC: a contradiction", "share", lower_is_better=False),
            Metric("elsewhere", "AUROC: a turn of another dialogue", "share", lower_is_better=False),
            Metric("shuffled", "AUROC: turns in another order", "share", lower_is_better=False),
            Metric(UNSEEN, "AUROC: a contradiction by an opposite word", "share", lower_is_better=False),
        ),
        files=DIALOGUES,
        shared=(ENCODER, Shared("planted", ("python {table} plant {other_dialogues} {run}",))),
        rows=(
            Row("words", "words shared with the two turns before", ("python {table} words {planted}/rows.jsonl",)),
            Row("near", "MiniLM, cosine to the two turns before", ("python {table} near {planted}/rows.jsonl {encoder}/whole",)),
            judged("judge", "MiniLM, trained on 500 dialogues"),
            judged("unseen", "the same, without opposite words", "--data.planted " + " ".join(kind for kind in KINDS if kind != UNSEEN)),
        ),
        claims=(
            Better("judge", "near", metric="AUROC: a contradiction"),
            Better("unseen", "near", metric="AUROC: a contradiction by an opposite word"),
            Better("judge", "unseen", metric="AUROC: a contradiction by an opposite word"),
        ),
        note="DialogSum: 500 dialogues to learn from, 100 of 400 others to test on. In each of these a turn is replaced by one of another "
        "dialogue, turns are put in another order, or something that was said is said again, changed by a number, a day, a not or an "
        "opposite word; against the dialogue as it is, or with the same turn again unchanged. AUROC of the mean over turns, of "
        "contradictions of the last turn, the mean over kinds. "
        f"{STEPS} steps of 32.",
    )


def plant(path: str, folder: str) -> None:
    """Each test dialogue as it is, and spoiled in each way that it can be."""
    import numpy as np

    from data.records.rows import iter_records

    dialogues = [turns_of(record, "dialogue") for record in iter_records(path)][:TESTS]
    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for number, turns in enumerate(dialogues):
        texts = [f"{turn.speaker}: {turn.text}" for turn in turns]
        made = {"whole": texts, "shuffled": [texts[0], *[texts[1:][place] for place in rng.permutation(len(texts) - 1)]]}
        other = dialogues[(number + 1) % len(dialogues)]
        place = int(rng.integers(1, len(turns)))
        made["elsewhere"] = [*texts[:place], f"{turns[place].speaker}: {other[rng.integers(len(other))].text}", *texts[place + 1 :]]
        for kind in KINDS:
            near = turns[-BEFORE:-1]  # not what was said last, which nobody says again at once
            if found := plant_one([turn.text for turn in near], (kind,), np.random.default_rng(number)):
                said = near[found[0]]
                made[kind] = [*texts[-BEFORE:], f"{said.speaker}: {found[1]}"]
                made[f"again_{kind}"] = [*texts[-BEFORE:], f"{said.speaker}: {said.text}"]
        rows += [{"dialogue": "\n".join(lines), "id": f"{number} {what}"} for what, lines in made.items()]
    Path(folder).mkdir(parents=True, exist_ok=True)
    json_files.write_lines(Path(folder, "rows.jsonl"), rows)


def aurocs(scores: dict[str, tuple[float, float]]) -> dict[str, float]:
    """scores: of each row, by its id, how coherent it is, and how free of contradiction. A contradiction is held against the same turn said
    again unchanged."""
    from sklearn.metrics import roc_auc_score

    def auroc(good: str, bad: str, which: int) -> float:
        pairs = {number: None for number in (one.split()[0] for one in scores) if f"{number} {bad}" in scores}
        right = [scores[f"{number} {good}"][which] for number in pairs]
        wrong = [scores[f"{number} {bad}"][which] for number in pairs]
        return float(roc_auc_score([1] * len(right) + [0] * len(wrong), right + wrong))

    each = {kind: auroc(f"again_{kind}", kind, 1) for kind in KINDS}
    found = {what: auroc("whole", what, 0) for what in ("elsewhere", "shuffled")}
    return found | {"contradiction": sum(each.values()) / len(each), UNSEEN: each[UNSEEN]}


def score(rows: str, judged: str) -> dict[str, float]:
    return aurocs({line["id"]: (line["coherence"], 1 - line["turns"][-1]["contradicts"]) for line in rows_of(judged)})


def baseline(path: str, near: Any) -> dict[str, float]:
    """near: pairs of texts to how near they are."""
    rows, pairs, owners = rows_of(path), [], []
    for row in rows:
        turns = [line.partition(":")[2].strip() for line in row["dialogue"].split("\n")]
        pairs += [(" ".join(turns[max(place - 2, 0) : place]), turns[place]) for place in range(1, len(turns))]
        owners.append(len(turns) - 1)
    values, found, at = near(pairs), {}, 0
    for row, count in zip(rows, owners, strict=True):
        own = values[at : at + count]
        found[row["id"]] = (float(sum(own) / count), float(own[-1]))
        at += count
    return aurocs(found)


def words(pairs: list[tuple[str, str]]) -> list[float]:
    """Shares of the second text's words that the first has."""
    return [len({*a.lower().split()} & {*b.lower().split()}) / max(len({*b.lower().split()}), 1) for a, b in pairs]


def cosines(encoder: str) -> Any:
    def near(pairs: list[tuple[str, str]]) -> list[float]:
        from train.generation.embeddings import load_embedder

        embed = load_embedder(encoder)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        vectors = dict(zip(texts, embed(texts), strict=True))
        return [float(vectors[a] @ vectors[b]) for a, b in pairs]

    return near


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plant", path, folder]:
            plant(path, folder)
        case ["words", path]:
            print(json.dumps(baseline(path, words)))
        case ["near", path, encoder]:
            print(json.dumps(baseline(path, cosines(encoder))))
        case ["score", rows, judged]:
            print(json.dumps(score(rows, judged)))
