"""A run that was stopped and resumed is the run that was not, bit for bit."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.conftest import change
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.checkpoints.checkpointer import Checkpointer, load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.totals import Evaluator
from train.experiment import AdamW, MeshShape, Muon, ScheduleFree
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind, flops_of
from train.runs.directory import open_corpora, open_run
from train.runs.resolve import check_resume, resolve
from train.sources.dataset import dataset_of


def train_and_watch_the_disk(run, monkeypatch):
    """Train; rows of metrics must be on the disk before a checkpoint of their step is, or a host that dies takes them with it."""
    path, synced, fsync, save = run.path / "metrics.jsonl", {}, os.fsync, Checkpointer.save

    def watch_fsync(file):
        fsync(file)
        synced[os.fstat(file).st_ino] = os.fstat(file).st_size

    def watch_save(self, state, *rest, **options):
        assert synced[path.stat().st_ino] == path.stat().st_size
        assert max(row["step"] for row in read_metrics(run.path)) == int(state.step)
        save(self, state, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", watch_fsync)
        patch.setattr(Checkpointer, "save", watch_save)
        train(run)


@pytest.mark.parametrize("kind", [AdamW, ScheduleFree, Muon])
def test_resumed_equals_uninterrupted(tiny, tmp_path, monkeypatch, kind):
    """SIGTERM after 5 of 8 steps, and once after 3 too: in the middle of an epoch, of the mixture's period, between two evaluations."""
    if kind is ScheduleFree:
        tiny = change(tiny, optimizer=ScheduleFree(), schedule={"decay": "constant"}, ema_decay=0.0)
    if kind is Muon:
        tiny = change(tiny, optimizer=Muon())
    whole = start(tmp_path / "whole", tiny)
    train_and_watch_the_disk(whole, monkeypatch)
    parts = start(tmp_path / "parts", tiny)
    for last in (3, 5) if kind is AdamW else (5,):
        train_and_stop(parts.path, last, monkeypatch)
    summary = train(start(parts.path, tiny))
    assert summary["step"] == 8 and not summary["stopped"]
    expected, found = outcome(whole), outcome(parts)
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]
    assert len([row for row in expected[0] if row["kind"] == "train"]) == 8
    # Who reads only the checkpoint's parameters gets what was evaluated: the average, which is not what is trained.
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    average, trained = (load_parameters(parts, mesh, raw=raw)[0] for raw in (False, True))
    evaluator = Evaluator(bind(parts.experiment, mesh), parts.experiment, mesh)
    found = dataset_of(parts.experiment).evaluate(evaluator, average, parts.corpora())
    assert found["loss"] == [row for row in expected[0] if row["kind"] == "evaluation"][-1]["loss"]
    assert any((a != t).any() for a, t in zip(jax.tree.leaves(average), jax.tree.leaves(trained), strict=True))


def test_state_saved_on_eight_devices_is_the_same_on_one(tiny, tmp_path):
    """Saved by a mesh of 2 x 2 x 2, read by one device and by 1 x 8: parameters equal to the bit."""
    experiment = change(tiny, steps=2, mesh=MeshShape(data=2, fsdp=2, tensor=2), batch_size=8, evaluation={"every": 0}, micro_batches=1)
    run = start(tmp_path / "run", experiment)
    train(run, devices=8)
    one, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]))
    eight, step = load_parameters(run, make_mesh(MeshShape(data=1, fsdp=8)))
    assert step == 2
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, eight)


def test_early_stopping_keeps_its_count(tiny, tmp_path, monkeypatch):
    """A rate of zero never improves: the run ends at the evaluation that exhausts its patience, also when it was stopped before."""
    experiment = change(tiny, steps=40, optimizer={"learning_rate": 0.0}, evaluation={"every": 1, "patience": 3}, ema_decay=0.0)
    run = start(tmp_path / "run", experiment)
    train_and_stop(run.path, 3, monkeypatch)
    summary = train(open_run(run.path))
    assert summary["step"] == 4 and summary["best_step"] == 1


def test_a_run_that_diverged_stops_and_keeps_its_last_good_checkpoint(tiny, tmp_path):
    """One step of a huge rate makes every number infinite: the loop says so, and what it saved before stands."""
    sane = change(tiny, steps=2, schedule={"warmup_steps": 0, "decay": "constant"}, micro_batches=1, ema_decay=0.0, evaluation={"every": 0})
    run = start(tmp_path / "run", sane)
    train(run)
    wild = change(run.experiment, steps=6, optimizer={"learning_rate": 1e38})
    with pytest.raises(UserError, match="training has diverged"):
        train(dataclasses.replace(run, experiment=wild))
    checkpointer = Checkpointer(run.path)
    assert checkpointer.latest_step() == 2
    checkpointer.close()


def test_a_complete_run_is_left_as_it_is(tiny, tmp_path):
    """Also where a kill came before its summary was written."""
    run = start(tmp_path / "run", change(tiny, steps=2, micro_batches=1))
    summary = train(run)
    assert train(run) == summary
    (run.path / "summary.json").unlink()
    again = train(run)
    assert again["validation"] == summary["validation"] and again["step"] == 2 and not again["stopped"]


def test_utilisation_is_of_the_devices_that_are_used(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("train.loop.loop.peak_flops", lambda kind: 1e9)
    run = start(tmp_path / "run", change(tiny, steps=2, micro_batches=1, evaluation={"every": 0}))
    train(run)
    row = [row for row in read_metrics(run.path) if row["kind"] == "train"][-1]
    assert row["mfu"] == pytest.approx(flops_of(run.experiment) * row["tokens_per_second"] / 1e9)


def test_what_may_not_change_is_named(tiny):
    check_resume(tiny, change(tiny, steps=99, evaluation={"every": 7}))
    with pytest.raises(UserError, match="model.embed_dim is 16, asked 32"):
        check_resume(tiny, change(tiny, model={"embed_dim": 32}))


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"ema_decay": 0.5},
        {"optimizer": {"learning_rate": 0.5}},
        {"optimizer": {"clip_norm": 0.5}},
        {"schedule": {"warmup_steps": 5}},
        {"schedule": {"decay": "linear"}},
        {"data": {"weights": (1.0, 1.0)}},
        {"data": {"fim_rate": 0.5}},
        {"model": {"dropout": 0.5}},
        {"frozen": ("embedding",)},
        {"start": "elsewhere"},
    ],
    ids=str,
)
def test_what_the_saved_state_depends_on_may_not_change(tiny, fields):
    with pytest.raises(UserError, match=f"cannot go on with another {next(iter(fields))}"):
        check_resume(tiny, change(tiny, **fields))


def test_a_run_refuses_other_shards(tiny, tmp_path):
    run = start(tmp_path / "run", tiny)
    swapped = change(tiny, data={"shards": tiny.data.shards[::-1]})
    with pytest.raises(UserError, match="the run was started on"):
        open_corpora(swapped, run)


def test_a_run_directory_says_what_is_wrong_with_it(tiny, tmp_path):
    with pytest.raises(UserError, match="not a run"):
        open_run(tmp_path)
    run = start(tmp_path / "run", tiny)
    with pytest.raises(UserError, match="no checkpoint"):
        load_parameters(run, make_mesh(MeshShape(data=1, fsdp=8)))
    config = run.path / "config.json"
    stored = json.loads(config.read_text())
    config.write_text(json.dumps(stored | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        open_run(run.path)
    stored["experiment"]["batch_size"] = 0
    config.write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"config.json: batch_size is 0"):
        open_run(run.path)
    config.write_text("{")
    with pytest.raises(UserError, match="line 1"):
        open_run(run.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists and is not a run"):
        start(tmp_path / "full", tiny)
    assert (tmp_path / "full" / "thesis.tex").exists()


def test_a_folder_that_holds_a_run_is_that_run_and_no_other(tiny, tmp_path):
    run = start(tmp_path / "run", tiny)
    assert start(run.path, tiny).identity != run.identity, "nothing was trained: it is made again"
    run = open_run(run.path)
    (run.path / "checkpoints" / "2").mkdir(parents=True)
    assert start(run.path, tiny) == run
    with pytest.raises(UserError, match=r"already holds a run\nChoose another folder, or `omnia train .*run` resumes it"):
        start(run.path, change(tiny, batch_size=8))
    assert open_run(run.path) == run


def test_ids_that_the_model_has_no_row_for_are_refused(tiny):
    with pytest.raises(UserError, match=r"token id 256.*model.vocab_size is 100"):
        resolve(change(tiny, model={"vocab_size": 100}), open_corpora(tiny))
