"""A server and clients over loopback: what they learn is what all rows in one place would teach, and the rows stay where they are."""

import contextlib
import dataclasses
import json
import socket
import threading
from typing import Any

import jax
import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.kinds.options import kinds_of_data, naming
from tests.train.tiny_runs import start, train, train_and_stop
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.experiment import SGD, Checkpoints, Exact, Experiment, MeshShape, Schedule
from train.federated import client as clients
from train.federated import exchange, network
from train.federated.messages import Malformed, packed, unpacked
from train.federated.network import Server, host_of, listening, make_keys, read_token
from train.federated.options import Gathered, Network
from train.federated.server import for_clients
from train.generation.chat import Chat, load_chat
from train.objectives.distillation import Distillation
from train.objectives.tasks.options import Supervised
from train.runs.serialize import to_json
from train.tasks.changes.augmentation import Augment
from train.tasks.classification import Classification

WORDS = ("Ankara", "Bogota", "Cairo", "Dublin", "Essen", "Fresno", "Ghent", "Hanoi")
SIZES = {"ann": 8, "bob": 4, "eve": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files of three clients, all rows in one file, a tokenizer."""
    folder = tmp_path_factory.mktemp("federation")
    rng, everything = np.random.default_rng(0), []
    for name, size in SIZES.items():
        rows = [{"text": f"{name} {rng.choice(WORDS)} {n}", "label": "xy"[int(rng.integers(2))]} for n in range(size)]
        rows[0]["label"], rows[1]["label"] = "x", "y"
        everything += rows
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in everything))
    byte_tokenizer().save(str(folder / "bytes"))
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def experiment(place, **changed) -> Experiment:
    """Rounds that are one step of all rows: gathered, or with `gradient` in one place."""
    shape: dict[str, Any] = {"context_length": 24, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "prediction_head": False}
    address = f"localhost:{free_port()}"
    found = Experiment(
        steps=3,
        batch_size=3,
        model=TextEncoderConfig(**shape),
        data=Classification(validation_files=(str(place / "all.jsonl"),), tokenizer=str(place / "bytes"), length=24),
        objective=Supervised(labels=("x", "y"), head_dropout=0.0),
        gradient=Gathered(local_batch=8, local_learning_rate=0.5, network=Network(address=address, least=3, seconds=60)),
        optimizer=SGD(learning_rate=1.0, clip_norm=0.0),
        schedule=Schedule(warmup_steps=0, decay="constant"),
        checkpoints=Checkpoints(every=1),
        mesh=MeshShape(data=1),
    )
    return dataclasses.replace(found, **changed)


class Clients(contextlib.AbstractContextManager):
    """Clients in threads of this process. sent: all that each put on the wire."""

    def __init__(self, place, tmp_path, experiment, names=tuple(SIZES)):
        self.sent: dict[str, list[bytes]] = {name: [] for name in names}
        self.said: dict[str, list[str]] = {name: [] for name in names}
        self.errors: list[BaseException] = []
        self._stubs: list[Server] = []
        self._patch = pytest.MonkeyPatch()
        parts = [(name, place, tmp_path, experiment) for name in names]
        self._threads = [threading.Thread(target=self._part, args=part, daemon=True) for part in parts]

    def _part(self, name, place, tmp_path, experiment):
        try:
            stub = Server(experiment.gradient.network.address, f"{name} -", None, 60.0, self.said[name].append)
            self._stubs.append(stub)
            stub.sent = self.sent[name].append
            theirs, said = clients.joined(stub)
            data = dataclasses.replace(theirs.data, files=(str(place / f"{name}.jsonl"),))
            run, sources = clients.made_run(str(tmp_path / f"part-{name}"), theirs, said, data, "")
            trainer = clients.Trainer(run, sources, said["base"], name)
            clients.take_part(stub, trainer, theirs, name, self.said[name].append)
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        wait = exchange.Exchange._wait

        def wait_while_all_is_well(rounds, between):
            if self.errors:
                raise self.errors[0]
            wait(rounds, between)

        self._patch.setattr(exchange.Exchange, "_wait", wait_while_all_is_well)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join(timeout=1 if self.errors else 60)
        self._patch.undo()
        for stub in self._stubs:
            stub.close()
        if self.errors:
            raise self.errors[0]
        assert not any(thread.is_alive() for thread in self._threads)


def parameters(run):
    return jax.device_get(load_parameters(run, inference_mesh(run.experiment.mesh))[0])


def equal(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


@pytest.fixture(scope="module")
def central(place, tmp_path_factory):
    """Parameters after the same steps with all rows in one place."""
    data = Classification(files=(str(place / "all.jsonl"),), tokenizer=str(place / "bytes"), length=24, validation=0.0)
    plain = experiment(place, data=data, gradient=Exact(), batch_size=18, optimizer=SGD(learning_rate=0.5, clip_norm=0.0))
    run = start(tmp_path_factory.mktemp("central") / "run", plain)
    train(run)
    return parameters(run)


def test_clients_learn_together_what_all_rows_in_one_place_teach_and_keep_their_rows(place, tmp_path, central):
    """One local step of all rows is a step of the whole. What went over the wire are names of calls, changes of parameters, a weight and a
    loss: no text, no tokens, no label."""
    one = experiment(place)
    run = start(tmp_path / "run", one)
    chat = Chat("{{ messages }}", stop_ids=(3,))
    chat.save(run.path)
    with Clients(place, tmp_path, one) as parts:
        assert train(run)["exit"] == 0
    equal(parameters(run), central, 2e-6)
    assert all(load_chat(tmp_path / f"part-{name}") == chat for name in SIZES), "conversations are written alike by all"
    fields: set[str] = set()
    for name, messages in parts.sent.items():
        for content in messages:
            message = unpacked(content)
            fields |= {*message}
            for row in (place / f"{name}.jsonl").read_text().splitlines():
                text = json.loads(row)["text"]
                ids = np.frombuffer(text.encode(), np.uint8)
                assert not any(ids.astype(kind).tobytes() in content for kind in ("u1", "<i4", "<f4"))
            assert all(word.encode() not in content for word in WORDS)
        sizes = sorted(len(content) for content in messages if len(content) > 1000)
        assert len(sizes) == 3 and sizes[0] == sizes[-1], "as many updates as rounds, whose size tells nothing of the rows"
    assert fields == {"format", "protocol", "did", "round", "change", "weight", "loss"}


def test_added_unseen_the_sum_is_the_same(place, tmp_path, central):
    """With secure aggregation; what a client sends is not its update."""
    gradient = dataclasses.replace(experiment(place).gradient, secure=True, clip=50.0, most_weight=16.0)  # type: ignore[type-var]
    one = experiment(place, gradient=gradient)
    run = start(tmp_path / "run", one)
    with Clients(place, tmp_path, one) as parts:
        train(run)
    equal(parameters(run), central, 2e-5)
    vectors = [unpacked(content)["vector"] for content in parts.sent["ann"] if b"vector" in content]
    assert len(vectors) == 3 and all(vector.dtype == np.uint32 for vector in vectors)
    high = np.bincount(np.concatenate(vectors) >> 30, minlength=4) / sum(map(len, vectors))
    assert abs(high - 0.25).max() < 0.03


def test_a_server_that_is_stopped_loses_no_round(place, tmp_path, monkeypatch, central):
    """Clients wait for it, and go on; no round is trained twice."""
    run = start(tmp_path / "run", experiment(place))
    with Clients(place, tmp_path, run.experiment) as parts:
        train_and_stop(run.path, 2, monkeypatch)
        train(run)
    equal(parameters(run), central, 2e-6)
    assert sum(line.startswith("round ") for line in parts.said["ann"]) == 3


UPDATE = {"did": "train", "round": 3, "change": {"w": np.ones(2, np.float32)}, "weight": 2, "loss": 0.5}


@pytest.mark.parametrize(
    "wrong, why",
    [
        ({"change": {"w": np.full(2, 1e4, np.float32)}}, "long, and at most 30 is agreed"),
        ({"change": {"w": np.array([1, np.nan], np.float32)}}, "w is not finite"),
        ({"change": {"w": np.ones((1, 2), np.float32)}}, "no float32 array of shape"),
        ({"change": {"w": np.ones(2, np.uint32)}}, "no float32 array of shape"),
        ({"change": {"w": np.ones(2, np.float32), "v": np.ones(2, np.float32)}}, "other names than the parameters"),
        ({"change": "w"}, "other names than the parameters"),
        ({"weight": 1e9}, "weight is no number"),
        ({"weight": -1}, "weight is no number"),
        ({"weight": True}, "weight is no number"),
        ({"loss": float("nan")}, "loss is no number"),
    ],
)
def test_an_update_that_is_not_one_is_left_out_and_said(wrong, why):
    """The round goes on with the others."""
    rounds = exchange.Exchange(Gathered(clip=30.0, network=Network(least=1, seconds=60)), {"w": (2,)}, {})
    refused = []

    def both():
        while {rounds.next(name, 0.05)["do"] for name in ("ann", "eve")} != {"train"}:
            pass
        try:
            rounds.take("eve", UPDATE | wrong)
        except Malformed as error:
            refused.append(str(error))
        rounds.take("ann", UPDATE)

    rounds.alive("ann")
    rounds.alive("eve")
    thread = threading.Thread(target=both)
    thread.start()
    gain = rounds.round(3, {"w": np.zeros(2, np.float32)}, 5, lambda: None)
    thread.join()
    assert gain.clients == 1 and why in gain.rejected["eve"] and why in refused[0]
    np.testing.assert_array_equal(gain.changes["w"], np.ones((1, 2)))


def test_a_client_reads_no_file_that_the_server_names(place):
    """A server that names files of the client's machine is not obeyed; one that names a teacher is refused."""
    named = dataclasses.replace(experiment(place).data, files=("/etc/passwd",), augment=Augment(synonyms="/etc/hosts"))  # type: ignore[call-arg, type-var]
    one = experiment(place, data=named, start="/somewhere")
    said = {"experiment": to_json(one), "tokenizer": {"a": b""}, "chat": b""}
    theirs, _ = clients.joined(lambda name, message: said)  # type: ignore[arg-type]
    assert theirs.data.files == theirs.data.validation_files == () and theirs.start == ""  # type: ignore[attr-defined]
    assert not theirs.data.tokenizer and not theirs.data.augment.synonyms and not theirs.data.validation  # type: ignore[attr-defined]
    taught = dataclasses.replace(one, objective=Distillation(of=Supervised(), teacher="/somewhere"))
    with pytest.raises(Malformed, match="names a folder of a teacher"):
        clients.joined(lambda name, message: said | {"experiment": to_json(taught)})  # type: ignore[arg-type]


BY_SHARE = [kind for kind in kinds_of_data() if getattr(kind(), "validation", 0.0) < 1]
"""Kinds that hold out a share of their rows, or none, as clients do: others hold out a number."""


@pytest.mark.parametrize("kind", BY_SHARE, ids=lambda kind: kind.__name__)
def test_neither_a_client_nor_a_server_says_the_others_files(kind, place):
    data = naming(kind(), "/etc/passwd")
    one = experiment(place, data=data, start="/etc/passwd")
    said = {"experiment": to_json(one), "tokenizer": {"a": b""}, "chat": b""}
    theirs, _ = clients.joined(lambda name, message: said)  # type: ignore[arg-type]
    assert type(theirs.data) is kind and "/etc/passwd" not in str([to_json(theirs), to_json(for_clients(one))])


def test_only_clients_with_a_token_come_in_and_only_over_tls(tmp_path):
    make_keys(tmp_path / "keys", ("localhost",), ("ann", "bob"), 30)
    for file in ("server.key", "client-ann.token"):
        assert (tmp_path / "keys" / file).stat().st_mode & 0o077 == 0
    token = (tmp_path / "keys" / "client-ann.token").read_text()
    assert token.split()[1] not in (tmp_path / "keys" / "clients.json").read_text()
    certificate = (tmp_path / "keys" / "server.pem").read_bytes()
    seen = []
    port = free_port()
    with listening(f"localhost:{port}", str(tmp_path / "keys"), {"echo": lambda name, message: seen.append(name) or message}):
        stub = Server(f"localhost:{port}", read_token(str(tmp_path / "keys" / "client-ann.token")), certificate, 20.0)
        assert stub("echo", {"a": 1}) == {"a": 1} and seen == ["ann"]
        for identity in ("ann wrong", "carl " + token.split()[1], "bob " + token.split()[1]):
            with pytest.raises(UserError, match="does not know this client"):
                Server(f"localhost:{port}", identity, certificate, 20.0)("echo", {})
        for other in (None, _another_certificate(tmp_path)):
            with pytest.raises(UserError, match="cannot be reached"):
                Server(f"localhost:{port}", token.strip(), other, 0.0, lambda line: None)("echo", {})
        assert seen == ["ann"]
    with pytest.raises(UserError, match="readable on the way"):
        Server("10.0.0.1:8470", "ann -", None, 1.0)
    with pytest.raises(UserError, match="readable on the way"), listening("0.0.0.0:0", "", {}):
        pass
    with pytest.raises(UserError, match="no HOST:PORT"):
        Server("localhost", "ann -", None, 1.0)
    with pytest.raises(UserError, match="holds other things"):
        make_keys(tmp_path / "keys", ("localhost",), ("ann",), 30)


def _another_certificate(tmp_path) -> bytes:
    make_keys(tmp_path / "other", ("localhost",), ("ann",), 30)
    return (tmp_path / "other" / "server.pem").read_bytes()


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "²", "８４７０", "9" * 5000])
def test_an_address_is_a_host_and_a_port(port):
    assert host_of("localhost:8470") == "localhost" and host_of("[::1]:8470") == "::1"
    with pytest.raises(UserError, match="is no HOST:PORT"):
        host_of(f"localhost:{port}")


def test_messages_hold_plain_values_and_arrays_and_nothing_else():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = unpacked(packed({"a": array, "b": b"x", "c": [1, "d", None], "e": np.zeros((0, 2), np.uint32)}))
    np.testing.assert_array_equal(found["a"], array)
    assert found["b"] == b"x" and found["c"] == [1, "d", None] and found["e"].shape == (0, 2)
    good = packed({"a": array})
    for content in (b"", b"\xc1", good[:-1], good + b"x", packed({"a": 1})[1:], good.replace(b"float32", b"object_"), b"\x90"):
        with pytest.raises(Malformed):
            unpacked(content)
    with pytest.raises(TypeError):
        packed({"a": array.astype(np.float64)})
    with pytest.raises(TypeError):
        packed({"a": {1, 2}})


def test_clients_take_turns_and_are_given_up_when_they_fall_silent(monkeypatch):
    """More clients than a round has room for: all take part equally often. One that is gone is not waited for."""
    seen = [name for number in range(10) for name in exchange._turn(["a", "b", "c", "d", "e"], number, 2)]
    assert {name: seen.count(name) for name in "abcde"} == dict.fromkeys("abcde", 4)
    monkeypatch.setattr(exchange, "LEFT_AFTER", 0.5)
    options = Gathered(network=Network(least=1, seconds=60))
    rounds = exchange.Exchange(options, {"w": (2,)}, {})
    answers = []

    def one():
        while (asked := rounds.next("a", 0.1))["do"] != "train":
            pass
        answers.append(asked["params"])
        answers.append(rounds.take("a", UPDATE | {"round": 2}))  # of another round
        rounds.take("a", {"did": "train", "round": 3, "change": {"w": np.ones(2, np.float32)}, "weight": 2, "loss": 0.5})

    rounds.alive("b")
    thread = threading.Thread(target=one)
    thread.start()
    gain = rounds.round(3, {"w": np.zeros(2, np.float32)}, 5, lambda: None)
    thread.join()
    assert gain.clients == 1 and gain.loss == 1.0 and gain.weight == 2.0 and answers[1:] == [False]
    assert not rounds.take("a", {"did": "train", "round": 3}), "the round is over"


def test_network_is_the_only_place_where_others_are_waited_for():
    assert network.POLL < exchange.LEFT_AFTER and clients.ALIVE < exchange.LEFT_AFTER
