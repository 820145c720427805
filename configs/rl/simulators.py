"""Tiny conversations, each in two commands: imitate a scripted player, then learn to play better.

omnia train configs/rl/simulators.py:calculator_start --run-dir runs/calculator-start
omnia train configs/rl/simulators.py:calculator_ppo --run-dir runs/calculator --start runs/calculator-start

Tasks, of train/rl/environments: talk, recommend (simulators.py), satisfaction (satisfaction.py), map, code, calculator (text_games.py).
Kinds: ppo, grpo. One core, seed 0: the calculator's score goes from 0.145 to 0.492 in 40 steps of PPO, after 497 steps of imitation.
configs/tables/slates.py is about satisfaction. docs/log.md has the other runs; the remaining tasks are untried.
"""

import dataclasses

from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl import options as rl
from train.rl.environments.environment import Simulator
from train.rl.environments.satisfaction import Satisfaction
from train.rl.environments.simulators import Recommendations, SlotFilling
from train.rl.environments.text_games import Calculator, SecretCode, TreasureMap


@dataclasses.dataclass(frozen=True)
class Task:
    """Maximal tokens of a prompt, a turn and a reply, with their roles and ends; steps of imitation and of reinforcement learning."""

    simulator: Simulator
    prompt: int
    turn: int
    reply: int
    start_steps: int
    steps: int


TASKS = {
    "talk": Task(SlotFilling(), 34, 14, 27, 300, 60),
    "recommend": Task(Recommendations(), 27, 7, 20, 300, 60),
    "satisfaction": Task(Satisfaction(), 6, 3, 6, 60, 100),
    "map": Task(TreasureMap(), 20, 2, 20, 300, 60),
    "code": Task(SecretCode(), 14, 4, 19, 300, 60),
    "calculator": Task(Calculator(), 14, 14, 13, 600, 60),
}
KINDS = {"ppo": rl.PPO, "grpo": rl.GRPO}


def get_config(arg: str = "calculator_ppo") -> Experiment:
    name, _, kind = arg.partition("_")
    if name not in TASKS or kind not in ("start", *KINDS):
        raise ValueError(f"{arg!r} is none of TASK_start, TASK_KIND; tasks: {', '.join(TASKS)}; kinds: {', '.join(KINDS)}")
    task = TASKS[name]
    turns = task.simulator.turns
    model = ModelConfig(
        context_length=task.prompt + turns * task.turn + (turns - 1) * task.reply,
        num_layers=2,
        embed_dim=64,
        num_heads=4,
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
            data=rl.Demonstrations(environments=(task.simulator,)),
            optimizer=AdamW(learning_rate=3e-3),
            schedule=Schedule(warmup_steps=20),
            evaluation=Evaluation(every=0),
            samples=Samples(tokens=0),
        )
    return Experiment(
        **shared,
        steps=task.steps,
        batch_size=128,
        data=rl.Prompts(environments=(task.simulator,), prompt_tokens=task.prompt, reply_tokens=task.reply),
        objective=KINDS[kind](response_tokens=task.turn, kl_coefficient=0.0),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0, beta2=0.99),
        schedule=Schedule(warmup_steps=10, decay="linear"),
        evaluation=Evaluation(every=20),
    )
