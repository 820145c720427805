"""Adversarial training of embeddings against attacks on texts: FreeLB and SMART, on questions and on film reviews.

omnia reproduce freelb --data DIR
"""

import sys

from train.experiment import Exact, Experiment
from train.kinds import Gradient
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.step.adversarial.options import SMART, FreeLB
from train.tasks.changes.augmentation import Augment
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

METHODS: dict[str, tuple[Gradient, str]] = {
    "plain": (Exact(), "plain fine-tuning"),
    "freelb": (FreeLB(steps=3, step_size=0.03, magnitude=0.03, epsilon=0.05), "FreeLB, 3 steps (Zhu et al. 2020)"),
    "smart_typos": (SMART(epsilon=0.05), "SMART's regulariser (Jiang et al. 2020), and typing errors in a fifth of the texts"),
}
TASKS = {"trec": "questions", "polarity": "reviews"}
KINDS = ("words", "characters")
ATTACKED = 200
"""Examples of a test that are attacked."""


def get_config(arg: str = "freelb") -> Experiment:
    gradient, what = METHODS[arg]
    augment = Augment(rate=0.2, operations=("characters",)) if arg.endswith("typos") else Augment()
    return fine_tuning(what, Classification(length=64, augment=augment), gradient=gradient, steps=200, rate=3e-4)


def get_table() -> Table:
    def train(method: str, task: str) -> str:
        files = f"--data.files {{texts}}/{task}_train.csv --data.validation-files {{texts}}/{task}_test.csv"
        return training(f"{{table}}:{method}", "--start {encoder}/two", files)

    def against(task: str) -> Shared:
        """The plain run, and the set that attacking it makes."""
        files = f"--files {{texts}}/{task}_test.csv --synonyms {{synonyms}}/{task}.tsv --output {{run}}/attacked.csv"
        return Shared(
            f"set_{task}", (train("plain", task), f"omnia attack {{run}} --kinds {' '.join(KINDS)} --rows {ATTACKED} --tries 4 {files}")
        )

    def measured(run: str, task: str) -> str:
        return f"python {{table}} {run} {{texts}}/{task}_test.csv {{set_{task}}}/attacked.csv {{synonyms}}/{task}.tsv"

    tables = tuple(
        f"python -m train.tasks.changes.synonyms {{encoder}}/two {{texts}}/{task}_train.csv {{run}}/{task}.tsv" for task in TASKS
    )

    def commands(method: str, task: str) -> tuple[str, ...]:
        if method == "plain":
            return (measured(f"{{set_{task}}}", task),)
        return train(method, task), measured("{run}", task)

    return Table(
        title="Adversarial training against attacks on texts",
        paper="Zhu et al. 2020 (FreeLB), tables 1 and 3; Jin et al. 2020 (TextFooler), table 6",
        claim="Training at perturbed embeddings keeps more answers right under substitutions of words and typing errors.",
        metrics=(
            Metric("robust", "attack on plain", "share", lower_is_better=False),
            Metric("own", "attack on itself", "share", lower_is_better=False),
            Metric("clean", "accuracy", "share", lower_is_better=False),
        ),
        files=FILES,
        shared=(TEXTS, ENCODER, Shared("synonyms", tables), *map(against, TASKS)),
        rows=tuple(
            Row(f"{method}_{task}", f"{what}: {kind}", commands(method, task))
            for task, kind in TASKS.items()
            for method, (_, what) in METHODS.items()
        ),
        claims=tuple(
            claim
            for task in TASKS
            for method in METHODS
            if method != "plain"
            for claim in (
                Better(f"{method}_{task}", f"plain_{task}", by=0.05),
                Better(f"{method}_{task}", f"plain_{task}", by=-0.01, metric="accuracy"),
            )
        ),
        note=f"Two layers of MiniLM, 200 steps of 32. The first {ATTACKED} test examples are attacked; up to three words in ten may become "
        "neighbours in MiniLM's embedding table or get a typing error. Such a set misses what only the model at hand falls for: the second "
        "column attacks each model anew. Claims ask for five points more on that set, and at most one less on the texts as they are.",
    )


def measure(run_dir: str, clean: str, attacked: str, synonyms: str) -> dict[str, float]:
    """Accuracy on a test, on the set made of another run, and under an attack of its own."""
    from train.evaluation.checkpoint import evaluate_run
    from train.runs.directory import open_run
    from train.tasks.attack import Budget, attack_run

    run = open_run(run_dir)
    _, own = attack_run(run, (clean,), Budget(kinds=KINDS, tries=4), synonyms=synonyms, count=ATTACKED)
    found = {name: evaluate_run(run, shards=(file,))["accuracy"] for name, file in (("clean", clean), ("robust", attacked))}
    return found | {"own": own["robust_accuracy"], "own_clean": own["clean_accuracy"], "success": own["success"]}


if __name__ == "__main__":
    from data.files import json_files

    print(json_files.dumps(measure(*sys.argv[1:])))
