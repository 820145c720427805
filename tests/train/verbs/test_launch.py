"""Several processes train one model, as processes of their own: they find each other, and a death among them is survived."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from tests.train.conftest import write_texts
from train.devices.hosts import only_writer
from train.loop.exits import Exit
from train.verbs.launch import _free_port, launch

ROOT = Path(__file__).parents[3]
CONFIG = """
from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Faults, Logging, Samples, Schedule, TextData

def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps=24,
        batch_size=4,
        ema_decay=0.9,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2),
        data=TextData(shards=("shards",)),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=2),
        evaluation=Evaluation(every=8),
        checkpoints=Checkpoints(every=4),
        faults=Faults(stall_seconds=60.0),
        samples=Samples(tokens=4),
        logging=Logging(every=3),
    )
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with a config, shards and a cache of compiled programs."""
    room = tmp_path_factory.mktemp("room")
    texts = write_texts(room / "texts", 0, 30)
    prepare_text(PrepareText(output=str(room / "shards"), input=(str(texts),), validation=0.2, workers=1))
    (room / "config.py").write_text(CONFIG)
    return room


def one_device(room: Path) -> dict[str, str]:
    """The environment of a process with one device; the room keeps what it compiles unless the tests have a place for it."""
    return (
        {"JAX_COMPILATION_CACHE_DIR": str(room / "compiled")}
        | os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": str(ROOT),
        }
    )


def start(room: Path, *arguments: str, log: str = "log", **environment: str) -> subprocess.Popen:
    """`omnia ...` in the room. Its output goes to <room>/<log>."""
    with (room / log).open("wb") as said:
        command = [sys.executable, "-m", "omnia", *arguments]
        return subprocess.Popen(command, cwd=room, env=one_device(room) | environment, stdout=said, stderr=subprocess.STDOUT)


def wait(process: subprocess.Popen, room: Path, code: int = 0, log: str = "log") -> str:
    found = process.wait(timeout=300)
    said = (room / log).read_text(errors="replace")
    assert found == code, said
    return said


def children(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def reach(run: Path, step: int, process: subprocess.Popen) -> None:
    """Wait until a step of so much is in the journal."""
    end = time.monotonic() + 200
    while not any(int(part.name.split("-")[0]) >= step for part in (run / "checkpoints" / "journal").glob("[0-9]*.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_train_as_one(room):
    """They find each other and end with one run; one process goes on with what two saved. (Killed ones: tests/drills/test_restarts.py.)"""
    said = wait(start(room, "launch", "--processes", "2", "--", "train", "config.py", "--run-dir", "whole", "--steps", "4"), room)
    assert "2 of 2 hosts joined" in said
    said = wait(start(room, "train", "whole", "--steps", "6"), room)
    assert "not bit for bit as before" in said and "processes was 2, is 1" in said and "step 4 of 6" in said


def test_hosts_that_do_not_come_are_named_by_those_that_did(room):
    """Process 1 of 3 is missing, and somebody else knocks."""
    port = _free_port()
    job = {"OMNIA_PROCESSES": "3", "OMNIA_COORDINATOR": f"127.0.0.1:{port}", "OMNIA_JOIN_SECONDS": "8"}
    third = start(room, "train", "config.py", "--run-dir", "alone", **job, OMNIA_PROCESS="2", log="third")
    first = start(room, "train", "config.py", "--run-dir", "alone", **job, OMNIA_PROCESS="0")
    while first.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as stranger,
        ):
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.5)
    for process, log in ((first, "log"), (third, "third")):
        assert "2 of 3 hosts joined within 8 s; missing: process 1" in wait(process, room, Exit.OURS, log)
    assert not (room / "alone").exists()


def test_a_run_has_one_writer(tmp_path):
    with only_writer(tmp_path), pytest.raises(UserError, match=f"is being trained by process {os.getpid()}"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--processes", "2", "train"], "Unrecognized|what should be launched"),
        (["--processes", "2", "--", "evaluate", "run"], "what should be launched"),
        (["--processes", "0", "--", "train", "run"], "must be positive"),
        (["--max-restarts", "-1", "--", "train", "run"], "0 or more"),
    ],
)
def test_mistakes_are_said(arguments, said, capsys):
    with pytest.raises((UserError, SystemExit)) as error:
        launch(arguments)
    assert re.search(said, str(error.value) + "".join(capsys.readouterr()))
