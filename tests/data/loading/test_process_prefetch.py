import gc
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data.errors import UserError
from data.loading.process_prefetch import ProcessPrefetch
from tests.data.loading.batch_makers import Counting, Maker, Plain, Stuck


def same(batch, number):
    expected = Maker()(number)
    assert (batch.images == expected.images).all() and batch.images.dtype == np.uint8
    assert (batch.label == number).all() and batch.label.shape == (2, 2)
    return batch.note


@pytest.mark.parametrize("processes, depth", [(1, 1), (2, 5), (3, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_batches_come_in_order_whoever_makes_them(processes, depth, shared):
    with ProcessPrefetch(Maker(shared), 3, processes, depth) as batches:
        notes = [same(next(batches), number) for number in range(3, 20)]
        assert not any(jax for jax, _ in notes)
        assert len({process for _, process in notes}) == min(processes, depth)
        assert batches.waited_s > 0
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("shared", [False, True])
def test_batches_that_are_kept_stay_what_they_are(shared):
    """Held by the consumer, they lie in memory that no later batch may touch; and holding them stops nobody."""
    with ProcessPrefetch(Maker(shared), 0, 2, 3) as batches:
        kept = [next(batches) for _ in range(20)]
        for number, batch in enumerate(kept):
            same(batch, number)
        label = kept[3].label[1:]
        del kept, batch
        gc.collect()
        for number in range(20, 30):
            same(next(batches), number)
        assert (label == 3).all()


def test_dicts_of_any_arrays():
    with ProcessPrefetch(Plain(), 0, 1, 2) as batches:
        for number in range(3):
            found, expected = next(batches), Plain()(number)
            assert list(found) == list(expected)
            assert found["words"] == expected["words"]
            for name in ("scalar", "nothing", "turned", "flags"):
                np.testing.assert_array_equal(found[name], expected[name])
                assert found[name].dtype == expected[name].dtype


@pytest.mark.parametrize(
    "fault, kind, words", [("raise", ValueError, "batch 5"), ("unsendable", RuntimeError, "not to be sent"), ("user", UserError, "mend")]
)
def test_an_exception_comes_in_its_turn(fault, kind, words):
    with ProcessPrefetch(Maker(fault=fault), 0, 2, 8) as batches:
        for number in range(5):
            same(next(batches), number)
        with pytest.raises(kind, match=words) as raised:
            next(batches)
        assert "in __call__" in raised.value.__notes__[0]
        with pytest.raises(StopIteration):
            next(batches)


def test_a_worker_that_dies_is_told_in_a_line():
    with ProcessPrefetch(Maker(fault="die"), 0, 2, 4) as batches:
        for number in range(5):
            same(next(batches), number)
        with pytest.raises(UserError, match="died \\(exit code -9\\)"):
            next(batches)
        assert not any(worker.process.is_alive() for worker in batches._workers)


def test_no_more_than_the_depth_is_made_ahead(tmp_path):
    path = tmp_path / "made"
    with ProcessPrefetch(Counting(path), 0, 2, 3) as batches:
        for taken in range(1, 6):
            next(batches)
            time.sleep(0.1)
            assert len(path.read_text().split()) <= taken + 3
        deadline = time.monotonic() + 10
        while len(path.read_text().split()) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        made = sorted(map(int, path.read_text().split()))
        assert len(made) == len(set(made)) == 8 and made[:6] == list(range(6))


SCRIPT = """
import json, os, signal, sys, time
import numpy as np
from data.loading.process_prefetch import ProcessPrefetch
from tests.data.loading.batch_makers import Maker

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
    batches = ProcessPrefetch(Maker(), 0, 2, 4)
    next(batches)
    print(json.dumps([worker.process.pid for worker in batches._workers]), flush=True)
    {last}
"""


@pytest.mark.parametrize(
    "last, send, code", [("time.sleep(60)", signal.SIGKILL, -9), ("time.sleep(60)", signal.SIGINT, -2), ("pass", None, 0)]
)
def test_workers_go_with_their_parent_and_leave_nothing(last, send, code, tmp_path):
    """Killed, interrupted, or ended without closing."""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(last=last))
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        workers = json.loads(process.stdout.readline())
        if send:
            process.send_signal(send)
        assert process.wait(20) == code
        assert "Traceback" not in process.stderr.read().replace("KeyboardInterrupt", "") or send == signal.SIGINT
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "batches" in name} if before else True


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_closing_waits_for_nobody():
    batches = ProcessPrefetch(Stuck(), 0, 2, 2)
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 5
    batches.close()
