r"""MAWPS word problems (Koncel-Kedziorski et al. 2016): imitate expressions on a share of the problems, then reward answers on all.

omnia train configs/rl/mawps.py:start --run-dir runs/mawps/start --start runs/text/lm \
    --data.environments.0.path trainset.json.gz --data.environments.0.validation-path testset.json.gz
omnia train configs/rl/mawps.py:grpo --run-dir runs/mawps/grpo --start runs/mawps/start \
    --data.environments.0.path trainset.json.gz --data.environments.0.validation-path testset.json.gz
runs/text/lm is a run of configs/text_small.py. An expression teaches more than an answer but costs more to write down: `start` sees the
expressions of three problems in ten, `grpo` and `ppo` the answers of all. Problems of over 80 tokens are left out.
Exact answers on held-out problems: 0.32 after `start`, 0.48 after `grpo` (docs/log.md).
"""

import dataclasses

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl.environments.word_problems import WordProblems
from train.rl.options import GRPO, PPO, Demonstrations, Prompts

PROMPT, RESPONSE = 80, 14


def get_config(arg: str = "grpo") -> Experiment:
    shared = {
        "name": f"mawps, {arg}",
        "model": ModelConfig(context_length=PROMPT + RESPONSE, num_layers=3, embed_dim=128, num_heads=4, **MODERN),
        "checkpoints": Checkpoints(every=0),
        "logging": Logging(every=10),
    }
    if arg == "start":
        return Experiment(
            **shared,
            steps=60,
            batch_size=32,
            data=Demonstrations(environments=(WordProblems(share=0.3),)),
            optimizer=AdamW(learning_rate=1e-3),
            schedule=Schedule(warmup_steps=10, decay="constant"),
            evaluation=Evaluation(every=0),
            samples=Samples(tokens=0),
        )
    kinds = {"grpo": GRPO(kl_coefficient=0.0), "ppo": PPO(kl_coefficient=0.0, critic_warmup=5)}
    if arg not in kinds:
        raise ValueError(f"no variant {arg!r}; choose start, grpo or ppo")
    return Experiment(
        **shared,
        steps=160,
        batch_size=128,
        data=Prompts(environments=(WordProblems(),), prompt_tokens=PROMPT, validation=174, max_unusable=1000),
        objective=dataclasses.replace(kinds[arg], response_tokens=RESPONSE),
        optimizer=AdamW(learning_rate=3e-4, weight_decay=0.0, beta2=0.99),
        schedule=Schedule(warmup_steps=10, decay="linear"),
        evaluation=Evaluation(every=20),
    )
