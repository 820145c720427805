"""Private fine-tuning: what a promise of privacy costs a pretrained encoder on two tasks.

omnia reproduce private_tasks --data DIR
"""

import dataclasses

from train.experiment import Experiment
from train.reproduce.labelled import ENCODER, POLARITY, SENTENCES, SUBJECTIVITY, TEXTS, TREC
from train.reproduce.table import Better, Metric, Row, Table, training
from train.step.private.options import Private
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

TASKS = {"trec": ("questions", "{texts}/trec", 60), "subjectivity": ("plots or reviews", "{sentences}/subjectivity", 50)}
"""What is asked of a sentence, its files, and private steps."""
EPSILON = 8.0


def get_config(arg: str = "private_trec") -> Experiment:
    """Biases and a head alone: noise goes into every number that is trained, so few should be."""
    way, _, task = arg.partition("_")
    data = Classification(length=24)
    if way == "plain":
        return fine_tuning("without a promise", data, steps=300, rate=5e-3, weight_decay=0.0, dropout=0.0)
    private = fine_tuning("private", data, steps=TASKS[task][2], batch_size=512, rate=5e-3, weight_decay=0.0, dropout=0.0)
    return dataclasses.replace(private, gradient=Private(epsilon=EPSILON, delta=1e-5, micro_batch=16))


def get_table() -> Table:
    def command(way: str, task: str) -> str:
        path = TASKS[task][1]
        files = f"--start {{encoder}}/whole --data.files {path}_train.csv --data.validation-files {path}_test.csv"
        return training(f"{{table}}:{way}_{task}", files, "--adapters bitfit")

    return Table(
        title="Private fine-tuning of a pretrained encoder",
        paper="Li et al. 2022 (large language models can be strong private learners); Bu et al. 2022 (biases alone)",
        claim="At epsilon 8 a fine-tuned encoder loses at most four points to one that is fine-tuned without a promise.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=(*TREC, *POLARITY, *SUBJECTIVITY),
        shared=(TEXTS, ENCODER, SENTENCES),
        rows=tuple(
            Row(f"{way}_{task}", f"{what}: {kind}", (command(way, task),))
            for task, (kind, _, _) in TASKS.items()
            for way, what in (("plain", "no promise"), ("private", f"epsilon {EPSILON:g}"))
        ),
        claims=tuple(Better(f"private_{task}", f"plain_{task}", by=-0.04) for task in TASKS),
        note="MiniLM of six layers, its 28,000 biases and a head, sentences of at most 24 tokens, delta 1e-5; a sentence is one unit. A "
        "private step draws about 360 of 5,452 or 9,000. Claims say that at most four points are lost.",
    )
