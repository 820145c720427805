"""Half of the layers of a fine-tuned encoder: what a teacher adds to a student that learns from the same examples.

omnia reproduce distillation
"""

import csv
import json
import statistics
import sys
import time
from pathlib import Path

from data.files.text_files import decode_text, split_lines
from model.config import OfStart
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.objectives.distillation import Distillation
from train.objectives.tasks.options import Supervised
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.classification import Classification

STUDENT = "--start-layers 1 3 5"
FILES = {
    "trec": (
        PublicFile("trec_train", "trec_qc/train.txt", "016243a7ddb380241c94eabcf073a210b9a83a2e772347cb5ed844722a192faf"),
        PublicFile("trec_test", "trec_qc/test.txt", "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e"),
    ),
    "mr": (
        PublicFile("mr_neg", "mr_polarity/rt-polarity.neg", "614274f81185a850e5a88d533d4679f916d6f62e9af6f0b4ec71fb94bf466ea5"),
        PublicFile("mr_pos", "mr_polarity/rt-polarity.pos", "c2dc6b2f55bcf725725372916287cc3f8f9b19402edaa9167de5287cb3ade421"),
    ),
}
TASKS = {"trec": "what TREC's questions ask for, 6 classes", "mr": "praise or blame of a film (MR), 2 classes"}
ROWS = {"teacher": "6 layers", "alone": "layers 1, 3, 5 without a teacher", "taught": "layers 1, 3, 5 with a teacher"}
FOLDS = 10
"""Of MR, which has no split, every tenth sentence is for tests."""


def get_config(arg: str = "alone") -> Experiment:
    taught = Distillation(of=Supervised(), alpha=0.7, temperature=2.0, hidden="cosine")
    return Experiment(
        name=f"distillation, {arg}",
        steps=400,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=Classification(length=64, validation=0.0),
        objective=taught if arg == "taught" else Supervised(),
        optimizer=AdamW(learning_rate=1e-4, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=40, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def train(variant: str, task: str, *options: str) -> tuple[str, ...]:
        files = f"--data.files {{{task}}}/train.csv --data.validation-files {{{task}}}/test.csv"
        return (training(f"{{table}}:{variant}", "--start {minilm}", files, *options),)

    def measured(name: str, what: str) -> Row:
        return Row(name, what, (f"python {{table}} measure {{run_{name}}}",), alone=True)

    shared = [Shared("minilm", ("python {table} model {run}",))]
    for task, files in FILES.items():
        names = " ".join(f"{{{file.name}}}" for file in files)
        shared += [
            Shared(task, (f"python {{table}} {task} {{run}} {names}",)),
            Shared(f"run_teacher_{task}", train("alone", task)),
            Shared(f"run_alone_{task}", train("alone", task, STUDENT)),
            Shared(f"run_taught_{task}", train("taught", task, STUDENT, f"--objective.teacher {{run_teacher_{task}}}")),
        ]
    return Table(
        title="Half of the layers, with and without a teacher",
        paper="Sanh et al. 2019 (DistilBERT), tables 1 and 3",
        claim="A student of half the layers that learns from a fine-tuned teacher scores higher than the same student alone, and is faster "
        "than the teacher.",
        metrics=(
            Metric("accuracy", "accuracy", "share", lower_is_better=False),
            Metric("parameters", "parameters", "millions", digits=1),
            Metric("milliseconds", "time of a row", "ms", digits=2),
        ),
        files=tuple(file for files in FILES.values() for file in files),
        shared=tuple(shared),
        rows=tuple(
            measured(f"{who}_{task}", f"{what}: {asked}")
            for task, asked in TASKS.items()
            for who, what in (
                ("teacher", "6 layers"),
                ("alone", "layers 1, 3, 5 without a teacher"),
                ("taught", "layers 1, 3, 5 with a teacher"),
            )
        ),
        claims=tuple(
            claim
            for task in TASKS
            for claim in (
                Better(f"taught_{task}", f"alone_{task}"),
                Better(f"taught_{task}", f"teacher_{task}", metric="time of a row"),
            )
        ),
        note="MiniLM's 6 layers of 384, fine-tuned for 400 steps of 32 examples. DistilBERT has 40 % fewer parameters than BERT, is 60 % "
        "faster and keeps 97 % of its GLUE score; MiniLM's table of words, which both have, is half of its parameters. TREC has a test "
        "set; of MR every tenth sentence is kept. A row has 64 tokens.",
    )


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def questions(folder: Path, *files: str) -> None:
    """TREC (Li & Roth 2002): a kind, of which the part before the colon is the class, and a question."""
    for split, path in zip(("train", "test"), files, strict=True):
        lines = split_lines(decode_text(Path(path).read_bytes()))
        write(folder / f"{split}.csv", [(line.partition(" ")[2].strip(), line.partition(":")[0]) for line in lines])


def sentences(folder: Path, *files: str) -> None:
    """MR (Pang & Lee 2005): a sentence on each line, of one file for each class."""
    rows = [
        (number, (line.strip(), label))
        for label, path in zip(("blame", "praise"), files, strict=True)
        for number, line in enumerate(split_lines(decode_text(Path(path).read_bytes())))
    ]
    for split, held_out in (("train", False), ("test", True)):
        write(folder / f"{split}.csv", [row for number, row in rows if (number % FOLDS == FOLDS - 1) == held_out])


def fetched(folder: Path) -> None:
    from train.bridge.importing import import_model
    from train.bridge.packages import fetch

    import_model(fetch("minilm"), folder)


def measure(folder: Path) -> None:
    """Accuracy, parameters that a pass reads, and the time of a pass over a row, the median of 200."""
    import jax

    from train.checkpoints.checkpointer import load_parameters
    from train.evaluation.checkpoint import evaluate_run
    from train.objectives.bind import bind
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    run = open_run(folder)
    found = evaluate_run(run)
    params, _ = load_parameters(run)
    params = {name: part for name, part in params.items() if name != "prediction"}
    outputs, row = jax.jit(bind(run.experiment).outputs), dataset_of(run.experiment).empty(1)
    seconds = []
    for _ in range(200):
        began = time.perf_counter()
        jax.block_until_ready(outputs(params, row))
        seconds.append(time.perf_counter() - began)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(json.dumps({"accuracy": found["accuracy"], "parameters": count / 1e6, "milliseconds": 1e3 * statistics.median(seconds)}))


if __name__ == "__main__":
    ways = {"trec": questions, "mr": sentences, "model": fetched, "measure": measure}
    ways[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
