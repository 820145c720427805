"""The processes that train one model together: how they find each other, who writes, and how they agree."""

import contextlib
import fcntl
import functools
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.errors import UserError

JOIN_SECONDS = 300
_count = 1


def join(said=print) -> None:
    """Join the other processes of this job, if there are any; must come before anything else uses JAX.

    They are known from OMNIA_PROCESS, OMNIA_PROCESSES and OMNIA_COORDINATOR (`omnia launch` sets them; any scheduler may), or from the
    environment of Cloud TPU, GKE, SLURM or Open MPI, as `jax.distributed` reads it. UserError names those that are missing after
    OMNIA_JOIN_SECONDS.
    """
    global _count
    seconds = _number("OMNIA_JOIN_SECONDS", JOIN_SECONDS)
    known: dict[str, Any] = {}
    if "OMNIA_PROCESSES" in os.environ:
        processes, process = _number("OMNIA_PROCESSES", 1), _number("OMNIA_PROCESS", 0)
        address = os.environ.get("OMNIA_COORDINATOR")
        if processes == 1:
            return
        if not address or not 0 <= process < processes:
            raise UserError(
                "OMNIA_PROCESSES is set, but OMNIA_COORDINATOR or OMNIA_PROCESS does not go with it",
                "Set OMNIA_COORDINATOR to HOST:PORT of process 0 and OMNIA_PROCESS to 0 .. OMNIA_PROCESSES - 1.",
            )
        known = {"num_processes": processes, "process_id": process, "coordinator_address": address}
    elif not _cluster(os.environ):
        return
    try:
        jax.distributed.initialize(**known, initialization_timeout=seconds)
    except RuntimeError as error:  # grpc's, by way of C++
        missing = sorted(set(map(int, re.findall(r"/task:(\d+)", str(error).partition("timed out task names")[2]))))
        if not missing and "DEADLINE_EXCEEDED" not in str(error):
            raise
        joined = f"{processes - len(missing)} of {processes} hosts joined" if known and missing else "not all hosts joined"
        names = f"; missing: process {', '.join(map(str, missing))}" if missing else ""
        raise UserError(
            f"{joined} within {seconds} s{names}",
            "Start the same command on every host; OMNIA_JOIN_SECONDS gives slow ones more time.",
        ) from None
    _count = processes if known else jax.process_count()
    if _count > 1 and index() == 0:
        said(f"{_count} of {_count} hosts joined")


def count() -> int:
    """Processes of this job, without starting JAX's devices."""
    return _count


def first() -> bool:
    """Whether this process is the one that writes what all share."""
    return index() == 0


def index() -> int:
    """Of this process, from 0."""
    if _count == 1:
        return 0
    return _number("OMNIA_PROCESS", -1) if "OMNIA_PROCESS" in os.environ else jax.process_index()


@contextlib.contextmanager
def only_writer(folder: Path):
    """Hold the lock of a run directory, `<folder>/lock`, which the system lets go of when the process ends, however it ends.

    UserError when another process holds it: two that write one run would lose each other's work.
    """
    if not first():
        yield
        return
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"{folder}: is being trained by process {file.read() or 'unknown'}", "Wait for it, or end it.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def barrier(name: str) -> None:
    """Return when every process has come here."""
    if _count > 1:
        multihost_utils.sync_global_devices(name)


class Agreement:
    """The largest of each flag over all processes. It is known one call later, so that nobody waits: all get the same answer, then."""

    def __init__(self, flags: int):
        self._before: jax.Array | None = None
        self._none = np.zeros(flags, np.int32)
        if _count > 1:
            mesh = Mesh(np.asarray(jax.devices()), ("device",))
            self._rows = NamedSharding(mesh, PartitionSpec("device"))
            self._reduce = jax.jit(functools.partial(jnp.max, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, flags) -> np.ndarray:
        """int32 [flags] of this process; of all processes at their call before this one (with one process: at this)."""
        flags = np.asarray(flags, np.int32)
        if _count == 1:
            return flags
        local = np.tile(flags, (jax.local_device_count(), 1))
        found, self._before = self._before, self._reduce(jax.make_array_from_process_local_data(self._rows, local))
        return self._none if found is None else np.asarray(found)


def _cluster(environment) -> bool:
    """Whether a scheduler says that there is more than this process."""
    several = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")
    if any(environment.get(name, "1").isdigit() and int(environment.get(name, "1")) > 1 for name in several):
        return True
    if "JAX_COORDINATOR_ADDRESS" in environment or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return True
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    return "TPU_WORKER_HOSTNAMES" not in environment and environment.get("JAX_PLATFORMS", "tpu") == "tpu" and Path("/dev/accel0").exists()


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"{name} is {os.environ[name]!r}, not a whole number", "Unset it, or set a number.") from None
