"""Named entities, or other tags of words, by any pretrained encoder.

omnia train configs/tasks/tagging.py --run-dir RUN --start MODEL --data.files train.conll
MODEL is a run of an encoder. Files are CoNLL's: a word and its IOB2 tag on each line, an empty line after each sentence.
"""

from train import Experiment, Tagging, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("tagging", Tagging(), rate=1e-4, every=100, best="f1")
