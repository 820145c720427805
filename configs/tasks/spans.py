"""Questions on texts, answered by a span of the text: SQuAD 1.1 and 2.0, by any pretrained model.

omnia train configs/tasks/spans.py --run-dir RUN --start MODEL --data.files train.json
Files are SQuAD's JSON. An encoder points at the span; other models write it.
"""

from train import Experiment, Spans, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("spans", Spans(), steps=1000, batch_size=16, every=250, best="f1")
