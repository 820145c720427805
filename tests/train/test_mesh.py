"""A CPU becomes as many devices as help, and says so when it cannot."""

import dataclasses
import subprocess
import sys

import pytest

from data.errors import UserError
from model.config import ModelConfig
from train.experiment import Experiment, MeshShape
from train.mesh import MOST_CPU_DEVICES, cpu_devices, divide_cpu

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
        "import jax\nfrom train.experiment import Experiment, MeshShape\nfrom train.mesh import divide_cpu\n"
        "divide_cpu(Experiment(mesh=MeshShape(cpu_devices=3)))\nprint(jax.device_count())"
    )
    clean = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    assert subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True).stdout.split()[-1] == "3"
