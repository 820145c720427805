"""What benchmarks/gpu.py says where it cannot race, and what its figures are made of. Nothing is timed here."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def load(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, FOLDER / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu():
    return load("gpu.py")


def test_without_a_gpu_it_says_so_in_one_line(gpu, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert gpu.main(["attention", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "no gpu" in said.err


@pytest.mark.parametrize("arguments, word", [(["gpt3"], "gpt2_124m"), (["--device", "cpu"], "--tiny")])
def test_a_mistake_is_named_before_anything_runs(gpu, capsys, arguments, word):
    with pytest.raises(SystemExit) as end:
        gpu.main(arguments)
    assert end.value.code == 2 and word in capsys.readouterr().err


def test_what_is_not_given_is_said_race_by_race(gpu, capsys, monkeypatch):
    monkeypatch.delenv("NANOGPT", raising=False)
    assert gpu.main(["shakespeare_gpu", "torch_compile", "--device", "cpu", "--tiny", "--json"]) == 2
    shakespeare, torch = map(json.loads, capsys.readouterr().out.splitlines())
    assert "--shards" in shakespeare["missing"] and "NANOGPT" in torch["missing"]
    assert shakespeare["ours"] is torch["ours"] is torch["peer"] is torch["ratio"] is None


def test_a_race_without_the_peer_s_figure_is_a_failure_that_is_said(gpu, capsys, monkeypatch, tmp_path):
    (tmp_path / "model.py").touch()
    monkeypatch.setenv("NANOGPT", str(tmp_path))
    monkeypatch.setenv("PEER", sys.executable)
    monkeypatch.setattr(
        gpu, "our_steps", lambda *_, **__: ({"side": "ours", "micro_batch": 2}, ["sh", "-c", "echo '{\"tokens_per_second\": 5}'", "{}"], {})
    )
    assert gpu.main(["torch_compile", "--device", "cpu", "--tiny", "--json"]) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["ours"] == 5 and line["peer"] is None and line["ratio"] is None and line["error"]


def test_a_program_that_is_late_is_killed_and_keeps_what_it_printed(gpu):
    rows = gpu.process(["sh", "-c", """echo '{"a": 1}'; sleep 60"""], {}, 1)
    assert rows[0] == {"a": 1} and "not done" in rows[1]["error"]


def test_a_program_that_refuses_to_end_is_killed(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 0.5)
    rows = gpu.process(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], {}, 0.5)
    assert "not done" in rows[0]["error"] and rows[0]["code"] == -9


def test_evaluations_are_left_out_of_the_time_to_a_loss(gpu):
    """Two evaluations of 3 and 5 seconds: the target is met by the second, which began at 20 s of which 3 were not training."""
    rows = [("train", 9.0, 4.0), ("train", 10.0, 4.0), ("evaluation", 13.0, 2.0), ("train", 20.0, 1.0), ("evaluation", 25.0, 1.5)]
    rows = [dict(zip(("kind", "time", "loss"), row, strict=True)) for row in rows]
    assert gpu.training_seconds(rows, 2.0) == 10.0
    assert gpu.training_seconds(rows, 1.5) == 17.0
    assert gpu.training_seconds(rows, 1.4) is None


def test_a_kernel_is_wrong_where_rounding_does_not_explain_its_differences(gpu):
    def row(kernel, output, gradient, packed=False):
        return {"kernel": kernel, "shape": [1], "packed": packed, "output_difference": output, "gradient_difference": gradient}

    rows = [row("reference", 0.01, 0.1), row("near", 0.03, 0.3), row("far", 0.01, 0.5), row("broken", math.nan, 0.1)]
    rows += [row("unknown", 9.0, 9.0, packed=True), {"kernel": "refused", "shape": [1], "packed": False, "error": "no"}]
    assert gpu.wrong_kernels(rows) == ["broken", "far"]
    assert [one.get("wrong") for one in rows] == [False, False, True, True, None, None]


def test_positions_of_the_packed_batch_begin_anew_with_each_document():
    gpu = load("workers/jax_gpu.py")
    batch = gpu.random_batch(4, 64, 256, packed=True)
    assert (batch.segments[:, 0] == 1).all() and (batch.positions[:, 0] == 0).all() and batch.segments.max() > 1
    same = batch.segments[:, 1:] == batch.segments[:, :-1]
    np.testing.assert_array_equal(batch.positions[:, 1:], np.where(same, batch.positions[:, :-1] + 1, 0))
    np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    whole = gpu.random_batch(4, 64, 256, packed=False)
    assert whole.segments is None
    np.testing.assert_array_equal(whole.positions, np.tile(np.arange(64), (4, 1)))
