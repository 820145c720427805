"""Classes of texts, or of pairs of texts, by any pretrained model.

omnia train configs/tasks/classification.py --run-dir RUN --start MODEL --data.files train.csv
MODEL is a run: `omnia import minilm --run-dir MODEL` makes one of a published model. The columns are `text` and `label`; others:
--data.text review --data.pair reply --data.label class.
"""

from model import OfStart
from train import AdamW, Checkpoints, Classification, Evaluation, Experiment, Logging, Samples, Schedule, Supervised


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="classification",
        steps=500,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=Classification(),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100),
        checkpoints=Checkpoints(every=250),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
