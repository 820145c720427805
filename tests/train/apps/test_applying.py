"""Rows through an application into a file: in their order, each once, whatever ends the process."""

import json
import os
import threading
import time

import pytest

from data.errors import UserError
from train.apps import applying
from train.apps.applying import Folder, Rows, Stream, apply, source_of
from train.kinds import Application

WHOSE = {"run": "a", "input": "b"}


class Echo(Application):
    """Each row's text, and how many rows came before it: which a process that goes on must remember."""

    def __init__(self, dies_at: int = -1):
        self.count, self._dies_at = 0, dies_at

    def answers(self, rows):
        lines = []
        for row in rows:
            if self.count == self._dies_at:
                raise KeyboardInterrupt
            lines.append({"text": row["text"], "number": self.count} if "text" in row else {"error": f"{row.where}: no text"})
            self.count += 1
        return lines

    def state(self):
        return self.count

    def restore(self, state):
        self.count = state

    def finish(self):
        return [{"end": self.count}]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, count: int):
    path.write_text("".join(json.dumps({"text": str(number)}) + "\n" for number in range(count)))
    return path


def test_rows_that_cannot_be_answered_have_their_error_in_their_place(tmp_path):
    given = tmp_path / "in.jsonl"
    given.write_bytes(b'{"text": "a"}\nno json\n[1]\n\xff\n\n{"other": 1}\n{"text": "b", "text": "c"}\n{"text": "d"}\n')
    found = apply(Echo(), Rows(str(given)), tmp_path / "out.jsonl", whose=WHOSE)
    lines = lines_of(tmp_path / "out.jsonl")
    assert [("text" in line, "error" in line) for line in lines[:-1]] == [(True, False), *[(False, True)] * 5, (True, False)]
    for number, line in zip((2, 3, 4, 6, 7), lines[1:6], strict=True):
        assert f"line {number}" in line["error"]
    assert lines[-1] == {"end": 3} and (found.rows, found.errors) == (7, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_tables_are_read_too(tmp_path):
    (tmp_path / "in.csv").write_text("text,more\na,1\nb\nc,3\n")
    apply(Echo(), source_of(str(tmp_path / "in.csv"), False), tmp_path / "out.jsonl", whose=WHOSE)
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line.get("text") for line in lines] == ["a", None, "c", None] and "line 3" in lines[1]["error"]


@pytest.mark.parametrize("dies_at", [0, 3, 8, 9, 19])
def test_a_process_that_died_goes_on_without_losing_or_doubling(tmp_path, monkeypatch, dies_at):
    monkeypatch.setattr(applying, "LOT", 4)
    given, output = write(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(dies_at), Rows(str(given)), output, whose=WHOSE)
    assert not output.exists()
    partial = tmp_path / "out.jsonl.partial"
    with partial.open("ab") as file:  # a lot that was being written as the power went
        file.write(b'{"text": "half')
    if not (tmp_path / "out.jsonl.journal").exists():
        partial.unlink()
    apply(Echo(), Rows(str(given)), output, whose=WHOSE)
    assert lines_of(output) == [*({"text": str(number), "number": number} for number in range(20)), {"end": 20}]


def test_a_process_that_died_behind_its_last_line_has_done_all(tmp_path, monkeypatch):
    given, output = write(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    replace = os.replace

    def replace_and_die(source, target):
        replace(source, target)
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_and_die)
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(), Rows(str(given)), output, whose=WHOSE)
    whole = output.read_bytes()
    again = Echo()
    assert apply(again, Rows(str(given)), output, whose=WHOSE).rows == 5 and again.count == 5
    assert output.read_bytes() == whole and not (tmp_path / "out.jsonl.journal").exists()


def test_another_input_and_an_output_that_is_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "LOT", 4)
    given, output = write(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(9), Rows(str(given)), output, whose=WHOSE)
    with pytest.raises(UserError, match="another run or input"):
        apply(Echo(), Rows(str(given)), output, whose=WHOSE | {"input": "c"})
    (tmp_path / "out.jsonl.partial").write_text("")
    with pytest.raises(UserError, match="shorter"):
        apply(Echo(), Rows(str(given)), output, whose=WHOSE)
    (tmp_path / "done.jsonl").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        apply(Echo(), Rows(str(given)), tmp_path / "done.jsonl", whose=WHOSE)
    with pytest.raises(UserError, match="no such file"):
        source_of(str(tmp_path / "nothing"), False)


def follow(source, output, until, application=None):
    """Lines of an output that is followed until there are so many."""
    stop = threading.Event()

    def wait():
        end = time.monotonic() + 20
        while time.monotonic() < end and not (output.exists() and len(output.read_bytes().splitlines()) >= until):
            time.sleep(0.01)
        stop.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    apply(application or Echo(), source, output, whose=WHOSE, follow=True, stopped=stop.is_set)
    waiting.join()
    return lines_of(output)


def test_a_stream_is_followed_and_gone_on_with(tmp_path, monkeypatch):
    """A line counts once its end is there; a process that comes back goes on behind the last line that it wrote."""
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = write(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    with given.open("a") as file:
        file.write('{"text": "ha')
    assert [line["text"] for line in follow(Stream(str(given)), output, 3)] == ["0", "1", "2"]
    with given.open("a") as file:
        file.write('lf"}\n{"text": "4"}\n')
    found = follow(Stream(str(given)), output, 5)
    assert [(line["text"], line["number"]) for line in found] == [("0", 0), ("1", 1), ("2", 2), ("half", 3), ("4", 4)]
    given.write_text("")
    with pytest.raises(UserError, match="shorter than what was read"):
        apply(Echo(), Stream(str(given)), output, whose=WHOSE, follow=True)


def test_a_line_without_end_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "LONGEST", 64)
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"text": "' + "x" * 1000 + '"}\n{"text": "a"}\n')
    found = follow(Stream(str(given)), output, 2)
    assert "longer than" in found[0]["error"] and found[1]["text"] == "a"


def test_files_of_a_folder_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(applying, "LOT", 2)
    folder, output = tmp_path / "given", tmp_path / "out.jsonl"
    folder.mkdir()
    for name, texts in (("b.jsonl", "cd"), ("a.jsonl", "ab"), ("unready.tmp", "x")):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert "".join(line["text"] for line in follow(Folder(str(folder), True), output, 4)) == "abcd"
    (folder / "0.jsonl").write_text('{"text": "e"}\n')
    assert "".join(line["text"] for line in follow(Folder(str(folder), True), output, 5)) == "abcde"
