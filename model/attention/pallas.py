"""Attention kernels that JAX ships in Pallas: splash for TPUs, Triton for NVIDIA GPUs. Neither ever builds scores of [T, T].

The compiler cannot split such a kernel over devices by itself, so under a mesh each device calls it on its own rows and heads. Axes that
a mesh does not divide stay whole: then every device computes them. Blocks need lengths that are multiples of 128; shorter rows are
padded with keys that no real query sees.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from model.partition import mesh_axes, on_each_device, shards

BLOCK = 128


def _pad(x, size: int, value=0):
    """x with its axis 1 filled up to `size`."""
    return jnp.pad(x, ((0, 0), (0, size - x.shape[1])) + ((0, 0),) * (x.ndim - 2), constant_values=value)


def _prepare(q_BTHK, k_BSGK, v_BSGK, mask, unit: int):
    """All padded to a multiple of `unit` positions, and segments (padding in one of its own) or None where no mask needs them."""
    size = -(-q_BTHK.shape[1] // unit) * unit
    segments_BT = mask.query_segments_BT
    if size > q_BTHK.shape[1] and segments_BT is None and not mask.causal:
        segments_BT = jnp.zeros(q_BTHK.shape[:2], jnp.int32)  # nothing else hides the padding
    if segments_BT is not None:
        segments_BT = _pad(segments_BT, size, -1)
    return _pad(q_BTHK, size), _pad(k_BSGK, size), _pad(v_BSGK, size), segments_BT


def splash(q_BTHK, k_BSGK, v_BSGK, mask, softcap: float = 0.0, *, interpret: bool = False):
    """Block-sparse attention on TPUs: blocks outside of the causal mask and the window are skipped, grouped keys are not repeated.

    With a context axis, each device has its queries and all keys. interpret: run it slowly, anywhere.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    rows, heads, length = mesh_axes("batch", q_BTHK.shape[0]), mesh_axes("heads", q_BTHK.shape[2]), mesh_axes("length", 0)
    if k_BSGK.shape[2] % shards(heads):  # fewer key heads than devices: give each query head its own
        k_BSGK, v_BSGK = (jnp.repeat(x, q_BTHK.shape[2] // x.shape[2], axis=2) for x in (k_BSGK, v_BSGK))
    q, k, v, segments_BT = _prepare(q_BTHK, k_BSGK, v_BSGK, mask, BLOCK * shards(length))
    size = q.shape[1]
    block = next(block for block in (512, 256, 128) if size % (block * shards(length)) == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    shape = (size, size)
    if mask.window is not None:
        shown = masks.LocalMask(shape, (mask.window - 1, 0), 0)
    else:
        shown = masks.CausalMask(shape) if mask.causal else masks.FullMask(shape)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([shown] * (q.shape[2] // shards(heads))),
        block_sizes=kernels.BlockSizes(**{f"block_{name}": block for name in names}),
        head_shards=1,
        q_seq_shards=shards(length),
        attn_logits_soft_cap=softcap or None,
        interpret=interpret,
    )

    def run(kernel, q_BTHK, k_BSGK, v_BSGK, query_segments_BT, key_segments_BS):
        q_BHTK, k_BGSK, v_BGSK = (x.swapaxes(1, 2) for x in (q_BTHK * q_BTHK.shape[-1] ** -0.5, k_BSGK, v_BSGK))
        if query_segments_BT is None:
            y_BHTK = jax.vmap(kernel)(q_BHTK, k_BGSK, v_BGSK)
        else:
            y_BHTK = jax.vmap(kernel)(q_BHTK, k_BGSK, v_BGSK, kernels.SegmentIds(query_segments_BT, key_segments_BS))
        return y_BHTK.swapaxes(1, 2)

    mesh = jax.sharding.get_abstract_mesh()
    queries, keys = PartitionSpec(rows, length, heads), PartitionSpec(rows, None, heads)
    blocks = None if mesh.empty else kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, length)))
    run = on_each_device(run, (blocks, queries, keys, keys, PartitionSpec(rows, length), PartitionSpec(rows)), queries)
    return run(kernel, q, k, v, segments_BT, segments_BT)[:, : q_BTHK.shape[1]]


def triton(q_BTHK, k_BSGK, v_BSGK, mask, softcap: float = 0.0, *, interpret: bool = False):
    """Flash attention (Dao 2023) in Triton. It takes as many key heads as query heads, so grouped keys are repeated.

    interpret: run it slowly, anywhere.
    """
    from jax.experimental.pallas.ops.gpu.attention import mha

    k_BSHK, v_BSHK = (jnp.repeat(x, q_BTHK.shape[2] // x.shape[2], axis=2) for x in (k_BSGK, v_BSGK))
    q, k, v, segments_BT = _prepare(q_BTHK, k_BSHK, v_BSHK, mask, BLOCK)
    scale = q.shape[-1] ** -0.5
    run = functools.partial(mha, sm_scale=scale, causal=mask.causal, interpret=interpret)
    rows, heads = mesh_axes("batch", q.shape[0]), mesh_axes("heads", q.shape[2])
    spec = PartitionSpec(rows, None, heads)
    run = on_each_device(run, (spec, spec, spec, PartitionSpec(rows)), spec)
    return run(q, k, v, segments_BT)[:, : q_BTHK.shape[1]]
