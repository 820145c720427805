"""Several processes of tests/drills/worker.py at once."""

import subprocess
import sys

from tests.train.verbs.processes import one_device
from train.loop.exits import Exit
from train.verbs.launch import _free_port


def together(room, processes: int, what: str, *arguments: str) -> None:
    """So many processes of tests/drills/worker.py; all must end well."""
    job = {"OMNIA_PROCESSES": str(processes), "OMNIA_COORDINATOR": f"127.0.0.1:{_free_port()}"}
    patient = ("--faults.stall-seconds", "300")  # so many that compile at once, on cores that are busy
    command = [sys.executable, "-m", "tests.drills.worker", what, "--", *arguments, *patient]
    running = []
    for number in range(processes):
        with (room / f"log{number}").open("wb") as log:
            environment = one_device(room) | job | {"OMNIA_PROCESS": str(number)}
            running.append(subprocess.Popen(command, cwd=room, env=environment, stdout=log, stderr=subprocess.STDOUT))
    for number, process in enumerate(running):
        assert process.wait(timeout=400) == Exit.DONE, (room / f"log{number}").read_text(errors="replace")
