"""The doctor says what is wrong before anything is paid for, every ailment at once, and is not alarmed by a healthy run."""

import json
import shutil
import types
from pathlib import Path

import jax
import pytest

import omnia
from tests.train.conftest import change
from train.experiment import MeshShape, TextData
from train.planning import doctor
from train.planning.doctor import examine


@pytest.fixture
def healthy(tiny):
    """Eight devices, eight rows."""
    return change(tiny, batch_size=16, mesh=MeshShape(data=-1))


def checks(found) -> dict[str, bool]:
    return {check["check"]: check["ok"] for check in found["checks"]}


def detail(found, name: str) -> str:
    return next(check["detail"] for check in found["checks"] if check["check"] == name)


def test_a_healthy_experiment(healthy, tmp_path):
    found = examine(healthy, tmp_path / "not" / "there" / "yet", False)
    assert found["healthy"] and all(checks(found).values())
    assert set(checks(found)) >= {"devices", "data", "model", "mesh", "memory", "disk"}
    assert "8 x" in detail(found, "devices") and "data 8" in detail(found, "mesh")
    assert healthy.data.shards[0] in detail(found, "data") and "train" in detail(found, "data")
    assert found["environment"]["versions"]["jax"] == jax.__version__
    assert json.loads(json.dumps(found)) == found
    assert not (tmp_path / "not").exists()


def test_no_experiment_is_a_look_at_the_machine(tmp_path):
    found = examine(None, tmp_path, False)
    assert found["healthy"] and set(checks(found)) == {"devices", "compilation cache"}


def test_the_count_of_parameters_is_that_of_the_model(healthy, tmp_path):
    """By hand: embedding, positions, a block of attention and feed-forward with biases, three norms."""
    d, f, v, t = 16, 64, 384, 32
    block = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    assert f"{v * d + t * d + block + 2 * d:,} parameters" in detail(examine(healthy, tmp_path, False), "model")


def test_missing_data_is_one_ailment_and_hides_no_other(healthy, tmp_path):
    """The vocabulary is known all the same: model, mesh, memory and disk are examined."""
    lost = change(healthy, data=TextData(shards=(str(tmp_path / "nowhere"),)), model={"vocab_size": 384}, batch_size=12)
    found = examine(lost, tmp_path, False)
    assert not found["healthy"]
    assert checks(found) | {"compilation cache": True} == {
        "devices": True, "compilation cache": True, "data": False, "model": True, "mesh": False, "memory": True, "disk": True,
    }  # fmt: skip
    assert "nowhere" in detail(found, "data") and "does not divide over 8 devices" in detail(found, "mesh")
    unknown = examine(change(lost, model={"vocab_size": 0}), tmp_path, False)
    assert not checks(unknown)["model"] and "model.vocab_size" in detail(unknown, "model")


def test_a_mesh_that_does_not_make_the_devices(healthy, tmp_path):
    found = examine(change(healthy, mesh=MeshShape(data=3)), tmp_path, False)
    assert not found["healthy"] and "data 3 does not make 8 devices" in detail(found, "mesh")


def test_parameters_that_the_mesh_does_not_divide_are_named(healthy, tmp_path):
    wide = change(healthy, model={"vocab_size": 70_001, "embed_dim": 16}, mesh=MeshShape(data=1, tensor=8))
    assert "embedding/table" in detail(examine(wide, tmp_path, False), "mesh")
    even = change(wide, model={"vocab_size": 70_400})
    assert "embedding/table" not in detail(examine(even, tmp_path, False), "mesh")


def test_too_little_memory(healthy, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_device_memory", lambda: 1000)
    found = examine(healthy, tmp_path, False)
    assert not found["healthy"] and "a device has 0 MiB" in detail(found, "memory") and "--mesh.fsdp" in detail(found, "memory")


def test_splitting_the_state_needs_less_memory_a_device(healthy, tmp_path):
    def held(mesh):
        found = examine(change(healthy, model={"embed_dim": 512, "num_heads": 8, "num_layers": 2}, mesh=mesh), tmp_path, False)
        return float(detail(found, "memory").split(" MiB")[0])

    whole, split = held(MeshShape(data=8)), held(MeshShape(data=1, fsdp=8))
    assert whole > 90 and split < whole / 6


def test_the_compiled_step_is_measured(healthy, tmp_path):
    small = change(healthy, model={"num_layers": 1, "dropout": 0.0}, micro_batches=1)
    assert "the compiled step needs" in detail(examine(small, tmp_path, True), "memory")


def test_too_little_disk(healthy, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    found = examine(healthy, tmp_path, False)
    assert not found["healthy"] and "--checkpoints.keep" in detail(found, "disk")
    assert checks(found)["mesh"] and checks(found)["memory"]


def test_the_verb_prints_json_and_its_exit_code_says_how_it_is(corpora, capsys, tmp_path):
    config = str(Path(__file__).parents[3] / "configs" / "quickstart.py")
    arguments = ["doctor", config, "--data.shards", corpora[0], "--run-dir", str(tmp_path)]
    assert omnia.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["healthy"] is True and set(found) == {"environment", "checks", "healthy"}
    assert omnia.main([*arguments, "--batch-size", "12"]) == 2
    shown = capsys.readouterr().out
    assert "BAD mesh: batch_size 12" in shown and "ok  disk" in shown
    assert omnia.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["healthy"] is True
