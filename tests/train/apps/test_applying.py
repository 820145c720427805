"""Rows through an application into a file: in their order, each once, whatever ends the process."""

import json
import os
import threading
import time

import pytest

from data.errors import UserError
from train.apps import applying
from train.apps.applying import Folder, StandardInput, Stream, Table, apply, source_of
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
    found = apply(Echo(), Table(str(given)), tmp_path / "out.jsonl", whose=WHOSE)
    lines = lines_of(tmp_path / "out.jsonl")
    assert [("text" in line, "error" in line) for line in lines[:-1]] == [(True, False), *[(False, True)] * 5, (True, False)]
    for number, line in zip((2, 3, 4, 6, 7), lines[1:6], strict=True):
        assert f"line {number}" in line["error"]
    assert lines[-1] == {"end": 3} and (found.rows, found.errors) == (7, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_tables_are_read_too(tmp_path):
    (tmp_path / "in.csv").write_text("text,more\na,1\nb\nc,3\n")
    apply(Echo(), source_of(str(tmp_path / "in.csv"), False, tmp_path / "out.jsonl"), tmp_path / "out.jsonl", whose=WHOSE)
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line.get("text") for line in lines] == ["a", None, "c", None] and "line 3" in lines[1]["error"]


@pytest.mark.parametrize("dies_at", [0, 3, 8, 9, 19])
def test_a_process_that_died_goes_on_without_losing_or_doubling(tmp_path, monkeypatch, dies_at):
    monkeypatch.setattr(applying, "LOT", 4)
    given, output = write(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(dies_at), Table(str(given)), output, whose=WHOSE)
    assert not output.exists()
    partial = tmp_path / "out.jsonl.partial"
    with partial.open("ab") as file:  # a lot that was being written as the power went
        file.write(b'{"text": "half')
    apply(Echo(), Table(str(given)), output, whose=WHOSE)
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
        apply(Echo(), Table(str(given)), output, whose=WHOSE)
    whole = output.read_bytes()
    again = Echo()
    assert apply(again, Table(str(given)), output, whose=WHOSE).rows == 5 and again.count == 5
    assert output.read_bytes() == whole and not (tmp_path / "out.jsonl.journal").exists()


def test_two_processes_do_not_write_one_output(tmp_path):
    output, given = tmp_path / "out.jsonl", write(tmp_path / "in.jsonl", 3)

    class Busy(Echo):
        def answers(self, rows):
            with pytest.raises(UserError, match="another process writes it"):
                apply(Echo(), Table(str(given)), output, whose=WHOSE)
            return super().answers(rows)

    assert apply(Busy(), Table(str(given)), output, whose=WHOSE).rows == 3
    assert len(lines_of(output)) == 4 and not (tmp_path / "out.jsonl.lock").exists()


def test_rows_that_no_application_could_write_are_errors_in_their_places(tmp_path):
    """Half of a surrogate pair in a value, in a name and deep within; and values nested beyond reason."""
    deep = "[" * 40 + "]" * 40
    rows = ['{"text": "\\ud800"}', '{"text": "a", "\\udc00": 1}', '{"text": "a", "more": [{"b": "\\ud83d!"}]}']
    rows.append(f'{{"id": {deep}, "text": "a"}}')
    (tmp_path / "in.jsonl").write_text("\n".join([*rows, '{"text": "\\ud83d\\ude00", "id": [[1]]}']) + "\n")
    found = apply(Echo(), Table(str(tmp_path / "in.jsonl")), tmp_path / "out.jsonl", whose=WHOSE)
    lines = lines_of(tmp_path / "out.jsonl")
    assert all("line" in line["error"] for line in lines[:4]) and lines[4]["text"] == "\U0001f600" and found.errors == 4
    assert ["surrogate" in line["error"] for line in lines[:4]] == [True, True, True, False] and "within values" in lines[3]["error"]


def test_another_input_and_an_output_that_is_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "LOT", 4)
    given, output = write(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(9), Table(str(given)), output, whose=WHOSE)
    with pytest.raises(UserError, match="another run, checkpoint or input"):
        apply(Echo(), Table(str(given)), output, whose=WHOSE | {"step": "c"})
    content = given.read_text()
    given.write_text(content + '{"text": "one more"}\n')
    with pytest.raises(UserError, match="another run, checkpoint or input"):
        apply(Echo(), Table(str(given)), output, whose=WHOSE)
    given.write_text(content)
    os.utime(given, ns=(0, 0))
    with pytest.raises(UserError, match="another run, checkpoint or input"):
        apply(Echo(), Table(str(given)), output, whose=WHOSE)
    (tmp_path / "done.jsonl").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        apply(Echo(), Table(str(given)), tmp_path / "done.jsonl", whose=WHOSE)
    with pytest.raises(UserError, match="no such file"):
        source_of(str(tmp_path / "nothing"), False, output)


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
    content = given.read_text()
    for other, what in (("", "is not the file"), (content.replace("half", "halt"), "is not the file")):
        given.write_text(other)
        with pytest.raises(UserError, match=what):
            apply(Echo(), Stream(str(given)), output, whose=WHOSE, follow=True)


def test_a_stream_that_was_empty_at_first_is_known_again(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.touch()

    class Filling:
        """What is written once the stream was opened."""

        def __init__(self):
            self.known_by, self._read = Stream(str(given)).known_by, Stream(str(given)).read

        def read(self, place):
            rows = self._read(place)
            yield next(rows)
            write(given, 2)
            yield from rows

    assert [line["text"] for line in follow(Filling(), output, 2)] == ["0", "1"]
    given.write_text("".join(f'{{"text": "other {number}"}}\n' for number in range(9)))
    with pytest.raises(UserError, match="is not the file"):
        apply(Echo(), Stream(str(given)), output, whose=WHOSE, follow=True)


def test_a_stream_that_is_put_away_is_followed_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = write(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"

    class Turning(Echo):
        def answers(self, rows):
            lines = super().answers(rows)
            if self.count == 4:  # a last line, and then another file
                with given.open("a") as file:
                    file.write('{"text": "last"}\n')
                given.rename(tmp_path / "in.jsonl.1")
                write(given, 2)
            elif self.count == 7:
                given.write_text('{"text": "anew"}\n')  # emptied in place
            return lines

    follow(Stream(str(given)), output, 3)
    with given.open("a") as file:
        file.write('{"text": "late"}\n')
    found = follow(Stream(str(given)), output, 8, Turning())
    assert [line["text"] for line in found] == ["0", "1", "2", "late", "last", "0", "1", "anew"]


def test_a_follower_that_was_ended_before_its_first_line_can_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("")
    apply(Echo(), Stream(str(given)), output, whose=WHOSE, follow=True, stopped=lambda: True)
    write(given, 2)
    with pytest.raises(KeyboardInterrupt):
        apply(Echo(0), Stream(str(given)), output, whose=WHOSE, follow=True)
    assert [line["text"] for line in follow(Stream(str(given)), output, 2)] == ["0", "1"]


@pytest.mark.parametrize("anew", [True, False])
def test_standard_input_is_read_as_it_comes(tmp_path, monkeypatch, anew):
    """A line is answered before the next is there; a process that goes on is given the same again, or what comes next."""
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    output = tmp_path / "out.jsonl"
    here, there = os.pipe()
    os.write(there, b'\xef\xbb\xbf{"text": "0"}\n{"te')
    assert follow(StandardInput(anew, here), output, 1)[0]["text"] == "0"
    os.close(here)
    os.close(there)
    here, there = os.pipe()
    os.write(there, b'{"text": "1"}\n\n{"text": "2"}\n{"text": "' + b"x" * 50 + b'"}')
    os.close(there)
    monkeypatch.setattr(applying, "LONGEST", 40)
    found = follow(StandardInput(anew, here), output, 3 if anew else 4)
    os.close(here)
    assert [line.get("text") for line in found] == ["0", *([] if anew else ["1"]), "2", None] and "longer" in found[-1]["error"]


def test_a_line_without_end_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "LONGEST", 64)
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"text": "' + "x" * 1000 + '"}\n{"text": "a"}\n')
    found = follow(Stream(str(given)), output, 2)
    assert "longer than" in found[0]["error"] and found[1]["text"] == "a"


def test_a_file_that_cannot_be_read_is_an_error_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "LOT", 1)
    folder, output = tmp_path / "given", tmp_path / "out.jsonl"
    folder.mkdir()
    for name, content in (
        ("a.json", '[{"text": "x"},'),
        ("b.csv", "text,text\n1,2\n"),
        ("c.tsv", "text\tn\nd\t1\n"),
        ("e.jsonl.gz", "no gzip"),
    ):
        (folder / name).write_text(content)
    source = source_of(str(folder), False, output)
    apply(Echo(), source, output, whose=WHOSE)
    lines = lines_of(output)
    assert ["error" in line for line in lines] == [True, True, False, True, False] and lines[2]["text"] == "d"
    with pytest.raises(UserError, match="folder that is read"):
        source_of(str(tmp_path), True, output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file of rows"):
        source_of(str(tmp_path / "empty"), False, output)
    with pytest.raises(UserError, match="JSON alone"):
        source_of(str(folder / "c.tsv"), True, output)


def test_a_file_that_was_taken_away_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(applying, "IDLE_SECONDS", 0.01)
    folder, output = tmp_path / "given", tmp_path / "out.jsonl"
    folder.mkdir()
    write(folder / "a.jsonl", 2)
    follow(Folder(str(folder), True), output, 2)
    (folder / "a.jsonl").rename(tmp_path / "archived.jsonl")
    write(folder / "b.jsonl", 1)
    assert [line["text"] for line in follow(Folder(str(folder), True), output, 3)] == ["0", "1", "0"]


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
