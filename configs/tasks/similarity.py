"""A number for a text or a pair of texts, such as how alike they are, by any pretrained model.

omnia train configs/tasks/similarity.py --run-dir RUN --start MODEL --data.files train.csv --data.pair other
Columns: text and score; --data.scale 5 where scores go up to 5.
"""

from model import OfStart
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule, Similarity, Supervised


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="similarity",
        steps=500,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=Similarity(),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100),
        checkpoints=Checkpoints(every=250),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
