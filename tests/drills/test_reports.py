"""What only tells of a run, or is asked beside its steps, costs none of them: full disks, closed terminals, whatever raises.

Each drill prints one line.
"""

import contextlib
import dataclasses
import os
import pty
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import train.loop.loop
from data.errors import UserError
from model.config import ModelConfig
from tests.drills.killing import environment
from tests.train.rl.policies import outcome as policy_outcome
from tests.train.rl.policies import policy, train_start
from tests.train.tiny_runs import outcome, start
from tests.train.tiny_runs import train as train_run
from train.checkpoints.checkpointer import Checkpointer
from train.checkpoints.journal import Journal
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule, TextData
from train.loop.exits import Exit
from train.loop.row_learner import RowLearner
from train.loop.telemetry import read_metrics
from train.rl.environments.environment import Environment
from train.runs.directory import open_run

pytestmark = pytest.mark.slow
STEPS = 60


def experiment(corpora, **changes) -> Experiment:
    tiny = Experiment(
        steps=STEPS,
        batch_size=4,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2),
        data=TextData(shards=tuple(map(str, corpora))),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=2),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=10, rows=4),
        checkpoints=Checkpoints(every=0),
        samples=Samples(every=10, tokens=4, prompts=("the ",)),
        logging=Logging(every=1),
    )
    return dataclasses.replace(tiny, **changes)


def last_step(folder: Path) -> int:
    return max(Journal(folder / "checkpoints").steps(), default=0)


# ----------------------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MiB, with functions to fill it to the last byte and to free it again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def free(disk: Path) -> None:
    (disk / "ballast").unlink(missing_ok=True)


def test_a_disk_that_fills_up_under_the_metrics(disk, room, monkeypatch, capsys):
    """Full from step 20 to step 40: all rows are there in the end, and one line says each that they are held and written again."""
    step = RowLearner.step

    def stepping(self, state, batch):
        if int(state.step) in (20, 40):
            (fill if int(state.step) == 20 else free)(disk)
        return step(self, state, batch)

    monkeypatch.setattr(RowLearner, "step", stepping)
    run = start(disk / "run", experiment([room / "shards0"]))
    assert train_run(run)["exit"] == Exit.DONE
    said = capsys.readouterr().out
    rows = [row["step"] for row in read_metrics(run.path) if row["kind"] == "train"]
    held, again = said.count("metrics.jsonl cannot be written"), said.count("metrics.jsonl is written again")
    with capsys.disabled():
        print(f"\nthe disk full under the metrics of steps 21 to 40: {STEPS - len(rows)} rows and {STEPS - last_step(run.path)} steps lost")
    assert rows == list(range(1, STEPS + 1)) and last_step(run.path) == STEPS and (held, again) == (1, 1)


def test_a_disk_that_fills_up_under_the_last_checkpoint(disk, room, monkeypatch, capsys):
    """Something else is removed five seconds later: the run has waited for it."""
    save = Checkpointer.save

    def saving(self, state, progress, **options):
        if not (disk / "ballast").exists() and not timers:
            fill(disk)
            timers.append(threading.Timer(5, free, [disk]))
            timers[0].start()
        save(self, state, progress, **options)

    timers: list[threading.Timer] = []
    monkeypatch.setattr(Checkpointer, "save", saving)
    run = start(disk / "run", experiment([room / "shards0"]))
    assert train_run(run)["exit"] == Exit.DONE
    said = capsys.readouterr()
    with capsys.disabled():
        print(f"\nthe disk full under the last checkpoint: {STEPS - last_step(run.path)} of {STEPS} steps lost")
    assert last_step(run.path) == STEPS
    assert said.out.count("could not be saved") == 1 and "Traceback" not in said.out + said.err


def test_a_disk_that_fills_up_under_the_report(disk, room, monkeypatch, capsys):
    write_report = train.loop.loop.write_report

    def writing(folder):
        fill(disk)
        return write_report(folder)

    monkeypatch.setattr("train.loop.loop.write_report", writing)
    run = start(disk / "run", experiment([room / "shards0"]))
    assert train_run(run, report=True)["exit"] == Exit.DONE
    said = capsys.readouterr().out
    with capsys.disabled():
        print(f"\nthe disk full under the report: {STEPS - last_step(run.path)} of {STEPS} steps lost")
    assert last_step(run.path) == STEPS and f"`omnia report {run.path}` draws it" in said
    free(disk)
    assert write_report(run.path).is_file()


# ---------------------------------------------------------------------------------------------------------- a closed terminal

SLOWLY = """
import fcntl, signal, sys, termios, time
import omnia
from train.loop.row_learner import RowLearner

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
step = RowLearner.step

def slowly(self, state, batch):
    time.sleep(0.05)
    return step(self, state, batch)

RowLearner.step = slowly
sys.exit(omnia.main(sys.argv[2:]))
"""
"""`omnia`, with the terminal that it is given as its own, and steps that last."""


@pytest.mark.parametrize("ignored", [False, True], ids=["asked to end", "under nohup"])
def test_a_terminal_that_goes_away(ignored, room, capsys):
    """The kernel says so to the process, which saves its step and ends; below nohup, it goes on without a word."""
    name = "nohup" if ignored else "closed"
    config = (
        (room / "config.py").read_text().replace("steps=240", "steps=80").replace("every=8)", "every=0)").replace("every=3)", "every=1)")
    )
    (room / f"{name}.py").write_text(config)
    master, terminal = pty.openpty()
    command = [sys.executable, "-c", SLOWLY, name, "train", f"{name}.py", "--run-dir", name]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = subprocess.Popen(command, cwd=room, env=environment(room), start_new_session=True, **streams)
    os.close(terminal)
    reader = threading.Thread(target=drain, args=(master,), daemon=True)
    reader.start()
    metrics, end = room / name / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) > 12) and time.monotonic() < end:
        time.sleep(0.05)
    os.close(master)
    code = process.wait(timeout=120)
    finished = max(row["step"] for row in read_metrics(room / name) if row["kind"] == "train")
    with capsys.disabled():
        print(f"\na terminal closed ({name}): exit code {code}, {finished - last_step(room / name)} of {finished} steps lost")
    assert code == (Exit.DONE if ignored else Exit.SAVED) and last_step(room / name) == finished and (finished == 80) == ignored
    whole = f"{name}-whole"
    for run_dir in (name, whole):
        arguments = [sys.executable, "-m", "omnia", "train", f"{name}.py", "--run-dir", run_dir]
        subprocess.run(arguments, cwd=room, env=environment(room), check=True, capture_output=True, timeout=300)
    assert outcome(open_run(room / name)) == outcome(open_run(room / whole))


def drain(master: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(master, 4096):
            pass


# -------------------------------------------------------------------------------------------------------------- what raises


def test_evaluations_and_samples_that_raise(room, monkeypatch, capsys, tmp_path):
    """Each call of either raises with a chance of one third; the same command goes on until the run is done, to the same bytes."""
    whole = start(tmp_path / "whole", experiment([room / "shards0"]))
    train_run(whole)
    rng, lost, raised = random.Random(3), 0, 0
    run = start(tmp_path / "run", experiment([room / "shards0"]))
    with monkeypatch.context() as patched:
        for name in ("evaluate", "samples"):
            function = getattr(RowLearner, name)

            def perhaps(self, *arguments, function=function):
                if rng.random() < 1 / 3:
                    raise rng.choice([RuntimeError, OSError, MemoryError, KeyError])("at random")
                return function(self, *arguments)

            patched.setattr(RowLearner, name, perhaps)
        while True:
            try:
                train_run(run)
                break
            except (RuntimeError, OSError, MemoryError, KeyError):
                raised += 1
                lost += max(row["step"] for row in read_metrics(run.path) if row["kind"] == "train") - last_step(run.path)
    with capsys.disabled():
        print(f"\nevaluations and samples raised {raised} times: {lost} finished steps lost, the same bytes at the end")
    assert lost == 0 and raised > 3
    assert outcome(run) == outcome(whole)


def test_rewards_that_raise(monkeypatch, capsys, tmp_path):
    """The same of a policy, whose rewards raise in the middle of a step, after its responses have been drawn."""
    asked = dataclasses.replace(policy(train_start(tmp_path / "started"), steps=16), checkpoints=Checkpoints(every=0))
    whole = start(tmp_path / "whole", asked)
    train_run(whole)
    rng, lost, said = random.Random(4), 0, []
    run = start(tmp_path / "run", asked)
    with monkeypatch.context() as patched:
        scores = Environment.scores

        def perhaps(self, prompts, responses, ids, mask):
            if rng.random() < 1 / 8:
                raise rng.choice([ValueError, ZeroDivisionError, OSError])("at random")
            return scores(self, prompts, responses, ids, mask)

        patched.setattr(Environment, "scores", perhaps)
        while True:
            try:
                train_run(run)
                break
            except UserError as error:
                said.append(str(error))
                finished = [row["step"] for row in read_metrics(run.path) if row["kind"] == "train"]
                lost += max(finished, default=0) - last_step(run.path)
    with capsys.disabled():
        print(f"\nrewards raised {len(said)} times: {lost} finished steps lost, the same bytes at the end")
    assert lost == 0 and len(said) > 2 and all("at random" in one for one in said)
    rows, arrays = policy_outcome(run)
    expected_rows, expected = policy_outcome(whole)
    assert rows == expected_rows
    assert all(arrays[name].tobytes() == expected[name].tobytes() for name in expected)
