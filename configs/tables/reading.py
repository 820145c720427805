"""What readers find: clauses of contracts with their places, and messages that nobody wants, also where they are disguised.

omnia reproduce reading --data DIR
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.files import json_files
from train.apps.reading.extraction import passages_of
from train.reproduce.counted import words_and_letters
from train.reproduce.files import TALES, PublicFile, rows_of, spread
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

FILES = tuple(
    PublicFile(name, f"applications/{path}.jsonl", digest)
    for name, path, digest in (
        ("clauses", "cuad_clauses/clauses_train", "3147d8fc78e22a3de46ab3a3a9189651bedd30f60e9feadc955748b60c3fbb51"),
        ("clauses_valid", "cuad_clauses/clauses_valid", "9403a097fa56d885daf26a7e10bec115bbd1fc32161b538372622bc8205dd1c0"),
        ("clauses_test", "cuad_clauses/clauses_test", "8751a85d9c1976b8276453e47a2b6f7fb54a5b955a65241fa284e76d31920733"),
        ("messages", "sms_spam/train", "4f857a11ab0ff8580bb325d0a7518d7da4c4f43d10cb9a399d63e586cdb54940"),
        ("messages_valid", "sms_spam/valid", "a3637a9b7bc12f2c60af9e00e5b95315597350586260b32b18efcf0230f266f9"),
        ("messages_test", "sms_spam/test", "4112917d8fe2301c643f78fad523e86f1f544be003e3c00d3952f9db83ab6593"),
    )
)
"""Clauses of 510 contracts (Hendrycks et al. 2021, CC BY 4.0), short messages (Almeida et al. 2011, CC BY 4.0)."""
FRONT = 640
"""Characters of a contract, about, that a model which reads 128 tokens sees."""
DISGUISED = 0.5
"""Share of the letters that have a double in Cyrillic which are replaced by it."""
DOUBLES = str.maketrans("AaBCcEeHiKMOopPSsTXxy", "АаВСсЕеНіКМОорРЅѕТХху")
RECALL = 0.95
OTHERS = (500, 60)
"""Passages of tales, which have no label, to learn from, and held out."""


def get_table() -> Table:
    def trained(config: str, learned: str, held: str) -> str:
        return training(
            f"configs/apps/{config}.py",
            f"--start {{encoder}}/two --data.files {learned} --data.validation-files {held}",
            "--evaluation.every 0",
        )

    def applied(*names: str) -> tuple[str, ...]:
        return tuple(f"omnia apply {{run}} --input {{examples}}/{name}.jsonl --output {{run}}/{name}.jsonl" for name in names)

    return Table(
        title="Reading contracts, and filtering messages",
        paper="Hendrycks et al. 2021 (CUAD); Almeida et al. 2011 (SMS Spam); Unicode Technical Standard 39 (confusables)",
        claim="A small encoder with n-grams, which reads contracts passage by passage, finds clauses as words counted do, and as a filter "
        "holds back hardly any wanted message, and the same spam in disguise.",
        metrics=(
            Metric("score", "F1 of clauses; unwanted held back", "share", lower_is_better=False),
            Metric("front", f"F1 of clauses, of the first {FRONT} characters alone", lower_is_better=False),
            Metric("labels", "F1 of what a contract has", lower_is_better=False),
            Metric("strange", "quotes of 100 passages of tales", digits=1),
            Metric("exact", "quotes that are the text's", lower_is_better=False),
            Metric("false", "wanted held back", "share", digits=4),
            Metric("false95", f"wanted held back, at {RECALL:.0%} of the unwanted", digits=4),
            Metric("disguised", "unwanted in disguise held back", lower_is_better=False),
        ),
        files=(*FILES, *TALES),
        shared=(
            ENCODER,
            Shared(
                "examples",
                ("python {table} examples {run} {clauses} {clauses_valid} {clauses_test} {messages_test} {tales} {other_tales}",),
            ),
        ),
        rows=(
            Row("counted_clauses", "contracts: words counted, passage by passage", ("python {table} count_clauses {examples}",)),
            Row(
                "clauses",
                "contracts: two layers of MiniLM with n-grams",
                (
                    trained("extraction", "{examples}/learned.jsonl", "{examples}/held.jsonl") + " --data.label categories",
                    *applied("contracts", "tales"),
                    "python {table} clauses {examples} {run}",
                ),
            ),
            Row("counted_messages", "messages: words counted", ("python {table} count_messages {messages} {messages_valid} {examples}",)),
            Row(
                "messages",
                "messages: the filter",
                (
                    trained("filter", "{messages}", "{messages_valid}"),
                    *applied("plain", "disguised"),
                    "python {table} messages {examples} {run}",
                ),
            ),
        ),
        claims=(
            Better("clauses", "counted_clauses", by=-0.02),
            Better("messages", "counted_messages"),
            Better("messages", 0.0021, metric="wanted held back"),
            Better("messages", "counted_messages", metric="unwanted in disguise held back"),
        ),
        note="Contracts are made of the clauses of 59 contracts of the test part, one a paragraph, since the whole texts are not at hand: "
        f"so nearly every passage is a clause. {OTHERS[0]} passages of tales are learned from as having none, and 60 sections of other "
        "tales show what is quoted of other texts. A clause is found where a quote of its label overlaps it, and a quote is right where it "
        "overlaps such a clause. Words counted: TF-IDF of words, pairs of them and two to four characters, linear support vectors. "
        "Thresholds of both filters hold back at most 0.2 % of the wanted messages of the validation part. In disguise half of the "
        "letters that have a double in Cyrillic are that.",
    )


# ------------------------------------------------------------------------------------------------------------------- examples


def contracts(path: str) -> list[dict[str, Any]]:
    """{"text", "clauses": [[start, end, labels]]} of each contract."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows_of(path):
        text = " ".join(row["text"].split())
        one = found.setdefault(row["contract"], {"text": "", "clauses": []})
        one["text"] += "\n\n" * bool(one["text"]) + text
        one["clauses"].append([len(one["text"]) - len(text), len(one["text"]), row["categories"]])
    return [*found.values()]


def in_disguise(text: str, rng: random.Random) -> str:
    return "".join(letter.translate(DOUBLES) if rng.random() < DISGUISED else letter for letter in text)


def write_examples(folder: str, learned: str, held: str, clauses: str, messages: str, *tales: str) -> None:
    """Passages to learn from, and held out, are clauses and some passages of tales, which are none."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rng, plain = random.Random(0), rows_of(messages)
    first, second = ([text for tale in rows_of(path) for text in tale["sections"]] for path in tales)
    told = [{"text": text[one.start : one.end], "categories": []} for text in spread(first, 100) for one in passages_of(text, FRONT)]
    kept = [row for number, row in enumerate(told) if number % 9 == 0]
    for name, rows in {
        "contracts": contracts(clauses),
        "learned": rows_of(learned) + spread([row for row in told if row not in kept], OTHERS[0]),
        "held": rows_of(held) + spread(kept, OTHERS[1]),
        "tales": [{"text": text} for text in spread(second, 60)],
        "plain": plain,
        "disguised": [row | {"text": in_disguise(row["text"], rng)} for row in plain if row["label"] == "spam"],
    }.items():
        json_files.write_lines(Path(folder, f"{name}.jsonl"), rows)


# -------------------------------------------------------------------------------------------------------------------- measures


def overlap(quote: dict[str, Any], clause: Sequence[Any]) -> bool:
    return quote["start"] < clause[1] and clause[0] < quote["end"] and quote["label"] in clause[2]


def f1(right_given: int, given: int, found: int, wanted: int) -> float:
    precision, recall = right_given / max(given, 1), found / max(wanted, 1)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def of_quotes(rows: list[dict[str, Any]], quotes: list[list[dict[str, Any]]]) -> float:
    given = [any(overlap(quote, clause) for clause in row["clauses"]) for row, own in zip(rows, quotes, strict=True) for quote in own]
    found = [
        any(quote["label"] == label and overlap(quote, clause) for quote in own)
        for row, own in zip(rows, quotes, strict=True)
        for clause in row["clauses"]
        for label in clause[2]
    ]
    return f1(sum(given), len(given), sum(found), len(found))


def of_contracts(folder: str, quotes: list[list[dict[str, Any]]], strange: list[list[dict[str, Any]]], passages: int) -> dict[str, float]:
    rows, tales = rows_of(f"{folder}/contracts.jsonl"), rows_of(f"{folder}/tales.jsonl")
    has = [{label for clause in row["clauses"] for label in clause[2]} for row in rows]
    said = [{quote["label"] for quote in own} for own in quotes]
    both = sum(len(one & other) for one, other in zip(has, said, strict=True))
    exact = [
        row["text"][quote["start"] : quote["end"]] == quote["quote"]
        for row, own in zip(rows + tales, quotes + strange, strict=True)
        for quote in own
    ]
    return {
        "score": of_quotes(rows, quotes),
        "front": of_quotes(rows, [[quote for quote in own if quote["start"] < FRONT] for own in quotes]),
        "labels": f1(both, sum(map(len, said)), both, sum(map(len, has))),
        "strange": 100 * sum(map(len, strange)) / passages,
        "exact": float(np.mean(exact)),
    }


def counted_clauses(folder: str) -> dict[str, float]:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    rows = rows_of(f"{folder}/learned.jsonl")
    names = MultiLabelBinarizer().fit([row["categories"] for row in rows])
    model = make_pipeline(words_and_letters(), OneVsRestClassifier(LinearSVC()))
    model.fit([row["text"] for row in rows], names.transform([row["categories"] for row in rows]))

    def quoted(text: str) -> tuple[list[dict[str, Any]], int]:
        own = passages_of(text, FRONT)
        given_PV = model.decision_function([text[one.start : one.end] for one in own]) > 0
        found = [
            {"label": name, "start": own[place].start, "end": own[place].end, "quote": text[own[place].start : own[place].end]}
            for place, label in zip(*np.nonzero(given_PV), strict=True)
            for name in (names.classes_[label],)
        ]
        return found, len(own)

    ours, strange = ([quoted(row["text"]) for row in rows_of(f"{folder}/{name}.jsonl")] for name in ("contracts", "tales"))
    return of_contracts(folder, [found for found, _ in ours], [found for found, _ in strange], sum(count for _, count in strange))


def of_messages(plain: list[dict[str, Any]], given_N: Any, held_N: Any, disguised_N: Any) -> dict[str, float]:
    """given_N: how surely each is not wanted. held_N, disguised_N: whether it is held back, and those in disguise."""
    given_N, held_N = np.asarray(given_N), np.asarray(held_N)
    unwanted = np.array([row["label"] == "spam" for row in plain])
    at = np.sort(given_N[unwanted])[int((1 - RECALL) * unwanted.sum())]
    return {
        "score": float(held_N[unwanted].mean()),
        "false": float(held_N[~unwanted].mean()),
        "false95": float((given_N[~unwanted] >= at).mean()),
        "disguised": float(np.mean(disguised_N)),
    }


def counted_messages(learned: str, valid: str, folder: str) -> dict[str, float]:
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    from train.apps.reading.filter import Filter, most_with

    rows, held = rows_of(learned), rows_of(valid)
    model = make_pipeline(words_and_letters(), LinearSVC()).fit([row["text"] for row in rows], [row["label"] == "spam" for row in rows])
    wanted = model.decision_function([row["text"] for row in held if row["label"] != "spam"])
    plain, disguised = (rows_of(f"{folder}/{name}.jsonl") for name in ("plain", "disguised"))
    given, hidden = (model.decision_function([row["text"] for row in part]) for part in (plain, disguised))
    threshold = most_with(wanted, Filter().false_positives)
    return of_messages(plain, given, given >= threshold, hidden >= threshold)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", *rest]:
            write_examples(*rest)
        case ["count_clauses", *rest]:
            print(json.dumps(counted_clauses(*rest)))
        case ["count_messages", *rest]:
            print(json.dumps(counted_messages(*rest)))
        case ["clauses", folder, run]:
            answered, told = (rows_of(f"{run}/{name}.jsonl") for name in ("contracts", "tales"))
            quotes, strange = ([line["clauses"] for line in lines] for lines in (answered, told))
            print(json.dumps(of_contracts(folder, quotes, strange, sum(line["passages"] for line in told))))
        case ["messages", folder, run]:
            lines, hidden = (rows_of(f"{run}/{name}.jsonl") for name in ("plain", "disguised"))
            given, held, disguised = (
                [line[name] for line in part] for name, part in (("probability", lines), ("held", lines), ("held", hidden))
            )
            print(json.dumps(of_messages(rows_of(f"{folder}/plain.jsonl"), given, held, disguised)))
