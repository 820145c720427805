r"""Learning from preferences in miniature (Ziegler et al. 2019): reviews from a small grammar, and a score that counts good and bad words.

omnia train configs/rl/reviews.py:start --run-dir runs/reviews/start
omnia label runs/reviews/start --output runs/reviews/labels.jsonl --prompts 4096 --prompt-tokens 42 --response-tokens 80
omnia train configs/rl/reviews.py:reward --run-dir runs/reviews/reward --start runs/reviews/start --data.files runs/reviews/labels.jsonl
omnia train configs/rl/reviews.py:ppo --run-dir runs/reviews/ppo --start runs/reviews/start \
    --data.environments.0.reward.run runs/reviews/reward

`score` is the reward model's, in standard deviations of its validation responses; `gold` counts good minus bad words. They go from 0.05
and -0.01 to 2.24 and 2.96, at a KL of 5.6 (PPO: 9 minutes of one core, beside other jobs). With few labels (--prompts 12 --seed 9, and
--steps 40 --batch-size 8 for the reward model) and without a KL penalty (ppo_no_kl instead of ppo) the policy exploits errors of the
reward model; docs/rl.md has the curves.
"""

from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl.environments.text_tasks import Reviews
from train.rl.options import PPO, Demonstrations, Preferences, Prompts, RewardModelling
from train.rl.rewards.rewards import Judged, RewardModel

PROMPT, RESPONSE = 42, 80
"""Characters."""


def get_config(arg: str = "ppo") -> Experiment:
    shared = {
        "name": f"reviews, {arg}",
        "model": ModelConfig(
            context_length=PROMPT + RESPONSE, num_layers=2, embed_dim=64, num_heads=4, norm="rmsnorm", bias=False, positions="rotary"
        ),
        "logging": Logging(every=2 if arg.startswith("ppo") else 10),
        "checkpoints": Checkpoints(every=0),
    }
    match arg:
        case "start":
            return Experiment(
                **shared,
                steps=400,
                batch_size=64,
                data=Demonstrations(environments=(Reviews("sentiment"),)),
                optimizer=AdamW(learning_rate=3e-3),
                schedule=Schedule(warmup_steps=20),
                evaluation=Evaluation(every=0),
                samples=Samples(tokens=0),
            )
        case "reward":
            return Experiment(
                **shared,
                steps=300,
                batch_size=32,
                data=Preferences(),
                objective=RewardModelling(),
                optimizer=AdamW(learning_rate=1e-3),
                schedule=Schedule(warmup_steps=20),
                evaluation=Evaluation(every=0),
            )
        case "ppo" | "ppo_no_kl":
            held = arg == "ppo"
            price = {"kl_coefficient": 0.1, "kl_target": 6.0, "kl_horizon": 1000.0} if held else {"kl_coefficient": 0.0}
            return Experiment(
                **shared,
                steps=80,
                batch_size=128,
                data=Prompts(environments=(Judged(Reviews("sentiment"), RewardModel()),), prompt_tokens=PROMPT),
                objective=PPO(response_tokens=RESPONSE, gae_lambda=1.0, **price),
                optimizer=AdamW(learning_rate=3e-4, weight_decay=0.0, beta2=0.99),
                schedule=Schedule(warmup_steps=10, decay="linear"),
                evaluation=Evaluation(every=5),
            )
    raise ValueError(f"no variant {arg!r}; choose start, reward, ppo or ppo_no_kl")
