"""AlphaZero in the training loop: a run like any other."""

import dataclasses

import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.tiny_runs import TIMING, check, start, train
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import MeshShape, make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, Logging, Schedule
from train.loop.telemetry import read_metrics
from train.rl.games.options import AlphaZero, BoardGame
from train.runs.directory import open_corpora, open_run

TINY = Experiment(
    name="tiny",
    steps=4,
    batch_size=8,
    ema_decay=0.5,
    data=BoardGame("tic_tac_toe", opening_plies=2, exploring_plies=2),
    objective=AlphaZero(width=8, blocks=1, simulations=2, minibatches=2, match_simulations=2),
    optimizer=AdamW(learning_rate=1e-2),
    schedule=Schedule(warmup_steps=0, decay="constant"),
    evaluation=Evaluation(every=0, rows=4),
    checkpoints=Checkpoints(every=4, keep=9),
    logging=Logging(every=1),
)


def final(run):
    return jax.device_get(load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]), raw=True)[0])


def rows_of(run):
    """What was measured, but for the clock."""
    return [{name: value for name, value in row.items() if name not in TIMING} for row in read_metrics(run.path) if row["kind"] == "train"]


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_bit_for_bit(tmp_path):
    """Two steps, then two more from the run directory alone: games, updates and averages are those of four at once."""
    whole = start(tmp_path / "whole", TINY)
    summary = train(whole, report=True)
    parts = start(tmp_path / "parts", dataclasses.replace(TINY, steps=2))
    train(parts)
    parts = open_run(parts.path)
    train(dataclasses.replace(parts, experiment=dataclasses.replace(parts.experiment, steps=4)))
    jax.tree.map(np.testing.assert_array_equal, final(whole), final(parts))
    assert rows_of(whole) == rows_of(parts)
    assert {"policy_kl", "value", "value_variance", "length", "first_wins", "draws"} <= set(rows_of(whole)[-1])
    found = summary["validation"]
    assert found["loss"] == -found["score_plain"] and found["games"] == 8 and 0 <= found["lost_perfect"] <= 1
    assert (whole.path / "report.html").is_file()
    again = evaluate_run(open_run(whole.path))
    assert again["step"] == 4 and {name: again[name] for name in ("score_random", "score_perfect")} == {
        name: found[name] for name in ("score_random", "score_perfect")
    }
    (sample,) = [row for row in read_metrics(whole.path) if row["kind"] == "sample"]
    assert all(move in map(str, range(9)) for move in sample["text"].split())


@pytest.mark.parametrize(
    "change, says",
    [
        ({"objective": AlphaZero(minibatches=3)}, "no multiple of 3 minibatches"),
        ({"data": BoardGame("no_such_game", longest=9)}, "no_such_game"),
    ],
)
def test_mistakes_are_said_before_the_first_step(change, says):
    experiment = dataclasses.replace(TINY, **change)
    with pytest.raises(UserError, match=says):
        check(experiment, open_corpora(experiment))


def test_only_games_are_for_alphazero():
    experiment = dataclasses.replace(TINY, objective=CausalLM())
    with pytest.raises(UserError):
        check(experiment, open_corpora(experiment))
    with pytest.raises(ValueError, match="longest"):
        BoardGame("connect_four", longest=42)
