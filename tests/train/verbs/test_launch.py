"""Several processes train one model, as processes of their own: they find each other, and a death among them is survived."""

import contextlib
import os
import re
import socket
import time

import pytest

from data.errors import UserError
from tests.train.verbs.processes import make_room, start, wait
from train.devices.hosts import only_writer
from train.loop.exits import Exit
from train.verbs.launch import _free_port, launch


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make_room(tmp_path_factory.mktemp("room"))


def test_two_processes_train_as_one(room):
    """They find each other and end with one run; one process goes on with what two saved. (Killed ones: tests/drills/test_restarts.py.)"""
    said = wait(start(room, "launch", "--processes", "2", "--", "train", "config.py", "--run-dir", "whole", "--steps", "4"), room)
    assert "2 of 2 hosts joined" in said
    said = wait(start(room, "train", "whole", "--steps", "6"), room)
    assert "not bit for bit as before" in said and "processes was 2, is 1" in said and "step 4 of 6" in said


def test_hosts_that_do_not_come_are_named_by_those_that_did(room):
    """Process 1 of 3 is missing, and somebody else knocks."""
    port = _free_port()
    job = {"OMNIA_PROCESSES": "3", "OMNIA_COORDINATOR": f"127.0.0.1:{port}", "OMNIA_JOIN_SECONDS": "8"}
    third = start(room, "train", "config.py", "--run-dir", "alone", **job, OMNIA_PROCESS="2", log="third")
    first = start(room, "train", "config.py", "--run-dir", "alone", **job, OMNIA_PROCESS="0")
    while first.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as stranger,
        ):
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.5)
    for process, log in ((first, "log"), (third, "third")):
        assert "2 of 3 hosts joined within 8 s; missing: process 1" in wait(process, room, Exit.OURS, log)
    assert not (room / "alone").exists()


def test_a_run_has_one_writer(tmp_path):
    with only_writer(tmp_path), pytest.raises(UserError, match=f"is being trained by process {os.getpid()}"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--processes", "2", "train"], "Unrecognized|what should be launched"),
        (["--processes", "2", "--", "evaluate", "run"], "what should be launched"),
        (["--processes", "0", "--", "train", "run"], "must be positive"),
        (["--max-restarts", "-1", "--", "train", "run"], "0 or more"),
    ],
)
def test_mistakes_are_said(arguments, said, capsys):
    with pytest.raises((UserError, SystemExit)) as error:
        launch(arguments)
    assert re.search(said, str(error.value) + "".join(capsys.readouterr()))
