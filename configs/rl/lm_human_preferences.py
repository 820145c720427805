r"""Fine-tuning from human preferences at the size of Ziegler et al. 2019: 124M parameters, prompts of 64 tokens, continuations of 24.

omnia train configs/rl/lm_human_preferences.py:reward --run-dir runs/lhp/reward --start runs/gpt2 --data.files labels.jsonl
omnia train configs/rl/lm_human_preferences.py:ppo --run-dir runs/lhp/ppo --start runs/gpt2 \
    --data.environments.0.path prompts.jsonl --data.environments.0.reward.run runs/lhp/reward
runs/gpt2 is a run of configs/gpt2_124m.py. labels.jsonl: {"prompt", "responses", "best"}, 4 responses each, 4,992 comparisons in the paper.
prompts.jsonl: {"prompt"}. The policy's settings are those of the paper's code: a response always has 24 tokens, is scored up to the first
full stop after the 16th, and gets -1 if there is none.
Not run yet: no time or score.
"""

from model.presets import preset
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Schedule
from train.rl.environments.files import PromptFile
from train.rl.options import PPO, Preferences, Prompts, RewardModelling
from train.rl.rewards.rewards import RewardModel


def get_config(arg: str = "ppo") -> Experiment:
    shared = {"name": f"lm_human_preferences, {arg}", "model": preset("gpt2"), "checkpoints": Checkpoints(every=100)}
    match arg:
        case "reward":
            return Experiment(
                **shared,
                steps=624,
                batch_size=8,
                data=Preferences(),
                objective=RewardModelling(),
                optimizer=AdamW(learning_rate=5e-5, weight_decay=0.0),
                schedule=Schedule(warmup_steps=0, decay="linear"),
                evaluation=Evaluation(every=100),
            )
        case "ppo":
            return Experiment(
                **shared,
                steps=1953,  # a million responses
                batch_size=512,
                data=Prompts(environments=(PromptFile(reward=RewardModel()),), prompt_tokens=64, max_unusable=1_000_000),
                objective=PPO(
                    response_tokens=24,
                    temperature=0.7,
                    epochs=4,
                    critic="shared",
                    value_coefficient=0.1,
                    whiten_rewards=True,
                    kl_coefficient=0.15,
                    kl_target=6.0,
                    kl_horizon=10_000.0,
                    stop=False,
                    cut_at=".",
                    cut_after=16,
                    missing_stop="replace",
                ),
                optimizer=AdamW(learning_rate=1e-5, weight_decay=0.0, beta2=0.999, epsilon=1e-5, epsilon_hat=True),
                schedule=Schedule(warmup_steps=0, decay="linear"),
                evaluation=Evaluation(every=100),
                logging=Logging(every=1),
            )
    raise ValueError(f"no variant {arg!r}; choose reward or ppo")
