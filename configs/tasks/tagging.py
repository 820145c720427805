"""Named entities, or other tags of words, by any pretrained encoder.

omnia train configs/tasks/tagging.py --run-dir RUN --start MODEL --data.files train.conll
MODEL is a run of an encoder. Files are CoNLL's: a word and its IOB2 tag on each line, an empty line after each sentence.
"""

from model import OfStart
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule, Supervised, Tagging


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="tagging",
        steps=500,
        batch_size=32,
        model=OfStart(dropout=0.1),
        data=Tagging(),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=1e-4, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, best="f1"),
        checkpoints=Checkpoints(every=100, keep_best=1, use_best=True),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
