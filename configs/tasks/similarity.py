"""A number for a text or a pair of texts, such as how alike they are, by any pretrained model.

omnia train configs/tasks/similarity.py --run-dir RUN --start MODEL --data.files train.csv --data.pair other
Columns: text and score; --data.scale 5 where scores go up to 5.
"""

from train import Experiment, Similarity, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("similarity", Similarity(), every=100)
