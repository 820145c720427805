"""`omnia ...` as processes of their own, on one device each, in a folder with a config and shards."""

import os
import subprocess
import sys
import time
from pathlib import Path

from data.text.prepare import PrepareText, prepare_text
from tests.train.conftest import write_texts

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


def make_room(room: Path) -> Path:
    """A folder with a config, shards and a cache of compiled programs."""
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
