"""`omnia apply` on runs that were trained: any task, an application, and a process that is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import omnia
from data.errors import UserError
from tests.train.apps.runs import task_runs
from train.loop.exits import Exit
from train.loop.report import write_report
from train.runs.directory import open_run
from train.sources.dataset import dataset_of

ROOT = Path(__file__).parents[3]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return task_runs(tmp_path_factory.mktemp("apply"))


def apply(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert omnia.main(["apply", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_the_tokenizer_cannot_read_is_an_error_of_its_row(runs, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"text": "a q b"}\n{"text": "a \\u4e2d"}\n{"text": "b w b"}\n')
    found = apply(capsys, runs["task"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found["errors"] == 1 and [line.get("answer") for line in lines] == ["card", None, "loan"] and lines[1]["error"]
    apply(capsys, runs["service"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "served.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "served.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [False, True, False]


def test_any_task_answers_rows(runs, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("id,text\n1,a q b\n2,\n3,b w b\n")
    found = apply(capsys, runs["task"], "--input", tmp_path / "in.csv", "--output", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (found["rows"], found["errors"]) == (3, 1)
    assert [(line["id"], line.get("answer")) for line in lines] == [("1", "card"), ("2", None), ("3", "loan")]
    assert omnia.main(["apply", str(runs["task"]), "--text", "a q b"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "card"


def test_what_was_not_read_to_its_end_says_so(runs, tmp_path, capsys):
    """Of 16 tokens, one a letter, of which two are the begin and the end."""
    texts = ["a q b", "a q b " + "a" * 8, "a q b " + "a" * 9, "b w b " + "b" * 500]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    apply(capsys, runs["task"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line.get("cut") for line in lines] == [None, None, True, True]


def test_a_service_counts_labelled_rows_and_shows_itself_in_the_report(runs, tmp_path, capsys):
    given = runs["files"] / "held.jsonl"
    found = apply(capsys, runs["service"], "--input", given, "--output", tmp_path / "out.jsonl", "--report")
    assert found["accuracy"] == 1.0 and found["template"] == 40 and found["precision"] == 1.0
    kept = json.loads((runs["service"] / "application.json").read_text())
    assert kept["learned"]["threshold"] <= 1
    page = (runs["service"] / "report.html").read_text()
    assert "Customer service: what was answered" in page and "refresh" not in page
    assert '"refresh" content="30"' in write_report(runs["service"], renewed=30).read_text()
    assert "Please tell me: days." in (tmp_path / "out.jsonl").read_text()


def test_slots_come_from_a_run_that_tags_words(runs):
    run = open_run(runs["service"])
    data = dataclasses.replace(run.experiment.data, slots=str(runs["task"]))
    with pytest.raises(UserError, match="was not trained to tag words"):
        dataset_of(dataclasses.replace(run.experiment, data=data)).application(run)


def test_a_page_of_what_is_followed_renews_itself_until_the_end(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.verbs.apply.REPORT_SECONDS", 1e-6)
    pages = []

    def page(run, renewed):
        pages.append(renewed)
        if renewed:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("train.loop.report.write_report", page)
    before = [(which, signal.getsignal(which)) for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    rows = [{"text": "a q b", "time": 3600 * number, "topic": "t"} for number in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        apply(capsys, runs["monitor"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--follow", "--report")
    finally:
        for which, handler in before:
            signal.signal(which, handler)
    assert pages == [1e-6, 0]  # the last one is still


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, Exit.SAVED), (signal.SIGHUP, Exit.SAVED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_a_process_that_is_stopped_says_that_there_is_more(number, code, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.apps.applying.LOT", 2)
    (tmp_path / "in.jsonl").write_text('{"text": "a q b"}\n' * 5)
    arguments = ["apply", *map(str, (runs["task"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"))]
    before = [(which, signal.getsignal(which)) for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    try:
        with monkeypatch.context() as at_once:
            at_once.setattr("rich.progress.Progress.update", lambda *_, **__: os.kill(os.getpid(), number))
            assert omnia.main(arguments) == code and "the same command goes on" in capsys.readouterr().out
        assert not (tmp_path / "out.jsonl").exists()
        assert omnia.main(arguments) == Exit.DONE and "goes on" not in capsys.readouterr().out
    finally:
        for which, handler in before:
            signal.signal(which, handler)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_mistakes_are_said(runs, tmp_path, capsys):
    given, run = runs["files"] / "held.jsonl", runs["task"]
    for arguments in (
        [run],
        [run, "--input", given],
        [run, "--input", given, "--output", tmp_path / "o.csv"],
        [run, "--input", given, "--output", tmp_path / "none" / "o.jsonl"],
        [run, "--input", tmp_path / "none", "--output", tmp_path / "o.jsonl"],
        [run, "--text", "a", "--follow"],
        [run, "--text", "a", "--input", given, "--output", tmp_path / "o.jsonl"],
    ):
        assert omnia.main(["apply", *map(str, arguments)]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_monitor_that_is_killed_loses_and_doubles_nothing(runs, tmp_path):
    """kill -9 amid a stream, again and again: the lines are those of one process that was left alone."""
    given = tmp_path / "in.jsonl"
    letters = "abcdefghijklmnop"
    rows = [
        {"text": f"{'qw'[n % 3 > 0]} {''.join(letters[n >> shift & 15] for shift in (0, 4, 8))}", "topic": "AB"[n >> 12], "time": 90 * n}
        for n in range(6000)
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def begin(output: Path) -> subprocess.Popen:
        command = [
            sys.executable,
            str(ROOT / "omnia.py"),
            "apply",
            str(runs["monitor"]),
            "--input",
            str(given),
            "--output",
            str(output),
            "--follow",
        ]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def rows_read(output: Path) -> int:
        journal = output.with_name(output.name + ".journal")
        return json.loads(journal.read_text())["rows"] if journal.exists() else 0

    def give(first: int, last: int) -> None:
        with given.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[first:last])

    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    for output, kills in ((whole, 0), (killed, 5)):
        given.write_text("")
        there = 1500 if kills else len(rows)  # no more before the first kill, so that it cannot come too late
        give(0, there)
        process, end = begin(output), time.monotonic() + 200
        while rows_read(output) < len(rows):
            assert time.monotonic() < end
            if kills and rows_read(output) > (6 - kills) * 900:
                process.send_signal(signal.SIGKILL)
                process.wait()
                give(there, more := there + 900 if kills > 1 else len(rows))
                there = more
                process, kills = begin(output), kills - 1
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and not kills
    assert killed.read_text() == whole.read_text() and len(whole.read_text().splitlines()) > 100
