"""Customer service: how many questions are answered by themselves, at a precision that was asked for, beside counting words.

omnia reproduce customer_service --data DIR
"""

import json
import sys
from typing import Any

from train.apps.service.customer_service import CustomerService
from train.experiment import Experiment
from train.reproduce.counted import words_and_letters
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.recipe import fine_tuning

BANK = tuple(
    PublicFile(f"bank_{part}", f"applications/banking77/{part}.jsonl", digest)
    for part, digest in (
        ("train", "3e8a286a8a784573f6b9fee27cf21d87cfab4e82d341b9a1c8d761f9aec75c89"),
        ("valid", "c7851b9da4cbba659781bcfed61f362ea1e2b83c68408c1d25728d1bbd7ce4f6"),
        ("test", "ff631cfed84d5547a9cb7d2f59f215a4c04ad6adcfced118f3ddb0cc23edc6b1"),
        ("templates", "a2817df35a8ea00195a7c698d11e28f6eb73155622c368e7799efcff3630bbc5"),
    )
)
"""Questions to a bank (Casanueva et al. 2020), CC BY 4.0, and an answer for each intent."""
PRECISION = 0.98


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("customer service", CustomerService(length=64, precision=PRECISION), steps=1000, rate=3e-4)


def get_table() -> Table:
    files = "--data.files {bank_train} --data.validation-files {bank_valid} --data.templates {bank_templates}"
    return Table(
        title="Customer service: questions to a bank",
        paper="Casanueva et al. 2020, table 3 (93.7 % with BERT)",
        claim="A small encoder recognises more of 77 intents than words counted, and may answer more questions at the same precision.",
        metrics=(
            Metric("accuracy", "intents recognised", "share", lower_is_better=False),
            Metric("answered", "questions answered by themselves", "share", lower_is_better=False),
            Metric("precision", "right among these", "share", lower_is_better=False),
        ),
        files=BANK,
        shared=(ENCODER,),
        rows=(
            Row("counted", "TF-IDF, logistic regression", ("python {table} {bank_train} {bank_valid} {bank_test}",)),
            Row(
                "minilm",
                "MiniLM, fine-tuned",
                (
                    training("{table}", "--start {encoder}/whole", files),
                    "omnia apply {run} --input {bank_test} --output {run}/answers.jsonl --json",
                ),
            ),
        ),
        claims=(Better("minilm", "counted"), Better("minilm", "counted", metric="questions answered by themselves")),
        note=f"9,060 questions to learn from, 943 on which the confidence is chosen from which on {PRECISION:.0%} of answers are right, "
        "2,617 to test on. 1,000 steps of 32. Words and pairs of words, and two to four characters.",
    )


def counted(*paths: str) -> dict[str, float]:
    """The measures of a baseline. paths: to learn from, to choose the threshold on, and to test on."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from train.apps.confidence import threshold

    learned, chosen, tested = map(rows_of, paths)
    model = make_pipeline(words_and_letters(), LogisticRegression(C=20, max_iter=300))
    model.fit([row["text"] for row in learned], [row["intent"] for row in learned])

    def judged(rows: list[dict[str, Any]]) -> tuple[Any, Any]:
        probabilities = model.predict_proba([row["text"] for row in rows])
        answers = model.classes_[probabilities.argmax(1)]
        return probabilities.max(1), answers == np.array([row["intent"] for row in rows])

    at = threshold(*judged(chosen), PRECISION)
    confidence, right = judged(tested)
    given = confidence >= at
    return {"accuracy": float(right.mean()), "answered": float(given.mean()), "precision": float(right[given].mean())}


if __name__ == "__main__":
    print(json.dumps(counted(*sys.argv[1:])))
