"""The bookkeeping that checkpoints hold: what was written is read, also by another version."""

import dataclasses
import math

import pytest

from train.loop.progress import Progress, cost

STORED = {
    "tokens": 10,
    "seconds": 1.5,
    "best_loss": 2.5,
    "best_step": 4,
    "worse_evaluations": 1,
    "loss": None,
    "looked": 6,
    "rewinds": 1,
    "rewound_from": 5,
    "rewound_to": 4,
}


def test_checkpoints_keep_the_names_that_they_always_had():
    progress = Progress.from_json(STORED)
    assert progress.to_json() == STORED and list(progress.to_json()) == list(STORED)
    assert progress.finished_step == 6 and progress == Progress(10, 1.5, 2.5, 4, 1, None, 6, 1, 5, 4)


def test_another_version_may_know_more_names_or_fewer():
    fewer = {name: value for name, value in STORED.items() if name != "rewinds"}
    assert Progress.from_json(fewer) == dataclasses.replace(Progress.from_json(STORED), rewinds=0)
    assert Progress.from_json(STORED | {"of_tomorrow": 1}) == Progress.from_json(STORED)
    assert Progress.from_json({}) == Progress()


def test_an_evaluation_is_the_best_or_one_worse():
    first = Progress().evaluated(2, 3.0)
    assert (first.loss, first.best_loss, first.best_step, first.worse_evaluations) == (3.0, 3.0, 2, 0)
    second = first.evaluated(4, 3.0)
    assert (second.loss, second.best_loss, second.best_step, second.worse_evaluations) == (3.0, 3.0, 2, 1)
    assert second.evaluated(6, 2.0) == dataclasses.replace(second, loss=2.0, best_loss=2.0, best_step=6, worse_evaluations=0)


@pytest.mark.parametrize(
    "name, less",
    [("loss", True), ("loss/wiki", True), ("mood/loss", True), ("x/wer", True), ("rmse", True), ("mood/f1", False), ("f1", False)],
)
def test_of_errors_less_is_better_whichever_task_or_source_they_are_of(name, less):
    assert cost(name, 2.0) == (2.0 if less else -2.0) and cost(name, math.nan) == math.inf
