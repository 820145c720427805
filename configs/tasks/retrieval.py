"""Vectors by which a question finds its answer among others, from pairs, by a pretrained encoder.

omnia train configs/tasks/retrieval.py --run-dir RUN --start MODEL --data.files pairs.csv
Columns: question and answer. Every other answer of the batch is a wrong one, so large batches are better. `omnia embed RUN` then makes
vectors.
"""

from train import Experiment, Retrieval, TextPairs, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("retrieval", TextPairs(), objective=Retrieval(), steps=300, rate=2e-5, every=100, best="mrr@10")
