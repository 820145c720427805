"""T1: shortest ways on a graph of which only random walks were seen (the first example of trlX).

omnia train configs/rl/random_walks.py:pretrain --run-dir runs/walks-start
omnia train configs/rl/random_walks.py:ppo --run-dir runs/walks --start runs/walks-start
"""

from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl.environments import RandomWalks
from train.rl.experiment import GRPO, PPO, RLOO, Demonstrations, Prompts

ROOM = {"prompt_tokens": 2, "validation": 200}


def get_config(arg: str = "ppo") -> Experiment:
    shared = {
        "name": f"random walks, {arg}",
        "model": ModelConfig(
            context_length=16,
            num_layers=2,
            embed_dim=64,
            num_heads=4,
            norm="rmsnorm",
            bias=False,
            positions="rotary",
        ),
        "logging": Logging(every=10),
        "samples": Samples(tokens=10),
        "checkpoints": Checkpoints(every=0),
    }
    if arg == "pretrain":
        return Experiment(
            **shared,
            steps=400,
            batch_size=100,
            data=Demonstrations(environments=(RandomWalks(),), validation=200, learn_prompts=True),
            optimizer=AdamW(learning_rate=3e-3),
            schedule=Schedule(warmup_steps=20),
            evaluation=Evaluation(every=0),
        )
    room = {"response_tokens": 10, "kl_coefficient": 0.0}
    objectives = {
        "ppo": PPO(**room, epochs=4, critic="separate", value_coefficient=1.2, decay=0.95),
        "ppo_shared": PPO(**room, epochs=4, critic="shared", value_coefficient=1.2),
        "ppo_branch": PPO(**room, epochs=4, critic="branch", value_coefficient=1.2),
        "grpo": GRPO(**room, samples=8),
        "rloo": RLOO(**room, samples=4),
    }
    return Experiment(
        **shared,
        steps=100,
        batch_size=128,
        data=Prompts(environments=(RandomWalks(),), **ROOM),
        objective=objectives[arg],
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=10, decay="constant"),
        evaluation=Evaluation(every=20),
    )
