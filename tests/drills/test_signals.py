"""`omnia train` is asked to stop or to save, or lied to about the time; and what its environment holds stays there."""

import collections
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.drills.killing import SAVES, STEPS, Process, check_same, environment, finish, resumed_at
from tests.drills.worker import PHASES
from tests.train.tiny_runs import outcome
from train.checkpoints.journal import Journal
from train.loop.exits import Exit
from train.runs.directory import open_run

pytestmark = pytest.mark.slow
TIMES = 20
NOTHING_YET = "before anything was trained"


def stopped_at(said: str) -> int:
    return int(said.rsplit("stopped at step ", 1)[1].split(";")[0])


def test_asked_to_end_at_any_instant_it_saves_and_goes_on(room, whole):
    """SIGTERM while it compiles (nothing is lost: nothing was trained), evaluates, saves and in the middle of steps, five times each."""
    expected, _ = whole
    rng = random.Random(2)
    aims = ["step", *PHASES] * (TIMES // 4)
    rng.shuffle(aims)
    runs, before, hits, missed, seconds = 1, 0, collections.Counter(), [], []
    while aims:
        if before > STEPS - 3 * SAVES:
            check_same(finish(room, f"asked{runs}"), expected)
            runs, before = runs + 1, 0
        with Process(room, f"asked{runs}") as process:
            aim = aims.pop()
            if aim == "compile":
                process.reach(phase=aim)
                time.sleep(rng.uniform(0, 0.4))
            else:
                begun = process.reach(1) and process.step
                process.reach(begun + rng.randint(1, SAVES), aim if aim != "step" else "")
                time.sleep(rng.uniform(0, 0.01))
            hits.update(process.phases or ["step"])
            asked = time.monotonic()
            code = process.end(signal.SIGTERM)
            seconds.append(time.monotonic() - asked)
            said = process.said
        assert (resumed_at(said) or 0) == before
        steps = Journal(process.run / "checkpoints").steps()
        if NOTHING_YET not in said and "stopped at step" in said:
            before = stopped_at(said)
        if code != Exit.SAVED or max(steps, default=0) != before or (NOTHING_YET in said) == ("stopped at step" in said):
            missed.append(said)
    check_same(finish(room, f"asked{runs}"), expected)
    where = ", ".join(f"{name} {count}" for name, count in hits.most_common())
    print(
        f"\nSIGTERM {TIMES} times over {runs} runs ({where}): {len(missed)} missed, 0 steps lost, ended with code 75 after "
        f"{max(seconds):.1f} s at most, the same bytes at the end"
    )
    assert not missed and max(seconds) <= 30  # what Google Cloud leaves a VM that it takes away
    assert min(hits[name] for name in ("step", *PHASES)) >= 3


def test_ctrl_c_saves_and_twice_leaves(room, whole):
    with Process(room, "interrupted") as process:
        process.reach(5)
        assert process.end(signal.SIGINT) == Exit.INTERRUPTED, process.said
        assert "saved. The same command goes on from here." in process.said
    saved = stopped_at(process.said)
    assert saved >= 5 and Journal(process.run / "checkpoints").steps()[-1] == saved
    with Process(room, "interrupted") as process:
        process.reach(saved + SAVES + 2, "evaluate")
        process.send(signal.SIGINT)
        time.sleep(0.02)
        assert process.end(signal.SIGINT) == Exit.INTERRUPTED, process.said
    assert resumed_at(process.said) == saved and Journal(process.run / "checkpoints").steps()[-1] > saved
    check_same(finish(room, "interrupted"), whole[0])
    print("\nSIGINT once: saved, to the step; twice: left at once, going on from the last save; the same bytes at the end")


def test_asked_to_save_it_goes_on(room, whole):
    times = 5
    with Process(room, "saving", "--checkpoints.keep", "99") as process:
        for number in range(times):
            process.reach(SAVES * (4 * number + 1) + 2)
            process.send(signal.SIGUSR1)
        assert process.end() == 0, process.said
    found = [step for step in Journal(process.run / "checkpoints").steps() if step % SAVES]
    check_same(outcome(open_run(process.run)), whole[0])
    print(f"\nSIGUSR1 {times} times: {len(found)} saves at steps that have none otherwise, training went on, the same bytes at the end")
    assert len(found) == times


def test_a_clock_that_jumps_by_a_day_changes_nothing(room, whole):
    """At every look at it. Stopped once in the middle, so that the clock of the second start is not that of the first."""
    with Process(room, "jumping", also=",clock") as process:
        process.reach(STEPS // 2)
        assert process.end(signal.SIGTERM) == Exit.SAVED, process.said
    with Process(room, "jumping", also=",clock") as process:
        assert process.end() == 0, process.said
    check_same(outcome(open_run(process.run)), whole[0])
    looks = [line.split("ETA ")[1].split()[0] for line in process.log.read_text().splitlines() if "ETA " in line]
    rows = [json.loads(line) for line in (room / "jumping" / "metrics.jsonl").read_text().splitlines()]
    times = [row["time"] for row in rows]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 600
    assert all(0 < row["step_ms"] < 60_000 and 0 <= row["data_wait"] <= 1 for row in rows if row["kind"] == "train")
    assert looks and all(look.count(":") == 1 for look in looks)  # minutes and seconds: below an hour
    print(f"\nthe wall clock a day forth and back at every look, one run: the same bytes, {len(rows)} times in order, no odd ETA")


def test_secrets_of_the_environment_are_written_nowhere(room):
    names = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", f"OWN_{random.randrange(10**6)}")
    canaries = {name: f"canary-{random.Random(name).getrandbits(64):016x}" for name in names}
    (room / "mistake.py").write_text("def get_config(arg=''):\n    raise RuntimeError('no')\n")
    (room / "crash.py").write_text((room / "config.py").read_text() + "\nfrom data.text.batches import Batches\ndel Batches.batch\n")
    commands = (
        (0, ["train", "config.py", "--run-dir", "secret", "--steps", "4"]),
        (2, ["train", "mistake.py", "--run-dir", "secret"[::-1]]),
        (1, ["train", "crash.py", "--run-dir", "secret-crash"]),
        (0, ["train", "--help"]),
        (0, ["doctor", "--json"]),
        (0, ["report", "secret"]),
        (0, ["inspect", "secret"]),
        (0, ["evaluate", "secret", "--json"]),
        (0, ["generate", "secret", "--prompt", "the", "--max-new-tokens", "4"]),
        (0, ["checkpoint", "ls", "secret"]),
        (0, ["checkpoint", "export", "secret", "--output", "secret/weights.safetensors"]),
        (0, ["launch", "--processes", "1", "--", "train", "secret", "--steps", "6"]),
    )
    said = b""
    for code, arguments in commands:
        command = [sys.executable, "-m", "omnia", *arguments]
        found = subprocess.run(command, cwd=room, env=environment(room) | canaries, capture_output=True, timeout=300)
        assert found.returncode == code, (arguments, found.stderr)
        said += found.stdout + found.stderr
    assert b"Traceback" in said
    files = [path for folder in ("secret", "secret-crash") for path in (room / folder).rglob("*") if path.is_file()]
    hits = sum(canary.encode() in text for canary in canaries.values() for text in (said, *(path.read_bytes() for path in files)))
    print(f"\n{len(canaries)} secrets in the environment of {len(commands)} commands: {hits} found in {len(files)} files and all output")
    assert len(files) > 20 and hits == 0
