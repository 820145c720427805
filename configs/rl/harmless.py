r"""A reward model from human judgements: which of two answers people found less harmful (Bai et al. 2022).

omnia train configs/rl/harmless.py --run-dir runs/harmless --start runs/text/lm --data.files train.jsonl
python benchmarks/preferences.py runs/harmless test.jsonl
runs/text/lm is a run of configs/text_small.py. train.jsonl, test.jsonl: {"chosen", "rejected"}, as published. Conversations of over 256
tokens are left out of training. It agrees with people in 0.618 of 212 pairs, 95 % interval 0.551 to 0.681 (docs/log.md).
"""

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Schedule
from train.rl.options import Preferences, RewardModelling


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is one")
    return Experiment(
        name="harmless",
        steps=75,
        batch_size=32,
        model=ModelConfig(context_length=256, num_layers=3, embed_dim=128, num_heads=4, **MODERN),
        data=Preferences(validation=128),
        objective=RewardModelling(),
        optimizer=AdamW(learning_rate=3e-4),
        schedule=Schedule(warmup_steps=10),
        checkpoints=Checkpoints(every=0),
        evaluation=Evaluation(every=25),
        logging=Logging(every=10),
    )
