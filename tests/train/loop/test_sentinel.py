"""Signals are requests that the loop polls; a process that no longer moves ends itself and says where it stood."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train.loop.exits import Exit
from train.loop.sentinel import Request, Sentinel, Stopped

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sentinel(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
    with Sentinel(0, tmp_path / "stacks.txt") as sentinel:
        sentinel.started()
        yield sentinel
    signal.signal(signal.SIGINT, before)


def test_a_request_to_save_is_given_once(sentinel):
    assert sentinel.poll() == Request.NOTHING
    signal.raise_signal(signal.SIGUSR1)
    assert [sentinel.poll(), sentinel.poll()] == [Request.SAVE, Request.NOTHING]


@pytest.mark.parametrize("number, reason", [(signal.SIGTERM, Exit.SAVED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_a_request_to_stop_stays_and_outweighs_one_to_save(sentinel, number, reason):
    signal.raise_signal(number)
    signal.raise_signal(signal.SIGUSR1)
    assert [sentinel.poll(), sentinel.poll()] == [Request.STOP, Request.STOP]
    assert sentinel.reason == reason
    with pytest.raises(Stopped):
        sentinel.stop_early()


def test_a_second_interrupt_acts_as_if_nobody_listened(sentinel):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    with Sentinel(0, tmp_path / "stacks.txt"):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before


STUCK = """
import pathlib, sys, threading
from train.loop.sentinel import Sentinel

def never_moves():
    print("here", flush=True)
    threading.Lock().acquire()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=100)  # inside C, as the compiler is: no Python handler runs

with Sentinel(float(sys.argv[1]), pathlib.Path(sys.argv[2])) as sentinel:
    {started}
    never_moves()
"""


def stuck(tmp_path, stall: float, started: bool) -> subprocess.Popen:
    script = STUCK.replace("{started}", "sentinel.started()" if started else "pass")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(stall), str(tmp_path / "stacks.txt")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    return process


def test_before_anything_is_trained_a_signal_ends_the_process_at_once(tmp_path):
    process = stuck(tmp_path, 0, started=False)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == Exit.SAVED


def test_a_stall_leaves_the_stacks_and_a_code(tmp_path):
    process = stuck(tmp_path, 0.5, started=True)
    assert process.wait(timeout=60) == Exit.STALLED
    assert "never_moves" in (tmp_path / "stacks.txt").read_text()
    assert process.stderr is not None and "nothing has moved for 0.5 s" in process.stderr.read()
