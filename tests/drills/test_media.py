"""A run over text, images, clips and recordings: killed without warning, and divided among other numbers of processes."""

import collections
import random
import signal

import pytest

from tests.drills.jobs import together
from tests.drills.killing import Process, check_same
from tests.train.tiny_runs import outcome
from train.runs.directory import open_run

CONFIG = """
import dataclasses
from tests.train.media.conftest import EXPERIMENT
from train.experiment import Checkpoints, Evaluation, Logging, MeshShape

def get_config(arg: str = ""):
    return dataclasses.replace(
        EXPERIMENT,
        steps=60,
        evaluation=Evaluation(every=20, rows=4),
        checkpoints=Checkpoints(every=4),
        logging=Logging(every=3),
        mesh=MeshShape(),
        data=dataclasses.replace(EXPERIMENT.data, workers=1),
    )
"""
KILLS = 8

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("media")
    (room / "config.py").write_text(CONFIG)
    return room


def test_killed_in_the_midst_of_an_epoch_it_ends_with_the_same_bytes(room):
    """The epoch has 200 samples of five kinds, about 80 rows: 60 steps of 4 rows are three of them."""
    with Process(room, "whole") as process:
        assert process.end(within=900) == 0, process.said
    expected, chance, kills = outcome(open_run(process.run)), random.Random(0), 0
    for number in range(KILLS):
        with Process(room, "killed") as process:
            if not process.reach(chance.randint(4 + 6 * number, 8 + 6 * number)):
                break
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            kills += 1
    with Process(room, "killed") as process:
        assert process.end(within=900) == 0, process.said
    check_same(outcome(open_run(process.run)), expected)
    print(f"\nfour modalities, {kills} times kill -9: the same metrics, the same bytes at the end")
    assert kills == KILLS


def test_every_row_is_trained_on_once_by_four_then_two_then_one(room):
    """A row is a pure function of (seed, row): once each row, once each sample of it."""
    for processes, steps in ((4, 8), (2, 16), (1, 24)):
        target = ("config.py", "--run-dir", "elastic") if processes == 4 else ("elastic",)
        together(room, processes, "record=rows", "train", *target, "--steps", str(steps))
    consumed: collections.Counter[int] = collections.Counter()
    for file in room.glob("rows.*"):
        for line in file.read_text().splitlines():
            consumed.update(map(int, line.partition(": ")[2].split()))
    print(
        f"\n4, then 2, then 1 process, 8 steps each, four modalities: {len(consumed)} of 96 rows, {consumed.total() - len(consumed)} twice"
    )
    assert consumed == collections.Counter(range(96))
