"""`omnia train` as a process of its own, killed without warning: the same command goes on, and nothing shows that it ever stopped."""

import collections
import random
import signal
import time

import pytest

from tests.drills.killing import SAVES, Process, check_same, resumed_at
from tests.drills.worker import PHASES
from tests.train.tiny_runs import outcome
from train.checkpoints.journal import Journal
from train.runs.directory import open_run

KILLS = 50

pytestmark = pytest.mark.slow


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
