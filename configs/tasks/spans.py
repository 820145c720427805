"""Questions on texts, answered by a span of the text: SQuAD 1.1 and 2.0, by any pretrained model.

omnia train configs/tasks/spans.py --run-dir RUN --start MODEL --data.files train.json
Files are SQuAD's JSON. An encoder points at the span; other models write it.
"""

from model import OfStart
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule, Spans, Supervised


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="spans",
        steps=1000,
        batch_size=16,
        model=OfStart(dropout=0.1),
        data=Spans(),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250, best="f1"),
        checkpoints=Checkpoints(every=250, keep_best=1, use_best=True),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
