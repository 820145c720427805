r"""GSM8K word problems (Cobbe et al. 2021) at one billion parameters: imitation, then GRPO or PPO on the checked answer.

omnia train configs/rl/gsm8k.py:start --run-dir runs/gsm8k/start --start runs/llama_1b \
    --data.environments.0.path train.jsonl --data.environments.0.validation-path test.jsonl
omnia train configs/rl/gsm8k.py:grpo --run-dir runs/gsm8k/grpo --start runs/gsm8k/start \
    --data.environments.0.path train.jsonl --data.environments.0.validation-path test.jsonl
runs/llama_1b is a run of configs/llama_1b.py. train.jsonl, test.jsonl: {"question", "answer"}, as published; the answer ends "#### NUMBER".
If TFDS has prepared the data set, give tfds:gsm8k@train and tfds:gsm8k@test instead.
Eight GPUs or TPU cores. Not run yet: no time or score.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Schedule
from train.rl.environments.files import PromptFile
from train.rl.options import GRPO, PPO, Demonstrations, Prompts
from train.rl.rewards.rewards import Answer

FILE = PromptFile(prompt_template="{question}\n", response_template="{answer}", reward=Answer())


def get_config(arg: str = "grpo") -> Experiment:
    shared = {
        "name": f"gsm8k, {arg}",
        "model": dataclasses.replace(preset("llama3_1b"), context_length=1024, remat="full"),
        "mesh": MeshShape(data=1, fsdp=8),
        "checkpoints": Checkpoints(every=50),
    }
    if arg == "start":
        return Experiment(
            **shared,
            steps=350,  # three passes over the 7,473 problems
            batch_size=64,
            data=Demonstrations(environments=(FILE,), validation=1024),
            optimizer=AdamW(learning_rate=1e-5, weight_decay=0.0),
            schedule=Schedule(warmup_steps=20),
            evaluation=Evaluation(every=100),
        )
    room = {"response_tokens": 512, "minibatches": 4, "kl_coefficient": 0.001}
    kinds = {"grpo": GRPO(group_size=8, slots=512, **room), "ppo": PPO(epochs=1, critic="separate", critic_warmup=5, **room)}
    if arg not in kinds:
        raise ValueError(f"no variant {arg!r}; choose start, grpo or ppo")
    return Experiment(
        **shared,
        steps=105,
        batch_size=1024,
        micro_batches=4,
        data=Prompts(environments=(FILE,), prompt_tokens=256, validation=1024, max_unusable=1000),
        objective=kinds[arg],
        optimizer=AdamW(learning_rate=1e-6, weight_decay=0.0),
        schedule=Schedule(warmup_steps=10, decay="constant"),
        evaluation=Evaluation(every=20),
        logging=Logging(every=1),
    )
