"""What benchmarks/gpu_report.py writes: without a device, when the time is over, and of what fails. Nothing is timed here."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
DEVICE = {"platform": "gpu", "kind": "a card", "count": 1, "versions": {"jax": "1"}}


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu_report")


@pytest.fixture
def device(report, monkeypatch):
    """A pretended card, on which every race takes as long as it may."""
    clock = [1000.0]
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(report.gpu, "probe", lambda *_: DEVICE)
    monkeypatch.setattr(report, "tables", lambda *_: [])

    def race(name, options, kind):
        clock[0] += options.seconds
        return {"name": name, "ours": 1.0, "unit": "s", "goal": "", "device": kind, "attempts": []}

    monkeypatch.setattr(report.gpu, "race", race)
    return clock


def written(folder: Path) -> tuple[dict, str]:
    return json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text()


def test_without_a_device_every_part_says_so(report, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert report.main(["--output", str(tmp_path)]) == 2
    found, page = written(tmp_path)
    assert [(one["name"], one["status"]) for one in found["parts"]] == [(name, "no device") for name in report.SHARES]
    assert all("no GPU or TPU" in one["error"] for one in found["parts"])
    assert page.count("no GPU or TPU: JAX sees a cpu") == 2 * len(report.SHARES)  # in the table, and among the failures


def test_every_part_has_its_turn_within_the_time(report, device, tmp_path):
    began = device[0]
    assert report.main(["--output", str(tmp_path)]) == 0
    assert device[0] - began <= 540
    assert [one["status"] for one in written(tmp_path)[0]["parts"]] == ["ok"] * (len(report.SHARES) - 1)


def test_what_there_is_no_time_for_is_not_started(report, device, tmp_path):
    began = device[0]
    assert report.main(["--output", str(tmp_path), "--minutes", "3"]) == 2
    parts = written(tmp_path)[0]["parts"]
    assert [one["status"] for one in parts] == ["ok", "ok", "no time", "no time", "no time", "no time"]
    assert device[0] - began <= 180 - report.RESERVE


def test_what_fails_is_named_and_the_rest_goes_on(report, device, monkeypatch, tmp_path):
    wrong = {"kernel": "fast", "shape": [1, 2], "packed": True, "output_difference": 0.5, "wrong": True}
    lines = {"attention": {"error": "wrong: fast", "attempts": [wrong]}, "shakespeare_gpu": {"missing": "--shards"}}

    def race(name, *_):
        if name == "gpt2_124m":
            raise ImportError("no such name")
        return {"name": name, "ours": 1.0, "unit": "", "goal": "", "device": "", "attempts": []} | lines.get(name, {})

    monkeypatch.setattr(report.gpu, "race", race)
    assert report.main(["--output", str(tmp_path)]) == 1
    found, page = written(tmp_path)
    states = {one["name"]: one["status"] for one in found["parts"]}
    assert states == {"attention": "failed", "gpt2_124m": "failed", "shakespeare_gpu": "missing", "gpt2_1558m": "ok", "torch_compile": "ok"}
    failures = page.split("## Failures")[1]
    for word in ("kernel fast, shape [1, 2], packed True): too far", "ImportError: no such name", "--shards"):
        assert word in failures


def test_each_table_with_rows_for_a_gpu_is_run_and_judged_by_its_exit_code(report, monkeypatch, tmp_path):
    names = ("good", "saved", "broken", "hungry", "silent")
    listed = {"tables": [{"table": name, "rows": {"cpu": ["a"], "gpu": ["b", "c"]}} for name in names]}
    listed["tables"].append({"table": "small", "rows": {"cpu": ["a"]}})
    said = {
        "--list": [listed],
        "good": [{"table": "good", "values": {"row": [1.0]}, "errors": {}}],
        "saved": [{"table": "saved", "values": {}, "errors": {}}, {"error": "stopped", "code": 75}],
        "broken": [{"table": "broken", "values": {}, "errors": {"row": "out of memory"}}, {"error": "a row failed", "code": 1}],
        "hungry": [{"error": "no such data", "code": 2}],
        "silent": [{"error": "Error: not done after 75 s", "code": -9}],
    }

    def process(command, *_):
        assert command[3] == "--list" or command[command.index("--rows") + 1] == "b"
        return said[command[3]]

    monkeypatch.setattr(report.gpu, "process", process)
    options = SimpleNamespace(seconds=120, device="gpu")
    found = {one["name"]: (one["status"], one.get("error")) for one in report.tables(options, tmp_path)}
    assert found == {
        "table good": ("ok", None),
        "table saved": ("ok", None),
        "table broken": ("failed", "out of memory"),
        "table hungry": ("missing", "no such data"),
        "table silent": ("failed", "Error: not done after 75 s"),
    }
    said["--list"] = [{"error": "no verb 'reproduce'", "code": 2}]
    assert [one["status"] for one in report.tables(options, tmp_path)] == ["missing"]
