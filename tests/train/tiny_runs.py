"""Runs of tests: started, trained on as many devices as asked for, and what they come to."""

import signal

import jax
import numpy as np
import pytest

from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh
from train.experiment import MeshShape
from train.loop import checks, loop
from train.loop.meter import Meter
from train.loop.telemetry import read_metrics
from train.objectives.bind import state_of
from train.runs.directory import open_run
from train.runs.resolve import new_run

TIMING = {"time", "seconds", "tokens_per_second", "data_wait", "step_ms"}


def start(path, experiment):
    return new_run(path, experiment)


def train(run, devices: int = 1, report: bool = False, **options) -> dict:
    """The loop, on as many of the pretended devices as asked for. report: draw one, which takes a third of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        if not report:
            patch.setattr(loop, "write_report", lambda path: None)
        return loop.train(run, devices=jax.devices()[:devices], **options)


def check(experiment, corpora, devices: int = 1) -> None:
    """What the loop is checked for, on as many of the pretended devices as asked for."""
    checks.check(experiment, corpora, jax.devices()[:devices])


def outcome(run):
    """All metrics but the clock's, and the last state, as bytes."""
    rows = [{name: value for name, value in row.items() if name not in TIMING} for row in read_metrics(run.path)]
    experiment = run.experiment
    abstract = state_of(experiment, make_mesh(MeshShape(data=1), jax.devices()[:1]))
    checkpointer = Checkpointer(run.path, experiment.checkpoints)
    state, progress = checkpointer.restore(abstract)
    checkpointer.close()
    progress.pop("seconds")
    return rows, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], progress


def train_and_stop(path, step: int, monkeypatch) -> dict:
    """Go on with a run; SIGTERM when it has done `step`."""
    record = Meter.record

    def record_and_kill(self, done, *rest, **options):
        record(self, done, *rest, **options)
        if done == step:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "record", record_and_kill)
        summary = train(open_run(path))
    assert summary["step"] == step and summary["stopped"]
    return summary
