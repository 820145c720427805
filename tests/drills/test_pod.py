"""A training step compiled for TPU chips that are not there: the compiler accepts it, and it fits.

Needs libtpu (`pip install libtpu`, the version that JAX's `tpu` extra asks for); minutes.
"""

import dataclasses
import importlib.util

import jax
import pytest

from data.text import TextBatch
from model.presets import preset
from train import experiment as options
from train.mesh import batch_sharding, make_mesh
from train.objectives import make_objective
from train.optimizer import make_optimizer
from train.state import abstract_state
from train.step import jit_update, make_update

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the compiler for TPUs (pip install libtpu)"),
]


@pytest.mark.parametrize(
    "name, shape",
    [("llama3_1b", options.MeshShape(data=1, fsdp=16)), ("gemma2_2b", options.MeshShape(data=1, fsdp=4, tensor=2, context=2))],
    ids=["llama3_1b fsdp 16", "gemma2_2b fsdp 4, tensor 2, context 2"],
)
def test_a_step_compiles_for_sixteen_chips(name, shape, monkeypatch):
    """Packed rows of 4096, one a chip: splash attention in forward and backward, no scores of [T, T], within the 16 GiB of a chip."""
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    mesh = make_mesh(shape, topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices)
    model = dataclasses.replace(preset(name), context_length=4096, scan=True, remat="full", dtype="bfloat16", attention="splash")
    experiment = options.Experiment(model=model, batch_size=16)
    optimizer = make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    state = abstract_state(model, optimizer, mesh, ema=False)

    def like(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, len(shape)))

    tokens = like("int32", 16, 4096)
    batch = TextBatch(tokens, tokens, like("float32", 16, 4096), tokens, tokens, like("int32", 16))
    update = make_update(make_objective(experiment, mesh), optimizer, seed=0)
    compiled = jit_update(update, mesh, lower=True)(state, None, batch).compile()
    text, plan = compiled.as_text(), compiled.memory_analysis()
    assert "splash_mha" in text and "4096,4096]" not in text
    assert plan.argument_size_in_bytes + plan.temp_size_in_bytes < 16 * 2**30
