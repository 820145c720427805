"""Is all well, before a run is started: devices, versions, mesh, memory, data, disk."""

import math
import shutil
from pathlib import Path

import jax

from data.errors import UserError
from train.checkpoints.checkpointer import state_bytes
from train.devices import hosts
from train.devices.mesh import check_batch, divide_cpu, make_mesh, parameter_shardings
from train.experiment import Experiment
from train.loop.checks import check as check_experiment
from train.objectives.bind import attention_kernels, bind, frozen_shapes, state_of
from train.planning.ahead_of_time import lower_step, memory_of
from train.planning.flops import peak_flops
from train.runs.directory import open_corpora
from train.runs.environment import environment
from train.runs.resolve import resolve
from train.sources.dataset import dataset_of


def examine(experiment: Experiment | None, run_dir: Path, compile_step: bool) -> dict:
    """{"healthy": bool, "environment": ..., "checks": [{"check", "ok", "detail"}, ...]} with figures of the experiment, if given.

    Each check stands alone: one that fails does not hide the next.
    """
    if experiment is not None:
        divide_cpu(experiment)
    hosts.start_devices()
    found: dict = {"environment": environment(), "checks": []}

    def check(name, examination):
        try:
            found["checks"].append({"check": name, "ok": True, "detail": examination()})
        except (UserError, ValueError, jax.errors.JaxRuntimeError) as error:  # the last: it does not fit the device
            found["checks"].append({"check": name, "ok": False, "detail": str(error).replace("\n", " ")})

    kind = jax.devices()[0].device_kind
    peak = peak_flops(kind)
    check("devices", lambda: f"{jax.device_count()} x {kind}, " + (f"{peak / 1e12:.0f} TFLOP/s each" if peak else "peak unknown: no MFU"))
    check("compilation cache", lambda: _cache())
    if experiment is not None:
        corpora: list = []
        try:
            corpora = open_corpora(experiment)
            experiment = resolve(experiment, corpora)
            check("data", lambda: _data(experiment, corpora))
        except UserError as error:
            found["checks"].append({"check": "data", "ok": False, "detail": str(error).replace("\n", " ")})
        if experiment.objective.uses_model and experiment.model.vocab_size == 0:
            found["checks"].append(
                {"check": "model", "ok": False, "detail": "model.vocab_size is unknown without data: set it, or give --data.shards"}
            )
        else:
            check("model", lambda: _model(experiment))
            check("mesh", lambda: _mesh(experiment))
            check("memory", lambda: _memory(experiment, compile_step))
            check("disk", lambda: _disk(experiment, run_dir))
            if corpora:
                check("start", lambda: _start(experiment, corpora))
    found["healthy"] = all(check["ok"] for check in found["checks"])
    return found


def print_examination(found: dict) -> None:
    environment = found["environment"]
    print(f"python {environment['python']}, " + ", ".join(f"{name} {version}" for name, version in environment["versions"].items()))
    for check in found["checks"]:
        print(f"{'ok ' if check['ok'] else 'BAD'} {check['check']}: {check['detail']}")


def _cache() -> str:
    return f"compiled programs are kept in {jax.config.jax_compilation_cache_dir}"


def _start(experiment: Experiment, corpora: list) -> str:
    check_experiment(experiment, corpora)
    return "nothing stands against its first step"


def _data(experiment: Experiment, corpora: list) -> str:
    dataset = dataset_of(experiment)
    return "; ".join(f"{corpus.path}: {dataset.describe(corpus)}" for corpus in corpora)


def _model(experiment: Experiment) -> str:
    leaves = jax.tree.leaves(jax.eval_shape(bind(experiment).start, jax.random.key(0)))
    count = f"{sum(math.prod(leaf.shape) for leaf in leaves):,} parameters"
    return f"{count}, vocabulary {experiment.model.vocab_size:,}" if experiment.objective.uses_model else count


def _mesh(experiment: Experiment) -> str:
    """The mesh divides the batch; parameters that it leaves whole on every device are named when they are large."""
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    boxed = jax.eval_shape(bind(experiment).start, jax.random.key(0))
    shardings = parameter_shardings(mesh, boxed)
    whole = []
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        for (path, leaf), sharding in zip(jax.tree_util.tree_leaves_with_path(boxed), jax.tree.leaves(shardings), strict=True):
            if sharding.is_fully_replicated and math.prod(leaf.shape) > 1 << 20:
                whole.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    if kernels := attention_kernels(experiment, mesh):
        axes += f"; attention by {' and '.join(kernels)}"
    return axes + (f"; whole on every device, since the mesh does not divide them: {', '.join(whole)}" if whole else "")


def _memory(experiment: Experiment, compile_step: bool) -> str:
    mesh = make_mesh(experiment.mesh)
    state = state_of(experiment, mesh)

    def share(tree):
        """Bytes of a device; what has no place yet is whole on each."""
        shapes = [(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes)

    frozen = frozen_shapes(experiment, mesh, reads_reference=bool(bind(experiment).reference))
    held, gradients = share(state) + share(frozen), share(state.params)
    detail = f"{_gib(held)} of state and {_gib(gradients)} of gradients a device, activations not counted"
    needed = held + gradients
    if compile_step:
        plan = memory_of(lower_step(experiment, mesh).compile())
        needed = plan.total
        work, arguments = _gib(plan.work), _gib(plan.arguments)
        detail = f"the compiled step needs {_gib(needed)} a device: {arguments} of state and batch, {work} of work space"
    limit = _device_memory()
    if limit and needed > limit:
        parts = "" if experiment.objective.unit == "batch" else "use --micro-batches, "
        raise UserError(f"{detail}; a device has {_gib(limit)}", f"Split the state (--mesh.fsdp), {parts}or --model.remat full.")
    return detail + (f"; a device has {_gib(limit)}" if limit else "")


def _device_memory() -> int | None:
    """Bytes of one device, or of this machine where the CPU is the device; None where nobody says."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    total = int(next(line.split()[1] for line in text.splitlines() if line.startswith("MemTotal"))) * 1024
    return total // jax.local_device_count()


def _disk(experiment: Experiment, run_dir: Path) -> str:
    """Room for one checkpoint more than are kept: the new one is written before the oldest goes."""
    size = state_bytes(state_of(experiment, make_mesh(experiment.mesh)))
    folder = run_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"a checkpoint takes up to {_gib(size)}, {experiment.checkpoints.keep} are kept; {_gib(free)} are free at {folder}"
    if free < size * (experiment.checkpoints.keep + 1):
        raise UserError(detail, "Free some, keep fewer (--checkpoints.keep 1), or choose another --run-dir.")
    return detail


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
