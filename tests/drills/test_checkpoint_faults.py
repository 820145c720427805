"""Checkpoints under every kind of damage, and on a full disk: nothing wrong is restored in silence. Each drill prints one line."""

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from data.errors import UserError
from tests.train.checkpoints.states import ABSTRACT, IDENTITY, STRANGER, flip, same, small_state
from train.checkpoints.checkpointer import Checkpointer
from train.checkpoints.journal import Journal
from train.experiment import Checkpoints

pytestmark = pytest.mark.slow
STATES = {step: small_state(step) for step in (1, 2)}


def saved(run, identity=IDENTITY):
    checkpointer = Checkpointer(run, Checkpoints(keep=9), identity=identity)
    for step, state in STATES.items():
        checkpointer.save(state, {"step": step})
    checkpointer.wait()
    checkpointer.close()
    return run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("pristine"))


class Tries:
    """Counts what became of damaged copies of a run: its step 2 must not be restored unless it is what was saved."""

    def __init__(self, pristine, room):
        self.pristine, self.run = pristine, room / "run"
        self.checkpoints = self.run / "checkpoints"
        self.silent, self.harmless, self.unnamed, self.count = [], 0, [], 0

    def fresh(self):
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.pristine, self.run)

    def files(self):
        """The files of the newest step and of its manifest."""
        found = [path for folder in ("2", "journal") for path in (self.checkpoints / folder).rglob("*") if path.is_file()]
        return sorted(path for path in found if path.name != "1-0-of-1.json")

    def look(self, what: str, *names: str) -> None:
        """Restore by default and by name; any exception but UserError is a raw traceback, and fails the drill."""
        self.count += 1
        said: list[str] = []
        checkpointer = Checkpointer(self.run, identity=IDENTITY, said=said.append)
        state, progress = checkpointer.restore(ABSTRACT)
        step = int(state.step)
        if step not in STATES or not same(state, STATES[step]) or progress != {"step": step} or (step != 2 and not said):
            self.silent.append(what)
        if step == 2:
            self.harmless += 1
        else:
            try:
                checkpointer.restore(ABSTRACT, 2)
                self.silent.append(what)
            except UserError as error:
                said.append(str(error))
            if not all(any(name in line for name in names) for line in said):
                self.unnamed.append((what, said))
        checkpointer.close()

    def report(self, capsys, what: str) -> None:
        with capsys.disabled():
            print(
                f"\n{what} {self.count} times: {len(self.silent)} wrong states restored in silence, 0 raw tracebacks, "
                f"{len(self.unnamed)} messages without the file, {self.harmless} without effect"
            )
        assert not self.silent and not self.unnamed


@pytest.fixture
def tries(pristine, tmp_path):
    return Tries(pristine, tmp_path)


def test_single_flipped_bits(tries, capsys):
    rng = random.Random(0)
    tries.fresh()
    files = [path for path in tries.files() if path.stat().st_size]
    for _ in range(200):
        path = rng.choice(files)
        bit = rng.randrange(8 * path.stat().st_size)
        flip(path, bit)
        tries.look(f"bit {bit} of {path}", path.relative_to(tries.checkpoints).as_posix())
        flip(path, bit)
    assert tries.harmless == 0
    tries.report(capsys, "one random bit of one random file flipped")


def cut(path, rng):
    """cut off at a random byte"""
    os.truncate(path, rng.randrange(path.stat().st_size))


def zero(path, rng):
    """with 4 KiB zeroed"""
    content = bytearray(path.read_bytes())
    first = rng.randrange(max(1, len(content) - 4095))
    content[first : first + 4096] = bytes(len(content[first : first + 4096]))
    path.write_bytes(content)


def delete(path, rng):
    """deleted"""
    path.unlink()


@pytest.mark.parametrize("damage", [cut, zero, delete])
def test_damaged_files(tries, capsys, damage):
    """A deleted manifest leaves a step that does not exist: the line names the step and the journal instead of the file."""
    rng = random.Random(1)
    for _ in range(50):
        tries.fresh()
        path = rng.choice([path for path in tries.files() if path.stat().st_size])
        damage(path, rng)
        named = path.relative_to(tries.checkpoints).as_posix()
        gone = damage is delete and named.startswith("journal")
        tries.look(f"{damage.__name__} {path}", named, *(["step 2 has no complete manifest", "no checkpoint of step 2"] if gone else []))
    tries.report(capsys, f"one random file {damage.__doc__}")


def test_swapped_files(tries, capsys):
    rng = random.Random(2)
    for _ in range(50):
        tries.fresh()
        a, b = rng.sample([path for path in tries.files() if path.stat().st_size], 2)
        contents = a.read_bytes(), b.read_bytes()
        a.write_bytes(contents[1])
        b.write_bytes(contents[0])
        tries.look(f"{a} with {b}", *(path.relative_to(tries.checkpoints).as_posix() for path in (a, b)))
    tries.report(capsys, "two random files swapped")


def test_checkpoints_of_another_run(tries, tmp_path, capsys):
    """Its arrays, or one of its files, or its whole step with the manifest, which only the run's identity tells apart."""
    other = saved(tmp_path / "other", STRANGER)
    Journal(other / "checkpoints").remove(1)
    changed = {step: state.replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params)) for step, state in STATES.items()}
    checkpointer = Checkpointer(other, Checkpoints(keep=9), identity=STRANGER)
    for step in (1, 2):
        checkpointer.save(changed[step], {"step": step})
    checkpointer.wait()
    checkpointer.close()
    rng = random.Random(3)
    for number in range(50):
        tries.fresh()
        source, target = other / "checkpoints", tries.checkpoints
        if number % 3 == 2:
            path = rng.choice(["params/table/0.0", "params/layers.up/0.0.0"])
            shutil.copy(source / "2" / path, target / "2" / path)
        else:
            shutil.rmtree(target / "2")
            shutil.copytree(source / "2", target / "2")
        if number % 3 == 0:
            shutil.copy(source / "journal" / "2-0-of-1.json", target / "journal" / "2-0-of-1.json")
        tries.look(f"foreign {number}", f"found one of the run {STRANGER}", "checkpoints/2/")
    tries.report(capsys, "files, folders or whole checkpoints of another run put in its place")


def test_a_full_disk(tmp_path, capsys):
    """A disk of 10 MiB and states of 2.5: two fit until something else fills it up at step 5, and again when that goes at step 11."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    said: list[str] = []
    states = {step: small_state(step, size=8000) for step in range(1, 17)}
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), states[1])
    phantoms, failed, sound, causes = 0, [], 0, set()
    try:
        checkpointer = Checkpointer(disk / "run", Checkpoints(keep=1), identity=IDENTITY, said=said.append)
        for step, state in states.items():
            if step == 5:
                (disk / "ballast").write_bytes(bytes(6 * 2**20))
            if step == 11:
                (disk / "ballast").unlink()
            checkpointer.save(state, {"step": step})
            try:
                checkpointer.wait()
            except UserError as error:
                causes.add("No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error))
                failed.append(step)
            reader = Checkpointer(disk / "run", identity=IDENTITY)
            newest = reader.latest_step()
            phantoms += not same(reader.restore(abstract, newest)[0], states[newest])
            reader.close()
            sound += newest == step
            assert newest == max(one for one in range(1, step + 1) if one not in failed)
            assert not [path for path in (disk / "run" / "checkpoints").iterdir() if "tmp" in path.name]
        checkpointer.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    with capsys.disabled():
        print(f"\nsaved 16 times, the disk full at {len(failed)} of them: {phantoms} phantom steps, {sound} saved, {len(said)} lines said")
    assert failed == list(range(5, 11)) and phantoms == 0 and causes == {True}
    assert len(said) == 2 and "WARNING: step 5 could not be saved" in said[0] and "step 11 is saved" in said[1], said


PROCESS = """
import sys
import jax, numpy as np
from pathlib import Path
process, run = int(sys.argv[1]), Path(sys.argv[2])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{sys.argv[3]}", 2, process)
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import train.checkpoints.checkpointer
from data.errors import UserError
from tests.train.checkpoints.states import flip
from train.experiment import Checkpoints
from train.checkpoints.journal import Journal
from train.step.state import State

mesh = Mesh(np.array(jax.devices()), ("fsdp",))

def put(x, *axes):
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, PartitionSpec(*axes)), lambda at: x[at])

def state(step):
    table = np.random.default_rng(step).standard_normal((8, 512), np.float32)
    return State(put(np.int32(step)), put(np.int32(step)), {"table": put(table, "fsdp")}, {"mu": put(table)}, {"mean": put(np.float32(0))})

def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x.data, y.data) for p, q in pairs for x, y in zip(p.addressable_shards, q.addressable_shards, strict=True))

abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0))
said = []
checkpointer = train.checkpoints.checkpointer.Checkpointer(run, Checkpoints(keep=2), identity="0123456789abcdef", said=said.append)
for step in (1, 2, 3):
    checkpointer.save(state(step), {"tries": 1})
checkpointer.wait()
multihost_utils.sync_global_devices("process 0 has removed step 1")
assert checkpointer.steps() == [2, 3] and not said
checkpointer.restore(abstract, 2)
checkpointer.save(state(3), {"tries": 2})  # a step that both have saved before
checkpointer.wait()
found, progress = checkpointer.restore(abstract)
assert same(found, state(3)) and progress == {"tries": 2}
multihost_utils.sync_global_devices("all have read")
if process == 0:
    chunk = max((run / "checkpoints/3/params/table").iterdir(), key=lambda path: path.stat().st_size)
    flip(chunk, 300)
multihost_utils.sync_global_devices("damaged")
assert same(checkpointer.restore(abstract)[0], state(2))
assert len(said) == 1 and "step 3 is passed over" in said[0]
said.clear()
train.checkpoints.checkpointer.PARTS_TIMEOUT_SECONDS, record = 3, Journal.record

def full(*_, **__):
    raise OSError(28, "No space left on device")

if process == 1:
    Journal.record = full
checkpointer.save(state(4), {})
try:
    checkpointer.wait()
    raise SystemExit("step 4 was not saved, but nobody said so")
except UserError as error:
    assert ("processes [1] did not write" if process == 0 else "No space left") in str(error), error
multihost_utils.sync_global_devices("failed")
assert checkpointer.latest_step() != 4
Journal.record = record
checkpointer.save(state(5), {})
checkpointer.wait()
checkpointer.close()
multihost_utils.sync_global_devices("saved")
assert checkpointer.steps() == [2, 5] and len(said) == 2, (checkpointer.steps(), said)
"""


def test_two_processes_save_and_go_back_together(tmp_path, capsys):
    """One of them alone sees the damage, or cannot write: both do the same, and say it."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    root, files = Path(__file__).parents[2], [tmp_path / f"{process}.log" for process in range(2)]
    processes = []
    for process, file in enumerate(files):
        with file.open("w") as log:
            command = [sys.executable, "-c", PROCESS, str(process), str(tmp_path / "run"), str(port)]
            processes.append(subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(file.read_text()[-3000:] for file in files)
    with capsys.disabled():
        print("\ntwo processes, one damaged checkpoint, one that could not be written: both went back to and on from the same steps")
