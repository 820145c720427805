"""Knowledge tracing: whether a student's next answer is right, beside counts of right and wrong answers.

omnia reproduce practice --data DIR
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from train.experiment import Evaluation, Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Table, training
from train.verbs.config_files import load_config

FILES = tuple(
    PublicFile(f"students_{part}", f"applications/assistments_kt/{part}.jsonl", digest)
    for part, digest in (
        ("train", "ef7cb201d11447dcab52e2ea3e57798367e9c8ca0bdf077c83200b6ff3855d09"),
        ("valid", "ae0cfedf1ee2b9ca65e5c058da0d71db6a38801ff74463300ddc0058af8930b2"),
        ("test", "9956ec757dcb270211a56e19e88b6b27343ccc07a49c0aed1ee9f04b4c082b7f"),
    )
)
"""ASSISTments 2009 in the copy of Piech et al. 2015: it repeats an answer for each skill of a problem, and is sorted by skill."""
BASELINES = {
    "skill": "how often the skill is answered right",
    "last": "the last answer to the skill",
    "counts": "logistic regression on counts (PFA)",
    "recent": "and on what was right lately",
}


def get_config(arg: str = "") -> Experiment:
    experiment = load_config(str(Path(__file__).parent.parent / "apps" / "practice.py"))
    data: Any = dataclasses.replace(experiment.data, skill="skills", any_order=arg != "sorted", apart=arg == "apart")  # type: ignore[call-arg]
    return dataclasses.replace(experiment, data=data, evaluation=Evaluation(every=0))


def get_table() -> Table:
    def trained(name: str, what: str) -> Row:
        files = "--data.files {students_train} --data.validation-files {students_valid}"
        return Row(name, what, (training(f"{{table}}:{name}", files), "omnia evaluate {run} --files {students_test} --json"))

    return Table(
        title="Whether a student's next answer is right",
        paper="Piech et al. 2015 (DKT); Pavlik et al. 2009 (PFA)",
        claim="A small decoder tells a student's right and wrong answers apart better than counts do.",
        metrics=(Metric("auc", "AUC", lower_is_better=False, digits=4), Metric("loss", "log loss", "nats", digits=4)),
        files=FILES,
        rows=(
            *(Row(name, what, (f"python {{table}} {name} {{students_train}} {{students_test}}",)) for name, what in BASELINES.items()),
            trained("drawn", "decoder, skills in a new order each time"),
            trained("sorted", "decoder, skills in the order of the file"),
            trained("apart", "decoder, answers to other skills unseen"),
        ),
        claims=(
            Better("drawn", "counts"),
            Better("drawn", "recent"),
            Better("drawn", "sorted"),
            Better("drawn", 0.82),
        ),
        note="3,035 students with 364,062 answers to 123 skills to learn from, 729 with 108,789 to test on. This copy has no names of "
        "exercises: one with two skills is two answers, the second of which a model may have seen under the first. The last row sees the "
        "same skill alone, and so no copy. Nobody can compare these figures with those on other copies. 1,500 steps of 32, a minute.",
    )


# ------------------------------------------------------------------------------------------------------------------ baselines


def baseline(name: str, learned: str, tested: str) -> dict[str, float]:
    import numpy as np
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from train.tasks.metrics.binary import auc

    students = [rows_of(path) for path in (learned, tested)]
    right: dict[int, list[float]] = {}
    for one in students[0]:
        for skill, correct in zip(one["skills"], one["correct"], strict=True):
            mine = right.setdefault(skill, [1.0, 2.0])
            mine[0], mine[1] = mine[0] + correct, mine[1] + 1

    def rows(part: list[dict[str, Any]]) -> tuple[Any, Any]:
        """Of each answer: the skill, counts and shares of right answers before it, to the skill and to all, and running means of them."""
        features, answers = [], []
        for one in part:
            counts: dict[int, list[float]] = {}
            every, lately = [0.0, 0.0], 0.65
            for skill, correct in zip(one["skills"], one["correct"], strict=True):
                known, of = right.get(skill, [0.65, 1.0])
                usual = known / of
                good, bad, last, recent = counts.setdefault(skill, [0.0, 0.0, usual, usual])
                share = (good + 3 * usual) / (good + bad + 3)
                everywhere = (every[0] + 2) / (sum(every) + 3)
                features.append([skill, usual, *np.log1p([good, bad, *every]), good, bad, last, recent, lately, share, everywhere])
                answers.append(correct)
                counts[skill] = [good + correct, bad + 1 - correct, correct, 0.7 * recent + 0.3 * correct]
                every[0 if correct else 1] += 1
                lately = 0.9 * lately + 0.1 * correct
        return np.array(features), np.array(answers)

    (x, y), (x_tested, y_tested) = map(rows, students)
    if name in ("skill", "last"):
        given = x_tested[:, 1 if name == "skill" else 8]
        return {"auc": auc(y_tested, given)}
    columns = [*range(1, 8), 11, 12] if name == "counts" else [*range(1, 13)]
    skills = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(make_column_transformer((skills, [0]), (StandardScaler(), columns)), LogisticRegression(max_iter=1000))
    given = model.fit(x, y).predict_proba(x_tested)[:, 1]
    loss = -np.where(y_tested > 0, np.log(given), np.log(1 - given)).mean()
    return {"auc": auc(y_tested, given), "loss": float(loss)}


if __name__ == "__main__":
    print(json.dumps(baseline(*sys.argv[1:])))
