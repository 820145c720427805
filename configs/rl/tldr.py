r"""Summaries from human feedback (Stiennon et al. 2020) at one billion parameters, with the settings of Huang et al. 2024.

omnia train configs/rl/tldr.py:start --run-dir runs/tldr/start --start runs/llama_1b --data.environments.0.path tldr.jsonl
omnia train configs/rl/tldr.py:reward --run-dir runs/tldr/reward --start runs/tldr/start --data.files comparisons.jsonl
omnia train configs/rl/tldr.py:ppo --run-dir runs/tldr/ppo --start runs/tldr/start --data.environments.0.path tldr.jsonl \
    --data.environments.0.reward.run runs/tldr/reward
runs/llama_1b is a run of configs/llama_1b.py. tldr.jsonl: {"prompt": a post, ending "TL;DR:", "response": its summary}. comparisons.jsonl:
{"prompt", "chosen", "rejected"}. Eight GPUs or TPU cores. Not run yet: no time or score.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Schedule
from train.rl.environments.files import PromptFile
from train.rl.options import PPO, Demonstrations, Preferences, Prompts, RewardModelling
from train.rl.rewards.rewards import RewardModel

PROMPT, RESPONSE = 512, 53


def get_config(arg: str = "ppo") -> Experiment:
    shared = {
        "name": f"tldr, {arg}",
        "model": dataclasses.replace(preset("llama3_1b"), context_length=640, remat="full"),
        "mesh": MeshShape(data=1, fsdp=8),
        "checkpoints": Checkpoints(every=200),
        "schedule": Schedule(warmup_steps=0, decay="linear"),
    }
    adam = AdamW(learning_rate=3e-6, weight_decay=0.0, beta2=0.999, epsilon=1e-5)
    match arg:
        case "start":
            return Experiment(
                **shared,
                steps=912,  # one pass over the 116,722 posts
                batch_size=128,
                data=Demonstrations(environments=(PromptFile(),)),
                optimizer=adam,
                evaluation=Evaluation(every=200),
            )
        case "reward":
            return Experiment(
                **shared,
                steps=1451,  # one pass over the 92,858 comparisons
                batch_size=64,
                data=Preferences(),
                objective=RewardModelling(centre=0.0),
                optimizer=adam,
                evaluation=Evaluation(every=200),
            )
        case "ppo":
            return Experiment(
                **shared,
                steps=1953,  # a million responses
                batch_size=512,
                micro_batches=4,
                data=Prompts(
                    environments=(PromptFile(reward=RewardModel()),), prompt_tokens=PROMPT, validation=512, max_unusable=1_000_000
                ),
                objective=PPO(
                    response_tokens=RESPONSE,
                    temperature=0.7,
                    epochs=4,
                    critic="separate",
                    value_coefficient=0.1,
                    kl_coefficient=0.05,
                    reference="bfloat16",
                    missing_stop="replace",
                ),
                optimizer=adam,
                evaluation=Evaluation(every=100),
                logging=Logging(every=1),
            )
    raise ValueError(f"no variant {arg!r}; choose start, reward or ppo")
