"""Grading: how near scores of short answers are to those of teachers, beside counting words.

omnia reproduce grading --data DIR
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from train.apps.education.marking import overlap, plain, ridge
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.resampling import drawn
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.metrics.regression import quadratic_kappa

FILES = tuple(
    PublicFile(f"answers_{part}", f"applications/mohler_asag/{name}.jsonl", digest)
    for part, name, digest in (
        ("train", "train", "0f471b4822aa6d43b2ef0eafedf02ca4957fb53a8a5d8537036ea347accd6d37"),
        ("valid", "valid", "80be8a01cb0bc68dcbce5b0c3b59c13fd5f95cf76a1091602a610ef9e46ebee6"),
        ("known", "test_unseen_answers", "c44fb24ab5f28c67a037f81699fd39e49dc28209df5f4001a3ce72c5e62c764e"),
        ("new", "test_unseen_questions", "491975288ac2358bbcb5c7ca64e5b30689fde9fa93b5b802325ae518987d4ca7"),
    )
)
"""Short answers of students of computer science, each with the scores of two graders (Mohler et al. 2011)."""
SYNONYMS = dict(
    pair.split("=")
    for pair in (
        "use=utilize uses=utilizes used=utilized big=large start=begin starts=begins end=finish create=make creates=makes find=locate "
        "finds=locates variable=identifier element=item elements=items first=initial because=since only=just data=information "
        "error=mistake errors=mistakes size=length stores=keeps store=keep object=instance value=number called=invoked code=source "
        "remove=delete removes=deletes add=insert adds=inserts whole=entire different=distinct same=identical way=manner allows=lets "
        "need=require needs=requires get=obtain gets=obtains list=sequence function=method functions=methods program=software"
    ).split()
)
MOVED = 0.25
"""A change of a score that a student would see."""


def get_table() -> Table:
    files = "--data.files {answers_train} --data.validation-files {answers_valid} --data.encoder {encoder}/whole"
    tested = "{answers_known} {answers_new}"
    applied = "omnia apply {run} --input {run}/changed_%s.jsonl --output {run}/%s.jsonl"
    return Table(
        title="Grading short answers",
        paper="Mohler et al. 2011; Sultan et al. 2016 (r 0.592, RMSE 0.887, other splits)",
        claim="A small encoder, words and graded neighbours together are nearer to teachers' scores than words counted, on known questions "
        "and on new ones.",
        metrics=(
            Metric("r", "r, known questions", "correlation", lower_is_better=False),
            Metric("rmse", "RMSE, known questions", "points of 5"),
            Metric("kappa", "quadratic kappa, known questions", "mean over questions", lower_is_better=False),
            Metric("r_new", "r, new questions", "correlation", lower_is_better=False),
            Metric("rmse_new", "RMSE, new questions", "points of 5"),
            Metric("covered", "scores within intervals of 0.9", "share", lower_is_better=False),
            Metric("moved", f"moved by more than {MOVED} by one synonym", "share"),
        ),
        files=FILES,
        shared=(ENCODER,),
        rows=(
            Row("counted", "ridge on words in common", (f"python {{table}} ridge {{answers_train}} {tested}",)),
            Row("vectors", "and on nearness of vectors", (f"python {{table}} ridge {{answers_train}} {tested} {{encoder}}/whole",)),
            Row(
                "grading",
                "MiniLM fine-tuned, with both and graded neighbours",
                (
                    training("configs/apps/grading.py", "--start {encoder}/whole", files),
                    f"python {{table}} rows {tested} {{run}}",
                    *(applied % (name, name) for name in ("known", "new", "other")),
                    f"python {{table}} scored {tested} {{run}}",
                ),
            ),
            Row("graders", "one grader, by the other", (f"python {{table}} graders {tested}",)),
        ),
        claims=(
            Better("grading", "counted"),
            Better("grading", "counted", metric="RMSE, known questions"),
            Better("grading", "counted", metric="r, new questions"),
            Better("grading", "vectors"),
        ),
        note="1,238 answers to 61 questions to learn from, 169 held out, 310 to the same questions and 361 to 13 others to test on. "
        "160 steps of 24. Kappa is of whole points, of questions with at least five answers.",
    )


# ------------------------------------------------------------------------------------------------------------------ measures


def measures(known: list[dict], known_N: np.ndarray, new: list[dict], new_N: np.ndarray) -> dict[str, Any]:
    found, draws = dict[str, Any](), {}
    for name, rows, given in (("", known, known_N), ("_new", new, new_N)):
        pairs_2N = np.array([given, [row["score"] for row in rows]])
        for what, score in (
            ("r", lambda one_2N: np.corrcoef(one_2N)[0, 1]),
            ("rmse", lambda one_2N: np.sqrt(((one_2N[0] - one_2N[1]) ** 2).mean())),
        ):
            found[f"{what}{name}"] = float(score(pairs_2N))
            draws[f"{what}{name}"] = drawn(len(rows), lambda places, score=score, pairs_2N=pairs_2N: score(pairs_2N[:, places]))
    kappas = []
    for question in {row["question"] for row in known}:
        mine = [place for place, row in enumerate(known) if row["question"] == question]
        if len(mine) >= 5:
            grades = (np.floor(np.array(one) + 0.5) for one in (known_N[mine], [known[place]["score"] for place in mine]))
            kappas.append(quadratic_kappa(*grades))
    return found | {"kappa": float(np.nanmean(kappas)), "draws": draws}


def by_ridge(learned: str, known: str, new: str, encoder: str = "") -> dict[str, float]:
    """A baseline. encoder: run of a text encoder, whose vectors of the three texts are compared beside their words."""
    embedder: Any = None
    if encoder:
        from train.generation.embeddings import load_embedder

        embedder = load_embedder(encoder)

    def features(rows: list[dict[str, Any]]) -> np.ndarray:
        texts = [tuple(plain(row[name]) for name in ("question", "reference", "answer")) for row in rows]
        words = np.array([overlap(*three) for three in texts])
        if embedder is None:
            return words
        asked, wanted, given = (embedder(list(column)) for column in zip(*texts, strict=True))
        near = [(one * other).sum(-1) for one, other in ((wanted, given), (asked, given), (asked, wanted))]
        return np.concatenate([words, np.stack(near, -1)], -1)

    rows = rows_of(learned)
    line = ridge(features(rows), [row["score"] for row in rows])
    tested = [rows_of(path) for path in (known, new)]
    given = [np.clip(line(features(part)), 0, 5) for part in tested]
    return measures(tested[0], given[0], tested[1], given[1])


def with_synonym(text: str) -> str:
    """One word replaced, the first that has a synonym."""
    found = re.search(rf"\b({'|'.join(SYNONYMS)})\b", text)
    return text[: found.start()] + SYNONYMS[found[0]] + text[found.end() :] if found else text


def write_rows(known: str, new: str, folder: str) -> dict[str, float]:
    """The rows to be scored, without scores, and the known ones with one synonym."""
    bare = {
        name: [{key: row[key] for key in ("question", "reference", "answer")} for row in rows_of(path)]
        for name, path in (("known", known), ("new", new))
    }
    bare["other"] = [row | {"answer": with_synonym(row["answer"])} for row in bare["known"]]
    for name, rows in bare.items():
        Path(f"{folder}/changed_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {}


def scored(known: str, new: str, folder: str) -> dict[str, float]:
    tested, lines = [rows_of(path) for path in (known, new)], [rows_of(f"{folder}/{name}.jsonl") for name in ("known", "new", "other")]
    score = [np.array([line["score"] for line in part]) for part in lines]
    within = [
        line["low"] <= row["score"] <= line["high"]
        for rows, part in zip(tested, lines, strict=False)
        for row, line in zip(rows, part, strict=True)
    ]
    changed = np.array([with_synonym(row["answer"]) != row["answer"] for row in tested[0]])
    moved = float((np.abs(score[2] - score[0])[changed] > MOVED).mean())
    return measures(tested[0], score[0], tested[1], score[1]) | {"covered": float(np.mean(within)), "moved": moved}


def graders(known: str, new: str) -> dict[str, float]:
    """How near the second grader is to the first."""
    tested = [[row | {"score": row["grader_1"]} for row in rows_of(path)] for path in (known, new)]
    given = [np.array([row["grader_2"] for row in part]) for part in tested]
    return measures(tested[0], given[0], tested[1], given[1])


if __name__ == "__main__":
    what = {"ridge": by_ridge, "rows": write_rows, "scored": scored, "graders": graders}[sys.argv[1]]
    print(json.dumps(what(*sys.argv[2:])))
