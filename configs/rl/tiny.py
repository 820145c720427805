"""Tiny reinforcement learning tasks, each in two commands: learn to answer badly, then well.

omnia train configs/rl/tiny.py:addition_start --run-dir runs/addition-start
omnia train configs/rl/tiny.py:addition_grpo --run-dir runs/addition --start runs/addition-start

Tasks: walks, sort, addition, countdown, programs, sentiment, rudeness, facts, bandit. Kinds: ppo, grpo, dr_grpo, dapo, gspo, rloo,
reinforce, and dpo, which learns from comparisons (`omnia label`; --data.files FILE). benchmarks/rl_tasks.py measures what each reaches
(docs/log.md).
"""

import dataclasses

from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl import options as rl
from train.rl.environments.code import Programs
from train.rl.environments.environment import Environment
from train.rl.environments.text_tasks import Addition, Bandit, Countdown, KeyFacts, Letters, RandomWalks, Reviews


@dataclasses.dataclass(frozen=True)
class Task:
    """Size of the model, steps of imitation, steps of reinforcement learning and their KL coefficient."""

    environment: Environment
    prompt: int
    response: int
    width: int
    start_steps: int
    steps: int
    kl: float
    batch: int = 128
    minibatches: int = 1
    rate: float = 1e-3
    annealed: bool = True
    """False: imitation stops at its full learning rate, instead of decaying it."""


TASKS = {
    "walks": Task(RandomWalks(), 2, 10, 64, 400, 100, 0.0),
    "sort": Task(Letters("sort", 6, partial=False), 8, 8, 64, 120, 800, 0.0, batch=256, minibatches=2),
    "addition": Task(Addition(2), 8, 4, 64, 2800, 700, 0.0, batch=512, annealed=False),
    "countdown": Task(Countdown(), 16, 10, 64, 3000, 400, 0.0, batch=512, annealed=False),
    "programs": Task(Programs(), 24, 8, 64, 3000, 250, 0.0, batch=512, annealed=False),
    "sentiment": Task(Reviews("sentiment"), 42, 80, 64, 300, 30, 0.05),
    "rudeness": Task(Reviews("rudeness"), 42, 80, 64, 300, 30, 0.02),
    "facts": Task(KeyFacts(), 26, 48, 64, 300, 40, 0.02),
    "bandit": Task(Bandit(), 3, 1, 16, 100, 300, 0.5),
}
KINDS = {
    "ppo": rl.PPO,
    "grpo": rl.GRPO,
    "dr_grpo": rl.DrGRPO,
    "dapo": rl.DAPO,
    "gspo": rl.GSPO,
    "rloo": rl.RLOO,
    "reinforce": rl.ReinforcePlusPlus,
}
ALL = 128
"""Responses to the bandit's one prompt in a step of GRPO."""


def get_config(arg: str = "addition_grpo") -> Experiment:
    name, _, kind = arg.partition("_")
    if name not in TASKS or kind not in ("start", "dpo", *KINDS):
        raise ValueError(f"{arg!r} is none of TASK_start, TASK_KIND; tasks: {', '.join(TASKS)}; kinds: dpo, {', '.join(KINDS)}")
    task = TASKS[name]
    model = ModelConfig(
        context_length=task.prompt + task.response,
        num_layers=2,
        embed_dim=task.width,
        num_heads=max(2, task.width // 16),
        norm="rmsnorm",
        bias=False,
        positions="rotary",
    )
    shared = {"name": f"{name}, {kind}", "model": model, "logging": Logging(every=10), "checkpoints": Checkpoints(every=0)}
    if kind == "start":
        return Experiment(
            **shared,
            steps=task.start_steps,
            batch_size=64,
            data=rl.Demonstrations(environments=(task.environment,)),
            optimizer=AdamW(learning_rate=3e-3),
            schedule=Schedule(warmup_steps=20, decay="cosine" if task.annealed else "constant"),
            evaluation=Evaluation(every=0),
            samples=Samples(tokens=0),
        )
    if kind == "dpo":
        return Experiment(
            **shared,
            steps=task.steps,
            batch_size=256,
            data=rl.Preferences(),
            objective=rl.PreferenceLearning(beta=task.kl or 0.1),
            optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0, beta2=0.99),
            schedule=Schedule(warmup_steps=10, decay="linear"),
            evaluation=Evaluation(every=0),
        )
    objective = KINDS[kind](response_tokens=task.response, kl_coefficient=task.kl, minibatches=task.minibatches)
    if (name, kind) == ("bandit", "grpo"):
        # GRPO's own settings do not have the optimum start * exp(reward / coefficient): dividing by the group's deviation changes the unit
        # of reward, the gradient of k3 in the loss is that of the reversed KL, and a mean that includes the response itself removes
        # 1 / group_size of the gradient. So: no deviation, the exact KL, and one large group.
        objective = dataclasses.replace(objective, group_size=ALL, divide_by_std=False, kl_estimator="exact")
    return Experiment(
        **shared,
        steps=task.steps,
        batch_size=task.batch,
        data=rl.Prompts(environments=(task.environment,), prompt_tokens=task.prompt),
        objective=objective,
        optimizer=AdamW(learning_rate=task.rate, weight_decay=0.0, beta2=0.99),
        schedule=Schedule(warmup_steps=10, decay="linear"),
        evaluation=Evaluation(every=20),
    )
