"""Training steps compiled for TPU chips that are not there: the compiler accepts them, and they fit.

Needs libtpu (`pip install libtpu`, the version that JAX's `tpu` extra asks for); minutes.
"""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.presets import preset
from train import experiment as options
from train.planning.ahead_of_time import compile_step, memory_of, planning_mesh
from train.verbs.config_files import load_config
from train.verbs.plan import make_plan

CONFIGS = Path(__file__).parent.parent.parent / "configs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the compiler for TPUs (pip install libtpu)"),
]


@pytest.mark.parametrize(
    "name, shape",
    [("llama3_1b", options.MeshShape(data=1, fsdp=16)), ("gemma2_2b", options.MeshShape(data=1, fsdp=4, tensor=2, context=2))],
    ids=["llama3_1b fsdp 16", "gemma2_2b fsdp 4, tensor 2, context 2"],
)
def test_a_step_compiles_for_sixteen_chips(name, shape):
    """Packed rows of 4096, one a chip: splash attention in forward and backward, no scores of [T, T], within the 16 GiB of a chip."""
    model = dataclasses.replace(preset(name), context_length=4096, scan=True, remat="full", dtype="bfloat16", attention="splash")
    experiment = options.Experiment(model=model, batch_size=16, mesh=shape)
    compiled = compile_step(experiment, planning_mesh(experiment, "v5e:4x4"))
    text = compiled.as_text()
    assert "splash_mha" in text and "4096,4096]" not in text
    assert memory_of(compiled).total < 16 * 2**30


def test_a_hundred_billion_parameters_fit_a_pod():
    """At two million tokens a batch, and at more than half of the peak by an estimate that counts every collective."""
    found = make_plan(load_config(str(CONFIGS / "decoder_100b.py")), "v5p:8x8x8")
    assert found["fits"] and found["parameters"] > 100e9 and found["tokens_per_batch"] >= 2e6
    assert found["kernel_flops"] > 0 and found["collectives"] and not found["unknown_loops"]
    assert found["model_flops"] < found["product_flops"] + found["kernel_flops"]
    assert found["predicted_mfu"] > 0.5


def test_gpt2_xl_fits_sixteen_small_chips():
    experiment = load_config(str(CONFIGS / "gpt2_1558m.py"))
    model = dataclasses.replace(experiment.model, scan=True, remat="full")
    mesh = options.MeshShape(data=4, fsdp=4)
    found = make_plan(dataclasses.replace(experiment, model=model, mesh=mesh, micro_batches=8), "v5e:4x4")
    assert found["fits"] and 1.5e9 < found["parameters"] < 1.6e9


def test_two_plans_can_be_made_at_once():
    """libtpu lets one process in at a time, for the sake of its chips; compiling needs none."""
    ask = "import time; from train.planning.ahead_of_time import topology_devices as ask; "
    ask += "print(len(ask('v5e:4x4')), flush=True); time.sleep(20)"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    plans = [subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    try:
        assert [plan.stdout.readline() for plan in plans] == ["16\n", "16\n"]
    finally:
        for plan in plans:
            plan.kill()
            plan.communicate()
