"""Processes of one run that die are started again, and nothing shows that they did."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.train.tiny_runs import outcome
from tests.train.verbs.processes import children, make_room, reach, start, wait
from train.loop.exits import Exit
from train.runs.directory import open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_room(tmp_path_factory.mktemp("room"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes to kill in /proc")
def test_processes_that_are_killed_are_started_again_and_end_with_the_same_bytes(room):
    """Two processes; then the same with one of them killed, and stopped once by SIGTERM. Then one process goes on with what two saved."""
    said = wait(start(room, "launch", "--processes", "2", "--", "train", "config.py", "--run-dir", "whole"), room)
    assert "2 of 2 hosts joined" in said
    expected = outcome(open_run(room / "whole"))

    command = ("launch", "--processes", "2", "--max-restarts", "2", "--", "train", "config.py", "--run-dir", "killed")
    process = start(room, *command)
    reach(room / "killed", 4, process)
    os.kill(random.Random(0).choice(children(process)), signal.SIGKILL)
    while "starting again" not in (room / "log").read_text(errors="replace"):
        assert process.poll() is None
        time.sleep(0.01)
    reach(room / "killed", 12, process)
    process.send_signal(signal.SIGTERM)
    said = wait(process, room, Exit.SAVED)
    assert "was ended by SIGKILL; starting again, 2 of 2 left" in said and "saved. The same command goes on" in said
    wait(start(room, *command), room)
    found = outcome(open_run(room / "killed"))
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2] == expected[2]

    said = wait(start(room, "train", "whole", "--steps", "26"), room)
    assert "not bit for bit as before" in said and "processes was 2, is 1" in said and "step 24 of 26" in said
