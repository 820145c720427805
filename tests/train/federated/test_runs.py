"""Simulated federations as runs, and files split among clients."""

import dataclasses
import json
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import check, outcome, start, train, train_and_stop
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.experiment import SGD, Experiment, MeshShape, Schedule
from train.federated.split import dirichlet
from train.loop.telemetry import read_metrics
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.sources.dataset import dataset_of, open_sources
from train.sources.drawing import drawing_of
from train.step.federated.options import Federated
from train.tasks.classification import Classification


@pytest.fixture
def federation(tmp_path):
    """Rows of ten clients, who have from one to eleven each."""
    rng = np.random.default_rng(0)
    owner = np.sort(np.concatenate([np.arange(10), rng.integers(0, 10, 50)]))
    rows = [{"text": f"{'ab'[n % 2] * 3} {n}", "label": "xy"[n % 2], "who": f"p{who}"} for n, who in enumerate(owner)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    byte_tokenizer().save(str(tmp_path / "bytes"))
    shape: dict[str, Any] = {"context_length": 32, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "prediction_head": False}
    return Experiment(
        steps=6,
        batch_size=4,
        model=TextEncoderConfig(**shape),
        data=Classification(files=(str(tmp_path / "train.jsonl"),), tokenizer=str(tmp_path / "bytes"), length=32, validation=0.0),
        objective=Supervised(),
        gradient=Federated(user="who", user_rows=8, local_batch=4, scaffold=True, staleness=1, clip=1.0, quantile=0.5),
        optimizer=SGD(learning_rate=1.0, clip_norm=0.0),
        schedule=Schedule(warmup_steps=0, decay="constant"),
        mesh=MeshShape(data=1),
    )


def test_a_stopped_federation_goes_on_to_the_bit(federation, tmp_path, monkeypatch):
    """With all that rounds hand on: late parameters, each client's control, the clipping norm."""
    whole, stopped = (start(tmp_path / name, federation) for name in ("whole", "stopped"))
    train(whole)
    train_and_stop(stopped.path, 3, monkeypatch)
    train(open_run(stopped.path))
    assert outcome(whole) == outcome(stopped)
    assert whole.experiment.gradient.clients == 10
    last = [row for row in read_metrics(whole.path) if "loss" in row][-1]
    assert last["clients"] == 4 and last["rejected"] == 0 and last["clip"] != 1.0


def test_clients_are_an_axis_of_the_mesh(federation, tmp_path):
    """Four clients on four devices, each with its own: the round is that of one device, and no device computes another's."""
    found = []
    for count in (1, 4):
        run = start(tmp_path / str(count), dataclasses.replace(federation, steps=2, mesh=MeshShape(data=count)))
        train(run, devices=count)
        params, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]))
        found.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    np.testing.assert_allclose(*found, atol=2e-5)


def test_rounds_take_other_clients_each_time_and_rows_of_one_client_each(federation):
    sources = open_sources(federation)
    ready = dataclasses.replace(federation, objective=federation.objective.completed(sources))
    drawing = drawing_of(ready)
    assert drawing is not None
    batches, seen = drawing.batches(dataset_of(ready), sources), Counter()
    for step in range(40):
        batch = batches.batch(4 * step, 4)
        clients = batch.clients.reshape(4, 8)
        assert (clients == clients[:, :1]).all() and len({*clients[:, 0]}) == 4
        seen.update(clients[:, 0].tolist())
        np.testing.assert_array_equal(batches.batch(4 * step, 4).rows.tokens, batch.rows.tokens)
    assert {*seen} == {*range(10)} and min(seen.values()) >= 8
    assert drawing.frozen() == {}


def test_private_rounds_draw_each_user_by_itself_and_say_what_they_cost(federation, tmp_path):
    private = Federated(user="who", user_rows=8, local_batch=4, clip=0.5, noise_multiplier=1.0, delta=1e-2, expected_batch=2)
    run = start(tmp_path / "run", dataclasses.replace(federation, batch_size=20, steps=2, gradient=private))
    train(run)
    facts = json.loads((run.path / "privacy.json").read_text())
    assert facts["unit"] == "user" and facts["units"] == 10 and facts["rate"] == 0.2 and facts["epsilon_pld"] > 0
    with pytest.raises(UserError, match="column 'person'"):
        start(tmp_path / "other", dataclasses.replace(federation, gradient=dataclasses.replace(private, user="person")))
    few = dataclasses.replace(federation, gradient=dataclasses.replace(private, expected_batch=3))
    with pytest.raises(UserError, match="too little room"):
        check(few, open_sources(few))


def test_dirichlet_shares_labels_out_as_unevenly_as_alpha_says():
    """Every row has one client; a large alpha makes clients alike, a small one leaves most of a label to few."""
    labels = ["x", "y"] * 2000
    alike, uneven = (dirichlet(labels, 10, alpha, seed=1) for alpha in (1e4, 0.05))
    np.testing.assert_array_equal(alike, dirichlet(labels, 10, 1e4, seed=1))
    assert min(np.bincount(alike[::2], minlength=10)) > 190
    assert max(np.bincount(uneven[::2], minlength=10)) > 1000
    assert len(uneven) == 4000 and uneven.min() >= 0 and uneven.max() < 10
    shares = np.concatenate([np.bincount(dirichlet(["x"] * 500, 5, 2.0, seed=s), minlength=5) / 500 for s in range(200)])
    assert abs(shares.var() - (1 / 5) * (4 / 5) / (2.0 * 5 + 1)) < 0.002, "the variance of a Dirichlet share"


def test_a_file_is_split_among_clients(tmp_path, capsys):
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "who": f"u/{n % 3}"} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    split = ["federate", "split", str(tmp_path / "rows.jsonl"), "--output"]
    assert omnia.main([*split, str(tmp_path / "out.jsonl"), "--clients", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert said["rows"] == 30 == sum(said["clients"].values())
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert Counter(row["client"] for row in found) == said["clients"]
    assert omnia.main([*split, str(tmp_path / "folder"), "--by", "who"]) == 0
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["u_0.jsonl", "u_1.jsonl", "u_2.jsonl"]
    assert [json.loads(line)["text"] for line in files[1].read_text().splitlines()] == [f"t{n}" for n in range(1, 30, 3)]
    for wrong, why in (
        ([str(tmp_path / "folder"), "--by", "who"], "holds other things"),
        ([str(tmp_path / "x"), "--by", "whom"], "has no field 'whom'"),
        ([str(tmp_path / "x"), "--alpha", "0"], "not above 0"),
    ):
        assert omnia.main([*split, *wrong]) == 2
        assert why in capsys.readouterr().err


def test_keys_are_made_once(tmp_path, capsys):
    assert omnia.main(["federate", "keys", "--output", str(tmp_path / "keys"), "--clients", "ann", "bob"]) == 0
    assert {file.name for file in (tmp_path / "keys").iterdir()} == {
        "server.pem",
        "server.key",
        "clients.json",
        "client-ann.token",
        "client-bob.token",
    }
    for wrong, why in ((["ann", "ann"], "each given once"), (["a/b"], "letters, digits")):
        assert omnia.main(["federate", "keys", "--output", str(tmp_path / "more"), "--clients", *wrong]) == 2
        assert why in capsys.readouterr().err
    for arguments, why in (
        (["--run-dir", "x"], "--token FILE or --name NAME"),
        (["--run-dir", "x", "--token", str(tmp_path / "none")], "cannot be read"),
        (["--run-dir", "x", "--name", "ann", "--server", "nowhere"], "no HOST:PORT"),
        (["--run-dir", "x", "--name", "ann", "--patience", "long"], "--patience"),
        (["--run-dir", "x", "--name", "ann", "--server", "example.org:1"], "readable on the way"),
    ):
        assert omnia.main(["federate", "client", *arguments]) == 2
        assert why in capsys.readouterr().err
