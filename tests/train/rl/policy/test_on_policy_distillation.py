"""On-policy distillation: a student that is its teacher has nothing to learn; another comes closer, whatever the rewards say."""

import dataclasses

import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.rl.conftest import ROOM, SAMPLES, experience, gradient, moved, parameters
from tests.train.rl.policies import TINY, policy, train_start
from tests.train.tiny_runs import start, train
from train.loop.telemetry import read_metrics
from train.rl.options import GRPO, OnPolicyDistillation
from train.runs.directory import open_run

DIVERGENCES = ("reverse", "forward", "jensen_shannon")
STUDENT = OnPolicyDistillation(group_size=2, response_tokens=4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_of_oneself_there_is_nothing_to_learn_and_of_another_there_is(divergence):
    """The loss is a divergence of whole predictions at the tokens that were sampled: rewards are no part of it."""
    options = OnPolicyDistillation(group_size=SAMPLES, response_tokens=ROOM, kl_divergence=divergence)
    params = parameters()
    batch = experience(options, params=params)[0]
    assert not np.asarray(batch.advantages).any()
    for teacher, same in ((params, True), (moved(params), False)):
        slope, metrics = gradient(options, params, batch, frozen={"reference": teacher})
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(slope))
        loss = float(metrics["loss"].total / metrics["loss"].weight)
        assert (largest < 1e-5 and abs(loss) < 1e-6) if same else (largest > 1e-4 and loss > 1e-4)


def test_a_student_comes_closer_to_a_teacher_of_another_shape(tmp_path):
    """Two layers teach one; the teacher is kept in the run, which trains on when it is gone."""
    begun = train_start(tmp_path / "start")
    deeper = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, num_layers=2), seed=1)
    teacher = start(tmp_path / "teacher", deeper)
    train(teacher)
    objective = dataclasses.replace(STUDENT, teacher=str(teacher.path), epochs=4)
    run = start(tmp_path / "student", policy(begun, objective, steps=3))
    assert run.experiment.objective.teacher_model[0].num_layers == 2
    teacher.path.rename(tmp_path / "gone")
    train(open_run(run.path))
    losses = [row["loss"] for row in read_metrics(run.path) if row["kind"] == "train"]
    assert len(losses) == 3 and losses[-1] < losses[0] and min(losses) > 0
    assert not (run.path / "checkpoints" / "3" / "teacher").exists()


def test_mistakes_are_said(tmp_path):
    with pytest.raises(ValueError, match="objective.teacher needs the whole predictions"):
        GRPO(teacher="run")
    with pytest.raises(ValueError, match="kl_divergence forward needs"):
        GRPO(kl_divergence="forward")
    with pytest.raises(UserError, match="no teacher"):
        STUDENT.completed([])
