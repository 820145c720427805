"""The processes that train one model together: how they find each other, who writes, and how they agree."""

import contextlib
import fcntl
import functools
import os
import re
import socket
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.errors import UserError
from data.files.text_files import is_whole
from train.loop.exits import Exit

JOIN_SECONDS = 300
PORT = 8476
"""Where process 0 is found when the environment names hosts alone."""
_count = 1


class Missing(UserError):
    """Hosts did not come; with another start they may."""

    code = Exit.OURS


def join(said=print) -> None:
    """Join the other processes of this job, if there are any; must come before anything else uses JAX.

    They are known from OMNIA_PROCESS, OMNIA_PROCESSES and OMNIA_COORDINATOR (`omnia launch` sets them; any scheduler may), or from GKE's
    TPU_WORKER_ID and TPU_WORKER_HOSTNAMES: then a roll is called first, and `Missing` names who has not come after OMNIA_JOIN_SECONDS.
    Elsewhere (Cloud TPU VMs, SLURM, Open MPI) `jax.distributed` finds them, and ends the process by itself when one is missing.
    """
    global _count
    seconds = _number("OMNIA_JOIN_SECONDS", JOIN_SECONDS)
    known = _known(os.environ)
    if known is None:
        if not _cluster(os.environ):
            return
        try:
            jax.distributed.initialize(initialization_timeout=seconds)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the environment speaks of several processes, but JAX finds no others ({str(error).splitlines()[0]})",
                f"Start all of them (`srun` on SLURM), or unset {', '.join(_several(os.environ)) or 'what names them'} to train alone.",
            ) from None
        _count = jax.process_count()
    else:
        process, processes, address = known
        if processes == 1:
            return
        call_roll(process, processes, address, seconds)
        jax.distributed.initialize(address, processes, process, initialization_timeout=seconds)
        _count = processes
    if index() == 0:
        said(f"{_count} of {_count} hosts joined")


MOST_WORKERS = 32


def spare_cores() -> int:
    """Cores of this machine that its devices leave to processes that make rows: none where the CPU trains, else all but one, at most
    MOST_WORKERS."""
    if jax.default_backend() == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores - 1, 0), MOST_WORKERS)


def start_devices() -> None:
    """Start JAX's devices; UserError when they cannot be started, as where JAX_PLATFORMS names some that are not here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX finds nothing to fall back on
        platforms = os.environ.get("JAX_PLATFORMS", "")
        mend = f"JAX_PLATFORMS is {platforms!r}: unset it, or set cpu." if platforms else "See `pip show jax`, or set JAX_PLATFORMS=cpu."
        raise UserError(f"JAX has no devices to run on: {(str(error) or 'none that JAX_PLATFORMS names').splitlines()[0]}", mend) from None


def call_roll(process: int, processes: int, address: str, seconds: float) -> None:
    """Return in every process once all have called; `Missing` in those that did when some have not after so many seconds.

    Process 0 listens at the coordinator's address, which jax.distributed takes over afterwards. (It waits for the missing by itself, too,
    but ends in an abort that Python cannot catch and that names nobody.)
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + seconds

    def missing(names: str, joined: int) -> Missing:
        return Missing(
            f"{joined} of {processes} hosts joined within {seconds} s; missing: process {names}",
            "Start the same command on every host; OMNIA_JOIN_SECONDS gives slow ones more time.",
        )

    if process == 0:
        there: dict[int, socket.socket] = {}
        with contextlib.ExitStack() as stack:
            bound = host if host in ("127.0.0.1", "localhost") else ""
            listening = stack.enter_context(socket.create_server((bound, int(port)), reuse_port=False))
            while len(there) < processes - 1 and time.monotonic() < end:
                listening.settimeout(max(0.01, end - time.monotonic()))
                with contextlib.suppress(TimeoutError):
                    connection, _ = listening.accept()
                    stack.enter_context(connection)
                    connection.settimeout(2)
                    with contextlib.suppress(TimeoutError, ValueError, OSError):  # not one of ours
                        word, number = connection.recv(64).decode("ascii").split()
                        if word == "omnia" and 0 < int(number) < processes:
                            there[int(number)] = connection
            names = ", ".join(str(number) for number in range(1, processes) if number not in there)
            for connection in there.values():
                with contextlib.suppress(OSError):
                    connection.sendall(names.encode() or b"go")
            if names:
                raise missing(names, 1 + len(there))
        return
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=max(0.1, end - time.monotonic())) as connection:
                connection.sendall(f"omnia {process}".encode())
                connection.settimeout(max(0.1, end + 10 - time.monotonic()))
                answer = connection.recv(4096).decode()
        except OSError:
            answer = ""
        if answer == "go":
            return
        if answer:
            raise missing(answer, processes - len(answer.split(", ")))
        if time.monotonic() > end:
            raise missing("0, which calls the roll", 1)
        time.sleep(0.2)


def _known(environment) -> tuple[int, int, str] | None:
    """(process, processes, host:port of process 0), where the environment says so."""
    if "OMNIA_PROCESSES" in environment:
        process, processes = _number("OMNIA_PROCESS", 0), _number("OMNIA_PROCESSES", 1)
        address = environment.get("OMNIA_COORDINATOR", "")
        if processes > 1 and (not re.fullmatch(r"[^:]+:\d+", address) or not 0 <= process < processes):
            raise UserError(
                "OMNIA_PROCESSES is set, but OMNIA_COORDINATOR or OMNIA_PROCESS does not go with it",
                "Set OMNIA_COORDINATOR to HOST:PORT of process 0 and OMNIA_PROCESS to 0 .. OMNIA_PROCESSES - 1.",
            )
        return process, processes, address
    names = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(names) > 1 and "MEGASCALE_COORDINATOR_ADDRESS" not in environment:
        return _number("TPU_WORKER_ID", 0), len(names), f"{names[0]}:{PORT}"
    return None


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
    known = _known(os.environ)
    return known[0] if known else jax.process_index()


class Moved(UserError):
    """A folder that is being written is not where it was. `path`: where it is now; None where it was removed, or cannot be found."""

    def __init__(self, folder: Path, path: Path | None):
        super().__init__(
            f"{folder}: was {'removed' if path is None else f'moved to {path}'} while the run trained",
            "Train anew, in another folder." if path is None else f"What was trained is saved there; go on with `omnia train {path}`.",
        )
        self.path = path


class Place:
    """A folder, known by what it is rather than by its name."""

    def __init__(self, folder: Path):
        self._folder = Path(folder).absolute()
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._known = os.fstat(self._handle)

    def check(self) -> None:
        """Raise Moved when another folder, or none, has the name now."""
        if not self._is(self._folder):
            with contextlib.suppress(OSError):
                now = Path(os.readlink(f"/proc/self/fd/{self._handle}"))  # Linux tells
                raise Moved(self._folder, now if self._is(now) else None)
            raise Moved(self._folder, None)

    def close(self) -> None:
        os.close(self._handle)

    def _is(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.stat(path), self._known)
        except OSError:
            return False


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
    if _several(environment):
        return True
    if "JAX_COORDINATOR_ADDRESS" in environment or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return True
    return "TPU_WORKER_HOSTNAMES" not in environment and environment.get("JAX_PLATFORMS", "tpu") == "tpu" and Path("/dev/accel0").exists()


def _several(environment) -> list[str]:
    """The variables by which a scheduler says that it was asked for several processes."""
    names = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")
    found = {name: environment.get(name, "1") for name in names}
    return [name for name, value in found.items() if is_whole(value) and int(value) > 1]


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"{name} is {os.environ[name]!r}, not a whole number", "Unset it, or set a number.") from None
