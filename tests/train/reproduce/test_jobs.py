"""Jobs of a table: run once, after what they need, in places of their own; what fails or is stopped loses nothing else."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from data.errors import UserError
from data.files import json_files
from train.reproduce import running
from train.reproduce.jobs import chosen, plan, state_of, write_state
from train.reproduce.results import collect, missing, read, store
from train.reproduce.running import Place, Runner, places
from train.reproduce.table import ROOT, Better, Metric, Row, Shared, Table, check

SCRIPT = """
    import json, os, signal, subprocess, sys, time
    log, folder, name, *numbers = sys.argv[1:]
    began = time.time()
    time.sleep(0.2)
    if name == "parent":
        subprocess.Popen([sys.executable, "-c", "import time, sys; time.sleep(30); open(sys.argv[1], 'w')", log + ".child"])
    if name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if name in ("long", "deaf"):
        time.sleep(60)
    with open(log, "a") as file:
        there = os.path.exists(folder + "/done")
        row = {"name": name, "began": began, "ended": time.time(), "cores": sorted(os.sched_getaffinity(0)), "there": there}
        file.write(json.dumps(row) + "\\n")
    if name == "fails" and not os.path.exists(log + ".mended"):
        sys.exit("omnia: it fails")
    open(folder + "/done", "w").close()
    print("words before")
    print(json.dumps({"found": {"loss": float("nan") if name == "nothing" else sum(map(float, numbers))}, "a/b": {"loss": 7}}))
"""
METRICS = (Metric("found/loss", "loss"), Metric("a/b/loss", "other"), Metric("missing", "never"))


@pytest.fixture
def made(tmp_path):
    """plan of a table of six rows, and what its commands wrote down."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    log = tmp_path / "log"

    def run(folder: str, *words: str) -> str:
        return " ".join(("python", str(tmp_path / "script.py"), str(log), folder, *words))

    table = Table(
        "title",
        "paper",
        "claim.",
        METRICS,
        rows=(
            Row("one", "", (run("{run}", "one-first", "9"), run("{run}", "one", "{seed}", "1"))),
            Row("two", "", (run("{start}", "two", "{seed}", "5"),)),
            Row("fails", "", (run("{bad}", "after"),)),
            Row("timed", "", (run("{run}", "timed", "6"),), alone=True),
            Row("large", "", (run("{run}", "large"),), tier="gpu", needs="a GPU"),
        ),
        claims=(Better("one", "two"),),
        shared=(
            Shared("start", (run("{run}", "start", "{seed}"),)),
            Shared("bad", (run("{run}", "fails"),)),
            Shared("unused", (run("{run}", "unused"),)),
        ),
    )
    check(table, tmp_path / "table.py")

    def planned(changed: Table = table, seeds: int = 2):
        return plan(changed, tmp_path / "table.py", tmp_path / "runs", changed.of_tier("cpu"), seeds, None)

    return table, planned, log


def lines(log) -> list[dict]:
    return [json_files.parse(line) for line in log.read_text().splitlines()] if log.exists() else []


def run(jobs, count=3, **options) -> Runner:
    runner = Runner(jobs, [Place(tuple(os.sched_getaffinity(0)))] * count, say=lambda line: None, **options)
    runner.finished = runner.run()
    return runner


def test_all_rows_run_once_with_what_they_need(made):
    table, planned, log = made
    runner = run(planned())
    names = [line["name"] for line in lines(log)]
    assert runner.finished and sorted(names) == sorted(["one-first", "one", "two", "start", "timed"] * 2 + ["fails"])
    assert all(line["there"] for line in lines(log) if line["name"] in ("two", "one")), "after what it needs"
    found = collect(table, planned())
    assert found.values["loss"] == {"one": {0: 1, 1: 2}, "two": {0: 5, 1: 6}, "timed": {0: 6, 1: 6}}
    assert found.values["other"]["two"] == {0: 7, 1: 7} and "never" not in found.values
    errors = sorted(runner.errors.values())
    assert "it fails" in errors[0] and errors[1:] == ["what it needs is not finished"]


def test_a_row_may_say_what_it_would_be_on_other_cases(tmp_path):
    (tmp_path / "say.py").write_text('print(\'{"found": {"loss": 1}, "draws": {"found/loss": [1, 2]}}\')')
    row = Row("row", "says", (f"python {tmp_path}/say.py",))
    table = Table("title", "paper", "claim.", METRICS[:1], rows=(row,), claims=())
    jobs = plan(table, tmp_path / "table.py", tmp_path / "runs", table.rows, 3, None)
    assert run(jobs).errors == {} and collect(table, jobs).draws == {"loss": {"row": [1, 2]}}
    store(tmp_path / "out.json", "cpu", collect(table, jobs))
    assert read(tmp_path / "out.json")["cpu"] == collect(table, jobs)


def test_a_command_can_write_into_the_folder_of_its_job(tmp_path):
    """It need not make it."""
    (tmp_path / "write.py").write_text("import sys; open(sys.argv[1], 'w').close(); print('{\"found\": {\"loss\": 1}}')")
    row = Row("row", "writes", (f"python {tmp_path}/write.py {{run}}/file",))
    table = Table("title", "paper", "claim.", METRICS[:1], rows=(row,), claims=())
    (job,) = plan(table, tmp_path / "table.py", tmp_path / "runs", table.rows, 1, None)
    assert run([job]).errors == {} and (job.folder / "file").is_file()


def test_finished_jobs_are_not_run_again_and_failed_ones_are(made):
    _, planned, log = made
    run(planned())
    before = len(lines(log))
    log.with_name("log.mended").touch()
    assert not run(planned()).errors
    assert [line["name"] for line in lines(log)[before:]] == ["fails", "after"]
    run(planned(seeds=3))
    assert sorted(line["name"] for line in lines(log)[before + 2 :]) == ["one", "one-first", "start", "timed", "two"]


def test_a_row_without_a_seed_runs_once_and_stands_for_all(made):
    table, planned, log = made
    log.with_name("log.mended").touch()
    run(planned(seeds=3))
    assert [line["name"] for line in lines(log)].count("after") == 1, "what takes no seed"
    assert [line["name"] for line in lines(log)].count("timed") == 3, "but time is never the same"
    assert [line["name"] for line in lines(log)].count("two") == 3, "and a shared job may take one"
    found = collect(table, planned(seeds=4))
    assert found.values["other"]["fails"] == dict.fromkeys(range(4), 7.0) and sorted(found.values["other"]["two"]) == [0, 1, 2]


def test_nothing_runs_beside_a_row_that_measures_time(made):
    _, planned, log = made
    run(planned())
    spans = sorted((line["began"], line["ended"], line["name"]) for line in lines(log))
    for (_, ended, first), (began, _, second) in itertools.pairwise(spans):
        assert began >= ended or "timed" not in (first, second)


def test_other_commands_in_the_same_folder_are_refused(made):
    table, planned, _ = made
    run(planned())
    other = dataclasses.replace(table, rows=(dataclasses.replace(table.rows[0], commands=table.rows[1].commands),))
    with pytest.raises(UserError, match=r"other commands(.|\n)*rm -r"):
        run(planned(other))


def test_a_signal_stops_the_jobs_and_they_go_on(made):
    _, planned, log = made
    before = signal.getsignal(signal.SIGTERM)

    def stop_once_two_have_run():
        until = time.monotonic() + 60
        while (log.read_text() if log.exists() else "").count("\n") < 2 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_once_two_have_run, daemon=True).start()
    stopped = run(planned(), count=1)
    assert not stopped.finished and signal.getsignal(signal.SIGTERM) == before
    there = [line["name"] for line in lines(log)]
    assert 2 <= len(there) < 11
    log.with_name("log.mended").touch()
    run(planned(), count=1)
    names = [line["name"] for line in lines(log)]
    expected = dict.fromkeys(("one", "two", "start", "timed"), 2) | {"after": 1}
    assert {name: names.count(name) for name in expected} == expected, "what had ended is not repeated"


def test_jobs_are_stopped_after_the_minutes_of_a_try(made, tmp_path):
    table, planned, log = made
    command = table.rows[0].commands[0].replace("one-first", "long")
    jobs = planned(Table("", "", "", METRICS, (Row("long", "", (command,)),), ()), seeds=1)
    runner = run(jobs, minutes=1 / 120)
    assert runner.finished and runner.tried == {"long, seed 0": {}} and not runner.errors and not lines(log)


def of_one_row(made, name: str):
    """The jobs of a table with one row, whose command is of that name."""
    table, planned, _ = made
    return planned(Table("", "", "", METRICS, (Row(name, "", (table.rows[0].commands[0].replace("one-first", name),)),), ()), seeds=1)


def test_a_job_that_does_not_stop_is_killed(made, monkeypatch):
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.3)
    assert run(of_one_row(made, "deaf"), minutes=1 / 60).tried == {"deaf, seed 0": {}}


def test_a_job_that_ends_while_it_is_asked_to_stop_keeps_its_exit_code(made):
    (job,) = of_one_row(made, "one")
    one = running.Running(job, Place(tuple(os.sched_getaffinity(0))))
    os.waitid(os.P_PID, one._process.pid, os.WEXITED | os.WNOWAIT)
    one.stop()
    assert one.poll() and not one.error and state_of(job)["finished"]


def test_nothing_that_a_job_started_outlives_it(made):
    run(of_one_row(made, "parent"))
    assert not subprocess.run(["pgrep", "-f", f"{made[2]}.child"], capture_output=True).stdout


def test_a_job_does_not_outlive_who_runs_it(made, tmp_path):
    """A runner that is killed leaves nothing behind, so that no device stays in use."""
    command = made[0].rows[0].commands[0].replace("one-first", "long").replace("{run}", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from train.reproduce.table import Metric, Row, Table\n"
        f"def get_table():\n    return Table('t', 'p', 'c.', (Metric('x', 'x'),), (Row('long', '', ({command!r},)),), ())\n"
    )
    arguments = ["reproduce", str(tmp_path / "mine.py"), "--output", str(tmp_path / "out"), "--seeds", "1"]
    runner = subprocess.Popen([sys.executable, "-m", "omnia", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    pattern = f"script.py {made[2]} "

    def there() -> bool:
        return bool(subprocess.run(["pgrep", "-f", pattern], capture_output=True).stdout)

    for _ in range(600):
        if there():
            break
        time.sleep(0.1)
    assert there()
    runner.kill()
    runner.wait()
    time.sleep(0.5)
    assert not there()


def test_a_row_without_its_number_is_not_finished(made):
    runner = run(of_one_row(made, "nothing"))
    assert "gives NaN for found/loss" in runner.errors["nothing, seed 0"] or "nan" in runner.errors["nothing, seed 0"]
    assert run(of_one_row(made, "nothing")).errors, "it is tried again"


def test_two_processes_do_not_run_the_same_table(made):
    _, planned, _ = made
    with running.alone_in(planned()[0].folder.parent), pytest.raises(UserError, match="another process"):
        run(planned())


def test_a_changed_config_is_not_taken_for_the_one_that_was_run(made, tmp_path):
    """The commands are the same, and what they train is not."""
    config = tmp_path / "config.py"
    command = f"omnia train {config} --run-dir {{run}} --help"
    table = Table("", "", "", METRICS, (Row("one", "", (command,)),), ())
    for steps, fine in ((3, True), (3, True), (4, False)):
        config.write_text(f"from train.experiment import Experiment\ndef get_config():\n    return Experiment(steps={steps})\n")
        (job,) = plan(table, tmp_path / "table.py", tmp_path / "runs", table.rows, 1, None)
        if fine:
            write_state(job, state_of(job) | {"finished": True})
        else:
            with pytest.raises(UserError, match="another config"):
                state_of(job)


def test_a_row_alone_runs_with_what_it_needs(made):
    _, planned, _ = made
    assert [job.label for job in chosen(planned(), ("two",))] == ["start, seed 0", "start, seed 1", "two, seed 0", "two, seed 1"]
    assert len(chosen(planned(), ())) == len(planned())


def test_jobs_at_once_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    found = places(2, "cpu")
    assert [place.cores for place in found] == [(0, 2), (1, 3)] and found[0].environment == {"JAX_PLATFORMS": "cpu"}
    assert len(places(0, "cpu")) == 4 and len(places(6, "cpu")) == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place.environment for place in places(0, "gpu")] == [
        {"JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": device} for device in "25"
    ]
    assert len(places(0, "pod")) == 1
    with pytest.raises(UserError, match="room for 2"):
        places(3, "gpu")
    monkeypatch.setattr(running, "accelerators", lambda: ("tpu", ["all"]))
    assert [place.environment for place in places(0, "gpu")] == [{"JAX_PLATFORMS": "tpu"}], "chips of a TPU are one run's"
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(UserError, match="no GPU or TPU"):
        places(0, "gpu")


def test_results_are_kept_by_tier(made, tmp_path):
    table, planned, _ = made
    run(planned())
    found = collect(table, planned())
    store(tmp_path / "results.json", "cpu", found)
    store(tmp_path / "results.json", "gpu", found)
    assert read(tmp_path / "results.json") == {"cpu": found, "gpu": found} and read(tmp_path / "none.json") == {}
    assert "2 seeds" in missing(table, "cpu", found, 2) and "one, two, fails, timed not measured" in missing(table, "cpu", found, 3)


@pytest.mark.parametrize(
    "change, what",
    [
        ({"rows": (Row("one", "", ("rm -r /",)),)}, "'rm -r /' is no command"),
        ({"rows": (Row("one", "", ("python {nowhere}",)),)}, "nowhere"),
        ({"rows": (Row("one", "", ()),)}, "no commands"),
        ({"rows": (Row("one", "", ("python 'x",)),)}, "No closing quotation"),
        ({"rows": (Row("one", "", ("python",)),)}, "'python' is no command"),
        ({"rows": (Row("..", "", ("python x",)),)}, "no name for a folder"),
        ({"rows": (Row("../one", "", ("python x",)),)}, "no name for a folder"),
        ({"rows": (Row("one", "", ("python x",)),) * 2}, "the same name"),
        ({"rows": (Row("one", "", ("python x",), tier="gpu"),)}, "what machine it needs"),
        ({"claims": (Better("one", "three"),)}, "'three' that is not there"),
        ({"claims": (Better("one", 3.0, metric="speed"),)}, "'speed' that is not there"),
        ({"shared": (Shared("one", ("python x",)),)}, "the same name"),
        ({"across": "speed"}, "'speed' that is not there"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, change, what):
    fields = {"metrics": METRICS, "rows": (Row("one", "", ("python x",)),), "claims": ()} | change
    with pytest.raises(UserError, match=what):
        check(Table("title", "paper", "claim.", **fields), tmp_path / "table.py")
