"""Several processes: any of them dies, sleeps, holds the poison or is taken away, and nothing of the run is lost."""

import collections
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.drills.jobs import together
from tests.train.tiny_runs import outcome
from tests.train.verbs.processes import children, make_room, reach, start, wait
from train.loop.telemetry import read_metrics
from train.runs.directory import open_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes to kill in /proc")]
TRAIN = ("--", "train", "config.py", "--run-dir")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_room(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def whole(room):
    """What two processes leave that nobody disturbs."""
    wait(start(room, "launch", "--processes", "2", *TRAIN, "whole"), room)
    return outcome(open_run(room / "whole"))


def same(room, name, expected):
    found = outcome(open_run(room / name))
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]


def since_new_row(run: Path, rows: int, began: float, process: subprocess.Popen) -> float:
    """Seconds from `began` until the run logs a step of training beyond those that it had."""
    while process.poll() is None and time.monotonic() - began < 200:
        if max((row["step"] for row in read_metrics(run) if row["kind"] == "train"), default=0) > rows:
            break
        time.sleep(0.05)
    return time.monotonic() - began


def test_worker_coordinator_and_both_are_killed(room, whole):
    process = start(room, "launch", "--processes", "2", "--max-restarts", "3", *TRAIN, "killed")
    seconds = []
    for step, victims in ((4, (1,)), (8, (0,)), (16, (0, 1))):
        reach(room / "killed", step, process)
        pids = children(process)
        last = max((row["step"] for row in read_metrics(room / "killed") if row["kind"] == "train"), default=0)
        began = time.monotonic()
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        while children(process)[:1] == pids[:1] or len(children(process)) < 2:
            time.sleep(0.02)
        seconds.append(since_new_row(room / "killed", last, began, process))
    wait(process, room)
    same(room, "killed", whole)
    shown = ", ".join(f"{one:.1f}" for one in seconds)
    print(f"\nworker, coordinator, both killed, once each: training again after {shown} s, the same bytes at the end; lost: 0")
    assert max(seconds) <= 60


def test_a_process_that_sleeps_is_noticed_by_the_other(room, whole):
    stall = 20.0
    process = start(room, "launch", "--processes", "2", "--max-restarts", "1", *TRAIN, "asleep", "--faults.stall-seconds", str(stall))
    reach(room / "asleep", 8, process)
    began = time.monotonic()
    os.kill(children(process)[1], signal.SIGSTOP)
    while "starting again" not in (room / "log").read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() - began < 200
        time.sleep(0.02)
    seconds = time.monotonic() - began
    said = wait(process, room)
    assert "process 0 of 2 stalled; starting again" in said and "nothing has moved for 20 s" in said
    assert "loop.py" in (room / "asleep" / "stacks-0.txt").read_text()
    same(room, "asleep", whole)
    print(f"\none of two processes stopped once: noticed and ended after {seconds:.1f} s (time-out {stall:g} s), the same bytes at the end")
    assert seconds <= 1.1 * stall + 1


def test_every_row_is_trained_on_once_by_four_then_two_then_one(room):
    for processes, steps in ((4, 8), (2, 16), (1, 24)):
        target = ("config.py", "--run-dir", "elastic") if processes == 4 else ("elastic",)
        together(room, processes, "record=rows", "train", *target, "--steps", str(steps))
    by_step: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
    for file in room.glob("rows.*"):
        for line in file.read_text().splitlines():
            step, _, rows = line.partition(": ")
            by_step[int(step)].update(map(int, rows.split()))
    repeated = sum(count - 1 for rows in by_step.values() for count in rows.values())
    consumed = collections.Counter(row for rows in by_step.values() for row in rows)
    print(f"\n4, then 2, then 1 process, 8 steps each: {len(consumed)} rows, {repeated} repeated, {96 - len(consumed)} skipped")
    assert consumed == collections.Counter(range(96)) and not repeated
    assert all(set(by_step[step]) == set(range(4 * step, 4 * step + 4)) for step in range(24))


def test_all_decide_alike_about_poison_that_one_holds(room):
    """Rows 16 to 27 are those of steps 5 to 7; process 1 holds the second half of each batch."""
    together(room, 2, "poison=16-27", "train", "config.py", "--run-dir", "poisoned", "--faults.skips", "3", "--checkpoints.every", "2")
    found = [(row["step"], row["action"]) for row in read_metrics(room / "poisoned") if row["kind"] == "anomaly"]
    assert found == [(5, "skip"), (6, "skip"), (7, "skip"), (7, "rewind")]
    assert open_run(room / "poisoned") and outcome(open_run(room / "poisoned"))[2]["looked"] == 24
    print("\n3 poisoned batches on one of two processes: 3 skipped and the run taken back by both, once; differing decisions: 0")
