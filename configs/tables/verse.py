"""Chinese verse: how well characters are foreseen, and whether poems keep the form of their tune, as the model likes and under the form.

omnia reproduce verse --data DIR
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from train.apps.writing.tunes import CHARACTER, tunes
from train.apps.writing.verse import Verse
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table
from train.tasks.metrics.diversity import distinct, self_bleu

FILES = (
    PublicFile("poems", "applications/zh_poems/train.jsonl", "4c1ddd27311a1e61743e6892ff71f34be5fefc848d45f92d96b17677c1d04f64"),
    PublicFile("other_poems", "applications/zh_poems/test.jsonl", "88b4e29c789d95924171fb521474b51553a61acce65bfc526e0f74bbf8ae5d25"),
)
"""Verse of the Tang and the Song and older, of the collection chinese-poetry (MIT)."""
LONGEST = Verse().written
TUNES, EACH = 12, 8
"""The commonest tunes, and poems that are written to each."""


def get_table() -> Table:
    def written(name: str, what: str) -> Row:
        rows = f"{{texts}}/{name}.jsonl"
        apply = f"omnia apply {{poet}} --input {rows} --output {{run}}/poems.jsonl"
        return Row(name, what, (apply, "python {table} score {poems} {poet} {texts}/form.jsonl {run}/poems.jsonl"))

    train = (
        "omnia train configs/apps/verse.py --run-dir {run} --seed {seed} --data.files {poems} --data.validation-files {other_poems} "
        "--data.tokenizer {texts}/shards"
    )
    prepare = (
        "python {table} texts {poems} {other_poems} {run}",
        "omnia prepare text --input {run}/texts.txt --output {run}/shards --tokenizer char",
    )
    return Table(
        title="Chinese verse in its forms",
        paper="Zhang and Lapata 2014 (tones and rhymes of what is written); Kneser and Ney 1995 (the baseline)",
        claim="A small decoder foresees verse better than counting four characters does; left to itself it seldom keeps the form of a "
        "tune, and under the form always.",
        metrics=(
            Metric("bits", "bits a character or mark", "bits"),
            Metric("shape", "poems in their tune's shape", "share", lower_is_better=False),
            Metric("tones", "tones kept", "share", lower_is_better=False),
            Metric("rhymes", "rhymes kept", "share", lower_is_better=False),
            Metric("distinct", "different pairs of characters", "share", lower_is_better=False),
            Metric("self_bleu", "BLEU against the other poems", "BLEU", digits=1),
        ),
        files=FILES,
        shared=(Shared("texts", prepare), Shared("poet", (train,))),
        rows=(
            Row("counted", "four characters counted (Kneser-Ney)", ("python {table} counted {poems} {other_poems} {texts} {seed}",)),
            written("free", "the decoder, as it likes"),
            written("form", "the decoder, under the form"),
        ),
        claims=(
            Better("free", "counted"),
            Better("form", 0.8, metric="poems in their tune's shape"),
            Better("form", "free", metric="tones kept"),
            Better("form", "free", metric="rhymes kept"),
        ),
        note=f"2,884 poems to learn from, 365 others for bits, of the first {LONGEST} characters and marks of each, which the decoder "
        f"reads behind tune and title; {TUNES} tunes with {EACH} poems each, drawn at temperature 1 with top-p 0.95 (counted: from the "
        "whole distribution). Tones and rhymes as they are read today; a poem of another shape keeps none. That poems under the form keep "
        "it is how they are drawn, and checks the program. All characters of both parts are known. 400 steps of 48, two layers of 192.",
    )


def texts(learned: str, tested: str, folder: str) -> None:
    """What a tokenizer has to know, and what is asked for."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = [*rows_of(learned), *rows_of(tested)]
    lines = [line for row in rows for line in (row["form"] or "", row["title"] or "", *row["lines"])]
    Path(folder, "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = tunes([(row["form"] or "", "\n".join(row["lines"])) for row in rows_of(learned)])
    common = [name for name, _ in Counter(row["form"] for row in rows_of(learned)).most_common() if name in known][:TUNES]
    for name, free in (("free", True), ("form", False)):
        asked = [{"form": tune, "title": tune, "n": EACH, "free": free, "seed": number} for number, tune in enumerate(common)]
        Path(folder, f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")


def kept(poems: list[tuple[str, str]], learned: str) -> dict[str, float]:
    """poems: tune and text."""
    known = tunes([(row["form"] or "", "\n".join(row["lines"])) for row in rows_of(learned)])
    found = [known[name].obeyed(text) for name, text in poems]
    measures = {name: sum(float(one[name]) for one in found) / len(found) for name in ("shape", "tones", "rhymes")}
    bare = [CHARACTER.findall(text) for _, text in poems]
    return measures | {"distinct": distinct(bare, 2), "self_bleu": self_bleu(bare)}


def score(learned: str, poet: str, asked: str, written: str) -> dict[str, float]:
    names = [row["form"] for row in rows_of(asked)]
    poems = [(name, "\n".join(one["lines"])) for name, line in zip(names, rows_of(written), strict=True) for one in line["poems"]]
    loss = json.loads(Path(poet, "summary.json").read_text())["validation"]["loss"]
    return {"bits": loss / math.log(2)} | kept(poems, learned)


def counted(learned: str, tested: str, folder: str, seed: str) -> dict[str, float]:
    import numpy as np

    from data.tokenizer import load_tokenizer
    from train.evaluation.ngram import NGram

    tokenizer = load_tokenizer(f"{folder}/shards")
    end = tokenizer.specials["document_end"]

    def documents(path: str) -> list[Any]:
        return [np.append(tokenizer.encode("\n".join(row["lines"]).strip()), end)[:LONGEST] for row in rows_of(path)]

    model = NGram.fit(documents(learned), end + 1, 4)
    rng = np.random.default_rng(int(seed))
    asked = [row["form"] for row in rows_of(f"{folder}/form.jsonl") for _ in range(EACH)]
    poems = [(name, tokenizer.decode(model.sample(rng, [], LONGEST, end))) for name in asked]
    return {"bits": model.nats_per_token(documents(tested)) / math.log(2)} | kept(poems, learned)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["texts", learned, tested, folder]:
            texts(learned, tested, folder)
        case ["score", learned, poet, asked, written]:
            print(json.dumps(score(learned, poet, asked, written)))
        case ["counted", learned, tested, folder, seed]:
            print(json.dumps(counted(learned, tested, folder, seed)))
