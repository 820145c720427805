"""Vectors by which a question finds its answer among others, from pairs, by a pretrained encoder.

omnia train configs/tasks/retrieval.py --run-dir RUN --start MODEL --data.files pairs.csv
Columns: question and answer. Every other answer of the batch is a wrong one, so large batches are better. `omnia embed RUN` then makes
vectors.
"""

from model import OfStart
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Retrieval, Samples, Schedule, TextPairs


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="retrieval",
        steps=300,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=TextPairs(),
        objective=Retrieval(),
        optimizer=AdamW(learning_rate=2e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=30, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, best="mrr@10"),
        checkpoints=Checkpoints(every=100, keep_best=1, use_best=True),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
