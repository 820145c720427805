"""A training step compiled for devices that need not be there, and the memory that the compiler plans for it."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
from typing import Any

import jax

from data.errors import UserError
from train.devices.mesh import check_batch, make_mesh
from train.experiment import Experiment
from train.kinds import learner_class, realise


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a device: of the state and the batch, of results that take no argument's place, of work space, of code."""

    arguments: int
    results: int
    work: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.results + self.work + self.code


class TooLarge(Exception):
    """The compiler gave up: a device would need `needed` bytes, for work space alone when `work_only`."""

    def __init__(self, needed: int, work_only: bool, message: str):
        super().__init__(message)
        self.needed, self.work_only = needed, work_only


def topology_devices(topology: str):
    """The devices of `cpu:8` or of a TPU slice such as `v5e:4x4` (generation:chips x chips). UserError for one that does not exist."""
    if re.fullmatch(r"cpu:[1-9]\d*", topology):
        count = int(topology[4:])
        if jax.device_count() < count or jax.default_backend() != "cpu":
            raise UserError(f"{topology}: JAX has already started with {jax.device_count()} devices", "Plan in a new process.")
        return jax.devices()[:count]
    if not re.fullmatch(r"v\d\w*:\d+(x\d+)+", topology):
        raise UserError(f"no topology {topology!r}", "Give GENERATION:CHIPSxCHIPS, such as v5e:4x4 or v5p:8x8x8, or cpu:8.")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"{topology}: the compiler for TPUs is not installed", "pip install 'omnia[tpu]', or plan for cpu:8.")
    _check_libtpu()
    prepare_libtpu()
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        what = str(error).splitlines()[0]
        if "lockfile" in what:
            raise UserError(f"{topology}: libtpu is held by another process ({what})", "Wait for that process, or end it.") from None
        raise UserError(f"no topology {topology!r}: {what}", "v5e:4x4, v5e:16x16, v5p:8x8x8 and the like are.") from None


def prepare_libtpu() -> None:
    """Say to libtpu, before it is loaded, that it is here to compile: it need not look for a pod, nor have the chips to itself."""
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def _check_libtpu() -> None:
    """UserError for another version than this JAX asks for: XLA would end in a page about it."""
    there = importlib.metadata.version("libtpu")
    asked = re.search(r"libtpu==([\d.]+)\.\*", " ".join(importlib.metadata.requires("jax") or []))
    if asked and not f"{there}.".startswith(f"{asked[1]}."):
        raise UserError(
            f"libtpu {there} is installed, and JAX {jax.__version__} asks for {asked[1]}", f"pip install 'libtpu=={asked[1]}.*'"
        )


def for_platform(experiment: Experiment, mesh) -> Experiment:
    """With what `auto` means on the mesh's devices spelled out: here it would mean the devices at hand."""
    platform, model = mesh.devices.flat[0].platform, experiment.model
    if platform == jax.default_backend():
        return experiment
    model = dataclasses.replace(model, dtype="bfloat16" if model.dtype == "auto" else model.dtype)
    if model.attention == "auto":
        kernels = realise(model).kernels(platform, split_positions=mesh.shape["context"] > 1)
        kernel: Any = kernels[0] if len(kernels) == 1 else "xla"  # layers of two kinds share one field
        model = dataclasses.replace(model, attention=kernel)
    return dataclasses.replace(experiment, model=model)


def lower_step(experiment: Experiment, mesh):
    """The real training step of an experiment, lowered for the devices of a mesh: `.compile()` it."""
    experiment = for_platform(experiment, mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    lower, state, arguments = learner_class(experiment).abstract_step(experiment, mesh)
    return lower(state, *arguments)


def compile_step(experiment: Experiment, mesh):
    """The compiled step. TooLarge where the compiler for TPUs says that it does not fit."""
    try:
        return lower_step(experiment, mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"(Used |HLO temporaries \()([\d.]+)([KMG])", str(error))
        if found is None or "memory" not in str(error):
            raise
        needed = int(float(found[2]) * 2 ** {"K": 10, "M": 20, "G": 30}[found[3]])
        raise TooLarge(needed, found[1] != "Used ", str(error)) from None


def memory_of(compiled) -> Memory:
    """What the compiler plans for one device."""
    plan = compiled.memory_analysis()
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return Memory(plan.argument_size_in_bytes, results, plan.temp_size_in_bytes, plan.generated_code_size_in_bytes)


def planning_mesh(experiment: Experiment, topology: str):
    """The experiment's mesh over the devices of a topology."""
    return make_mesh(experiment.mesh, topology_devices(topology))
