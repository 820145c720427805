"""Customer service beyond its log: slips of the finger, questions about nothing that it knows, and learning again from corrections.

omnia reproduce service_at_work --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data.files import json_files
from train.apps.confidence import familiarity
from train.apps.service.customer_service import CustomerService
from train.experiment import Experiment
from train.reproduce.counted import words_and_letters
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.changes.noise import KEYS
from train.tasks.recipe import fine_tuning

FILES = tuple(
    PublicFile(f"{name}_{part}", f"applications/{folder}/{part}.jsonl", digest)
    for name, folder, part, digest in (
        ("bank", "banking77", "train", "3e8a286a8a784573f6b9fee27cf21d87cfab4e82d341b9a1c8d761f9aec75c89"),
        ("bank", "banking77", "valid", "c7851b9da4cbba659781bcfed61f362ea1e2b83c68408c1d25728d1bbd7ce4f6"),
        ("bank", "banking77", "test", "ff631cfed84d5547a9cb7d2f59f215a4c04ad6adcfced118f3ddb0cc23edc6b1"),
        ("bank", "banking77", "templates", "a2817df35a8ea00195a7c698d11e28f6eb73155622c368e7799efcff3630bbc5"),
        ("wide", "clinc150", "train", "4b88a412b2944231db7b1df2d9c65e9ac04cae534f5ae83c4704fabf53dc5fa8"),
        ("wide", "clinc150", "valid", "46350042f250f54d0995d1f0f87ac7560e498722fbcf6b66a0594820687598e1"),
        ("wide", "clinc150", "test", "906f54f776fceeb832aab22c71458a71fa3236f7d10f68f5f4ed206c09671898"),
    )
)
"""BANKING77 (Casanueva et al. 2020), CC BY 4.0, and CLINC150 (Larson et al. 2019), CC BY 3.0."""
NOTHING = "oos"
"""CLINC150's label of questions that are about none of its 150 intents."""
SLIPS = 0.05
"""Share of letters, from a word's second on, at which the finger slips."""
LOG = 3
"""One question in so many is in the log from the beginning; the others come later, and those that no template answered are corrected."""
STEPS, MORE_STEPS = 600, 200


def get_config(arg: str = "") -> Experiment:
    steps, rate = (MORE_STEPS, 1e-4) if arg == "again" else (STEPS, 3e-4)
    return fine_tuning("customer service", CustomerService(length=32), steps=steps, rate=rate)


def get_table() -> Table:
    rest = "--data.validation-files {bank_valid} --data.templates {bank_templates}"

    def applied(run: str, name: str, path: str) -> str:
        return f"omnia apply {run} --input {path} --output {{run}}/{name}.jsonl"

    def bank(name: str, what: str, first: str, labels: str, run: str = "{run}", *more: str) -> Row:
        """first, more: commands before and after the run is asked; first is empty for a run that is there. labels: files that it learned
        from."""
        clean, typed = applied(run, "clean", "{bank_test}"), applied(run, "typed", "{typed}/rows.jsonl")
        asked = (clean, typed, *more, f"python {{table}} recognised {{bank_test}} {{run}} {labels}")
        return Row(name, what, (first, *asked) if first else asked)

    whole = "--start {encoder}/whole --data.files {bank_train}"
    slips = "--data.augment.rate 0.7 --data.augment.strength 0.2 --data.augment.operations characters"
    corrected = "{parts}/log.jsonl {corrections}/rows.jsonl"
    return Table(
        title="Customer service beyond its log",
        paper="Larson et al. 2019 (questions about nothing known); Pruthi et al. 2019 (misspellings); Lewis and Gale 1994 (labels where "
        "an answer was unsure)",
        claim="Typing errors to learn from take back more than half of what slips cost; how few intents stand out to an encoder tells "
        "questions about nothing that it knows better than counted words do; and corrections of what was not answered are worth about half "
        "of what labels of all the rest are.",
        metrics=(
            Metric("accuracy", "intents recognised", "share", lower_is_better=False),
            Metric("typed", "with slips of the finger", "share", lower_is_better=False),
            Metric("auroc", "AUROC: a question about nothing", "share", lower_is_better=False),
            Metric("largest", "the same by the largest probability", "share", lower_is_better=False),
            Metric("rejected", "such questions rejected where 90 % of others are answered", "share", lower_is_better=False),
            Metric("believed", "such questions answered", "share"),
            Metric("labels", "labels needed", digits=0),
        ),
        files=FILES,
        shared=(
            ENCODER,
            Shared("typed", ("python {table} slips {bank_test} {run}",)),
            Shared("known", ("python {table} known {wide_train} {wide_valid} {run}",)),
            Shared("parts", ("python {table} parts {bank_train} {run}",)),
            Shared(
                "log",
                (
                    training("{table}", "--start {encoder}/whole --data.files {parts}/log.jsonl", rest),
                    applied("{run}", "later", "{parts}/later.jsonl"),
                ),
            ),
            Shared("nothing", ("python {table} nothing {wide_test} {run}",)),
            Shared("corrections", ("python {table} corrections {parts}/later.jsonl {log}/later.jsonl {run}",)),
        ),
        rows=(
            bank("plain", "bank: MiniLM", training("{table}", whole, rest), "{bank_train}"),
            bank("slips", "the same, with typing errors to learn from", training("{table}", slips, whole, rest), "{bank_train}"),
            bank(
                "early",
                "bank: MiniLM, a third of the log",
                "",
                "{parts}/log.jsonl",
                "{log}",
                applied("{log}", "strange", "{nothing}/rows.jsonl"),
            ),
            bank(
                "again",
                "the same, learned again with corrections of what it did not answer",
                training("{table}:again", f"--start {{log}} --data.files {corrected}", rest),
                corrected,
            ),
            Row("counted", "150 intents: TF-IDF, logistic regression", ("python {table} counted {known}/train.jsonl {wide_test}",)),
            Row(
                "wide",
                "150 intents: MiniLM",
                (
                    training(
                        "{table}", "--start {encoder}/whole --data.files {known}/train.jsonl --data.validation-files {known}/valid.jsonl"
                    ),
                    applied("{run}", "answers", "{wide_test}"),
                    "python {table} told {wide_test} {run}/answers.jsonl",
                ),
            ),
        ),
        claims=(
            Better("slips", "plain", metric="with slips of the finger"),
            Better("again", "early"),
            Better("wide", "counted", metric="AUROC: a question about nothing"),
            Better("wide", 0.955, metric="AUROC: a question about nothing"),
            Better("early", 0.1, metric="such questions answered"),
        ),
        note=f"Slips at {SLIPS:.0%} of the letters from a word's second on: two swapped, one left out, or one hit beside its key. A third "
        "of the log is 3,020 questions; a person then labels those of the other 6,040 to which no template was sent, and "
        f"{MORE_STEPS} steps follow. Of CLINC150, questions about nothing are kept from training, so that familiarity has to tell them: "
        f"how few intents stand out, at a temperature and a share of 5 % that were chosen on these questions. {STEPS} steps of 32.",
    )


def write(folder: str, **parts: list[dict[str, Any]]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        json_files.write_lines(Path(folder, f"{name}.jsonl"), rows)


def slipped(text: str, draw: np.random.Generator) -> str:
    """A text as hasty fingers type it."""
    letters, place = list(text), 1
    while place < len(letters):
        letter, row = letters[place], next((row for row in KEYS if letters[place].lower() in row), "")
        if row and letters[place - 1].isalpha() and draw.random() < SLIPS:
            what = draw.integers(3)
            if what == 0:
                letters[place - 1 : place + 1] = letter, letters[place - 1]
            elif what == 1:
                letters[place] = ""
            else:
                at = row.find(letter.lower())
                letters[place] = draw.choice([row[near] for near in (at - 1, at + 1) if 0 <= near < len(row)])
        place += 1
    return "".join(letters)


def accuracy(asked: str, answered: str) -> float:
    rows, lines = rows_of(asked), rows_of(answered)
    return sum(row["intent"] == line["intent"] for row, line in zip(rows, lines, strict=True)) / len(rows)


def told(rows: list[dict[str, Any]], intents: np.ndarray, familiar: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """Of questions of which some are about nothing: intents that were recognised among the others, how well familiarity and confidence tell
    both apart, and which share is rejected below the familiarity that nine in ten of the others have."""
    from sklearn.metrics import roc_auc_score

    labels = np.array([row["intent"] for row in rows])
    known = labels != NOTHING
    least = np.quantile(familiar[known], 0.1)
    return {
        "accuracy": float((labels == intents)[known].mean()),
        "auroc": float(roc_auc_score(known, familiar)),
        "largest": float(roc_auc_score(known, confidence)),
        "rejected": float((familiar[~known] < least).mean()),
    }


def counted(learned: str, tested: str) -> dict[str, float]:
    """Of words and pairs of words, and two to four characters."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(words_and_letters(), LogisticRegression(C=20, max_iter=300))
    train, test = rows_of(learned), rows_of(tested)
    model.fit([row["text"] for row in train], [row["intent"] for row in train])
    probabilities = model.predict_proba([row["text"] for row in test])
    return told(test, model.classes_[probabilities.argmax(1)], familiarity(probabilities), probabilities.max(1))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["slips", path, folder]:
            draw = np.random.default_rng(0)
            write(folder, rows=[row | {"text": slipped(row["text"], draw)} for row in rows_of(path)])
        case ["known", learned, held, folder]:
            train, valid = ([row for row in rows_of(path) if row["intent"] != NOTHING] for path in (learned, held))
            write(folder, train=train, valid=valid)
        case ["nothing", path, folder]:
            write(folder, rows=[row for row in rows_of(path) if row["intent"] == NOTHING])
        case ["parts", path, folder]:
            all_rows = rows_of(path)
            write(folder, log=all_rows[::LOG], later=[row for place, row in enumerate(all_rows) if place % LOG])
        case ["corrections", asked, answered, folder]:
            lines = zip(rows_of(asked), rows_of(answered), strict=True)
            write(folder, rows=[row for row, line in lines if line["route"] != "template"])
        case ["recognised", asked, run, *labels]:
            clean, typed = (accuracy(asked, f"{run}/{name}.jsonl") for name in ("clean", "typed"))
            found = {"accuracy": clean, "typed": typed, "labels": sum(len(rows_of(path)) for path in labels)}
            if (strange := Path(run, "strange.jsonl")).is_file():
                found["believed"] = float(np.mean([line["route"] == "template" for line in rows_of(strange)]))
            print(json.dumps(found))
        case ["counted", learned, tested]:
            print(json.dumps(counted(learned, tested)))
        case ["told", asked, answered]:
            columns = ("intent", "familiarity", "confidence")
            print(json.dumps(told(rows_of(asked), *(np.array([line[name] for line in rows_of(answered)]) for name in columns))))
