"""`omnia train` as a process of its own, killed without warning: the same command goes on, and nothing shows that it ever stopped."""

import collections
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.text.prepare import PrepareText, prepare_text
from tests.drills.worker import PHASES
from tests.train.conftest import write_texts
from tests.train.loop.test_resume import outcome
from train.checkpoints.journal import Journal
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
KILLS = 50

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    for seed, documents in ((0, 30), (1, 12)):
        texts = write_texts(room / f"texts{seed}", seed, documents)
        prepare_text(PrepareText(output=str(room / f"shards{seed}"), input=(str(texts),), validation=0.5, workers=1))
    (room / "config.py").write_text(CONFIG)
    return room


@pytest.fixture(scope="module")
def whole(room):
    """What the uninterrupted run left (rows, bytes of the state, progress), and the seconds it took to its first step."""
    began = time.monotonic()
    with Process(room, "whole") as process:
        assert process.reach(1), process.said
        seconds = time.monotonic() - began
        assert process.end() == 0, process.said
    found = outcome(open_run(process.run))
    steps = {kind: [row["step"] for row in found[0] if row["kind"] == kind] for kind in ("train", "evaluation")}
    assert steps == {"train": list(range(3, STEPS + 1, 3)), "evaluation": list(range(12, STEPS + 1, 12))}
    return found, seconds


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


def test_killed_at_any_instant_goes_on_as_if_nothing_had_happened(room, whole):
    """At a random instant of its start (imports, restoring), or aimed at one of the phases: each of them is hit ten times.

    With a cache of compiled programs of its own: empty at first, and torn by a kill perhaps.
    """
    expected, start = whole
    rng = random.Random(0)
    aims = ["start", "step", *PHASES] * (KILLS // 5)
    rng.shuffle(aims)
    runs, hits, committed, reached = 1, collections.Counter(), 0, 0
    corrupt, lost, in_hand, again = [], [], [], []

    def look(process):
        """What the process found of the kill before it."""
        nonlocal reached
        if "DAMAGED" in process.said or "Traceback" in process.said:
            corrupt.append(process.said)
        if (found := resumed_at(process.said)) is not None:
            if found < committed:
                lost.append((found, committed))
            if reached:
                in_hand.append(((reached - 1) // SAVES * SAVES - found) / SAVES)  # the save of a step is begun before the next step
                again.append(reached - found)
            reached = 0
        reached = max(reached, process.step)

    while aims:
        with Process(room, f"killed{runs}", compiled="killed-compiled") as process:
            aim = aims[-1]
            if aim == "start":
                time.sleep(rng.uniform(0, start))
            elif aim == "compile":
                process.reach(phase=aim)
                time.sleep(rng.uniform(0, 0.5))
            else:
                began = time.monotonic()
                begun = process.reach(1) and process.step
                start = time.monotonic() - began
                process.reach(begun + rng.randint(1, 2 * SAVES), aim if aim != "step" else "")
                time.sleep(rng.uniform(0, 0.02))
            alive = process.end(signal.SIGKILL) == -signal.SIGKILL
        look(process)
        committed = max([committed, *Journal(process.run / "checkpoints").steps()])
        if alive:
            aims.pop()
            hits.update(process.phases or ["step" if process.step else "start"])
        else:
            check_same(outcome(open_run(process.run)), expected)
            runs, committed, reached = runs + 1, 0, 0
    with Process(room, f"killed{runs}", compiled="killed-compiled") as process:
        assert process.end() == 0, process.said
    look(process)
    check_same(outcome(open_run(process.run)), expected)
    where = ", ".join(f"{name} {count}" for name, count in hits.most_common())
    print(
        f"\nkill -9 {KILLS} times over {runs} runs ({where}): {len(corrupt)} corrupt, {len(lost)} finished saves lost and "
        f"{max(in_hand):g} in hand at most (one every {SAVES} steps, {max(again)} steps done again at most), the same bytes at the end"
    )
    assert not corrupt and not lost and max(in_hand) <= 1
    assert min(hits[name] for name in ("start", "step", *PHASES)) >= 5
