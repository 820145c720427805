"""Runs of the first format still open: its config.json has the names of classes alone, and fields that have another name since."""

import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import pytest

import omnia
from data.tokenizer import byte_tokenizer
from train.experiment import Exact, Experiment
from train.loop.telemetry import read_metrics
from train.rl.environments.text_tasks import Addition, Reviews
from train.runs import classes
from train.runs.directory import open_run
from train.runs.serialize import FORMAT, from_json
from train.sources.examples import Examples
from train.verbs.config_files import load_config

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "format_1"
EXPERIMENTS = json.loads((GOLDEN / "experiments.json").read_text())
SETTINGS_THEN = {  # of configs whose settings are others today; a dict is of the part of that name
    "configs/quickstart.py:": {
        "steps": 400,
        "model": {"num_layers": 4, "ngrams": 0},
        "evaluation": {"every": 200, "rows": 256},
        "checkpoints": {"every": 200},
        "samples": {"every": 200, "prompts": ("def ", "class ")},
    },
    "configs/rl/code.py:": {"steps": 16, "objective": {"kl_coefficient": 0.002}},
}


@pytest.fixture
def old(tmp_path):
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    return tmp_path / "run"


def test_classes_are_found_where_their_modules_were():
    find = classes.finder("here", None, print)
    for module, now in classes.MOVED.items():
        own = [kind for kind in vars(importlib.import_module(now)).values() if getattr(kind, "__module__", "") == now]
        kinds = [kind for kind in own if dataclasses.is_dataclass(kind)]
        assert kinds and all(find(f"{module}:{kind.__name__}") is kind and classes.name_of(kind).startswith(now) for kind in kinds)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_of_format_1_is_the_config_of_today(name):
    """Whatever kinds it names; only what is new takes its default, and is said."""
    said: list[str] = []
    found = from_json(Experiment, EXPERIMENTS[name], "experiment", classes.finder("here", None, said.append), said.append)
    today = load_config(str(ROOT / name.rstrip(":")))
    if hasattr(today.data, "workers"):  # whose default is another since
        today = dataclasses.replace(today, data=dataclasses.replace(today.data, workers=0))
    for field, value in SETTINGS_THEN.get(name, {}).items():
        value = dataclasses.replace(getattr(today, field), **value) if isinstance(value, dict) else value
        today = dataclasses.replace(today, **{field: value})
    assert found == today
    new = {line.split(": ")[0]: set(line.split(": ")[1].partition(" not stored")[0].split(", ")) for line in said}
    assert new.pop("experiment") == {"adapters", "gradient", "start_layers"} and new.pop("experiment.evaluation") == {"best", "metrics"}
    assert new.pop("experiment.checkpoints") == {"use_best"}
    assert new.pop("experiment.optimizer", set()) <= {"layer_decay"}
    assert new.pop("experiment.objective", set()) <= {"kl_divergence", "teacher", "teacher_model", "turn_discount"}
    assert new.pop("experiment.data", set()) <= {"words", "lexicon"}
    assert {name.partition(".encoders[")[0] for name in new} == {"experiment.model"}
    assert not any({"norm_position", "embed_dim"} & names for names in new.values())
    assert found.gradient == Exact() and found.evaluation.metrics == ()


def test_an_old_run_is_evaluated_generates_and_goes_on(old, capsys):
    shards = str(GOLDEN / "shards")
    stored = json.loads((old / "config.json").read_text())
    assert stored["format"] == 1 and stored["experiment"]["optimizer"]["kind"] == "Muon"
    last = [row for row in read_metrics(old) if row["kind"] == "evaluation"][-1]
    assert omnia.main(["evaluate", str(old), "--shards", shards, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["step"] == 2 and found["loss"] == pytest.approx(last["loss"], rel=1e-5)
    assert omnia.main(["generate", str(old), "--prompt", "the", "--max-new-tokens", "8", "--temperature", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["text"] == "oooooooo"
    options = ["--data.shards", shards, "--mesh.cpu-devices", "0", "--batch-size", "8"]
    assert omnia.main(["train", str(old), "--steps", "3", *options]) == 0
    stored = json.loads((old / "config.json").read_text())
    assert stored["format"] == FORMAT and stored["experiment"]["optimizer"]["kind"] == "train.experiment:Muon"
    assert open_run(old).experiment.steps == 3


def test_old_names_lead_to_classes_that_are_there():
    find = classes.finder("here", None, pytest.fail)
    for name, home in classes.OLD_NAMES.items():
        kind = find(name)
        assert kind is not None and dataclasses.is_dataclass(kind) and find(home) is kind
    for home, renamed in classes.OLD_FIELDS.items():
        fields = {field.name for field in dataclasses.fields(find(home))}
        assert set(renamed.values()) <= fields and not set(renamed) & fields


@pytest.mark.parametrize(
    ("environment", "digest"),
    [(Reviews("sentiment"), "7db8ed6584194826f95bf8b9bce990db"), (Addition(2), "2402768c9f98ff3b28baacbdb980506f")],
)
def test_data_has_the_digest_that_old_runs_know_it_by(environment, digest):
    """Whatever its class and fields are called since: else no old run on it could go on."""
    assert Examples(environment, byte_tokenizer()).digest == digest


def test_a_newer_format_is_refused(old, capsys):
    stored = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(stored | {"format": FORMAT + 1}))
    assert omnia.main(["report", str(old)]) == 2
    assert f"format {FORMAT + 1}; this version reads up to {FORMAT}" in capsys.readouterr().err
