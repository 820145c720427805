"""A folder to train in, and what a run leaves there that nobody disturbs."""

import time

import pytest

from tests.drills.killing import STEPS, Process, make_room
from tests.train.tiny_runs import outcome
from train.runs.directory import open_run


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_room(tmp_path_factory.mktemp("room"))


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
