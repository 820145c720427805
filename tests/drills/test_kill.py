"""`omnia train` as a process of its own, killed without warning: the same command goes on, and nothing shows that it ever stopped."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.prepare import PrepareText, prepare_text
from tests.train.conftest import write_texts
from tests.train.test_resume import outcome
from train.runs import open_run
from train.telemetry import read_metrics

ROOT = Path(__file__).parents[2]
STEPS = 48
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
        evaluation=Evaluation(every=4),
        checkpoints=Checkpoints(every=2),
        samples=Samples(tokens=0),
        logging=Logging(every=3),
    )
"""

pytestmark = pytest.mark.slow


class Process:
    """`omnia train` on one device in `room`, a folder with a config, shards and caches of compiled programs."""

    def __init__(self, room: Path, run: str, compiled: str = "compiled"):
        self.run = room / run
        self.log = self.run.with_suffix(".log")
        cache = {"JAX_COMPILATION_CACHE_DIR": str(room / compiled), "PYTHONPATH": str(ROOT)}
        one_device = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omnia", "train", "config.py", "--run-dir", run],
                cwd=room,
                env=os.environ | cache | one_device,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def newest(self) -> int:
        """The newest step that is saved or being saved."""
        folder = self.run / "checkpoints"
        names = [path.name.split(".")[0] for path in folder.iterdir()] if folder.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=0)

    def reach(self, step: int, seconds: float = math.inf) -> None:
        """Wait until `step` is being saved, at most for so many seconds."""
        end = time.monotonic() + seconds
        while self.newest() < step and time.monotonic() < end:
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.002)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send the signal, if one is given, to what must still run; the exit code, negative for a signal that ended it."""
        if number is not None:
            assert self._process.poll() is None, self.log.read_text()
            self._process.send_signal(number)
        return self._process.wait(timeout=120)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    for seed, documents in ((0, 30), (1, 12)):
        texts = write_texts(room / f"texts{seed}", seed, documents)
        prepare_text(PrepareText(output=str(room / f"shards{seed}"), input=(str(texts),), validation=0.2, workers=1))
    (room / "config.py").write_text(CONFIG)
    return room


@pytest.fixture(scope="module")
def whole(room):
    """What the uninterrupted run left (rows, bytes of the state, progress), and the seconds it took to its first checkpoint."""
    began = time.monotonic()
    with Process(room, "whole") as process:
        process.reach(1)
        seconds = time.monotonic() - began
        assert process.end() == 0, process.log.read_text()
    found = outcome(open_run(process.run))
    steps = {kind: [row["step"] for row in found[0] if row["kind"] == kind] for kind in ("train", "evaluation")}
    assert steps == {"train": list(range(3, STEPS + 1, 3)), "evaluation": list(range(4, STEPS + 1, 4))}
    return found, seconds


def finish(room: Path, *run: str):
    with Process(room, *run) as process:
        assert process.end() == 0, process.log.read_text()
    return outcome(open_run(process.run))


def test_killed_at_any_instant_goes_on_as_if_nothing_had_happened(room, whole):
    """Seven kills: three by the clock, while it compiles, imports and restores, four while it trains and saves.

    With a cache of compiled programs of its own: empty at first, and torn by a kill perhaps.
    """
    killed = (room, "killed", "killed-compiled")
    expected, start = whole
    rng = random.Random(0)
    reached = []
    for span in ((0.3, 0.8), (0.0, 0.2), None, None, (0.1, 0.4), None, None):
        with Process(*killed) as process:
            process.reach(process.newest() + rng.randint(1, 5), rng.uniform(*span) * start if span else math.inf)
            time.sleep(rng.uniform(0, 0.05))
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            reached.append(process.newest())
    assert 0 < reached[-1] < STEPS, f"saved at the kills: {reached}"
    rows, state, progress = finish(*killed)
    assert rows == expected[0]
    assert state == expected[1]
    assert progress == expected[2]


def test_asked_to_end_it_saves_and_says_75(room, whole):
    """SIGTERM twice, each after a few more steps: what was trained is kept, to the step."""
    expected, _ = whole
    rng = random.Random(1)
    for _ in range(2):
        with Process(room, "asked") as process:
            process.reach(process.newest() + rng.randint(1, 8))
            time.sleep(rng.uniform(0, 0.05))
            assert process.end(signal.SIGTERM) == 75, process.log.read_text()
        run = open_run(process.run)
        stopped = int(process.log.read_text().rsplit("stopped at step ", 1)[1].split(";")[0])
        assert 0 < stopped == process.newest() < STEPS
        assert all(row["step"] <= stopped for row in read_metrics(run.path))
    rows, state, progress = finish(room, "asked")
    assert rows == expected[0]
    assert state == expected[1]
    assert progress == expected[2]
