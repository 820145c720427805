"""A run that learned from demonstrations, policies that start from it, and what a run of theirs comes to."""

import dataclasses

import jax
import numpy as np

from model.config import ModelConfig
from tests.train.tiny_runs import TIMING, start, train
from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.loop.learner import learner_of, state_to_restore
from train.loop.telemetry import read_metrics
from train.rl.environments.environment import Prompt, Reply, Simulator
from train.rl.environments.text_tasks import Addition, Letters
from train.rl.options import PPO, Demonstrations, Prompts

TASKS = (Letters(length=3), Addition(digits=1))
TINY = Experiment(
    name="tiny",
    steps=4,
    batch_size=8,
    model=ModelConfig(
        context_length=12, num_layers=1, embed_dim=16, num_heads=2, positions="rotary", norm="rmsnorm", bias=False, scan=True
    ),
    data=Demonstrations(environments=TASKS, validation=8),
    optimizer=AdamW(learning_rate=1e-2),
    schedule=Schedule(warmup_steps=0),
    mesh=MeshShape(data=1),
    evaluation=Evaluation(every=0),
    checkpoints=Checkpoints(every=4, keep=9),
    samples=Samples(tokens=0),
    logging=Logging(every=1),
)
PROMPTS = Prompts(environments=TASKS, prompt_tokens=6, validation=8)
POLICY = PPO(
    group_size=2,
    response_tokens=4,
    critic="shared",
    epochs=2,
    minibatches=2,
    scale_scores=True,
    reference="host",
    kl_coefficient=0.1,
    kl_target=1.0,
    kl_horizon=100.0,
)


def train_start(path):
    """A run that learned from demonstrations, for policies to start from."""
    run = start(path, TINY)
    train(run)
    return run


def policy(started, objective=POLICY, **fields) -> Experiment:
    return dataclasses.replace(TINY, **{"data": PROMPTS, "objective": objective, "start": str(started.path)} | fields)


def outcome(run):
    """All metrics but the clock's, and the last state, by the names of its arrays."""
    rows = [
        {name: value for name, value in row.items() if name not in {*TIMING, "time/rollout", "time/reward", "time/update"}}
        for row in read_metrics(run.path)
    ]
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    learner = learner_of(run, run.corpora(), mesh)
    checkpointer = Checkpointer(run.path, run.experiment.checkpoints)
    state, progress = checkpointer.restore(state_to_restore(learner, mesh, ema=False))
    checkpointer.close()
    return rows, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


@dataclasses.dataclass(frozen=True)
class Echo(Simulator):
    """Says what was said, once; every turn earns its length in tenths, and one that begins with 9 ends it all."""

    turns: int = 2

    @property
    def alphabet(self):
        return "0123456789"

    @property
    def held_out(self):
        return False

    def draw(self, rng):
        return Prompt(rng.choice("12"))

    def reply(self, prompt, said):
        return Reply(said[-1][:2], len(said[-1]) / 10, said[-1].startswith("9"))

    def act(self, prompt, said, rng):
        return "".join(rng.choice("0123") for _ in range(rng.randint(1, 3)))
