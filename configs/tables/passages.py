"""Passages for questions in other words: found by words, and by words and meaning together.

omnia reproduce passages --data DIR
"""

import json
import sys
from typing import Any

from train.apps.service.customer_service import CustomerService, Passage, Passages, read_passages
from train.reproduce.files import TALES, PublicFile, rows_of
from train.reproduce.resampling import drawn_mean
from train.reproduce.table import Better, Metric, Row, Shared, Table

FILES = (
    PublicFile("faq", "applications/covid_faq/faq.jsonl", "0118dab7579512af5ee766249feb6766690cada28084acb17d5c7f7e09377b52"),
    PublicFile("asked", "applications/covid_faq/queries_test.jsonl", "a65530042bd0c480f36f247a246ca5a97b9439c00f67cb35be05e7507472d57b"),
    PublicFile("strange", "applications/banking77/test.jsonl", "ff631cfed84d5547a9cb7d2f59f215a4c04ad6adcfced118f3ddb0cc23edc6b1"),
    TALES[1],
)
"""Questions about an illness with their answers and other wordings of them (COVID-QA, 2020, Apache-2.0), questions to a bank, and
tales."""


def get_table() -> Table:
    files, tales = "{faq} {asked} {strange}", "tales {other_tales} {strange}"
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
            Row("words_tales", "sections of a tale for a question, BM25", (f"python {{table}} {tales}",)),
            Row("both_tales", "sections of a tale, BM25 and MiniLM of sentences", (f"python {{table}} {tales} {{encoder}}",)),
        ),
        claims=(Better("both", 0.6), Better("both", 0.78, metric="right passage among three"), Better("both_tales", 0.65)),
        note="213 passages, 137 questions; 20 tales of 16 sections, which have no questions of their own, 819 questions. A passage "
        f"answers from a score of {CustomerService().found} on; of the questions to a bank every fifth is asked, of tales every tenth. "
        "Passages that are as near as the right one count as nearer. Nothing is learned, so seeds are alike.",
    )


def embedder_of(encoder: str) -> Any:
    if not encoder:
        return None
    from train.generation.embeddings import load_embedder

    return load_embedder(encoder)


def answered(passages: Passages, questions: list[str]) -> Any:
    return passages.scores(questions).max(1) >= CustomerService().found


def ranks(scores_QN: Any, right_QN: Any) -> Any:
    """Of the best passage that is right. Equals come before it."""
    import numpy as np

    best_Q = np.where(right_QN, scores_QN, -1.0).max(1)
    return ((scores_QN >= best_Q[:, None]) & ~right_QN).sum(1)


def found(faq: str, asked: str, strange: str, encoder: str = "") -> dict[str, Any]:
    import numpy as np

    passages, rows = Passages(read_passages(faq), embedder_of(encoder)), rows_of(asked)
    ids = np.array([passage.id for passage in passages.passages])
    rank = ranks(passages.scores([row["query"] for row in rows]), ids == np.array([row["faq"] for row in rows])[:, None])
    return measured(rank, answered(passages, [row["text"] for row in rows_of(strange)[::5]]))


def measured(rank_Q: Any, strange_Q: Any, tale_Q: Any = None) -> dict[str, Any]:
    """tale_Q: of each question, whose cases are drawn together."""
    values = {"first": rank_Q < 1, "three": rank_Q < 3, "strange": strange_Q}
    draws = {name: drawn_mean(values[name], tale_Q) for name in ("first", "three")}
    return {name: float(value.mean()) for name, value in values.items()} | {"draws": draws}


def found_in_tales(tales: str, strange: str, encoder: str = "") -> dict[str, Any]:
    import numpy as np

    embedder, rank, others = embedder_of(encoder), [], []
    for tale in rows_of(tales):
        passages = Passages([Passage(place, "", text, "") for place, text in enumerate(tale["sections"], 1)], embedder)
        asked = [one for one in tale["questions"] if one["sections"]]
        own = [{int(place) for place in one["sections"].split(",")} for one in asked]
        right_QN = np.array([[passage.id in places for passage in passages.passages] for places in own])
        rank.append(ranks(passages.scores([one["question"] for one in asked]), right_QN))
        others.append(answered(passages, [row["text"] for row in rows_of(strange)[::10]]))
    return measured(np.concatenate(rank), np.concatenate(others), np.repeat(np.arange(len(rank)), [len(one) for one in rank]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tales", *rest]:
            print(json.dumps(found_in_tales(*rest)))
        case given:
            print(json.dumps(found(*given)))
