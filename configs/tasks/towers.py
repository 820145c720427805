"""Two towers: items by their texts alone, users by the items that they had, so that items which nobody had are ranked too.

omnia train configs/tasks/towers.py --run-dir RUN --data.files ratings.csv --data.items items.jsonl --data.user userid \\
    --data.item movieid --data.time timestamp --data.key movieId --data.text title genres overview keywords
A recommender's ranker weighs it by --data.towers RUN.
"""

from model import ModelConfig
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.objectives.tasks.towers import TwoTowers
from train.tasks.recommending.interactions import Recommendation


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="two towers",
        steps=300,
        batch_size=32,
        model=ModelConfig(context_length=50),  # the last items of a history that count
        data=Recommendation(),
        objective=TwoTowers(in_batch=True),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, rows=500, best="ndcg@10"),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=20),
    )
