"""The next item of each user, from events, and the texts and features of items if there are some.

omnia train configs/tasks/recommendation.py --run-dir RUN --data.files ratings.csv --data.user userid --data.item movieid \\
    --data.time timestamp
MovieLens ml-latest-small on one CPU core: 4 min with other work on the machine; of the test, NDCG@10 0.065 and recall@10 0.131 (another
seed: 0.062 and 0.111). Texts and features: --data.items movies.csv --data.key movieId --data.features genres --data.encoder MODEL
--objective.item-dropout 0.2, where `omnia import minilm --run-dir MODEL` makes the encoder.
"""

from model import ModelConfig
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.objectives.tasks.recommendation import NextItem
from train.tasks.recommending.interactions import Recommendation


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="recommendation",
        steps=600,
        batch_size=32,
        model=ModelConfig(
            context_length=50, num_layers=1, embed_dim=64, num_heads=2, mlp_dim=128, positions="rotary", dropout=0.3, bias=False
        ),
        data=Recommendation(),
        objective=NextItem(),
        optimizer=AdamW(learning_rate=6e-3, weight_decay=0.1),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, best="ndcg@10"),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=20),
    )
