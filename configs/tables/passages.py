"""Passages for questions in other words: found by words, and by words and meaning together.

omnia reproduce passages --data DIR
"""

import json
import sys
from pathlib import Path

from train.apps.service.customer_service import CustomerService, Passages, read_passages
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table

FILES = (
    PublicFile("faq", "applications/covid_faq/faq.jsonl", "0118dab7579512af5ee766249feb6766690cada28084acb17d5c7f7e09377b52"),
    PublicFile("asked", "applications/covid_faq/queries_test.jsonl", "a65530042bd0c480f36f247a246ca5a97b9439c00f67cb35be05e7507472d57b"),
    PublicFile("strange", "applications/banking77/test.jsonl", "ff631cfed84d5547a9cb7d2f59f215a4c04ad6adcfced118f3ddb0cc23edc6b1"),
)
"""Questions about an illness with their answers and other wordings of them (COVID-QA, 2020, Apache-2.0), and questions to a bank."""


def get_table() -> Table:
    files = "{faq} {asked} {strange}"
    return Table(
        title="Passages for questions",
        paper="Robertson and Zaragoza 2009 (BM25); Reimers and Gurevych 2019 (vectors of sentences)",
        claim="Words and vectors together find the answer to a question in other words more often than words alone.",
        metrics=(
            Metric("first", "right passage first", "share", lower_is_better=False),
            Metric("three", "right passage among three", "share", lower_is_better=False),
            Metric("strange", "questions of another kind answered", "share"),
        ),
        files=FILES,
        shared=(Shared("encoder", ("omnia import minilm --run-dir {run}",)),),
        rows=(
            Row("words", "BM25 of questions", (f"python {{table}} {files}",)),
            Row("both", "BM25 and MiniLM", (f"python {{table}} {files} {{encoder}}",)),
        ),
        claims=(Better("both", 0.6), Better("both", 0.78, metric="right passage among three")),
        note=f"213 passages, 137 questions; a passage answers from a score of {CustomerService().found} on. Nothing is learned, so "
        "seeds are alike.",
    )


def found(faq: str, asked: str, strange: str, encoder: str = "") -> dict[str, float]:
    import numpy as np

    embedder = None
    if encoder:
        from train.generation.embeddings import load_embedder
        from train.runs.directory import open_run

        embedder = load_embedder(open_run(encoder))
    passages = Passages(read_passages(faq), embedder)
    rows, others = ([json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()] for path in (asked, strange))
    scores_QN = passages.scores([row["query"] for row in rows])
    ids = [passage.id for passage in passages.passages]
    right = np.array([ids.index(row["faq"]) for row in rows])
    rank = (scores_QN >= scores_QN[np.arange(len(right)), right][:, None]).sum(1) - 1  # equals come before it
    answered = passages.scores([row["text"] for row in others[::5]]).max(1) >= CustomerService().found
    return {"first": float((rank < 1).mean()), "three": float((rank < 3).mean()), "strange": float(answered.mean())}


if __name__ == "__main__":
    print(json.dumps(found(*sys.argv[1:])))
