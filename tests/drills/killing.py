"""`omnia train` as a process that tells where it is, so that a signal can be aimed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from data.text.prepare import PrepareText, prepare_text
from tests.drills.worker import PHASES
from tests.train.conftest import write_texts
from tests.train.tiny_runs import outcome
from train.runs.directory import open_run

ROOT = Path(__file__).parents[2]


STEPS, SAVES = 240, 8


CONFIG = f"""
from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule, TextData

def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps={STEPS},
        batch_size=4,
        micro_batches=2,
        ema_decay=0.9,
        model=ModelConfig(context_length=32, num_layers=2, embed_dim=16, num_heads=2, dropout=0.1),
        data=TextData(shards=("shards0", "shards1"), weights=(2.0, 1.0)),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=2),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=12),
        checkpoints=Checkpoints(every={SAVES}),
        samples=Samples(tokens=0),
        logging=Logging(every=3),
    )
"""


class Process:
    """`omnia train` on one device in `room`, a folder with a config, shards and caches of compiled programs.

    Its output is added to <run>.log. also: what else tests/drills/worker.py shall do, with a comma before it.
    """

    def __init__(self, room: Path, run: str, *arguments: str, compiled: str = "compiled", also: str = ""):
        self.run, self.log, self._phases = room / run, room / f"{run}.log", room / f"{run}.phases"
        self._before = self.log.stat().st_size if self.log.exists() else 0
        self._phases.write_bytes(bytes(len(PHASES)))
        with self.log.open("ab") as log:
            what = ["-m", "tests.drills.worker", f"phases={self._phases}{also}", "--", "train", "config.py", "--run-dir", run, *arguments]
            self._process = subprocess.Popen(
                [sys.executable, *what], cwd=room, env=environment(room, compiled), stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    @property
    def said(self) -> str:
        """By this process."""
        return self.log.read_bytes()[self._before :].decode(errors="replace")

    @property
    def phases(self) -> set[str]:
        """Of PHASES, where the process is; when it has ended, where it was."""
        return {name for name, inside in zip(PHASES, self._phases.read_bytes(), strict=False) if inside}

    @property
    def step(self) -> int:
        """The last one that was begun."""
        return int(self._phases.read_bytes()[len(PHASES) :] or b"0")

    def running(self) -> bool:
        return self._process.poll() is None

    def reach(self, step: int = 0, phase: str = "") -> bool:
        """Wait for a step to begin, and then for a phase; False when the process ended first."""
        while self.step < step or (phase and phase not in self.phases):
            if not self.running():
                return False
            time.sleep(0.001)
        return True

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals | None = None, within: float = 120) -> int:
        """Send the signal, if one is given; the exit code, negative for a signal that ended it. within: seconds."""
        if number is not None:
            self.send(number)
        return self._process.wait(timeout=within)


def environment(room: Path, compiled: str = "compiled") -> dict[str, str]:
    """Of a process with one device."""
    one_device = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return os.environ | one_device | {"JAX_COMPILATION_CACHE_DIR": str(room / compiled), "PYTHONPATH": str(ROOT)}


def make_room(room: Path) -> Path:
    """A folder with a config, and shards of two corpora."""
    for seed, documents in ((0, 30), (1, 12)):
        texts = write_texts(room / f"texts{seed}", seed, documents)
        prepare_text(PrepareText(output=str(room / f"shards{seed}"), input=(str(texts),), validation=0.5, workers=1))
    (room / "config.py").write_text(CONFIG)
    return room


def finish(room: Path, run: str):
    with Process(room, run) as process:
        assert process.end() == 0, process.said
    return outcome(open_run(process.run))


def check_same(found, expected) -> None:
    """Rows of metrics, bytes of the state, the loop's own bookkeeping."""
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]


def resumed_at(said: str) -> int | None:
    """The step that a process went on from, if it came so far."""
    found = re.findall(r"step (\d+) of \d+, ", said)
    return int(found[0]) if found else None
