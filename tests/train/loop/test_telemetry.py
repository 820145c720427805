"""What is written can be read back, whatever happened between; terminals, pipes and extras each get what they can show."""

import contextlib
import csv
import itertools
import json
import math
import os
import pty
import struct
import sys
import threading
import time
import types

import pytest

from data.errors import UserError
from train.experiment import Experiment
from train.loop import telemetry
from train.loop.telemetry import COLUMNS, Telemetry, read_metrics


def train_row(step):
    return {
        "loss": 5.0 / step,
        "gradient_norm": 0.5,
        "learning_rate": 1e-3,
        "tokens": 64 * step,
        "tokens_per_second": 1e3,
        "data_wait": 0.25,
    }


def run_steps(run_dir, first, last, *, total=10, **options):
    with Telemetry(run_dir, total_steps=total, **options) as told:
        for step in range(first, last + 1):
            told.train(step, train_row(step))
            if step % 4 == 0:
                told.evaluation(step, {"loss": 6.0 / step, "bits_per_byte": 2.0, "perplexity": 3.0})
                told.sample(step, "def ", "f(x):\n    return x")


def read_csv(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def test_values_that_are_not_finite_are_valid_json_and_come_back(tmp_path):
    with Telemetry(tmp_path, total_steps=1) as told:
        told.train(1, {"loss": math.nan, "gradient_norm": math.inf, "other": -math.inf})
        told.sample(1, "NaN", "Infinity")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    row, sample = read_metrics(tmp_path)
    assert math.isnan(row["loss"]) and row["gradient_norm"] == math.inf and row["other"] == -math.inf
    assert (sample["prompt"], sample["text"]) == ("NaN", "Infinity")


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    """Rows after the checkpoint that the run goes on from are written anew, not twice; a line torn by a kill disappears."""
    monkeypatch.setattr(telemetry.time, "monotonic", itertools.count().__next__)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run_steps(whole, 1, 10)
    run_steps(resumed, 1, 9)
    with (resumed / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 10, "ti')
    with (resumed / "metrics.csv").open("a") as file:
        file.write("train,1")
    run_steps(resumed, 7, 10, resume_step=6)
    assert without_time(read_metrics(resumed)) == without_time(read_metrics(whole))
    assert without_time(read_csv(resumed)) == without_time(read_csv(whole))
    times = [row["time"] for row in read_metrics(resumed)]
    assert times == sorted(times)


def test_a_run_that_starts_again_drops_what_no_checkpoint_kept(tmp_path):
    run_steps(tmp_path, 1, 3)
    run_steps(tmp_path, 1, 2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_a_kill_while_rows_are_dropped_loses_none(tmp_path, monkeypatch):
    run_steps(tmp_path, 1, 5)
    before = read_metrics(tmp_path)

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        Telemetry(tmp_path, total_steps=10, resume_step=2)
    assert read_metrics(tmp_path) == before


def test_csv_holds_the_train_and_evaluation_rows_of_the_jsonl(tmp_path):
    run_steps(tmp_path, 1, 8)
    rows = [row for row in read_metrics(tmp_path) if row["kind"] != "sample"]
    table = read_csv(tmp_path)
    assert tuple(table[0]) == COLUMNS
    assert [{name: str(row.get(name, "")) for name in COLUMNS} for row in rows] == table


def test_damage_inside_the_file_is_named(tmp_path):
    run_steps(tmp_path, 1, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 2', '"step" 2'))
    with pytest.raises(UserError, match="line 2"):
        read_metrics(tmp_path)


def test_utilisation_is_speed_times_work_over_peak(tmp_path, capsys):
    with Telemetry(tmp_path, total_steps=2, flops_per_token=2e6, peak=8e9) as told:
        told.train(1, train_row(1))
    assert read_metrics(tmp_path)[0]["mfu"] == pytest.approx(1e3 * 2e6 / 8e9)
    assert "MFU 25.0%" in capsys.readouterr().out
    with Telemetry(tmp_path, total_steps=2, flops_per_token=2e6, device="abacus") as told:
        told.train(1, train_row(1))
    assert "mfu" not in read_metrics(tmp_path)[0]
    assert "MFU unknown for abacus" in capsys.readouterr().out


def test_a_pipe_gets_few_lines_without_codes_the_first_and_the_last_among_them(tmp_path, capsys):
    with Telemetry(tmp_path, total_steps=500) as told:
        for step in range(1, 501):
            told.train(step, train_row(step))
        told.message("done")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    first, *between, last, done = out.splitlines()
    assert first.startswith("step   1/500") and last.startswith("step 500/500") and done == "done"
    assert len(between) < 5


def test_a_pipe_gets_the_last_line_of_a_run_that_stops_early(tmp_path, capsys):
    run_steps(tmp_path, 1, 3, total=500)
    assert capsys.readouterr().out.splitlines()[-1].startswith("step   3/500")


@pytest.fixture
def shown(monkeypatch):
    """Makes stdout a terminal of some columns; the fixture's second function tells what was written to it."""
    master, slave = pty.openpty()
    terminal = os.fdopen(slave, "w")

    def start(columns):
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(telemetry, "LIVE_SECONDS", 0)

    def read():
        """All of it: a terminal hands on what it was given in its own time, and says the end as an error."""
        terminal.close()
        parts = []
        with contextlib.suppress(OSError):
            while part := os.read(master, 4096):
                parts.append(part)
        return b"".join(parts).decode()

    yield start, read
    os.close(master)


def test_a_terminal_gets_one_line_and_no_control_characters_of_the_model(tmp_path, shown):
    start, read = shown
    start(200)
    with Telemetry(tmp_path, total_steps=4) as told:
        told.train(1, train_row(1))
        told.evaluation(2, {"loss": 1.5, "bits_per_byte": 1.25})
        told.sample(2, "a", "[bold]b\x1b[31m\x07")
        told.train(3, train_row(3))
    text = read()
    assert "\x1b[2K" in text  # the line is erased and drawn anew
    assert "ETA" in text and "data wait 25%" in text and "validation 1.5000" in text
    assert "a[bold]b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}" in text


def test_a_narrow_terminal_gets_one_line_too(tmp_path, shown):
    start, read = shown
    start(40)
    run_steps(tmp_path, 1, 3)
    assert "\x1b[1A" not in read()  # the cursor need not go up to erase it


@pytest.mark.parametrize(
    ("extra", "package", "options"), [("tensorboard", "tensorboardX", {"tensorboard": True}), ("wandb", "wandb", {"wandb": "offline"})]
)
def test_a_missing_extra_is_named_before_anything_is_touched(tmp_path, monkeypatch, extra, package, options):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"omnia\[{extra}\]"):
        Telemetry(tmp_path / "run", total_steps=1, **options)
    assert not (tmp_path / "run").exists()


def read_events(path):
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:  # records: length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_events_hold_the_values_and_forget_what_a_resume_drops(tmp_path):
    pytest.importorskip("tensorboardX", reason="extra: tensorboard")
    run_steps(tmp_path, 1, 4, tensorboard=True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {(value.tag, event.step): value.simple_value for event in read_events(path) for value in event.summary.value}
    assert found["train/loss", 2] == pytest.approx(2.5)
    assert found["validation/bits_per_byte", 4] == pytest.approx(2.0)
    path.unlink()
    run_steps(tmp_path, 3, 4, resume_step=2, tensorboard=True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert [event.step for event in read_events(path) if event.HasField("session_log")] == [3]


def test_wandb_keeps_its_id_over_a_resume_and_takes_our_steps(tmp_path, monkeypatch):
    calls = []

    class FakeRun:
        def define_metric(self, *args, **options):
            calls.append(("define", args, options))

        def log(self, values):
            calls.append(("log", values))

        def finish(self):
            calls.append(("finish",))

    def init(**options):
        calls.append(("init", options))
        return FakeRun()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=dict))
    for first, resume in ((1, 0), (3, 2)):
        run_steps(tmp_path, first, 4, resume_step=resume, wandb="offline", name="trial", config=Experiment())
    first, second = (call[1] for call in calls if call[0] == "init")
    assert first["id"] == second["id"] and first["mode"] == "offline"
    assert first["config"]["model"]["kind"] == "model.config:ModelConfig"
    assert ("log", {"train/" + name: value for name, value in train_row(3).items()} | {"step": 3}) in calls
    assert calls[-1] == ("finish",)


@pytest.mark.parametrize("what", ["add_scalar", "close"])
def test_a_tensorboard_that_takes_nothing_more_holds_nobody_up(what, tmp_path, monkeypatch, capsys):
    """tensorboardX's thread dies on a full disk, and whoever hands it the next row waits for ever."""
    never = threading.Event()
    writer = types.SimpleNamespace(add_scalar=lambda *_: None, add_text=lambda *_: None, close=lambda: None)
    setattr(writer, what, lambda *_: never.wait())
    monkeypatch.setattr(telemetry, "_extra", lambda *_: types.SimpleNamespace(SummaryWriter=lambda *_, **__: writer))
    monkeypatch.setattr(telemetry, "ROWS_WAITING", 4)
    monkeypatch.setattr(telemetry, "CLOSE_SECONDS", 0.2)
    with Telemetry(tmp_path, total_steps=10, tensorboard=True) as told:
        for step in range(1, 11):
            told.train(step, train_row(step))
            time.sleep(0.01)
    never.set()
    assert capsys.readouterr().out.count("WARNING: TensorBoard is not written any more") == 1
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 11))


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "evaluation", "step": 2, "time": 1},
        {"kind": "evaluation", "step": 2, "time": 1, "loss": None},
        {"kind": "train", "step": "x", "time": 1},
        {"kind": "train", "step": 2, "time": "later"},
        {"kind": "anomaly", "step": 2, "time": 1},
        {"kind": "sample", "step": 2, "time": 1, "prompt": "a"},
        {"kind": "other", "step": 2, "time": 1},
        {"kind": "train", "step": 2.5, "time": 1},
        [],
    ],
)
def test_a_row_that_lacks_what_its_kind_has_is_named(row, tmp_path):
    good = {"kind": "evaluation", "step": 1, "time": 0.5, "loss": "NaN"}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (good, row)))
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 is damaged \("):
        read_metrics(tmp_path)


def test_rows_of_a_file_that_was_removed_go_on_in_a_new_one(tmp_path, capsys):
    with Telemetry(tmp_path, total_steps=4) as told:
        told.train(1, train_row(1))
        (tmp_path / "metrics.jsonl").unlink()
        told.train(2, train_row(2))
        told.sync()
        told.train(3, train_row(3))
    assert [row["step"] for row in read_metrics(tmp_path)] == [3]
    assert capsys.readouterr().out.count("metrics.jsonl was removed or replaced") == 1
