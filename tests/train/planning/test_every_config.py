"""Every config can be planned: what its step compiles to is known without data, whatever it learns from."""

import dataclasses
import re
from pathlib import Path

import jax
import pytest

import omnia
from data.errors import UserError
from model.config import ModelConfig, OfStart
from model.text_encoder_config import TextEncoderConfig
from train.devices.mesh import make_mesh
from train.experiment import Experiment, MeshShape
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.tasks.towers import TwoTowers
from train.planning.ahead_of_time import lower_step
from train.planning.doctor import examine
from train.verbs.config_files import load_config
from train.verbs.plan import make_plan

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = {"num_layers": 1, "embed_dim": 32, "num_heads": 2, "num_kv_heads": 0, "head_dim": 0, "mlp_dim": 0, "scan": False, "remat": "none"}


def variants() -> dict[str, Experiment]:
    """Every experiment that a config file gives."""
    found = {}
    for path in sorted(CONFIGS.rglob("*.py")):
        composed = ("addition_start", "addition_ppo", "addition_grpo", "sentiment_dpo") if path.stem == "tiny" else ()
        for arg in ["", *composed, *dict.fromkeys(re.findall(r'"(\w+)"', path.read_text()))]:
            try:
                experiment = load_config(f"{path}:{arg}" if arg else str(path))
            except UserError:
                continue
            found.setdefault(experiment, f"{path.stem}:{arg}".rstrip(":"))
    return {name: experiment for experiment, name in found.items()}


def small(experiment: Experiment) -> Experiment:
    """The same kinds, of a size that compiles in seconds: a step knows no more of them."""
    o = experiment.objective
    rows = 8 * getattr(o, "group_size", 1) * getattr(o, "minibatches", 1)
    changed = {}
    if hasattr(o, "simulations"):
        changed = {"width": 8, "blocks": 1, "simulations": 2, "match_simulations": 2}
    if hasattr(o, "slots"):
        changed |= {"slots": 0}
    objective = dataclasses.replace(o, **changed)
    context = min(experiment.model.context_length, 128) if not hasattr(o, "response_tokens") else experiment.model.context_length
    model = experiment.model
    if isinstance(model, OfStart):  # any will do that the task is for
        encoder = isinstance(o, Retrieval) or getattr(o, "class_weights", "none") != "none" or getattr(o, "ngrams", 0) > 0
        model = TextEncoderConfig() if encoder else ModelConfig()
    model = dataclasses.replace(model, vocab_size=512, context_length=context, **SMALL)
    if hasattr(model, "encoders"):
        shrunk = {"num_layers": 1, "embed_dim": 32, "num_heads": 2}
        model = dataclasses.replace(model, encoders=tuple(dataclasses.replace(one, **shrunk) for one in model.encoders))
    if getattr(objective, "items", 1) == 0:
        objective = dataclasses.replace(objective, items=8, **({"text_width": 4} if isinstance(objective, TwoTowers) else {}))
    if getattr(objective, "classes", 1) == 0:
        objective = dataclasses.replace(objective, classes=4)
    if getattr(objective, "skills", None) == ():
        objective = dataclasses.replace(objective, skills=("addition", "division"))
    if isinstance(objective, Supervised) and isinstance(model, TextEncoderConfig):
        objective = dataclasses.replace(objective, labels=("B-A", "I-A", "O"))
    return dataclasses.replace(experiment, model=model, objective=objective, batch_size=rows, micro_batches=1, mesh=MeshShape(data=1))


VARIANTS = variants()
KINDS = {}
"""One experiment for each kind of step: of data, objective with its loss and critic, and model."""
for name, one in VARIANTS.items():
    settings = (getattr(one.objective, field, None) for field in ("loss", "critic", "kl_in", "pair", "medium"))
    KINDS.setdefault((type(one.data), type(one.objective), type(one.model), *settings), name)


def test_all_kinds_of_the_house_are_among_the_configs():
    assert len(VARIANTS) > 35 and len(KINDS) > 12


@pytest.mark.parametrize("name", KINDS.values())
def test_a_step_of_every_kind_is_lowered_without_data(name):
    experiment = small(VARIANTS[name])
    lowered = lower_step(experiment, make_mesh(experiment.mesh, jax.devices()[:1]))
    assert "stablehlo" in lowered.as_text()[:2000] or lowered.as_text()


@pytest.mark.parametrize("name", ["tiny:sentiment_dpo", "tiny:addition_ppo"])
def test_the_doctor_compiles_and_a_plan_counts(name, tmp_path):
    """Of comparisons and responses too: what these learners compile is no update on rows of text."""
    experiment = dataclasses.replace(small(VARIANTS[name]), mesh=MeshShape())
    checks = {check["check"]: check for check in examine(experiment, tmp_path, compile_step=True)["checks"]}
    assert checks["memory"]["ok"] and "the compiled step needs" in checks["memory"]["detail"], checks["memory"]
    found = make_plan(experiment, "cpu:8")
    assert found["fits"] and found["seconds"]["seconds"] > 0 and found["parameters"] > 0


def test_verbs_say_by_name_what_a_kind_cannot_do(tmp_path, capsys, monkeypatch):
    """A game has no texts to continue, to show or to label, and its network no positions."""
    monkeypatch.setattr("train.loop.loop.write_report", lambda path: None)
    run_dir = str(tmp_path / "run")
    tiny = ["--objective.width", "8", "--objective.blocks", "1", "--objective.simulations", "2", "--objective.match-simulations", "2"]
    few = ["--steps", "1", "--batch-size", "8", "--objective.minibatches", "1", "--evaluation.rows", "1"]
    assert omnia.main(["train", str(CONFIGS / "rl" / "tictactoe.py"), "--run-dir", run_dir, *few, *tiny, "--mesh.cpu-devices", "0"]) == 0
    asked = {
        "generate": (["--prompt", "a"], "AlphaZero trains no model that continues texts"),
        "inspect": ([], "BoardGame is not text"),
        "label": (["--output", str(tmp_path / "a.jsonl")], "has no environments"),
    }
    for verb, (options, said) in asked.items():
        capsys.readouterr()
        assert omnia.main([verb, run_dir, *options]) == 2
        assert said in capsys.readouterr().err
    for options, said in (
        (["--int8"], "--int8 is not for runs on BoardGame"),
        (["--needle"], "is not text"),
        (["--decode", "beam"], "--decode"),
    ):
        assert omnia.main(["evaluate", run_dir, *options]) == 2
        assert said in capsys.readouterr().err
