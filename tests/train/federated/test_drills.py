"""A server and its clients as processes of their own, over TLS, of which each is killed on the way."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import omnia
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.experiment import Experiment, MeshShape
from train.loop.telemetry import read_metrics
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.tasks.classification import Classification

pytestmark = pytest.mark.slow
ROOT, ROUNDS, NAMES = Path(__file__).parents[3], 40, ("ann", "bob", "eve")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Keys, a file of rows for each client, and a model to start from."""
    folder = tmp_path_factory.mktemp("drill")
    for name in NAMES:
        rows = [{"text": f"{name} {'good' if n % 2 else 'bad'} {n}", "label": "xy"[n % 2]} for n in range(12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "all.jsonl").write_text("".join((folder / f"{name}.jsonl").read_text() for name in NAMES))
    byte_tokenizer().save(str(folder / "bytes"))
    shape: dict[str, Any] = {"context_length": 24, "num_layers": 1, "embed_dim": 32, "num_heads": 2, "prediction_head": False}
    experiment = Experiment(
        steps=1,
        batch_size=4,
        model=TextEncoderConfig(**shape),
        data=Classification(files=(str(folder / "all.jsonl"),), tokenizer=str(folder / "bytes"), length=24, validation=0.0),
        objective=Supervised(),
        mesh=MeshShape(data=1),
    )
    train(start(folder / "base", experiment))
    assert omnia.main(["federate", "keys", "--output", str(folder / "keys"), "--clients", *NAMES]) == 0
    return folder


class Process:
    """A verb, and what it has said."""

    def __init__(self, *arguments: str):
        self._arguments = arguments
        self.begin()

    def begin(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
        command = [sys.executable, str(ROOT / "omnia.py"), *self._arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        self.lines: list[str] = []
        threading.Thread(target=lambda pipe, lines: lines.extend(pipe), args=(self.process.stdout, self.lines), daemon=True).start()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def federation(place: Path, folder: Path, disturbed: bool, secure: bool) -> Any:
    """The adapters that the rounds ended with."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    run, base, config = str(folder / "run"), str(place / "base"), str(ROOT / "configs/tasks/federated.py:fedavg")
    network = ("--gradient.network.folder", str(place / "keys"), "--gradient.network.address", address, "--gradient.network.least", "3")
    options = ("--adapters", "lora", "--start", base, "--steps", str(ROUNDS), "--batch-size", "3", "--data.length", "24")
    options += ("--gradient.secure", "--gradient.clip", "50", "--gradient.most-weight", "16") if secure else ()
    server = Process(
        "federate", "server", config, "--run-dir", run, "--data.validation-files", str(place / "all.jsonl"), *options, *network
    )
    clients = {
        name: Process(
            "federate", "client", "--run-dir", str(folder / name), "--server", address, "--start", base,
            "--token", str(place / "keys" / f"client-{name}.token"), "--data.files", str(place / f"{name}.jsonl"),
        )
        for name in NAMES
    }  # fmt: skip
    everybody = [server, *clients.values()]

    def until(step: int) -> None:
        end = time.monotonic() + 240
        while not (Path(run) / "checkpoints" / str(step)).is_dir():
            assert time.monotonic() < end and server.process.poll() is None, "".join(line for one in everybody for line in one.lines)
            time.sleep(0.02)

    try:
        if disturbed:
            until(5)
            server.kill()
            server._arguments = ("federate", "server", run)
            server.begin()
            until(15)
            clients["bob"].kill()
            clients["bob"].begin()
        for one in everybody:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(120)
            assert one.process.poll() == 0, "\n".join("".join(other.lines) for other in everybody)
    finally:
        for one in everybody:
            one.process.kill()
    steps = [row["step"] for row in read_metrics(Path(run)) if row["kind"] == "train"]
    assert steps == sorted({*steps}) and steps[-1] == ROUNDS
    found, step = load_parameters(open_run(run), make_mesh(MeshShape(data=1), jax.devices()[:1]))
    assert step == ROUNDS
    return found


@pytest.mark.parametrize("secure, near", [(False, 1e-6), (True, 2e-4)])
def test_whoever_is_killed_comes_back_and_no_round_is_lost(place, tmp_path, secure, near):
    """SIGKILL to the server after five rounds of forty or a few more, and to a client after fifteen: the model is that of rounds without a
    fault, or near it where updates are rounded to be added unseen. Only LoRA's matrices are trained, beside a base that all have."""
    alone, killed = (federation(place, tmp_path / name, disturbed, secure) for name, disturbed in (("calm", False), ("killed", True)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=near), alone, killed)
    before, _ = load_parameters(open_run(place / "base"), make_mesh(MeshShape(data=1), jax.devices()[:1]))
    base, found = (flatten_dict(tree) for tree in (before, alone))
    same = [np.array_equal(base[path], found[path]) for path in base.keys() & found.keys()]
    assert any(same) and not all(same)  # tables and norms stay the base's
