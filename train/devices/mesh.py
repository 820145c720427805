"""The mesh of devices and the one table from logical axis names to mesh axes."""

import contextlib
import math
import os

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from data.errors import UserError
from train.devices import hosts
from train.experiment import Experiment, MeshShape

ROWS = ("data", "fsdp", "expert")
"""Mesh axes that rows of a batch are spread over."""

RULES = (
    # activations
    ("batch", ROWS),
    ("length", "context"),
    ("residual", None),
    ("slots", ("data", "fsdp")),  # of an expert: rows, but for the axis that the experts take
    # parameters, and activations that follow them
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head", None),
    ("experts", "expert"),
    ("vocab", "tensor"),
    ("positions", None),
    ("norm", None),
    ("layers", None),
)


SMALL = 10_000_000
"""Parameters (about) below which a CPU is divided. A larger model's step gains nothing, and every device holds a copy of the state."""

MOST_CPU_DEVICES = 8
"""Parts that a CPU is divided into at most, unless more are asked for: with each, a copy more has to be summed."""


def divide_cpu(experiment: Experiment) -> None:
    """Make the cores of a CPU devices of their own, each with its own rows, and start JAX's devices; only a process that has not started
    them yet can do so.

    XLA spends more on handing out the small products of a small model to threads than it gains; see docs/log.md. UserError when a number
    was asked for (`mesh.cpu_devices`) and it is too late.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = cpu_devices(experiment, cores, hosts.count())
    chosen = jax.config.jax_num_cpu_devices != -1 or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        with contextlib.suppress(RuntimeError):  # JAX has started: the devices are what they are
            jax.config.update("jax_num_cpu_devices", wanted)
    hosts.start_devices()
    if experiment.mesh.cpu_devices and jax.default_backend() == "cpu" and jax.local_device_count() != wanted:
        raise UserError(
            f"mesh.cpu_devices is {wanted}, but JAX has already started with {jax.local_device_count()}",
            "Leave it out, or train in a new process.",
        )


def cpu_devices(experiment: Experiment, cores: int, processes: int = 1) -> int:
    """How many devices a CPU with so many cores is divided into by each of the processes, for this experiment."""
    shape, model = experiment.mesh, experiment.model
    if shape.cpu_devices:
        return shape.cpu_devices
    layer = model.embed_dim * (4 * model.num_heads * model.head_width + 3 * model.mlp_width * max(1, model.experts))
    parameters = model.num_layers * layer + model.embed_dim * (2 * model.vocab_size + model.hashed_rows)
    plain = shape.data == -1 and shape.fsdp * shape.tensor * shape.context * shape.expert == 1
    rows = experiment.batch_size // experiment.micro_batches
    most = min(cores, MOST_CPU_DEVICES) if plain and parameters < SMALL else 1
    return max((n for n in range(1, most + 1) if rows % (n * processes) == 0), default=1)


def make_mesh(shape: MeshShape, devices=None) -> Mesh:
    """The mesh over `devices` (default: all). UserError when the axes do not multiply to their number."""
    devices = jax.devices() if devices is None else devices
    sizes = {"data": shape.data, "fsdp": shape.fsdp, "tensor": shape.tensor, "context": shape.context, "expert": shape.expert}
    others = math.prod(size for name, size in sizes.items() if name != "data")
    if sizes["data"] == -1:
        sizes["data"] = len(devices) // others
    if min(sizes.values()) < 1 or math.prod(sizes.values()) != len(devices):
        asked = " x ".join(f"{name} {size}" for name, size in sizes.items() if size != 1) or "1"
        raise UserError(
            f"mesh: {asked} does not make {len(devices)} devices",
            "Change --mesh.*; --mesh.data -1 takes what the other axes leave, and --mesh.cpu-devices N divides a CPU.",
        )
    arranged = np.asarray(devices).reshape(tuple(sizes.values()))
    if jax.process_count() > 1 or devices[0].platform == "tpu":
        # Follows the interconnect; where an axis is not a whole side of the torus, a side is split.
        arranged = mesh_utils.create_device_mesh(tuple(sizes.values()), devices, allow_split_physical_axes=True)
    return Mesh(arranged, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def inference_mesh(shape: MeshShape) -> Mesh:
    """The mesh of training where it fits the devices at hand, else all of them along fsdp: any machine can read any run."""
    sizes = (shape.data, shape.fsdp, shape.tensor, shape.context, shape.expert)
    count = jax.device_count()
    fits = math.prod(sizes) == count or (shape.data == -1 and count % -math.prod(sizes) == 0)
    return make_mesh(shape if fits else MeshShape(data=1, fsdp=count))


def row_shards(mesh: Mesh) -> int:
    """Parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def parameter_shardings(mesh: Mesh, boxed):
    """The sharding of every leaf of a tree of abstract arrays boxed with logical axis names (unboxed leaves are replicated).

    An axis whose size the mesh axis does not divide is left whole.
    """
    table = dict(RULES)

    def sharding(leaf):
        if not hasattr(leaf, "names"):
            return NamedSharding(mesh, PartitionSpec())
        if not hasattr(leaf.value, "shape"):
            return leaf.value  # a hole: the optimizer keeps nothing for this parameter
        used: set = set()
        spec = []
        for name, size in zip(leaf.names, leaf.value.shape, strict=True):
            axis = table.get(name)
            axes = axis if isinstance(axis, tuple) else (axis,)
            fits = axis is not None and not used.intersection(axes) and size % math.prod(mesh.shape[one] for one in axes) == 0
            spec.append(axis if fits else None)
            used.update(axes)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, boxed, is_leaf=lambda leaf: hasattr(leaf, "names"))


def batch_sharding(mesh: Mesh, ndim: int) -> NamedSharding:
    """Rows over the data axes, positions (if any) over the context axis."""
    return NamedSharding(mesh, PartitionSpec(ROWS, *(("context",) if ndim > 1 else ())))


def over_rows(tree):
    """Arrays of a step with their leading axis over the devices that a batch's rows lie on; as they are where those do not divide it."""
    mesh = jax.sharding.get_abstract_mesh()
    count = 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in ROWS)

    def place(x):
        if count == 1 or x.shape[0] % count:
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec(ROWS, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)))

    return jax.tree.map(place, tree)


def gathered(params, mesh: Mesh):
    """Parameters as decoding wants them: whole along fsdp, which saves memory but would have them gathered anew for every token."""
    if mesh.shape["fsdp"] == 1:
        return params

    def place(leaf):
        spec = [None if axis == "fsdp" else axis for axis in leaf.sharding.spec]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.jit(_same, out_shardings=jax.tree.map(place, params))(params)


def _same(tree):
    return tree


def check_batch(mesh: Mesh, batch_size: int, micro_batches: int, length: int) -> None:
    """UserError unless every device gets whole rows and equal parts of each row."""
    shards = row_shards(mesh)
    if (batch_size // micro_batches) % shards:
        raise UserError(
            f"batch_size {batch_size} in {micro_batches} micro-batches does not divide over {shards} devices",
            f"Use a multiple of {shards * micro_batches}, or another --mesh.*.",
        )
    if length % mesh.shape["context"]:
        raise UserError(
            f"context length {length} does not divide over mesh.context {mesh.shape['context']}",
            "Change --model.context-length or --mesh.context.",
        )


def local_rows(mesh: Mesh, count: int) -> tuple[int, int]:
    """The first of a batch's `count` rows that this process holds, and how many."""
    spans = [index[0].indices(count)[:2] for index in batch_sharding(mesh, 1).addressable_devices_indices_map((count,)).values()]
    first = min(start for start, _ in spans)
    return first, max(stop for _, stop in spans) - first


def put_batch(mesh: Mesh, make, count: int):
    """The global batch of `count` rows as arrays on the mesh. `make(first, rows)` gives any range of its rows as NumPy arrays.

    Every process computes only the rows that its own devices hold.
    """
    first, rows = local_rows(mesh, count)
    local = make(first, rows)
    if jax.process_count() == 1:
        return jax.device_put(local, jax.tree.map(lambda x: batch_sharding(mesh, x.ndim), local))

    def place(x):
        def shard(index):
            rows = slice(*index[0].indices(count)[:2])
            return x[rows.start - first : rows.stop - first, *index[1:]]

        return jax.make_array_from_callback((count, *x.shape[1:]), batch_sharding(mesh, x.ndim), shard)

    return jax.tree.map(place, local)
