"""Whatever raises beside the steps, the last finished step is saved, and the same command goes on to the same end."""

import dataclasses
import importlib
import itertools
import os

import pytest

from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from tests.train.conftest import change
from tests.train.tiny_runs import outcome, start, train
from train.checkpoints.journal import Journal
from train.devices.hosts import Moved, Place
from train.loop.exits import Exit
from train.loop.telemetry import _RowFile, read_metrics
from train.runs.directory import open_run


@pytest.fixture
def plain(tiny, corpora):
    """One corpus, no accumulation, saved at the end alone: all steps hang on the rescue."""
    data = dataclasses.replace(tiny.data, shards=corpora[:1], weights=())
    model = {"num_layers": 1, "dropout": 0.0}
    samples = {"every": 3, "tokens": 4, "prompts": ("the ",)}
    experiment = change(tiny, model=model, samples=samples, evaluation={"every": 3}, checkpoints={"every": 0})
    return dataclasses.replace(experiment, data=data, micro_batches=1, ema_decay=0.0)


def steps_of(run) -> list[int]:
    return Journal(run.path / "checkpoints").steps()


def failing(monkeypatch, what: str, call: int, error: Exception):
    """`what` raises at its so manyth call."""
    module, name = what.rsplit(":")
    owner = importlib.import_module(module)
    *parts, name = name.split(".")
    for part in parts:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), itertools.count(1)

    def called(*arguments, **options):
        if next(calls) == call:
            raise error
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, called)


@pytest.fixture(scope="module")
def undisturbed():
    """What a run that nothing happens to comes to; made by the first test that asks."""
    return {}


@pytest.mark.parametrize(
    ("what", "call", "error", "last"),
    [
        ("train.loop.row_learner:RowLearner.evaluate", 2, RuntimeError("evaluation"), 6),
        ("train.loop.row_learner:RowLearner.samples", 1, UserError("sample"), 3),
        ("train.loop.row_learner:RowLearner.__next__", 5, MemoryError(), 4),
    ],
)
def test_the_last_step_is_saved_and_the_run_goes_on(what, call, error, last, plain, undisturbed, tmp_path, monkeypatch):
    if not undisturbed:
        run = start(tmp_path / "whole", plain)
        train(run)
        undisturbed["outcome"] = outcome(run)
    run = start(tmp_path / "run", plain)
    with monkeypatch.context() as patched:
        failing(patched, what, call, error)
        with pytest.raises(type(error)):
            train(run)
    assert steps_of(run) == [last]
    train(run)
    assert outcome(run) == undisturbed["outcome"]


def test_a_report_that_cannot_be_drawn_ends_nothing(plain, tmp_path, monkeypatch, capsys):
    run = start(tmp_path / "run", change(plain, samples={"tokens": 0}, steps=2))
    failing(monkeypatch, "train.loop.loop:write_report", 1, OSError(28, "No space left on device"))
    assert train(run, report=True)["exit"] == Exit.DONE
    assert steps_of(run) == [2]
    assert f"`omnia report {run.path}` draws it" in capsys.readouterr().out


def test_a_run_that_is_moved_is_saved_where_it_is_now(plain, tmp_path, monkeypatch):
    run = start(tmp_path / "run", change(plain, samples={"tokens": 0}))
    moved, original, calls = tmp_path / "elsewhere" / "moved", Place.check, itertools.count(1)
    moved.parent.mkdir()

    def check(self):
        if next(calls) == 3:
            run.path.rename(moved)
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Place, "check", check)
        with pytest.raises(Moved, match=f"moved to {moved} while the run trained\nWhat was trained is saved there"):
            train(run)
    assert not run.path.exists()
    again = open_run(moved)
    (last,) = steps_of(again)
    assert last > 0
    assert [row["step"] for row in read_metrics(moved) if row["kind"] == "train"][-1] == last
    train(again)
    assert steps_of(again)[-1] == plain.steps


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_place_is_known_by_what_it_is(how, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    place = Place(folder)
    place.check()
    folder.rename(tmp_path / "b")
    if how == "removed":
        (tmp_path / "b").rmdir()
    if how == "replaced":
        folder.mkdir()
    with pytest.raises(Moved) as error:
        place.check()
    assert error.value.path == (None if how == "removed" else tmp_path / "b")
    place.close()


def test_rows_are_held_while_a_disk_is_full(tmp_path):
    said = []
    file = _RowFile(tmp_path / "rows", said.append)
    file.replace(b"0\n")
    handle, file._handle = file._handle, os.open("/dev/full", os.O_WRONLY)
    for number in (b"1\n", b"2\n"):
        file.write(number)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert file.content() == b"0\n1\n2\n"
    os.close(file._handle)
    file._handle = handle
    file.write(b"3\n")
    assert (tmp_path / "rows").read_bytes() == b"0\n1\n2\n3\n"
    assert said[1:] == ["rows is written again"]
    file.close()


def test_rows_are_written_once_though_a_disk_takes_half_of_them(tmp_path, monkeypatch):
    """A disk that fills up takes the beginning of what it is given."""
    file = _RowFile(tmp_path / "rows", lambda line: None)
    file.replace(b"")
    write, calls = os.write, itertools.count(1)

    def half(handle, content):
        if next(calls) % 3 == 0:
            raise OSError(28, "No space left on device")
        return write(handle, bytes(content[: max(1, len(content) // 2)]))

    monkeypatch.setattr("os.write", half)
    for number in range(20):
        file.write(b"row %d\n" % number)
    monkeypatch.undo()
    file.close()
    assert (tmp_path / "rows").read_bytes() == b"".join(b"row %d\n" % number for number in range(20))


def test_what_depends_on_validation_is_refused_without_any(plain, tmp_path, capsys):
    texts, shards = tmp_path / "one.txt", str(tmp_path / "shards")
    texts.write_text("the cat sat on the mat. " * 40)
    prepare_text(PrepareText(output=shards, input=(str(texts),), validation=0, workers=1))
    bare = change(plain, data={"shards": (shards,)}, samples={"tokens": 0}, steps=2, evaluation={"every": 1}, schedule={"warmup_steps": 3})
    run = start(tmp_path / "run", bare)
    assert train(run)["validation"] == {}
    said = capsys.readouterr().out
    assert "no validation: the data has nothing for it" in said and "schedule.warmup_steps is 3, of 2 steps" in said
    for asked in ({"evaluation": {"patience": 1}}, {"checkpoints": {"keep_best": 1}}):
        with pytest.raises(UserError, match="needs validation"):
            train(start(tmp_path / next(iter(asked)), change(bare, **asked)))
