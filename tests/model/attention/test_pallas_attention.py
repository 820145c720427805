"""Kernels for other hardware: their numbers in the interpreter, alone and on a mesh, and that they compile for what they are made for."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from model.attention.dispatch import KERNELS, Mask, attend, reference

LENGTH = 300  # not a multiple of the block, and several blocks
SEGMENTS = np.repeat([[1, 2, 3, 0], [1, 1, 4, 4]], [50, 110, 120, 20], axis=1).astype(np.int32)
RULES = (("batch", "data"), ("length", "context"), ("heads", "tensor"), ("kv_heads", "tensor"), ("head", None))
MASKS = {
    "full": Mask(causal=False),
    "packed": Mask(causal=True, query_segments_BT=SEGMENTS),
    "packed window": Mask(causal=True, window=140, query_segments_BT=SEGMENTS),
}


def value_and_gradients(function, mask, softcap=0.0):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, LENGTH, heads, 8)).astype(np.float32) for heads in (4, 2, 2))

    def loss(q, k, v, mask):  # the mask is an argument, since the compiler would fold a constant one for minutes
        return (function(q, k, v, mask, softcap) ** 2).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v, mask)


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), found, expected)


@pytest.mark.parametrize(
    "kernel, mask, softcap", [("splash", "full", 0.0), ("splash", "packed window", 0.7), ("triton", "full", 0.0), ("triton", "packed", 0.0)]
)
def test_kernel_equals_reference(kernel, mask, softcap):
    interpreted = functools.partial(KERNELS[kernel].function, interpret=True)
    assert_close(value_and_gradients(interpreted, MASKS[mask], softcap), value_and_gradients(reference, MASKS[mask], softcap))


@pytest.mark.parametrize("kernel, sizes", [("splash", (2, 1, 4)), ("splash", (2, 4, 1)), ("triton", (2, 2, 1))])
def test_kernel_on_a_mesh_equals_one_device(kernel, sizes):
    """Rows, heads and positions over devices; four devices for two heads of keys."""
    interpreted = functools.partial(KERNELS[kernel].function, interpret=True)
    expected = value_and_gradients(reference, MASKS["packed"])
    devices = np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes)
    with jax.set_mesh(Mesh(devices, ("data", "tensor", "context"), axis_types=(AxisType.Auto,) * 3)), nn.logical_axis_rules(RULES):
        found = value_and_gradients(interpreted, MASKS["packed"])
    assert_close(found, expected)


def test_a_split_row_is_refused_by_a_kernel_that_cannot_split_it():
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(1, 1, 2), ("data", "tensor", "context"), axis_types=(AxisType.Auto,) * 3)
    q = jax.ShapeDtypeStruct((2, 128, 4, 8), jnp.bfloat16)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES), pytest.raises(ValueError, match="'triton' cannot honour split_positions"):
        jax.eval_shape(lambda q: attend(q, q, q, MASKS["full"], "triton"), q)


@pytest.mark.parametrize("kernel, window", [("triton", None), ("cudnn", None), ("cudnn", 140)])
@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
def test_training_lowers_for_a_gpu(kernel, window, packed, monkeypatch):
    """As far as a machine without a GPU can go: the lowered program calls the kernel. Only cuDNN's mask is [T, T]."""
    if kernel == "cudnn":
        module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
        monkeypatch.setattr(module, "check_cudnn_version", lambda: 91000)
        monkeypatch.setattr(module, "check_compute_capability", lambda least: True)
        monkeypatch.setattr(module, "is_cuda_compute_capability_equal", lambda one: False)
    q, k = (jax.ShapeDtypeStruct((2, 640, heads, 64), jnp.bfloat16) for heads in (4, 2))
    segments = jax.ShapeDtypeStruct((2, 640), jnp.int32)

    def loss(q, k, v, segments):
        mask = Mask(causal=True, window=window, query_segments_BT=segments if packed else None)
        return attend(q, k, v, mask, kernel).astype(jnp.float32).sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, segments).lower(lowering_platforms=("cuda",)).as_text()
    assert {"triton": "triton", "cudnn": "__cudnn$fmha"}[kernel] in text
    assert ("640x640" in text) == (kernel == "cudnn" and packed)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the compiler for TPUs (pip install libtpu)")
def test_splash_compiles_for_a_tpu(monkeypatch):
    """Forward and backward, through the real compiler, for eight chips that are not there."""
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    devices = np.array(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices).reshape(2, 2, 2)
    mesh = Mesh(devices, ("data", "tensor", "context"), axis_types=(AxisType.Auto,) * 3)

    def like(dtype, shape, *axes):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    q = like(jnp.bfloat16, (4, 1024, 8, 64), "data", "context", "tensor")
    k = like(jnp.bfloat16, (4, 1024, 2, 64), "data", None, "tensor")
    segments = like(jnp.int32, (4, 1024), "data", "context")

    def loss(q, k, v, segments):
        return attend(q, k, v, Mask(True, 200, segments), "splash", 30.0).astype(jnp.float32).sum()

    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k, segments).compile()
    assert "tpu_custom_call" in compiled.as_text() and "1024,1024" not in compiled.as_text()
