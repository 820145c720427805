"""A CPU becomes as many devices as help, and says so when it cannot."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.errors import UserError
from model.config import ModelConfig
from train.devices.mesh import MOST_CPU_DEVICES, cpu_devices, divide_cpu
from train.experiment import Experiment, MeshShape
from train.loop import loop
from train.verbs.train import train

SMALL = Experiment(batch_size=12, model=ModelConfig(vocab_size=64, num_layers=2, embed_dim=64, num_heads=2))


@pytest.mark.parametrize(
    "change, cores, devices",
    [
        ({}, 1, 1),
        ({}, 2, 2),
        ({}, 5, 4),  # 5 does not divide 12 rows
        ({"micro_batches": 4}, 8, 3),
        ({"batch_size": 7}, 4, 1),
        ({"batch_size": 64}, 64, MOST_CPU_DEVICES),
        ({"model": dataclasses.replace(SMALL.model, embed_dim=1024)}, 4, 1),
        ({"model": dataclasses.replace(SMALL.model, vocab_size=128_000)}, 4, 1),
        ({"mesh": MeshShape(fsdp=2)}, 4, 1),
        ({"mesh": MeshShape(cpu_devices=3)}, 1, 3),
    ],
)
def test_a_small_model_gets_the_cores_that_divide_its_rows(change, cores, devices):
    assert cpu_devices(dataclasses.replace(SMALL, **change), cores) == devices


def test_a_number_that_comes_too_late_is_refused():
    """These tests have started JAX with eight devices."""
    divide_cpu(SMALL)
    divide_cpu(dataclasses.replace(SMALL, mesh=MeshShape(cpu_devices=8)))
    with pytest.raises(UserError, match="has already started with 8"):
        divide_cpu(dataclasses.replace(SMALL, mesh=MeshShape(cpu_devices=2)))


def test_a_new_process_is_divided():
    code = (
        "import jax\nfrom train.experiment import Experiment, MeshShape\nfrom train.devices.mesh import divide_cpu\n"
        "divide_cpu(Experiment(mesh=MeshShape(cpu_devices=3)))\nprint(jax.device_count())"
    )
    clean = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    assert subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True).stdout.split()[-1] == "3"


def test_a_process_of_its_own_divides_its_cpu_before_it_starts_devices():
    """Devices that are started first stay one: a small model would train on one core, and `mesh.cpu_devices` be refused."""
    root = Path(__file__).parents[3]
    plain = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")} | {
        "JAX_PLATFORMS": "cpu"
    }
    command = [sys.executable, "-m", "omnia", "doctor", "configs/quickstart.py", "--mesh.cpu-devices", "3", "--batch-size", "48", "--json"]
    found = subprocess.run(command, cwd=root, env=plain, capture_output=True, text=True, timeout=120)
    assert json.loads(found.stdout)["environment"]["devices"] == 3


@pytest.mark.parametrize("begin", ["check", "train"])
def test_the_cpu_is_divided_before_anything_asks_for_devices(begin, monkeypatch):
    asked = []

    def stop(experiment):
        asked.append("divide")
        raise UserError("stopped")

    monkeypatch.setattr("train.loop.loop.divide_cpu", stop)
    monkeypatch.setattr("jax.devices", lambda *_: asked.append("devices"))
    calls = {"check": lambda: loop.check(Experiment(), []), "train": lambda: loop.train(SimpleNamespace(experiment=Experiment()))}
    with pytest.raises(UserError, match="stopped"):
        calls[begin]()
    assert asked == ["divide"]


def test_the_verb_leaves_devices_to_the_loop(monkeypatch, tmp_path):
    monkeypatch.setattr("jax.devices", lambda *_: pytest.fail("devices were started before the CPU was divided"))
    with pytest.raises(UserError, match="data.shards is empty"):
        train(["configs/quickstart.py", "--run-dir", str(tmp_path / "run")])
