"""Classes of texts, or of pairs of texts, by any pretrained model.

omnia train configs/tasks/classification.py --run-dir RUN --start MODEL --data.files train.csv
MODEL is a run: `omnia import minilm --run-dir MODEL` makes one of a published model. The columns are `text` and `label`; others:
--data.text review --data.pair reply --data.label class.
"""

from train import Classification, Experiment, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("classification", Classification(), every=100)
