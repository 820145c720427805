"""Questions with choices, by any pretrained model.

omnia train configs/tasks/choice.py --run-dir RUN --start MODEL --data.files train.jsonl
Columns: question, choices (a list, or --data.choices A B C D for a column each) and label (number from 0, letter from A, or text). An
encoder scores each choice; other models are asked how likely it is.
"""

from model import OfStart
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, MultipleChoice, Samples, Schedule, Supervised


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="choice",
        steps=500,
        batch_size=16,
        model=OfStart(dropout=0.1),
        data=MultipleChoice(length=256),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=5e-5, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, best="accuracy"),
        checkpoints=Checkpoints(every=100, keep_best=1, use_best=True),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
