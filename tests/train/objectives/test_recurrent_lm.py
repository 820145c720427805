"""Training with a memory: it is part of the state, of its rows, and of evaluations."""

import dataclasses

import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from model.config import ModelConfig
from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import Decoder
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import _changed
from train.experiment import AdamW, Evaluation, Experiment, MeshShape, Samples, Schedule
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind
from train.objectives.text.options import RecurrentLM
from train.runs.directory import open_run
from train.runs.resolve import check_resume
from train.sources.lanes import TextLanes


@pytest.fixture
def recurrent(corpora):
    return Experiment(
        steps=4,
        batch_size=4,
        model=ModelConfig(context_length=16, num_layers=2, embed_dim=16, num_heads=2, positions="distance", dropout=0.1),
        data=TextLanes(shards=corpora),
        objective=RecurrentLM(memory=24),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=1),
        evaluation=Evaluation(every=2, rows=8),
        samples=Samples(tokens=0),
        mesh=MeshShape(data=-1),
    )


def test_a_stopped_run_remembers_and_several_devices_equal_one(recurrent, tmp_path, monkeypatch):
    whole = start(tmp_path / "whole", recurrent)
    train(whole)
    parts = start(tmp_path / "parts", recurrent)
    train_and_stop(parts.path, 3, monkeypatch)
    train(open_run(parts.path))
    assert outcome(parts) == outcome(whole)
    spread = start(tmp_path / "spread", recurrent)
    train(spread, devices=2)
    one, two = ([row["loss"] for row in read_metrics(run.path)] for run in (whole, spread))
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_an_evaluation_with_room_for_everything_equals_one_long_pass(recurrent, tmp_path, corpora, capsys):
    """One lane, a memory as long as the split: each document is predicted as if it stood in one row."""
    model = dataclasses.replace(recurrent.model, dropout=0.0)
    experiment = dataclasses.replace(recurrent, model=model, batch_size=1, steps=1, data=TextLanes(shards=corpora[1:]))
    run = start(tmp_path / "run", experiment)
    train(run)
    [corpus] = run.corpora()
    split = corpus.split("validation")
    params, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]))
    total = count = 0.0
    for number in range(len(split.lengths)):
        document = split.read(number).astype(np.int32)
        tokens = np.concatenate([[corpus.document_start], document[:-1]])[None]
        hidden = Decoder(run.experiment.model).apply({"params": params}, tokens).hidden_BTD
        total += float(score_tokens(Head(hidden, vocabulary_table(params)), document[None]).nll.sum())
        count += len(document)
    longest = 16 * -(-int(split.lengths.max()) // 16)
    capsys.readouterr()
    assert omnia.main(["evaluate", str(run.path), "--change", f"evaluation_memory={longest}"]) == 0
    shown = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert int(shown["tokens"]) == count
    np.testing.assert_allclose(float(shown["loss"]), total / count, rtol=2e-4)
    assert omnia.main(["evaluate", str(run.path), "--change", "memory=5"]) == 2
    assert "Can be changed: evaluation_memory=NUMBER" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["memory=5", "evaluation_memory=²", "evaluation_memory=x", "evaluation_memory"])
def test_evaluations_change_whole_numbers_of_their_own(change):
    with pytest.raises(UserError, match="Can be changed: evaluation_memory=NUMBER"):
        _changed(RecurrentLM(memory=24), (change,))


def test_what_a_memory_cannot_go_with_is_said(recurrent):
    for changes, message in (
        ({"micro_batches": 2}, "--micro-batches"),
        ({"model": dataclasses.replace(recurrent.model, positions="rotary")}, "model.positions are rotary"),
        ({"model": dataclasses.replace(recurrent.model, scan=True)}, "one by one"),
    ):
        with pytest.raises(UserError, match=message):
            bind(dataclasses.replace(recurrent, **changes))
    with pytest.raises(ValueError, match="from end to end"):
        TextLanes(fim_rate=0.5)
    with pytest.raises(ValueError, match=r"data\.words and data\.lexicon"):
        TextLanes(words=True)
    with pytest.raises(UserError, match="batch_size"):
        check_resume(recurrent, dataclasses.replace(recurrent, batch_size=8))
