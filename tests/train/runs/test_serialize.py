"""An experiment written to a run directory is the experiment that is read from it, whatever is in it."""

import contextlib
import copy
import dataclasses
import json
import math
import re
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from train.experiment import SGD, AdamW, CausalLM, Exact, Experiment, Optimizer, Schedule, TextData
from train.kinds import Data, Gradient, Objective
from train.runs.classes import OLD_FIELDS, finder
from train.runs.serialize import check_types, flatten, from_json, to_json
from train.verbs.config_files import load_config

CONFIGS = [path for path in sorted((Path(__file__).parents[3] / "configs").rglob("*.py")) if "def get_config" in path.read_text()]
KINDS = {Optimizer: [Optimizer, *Optimizer.__subclasses__()], Objective: [CausalLM], Data: [TextData], Gradient: [Exact]}


def back(experiment: Experiment, said=pytest.fail) -> Experiment:
    """By way of text, as config.json does it; nothing may be said on the way."""
    return from_json(Experiment, json.loads(json.dumps(to_json(experiment))), "experiment", finder("here", None, said), said)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_comes_back_as_it_was(path):
    experiment = load_config(str(path))
    assert back(experiment) == experiment


def values(hint):
    """Any value of a field's type."""
    if hint in KINDS:
        return st.one_of([trees(kind) for kind in KINDS[hint]])
    if dataclasses.is_dataclass(hint):
        return trees(hint)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=3).map(tuple)
    return {
        int: st.integers(-(2**40), 2**40),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: st.text(max_size=8),
    }[hint]


def trees(kind):
    """Any value of a dataclass that its own checks accept."""
    hints = typing.get_type_hints(kind)
    fields = {name: values(hint) for name, hint in hints.items() if name in {field.name for field in dataclasses.fields(kind)}}

    def build(chosen):
        value = kind()
        for name, part in chosen.items():
            with contextlib.suppress(ValueError):  # beyond what the kind allows: the field stays at its default
                value = dataclasses.replace(value, **{name: part})
        return value

    return st.fixed_dictionaries(fields).map(build)


@settings(max_examples=60, deadline=None)
@given(trees(Experiment))
def test_any_experiment_comes_back_as_it_was(experiment):
    found = back(experiment)
    assert found == experiment
    assert [type(getattr(found, field.name)) for field in dataclasses.fields(found)] == [
        type(getattr(experiment, field.name)) for field in dataclasses.fields(experiment)
    ]


def test_an_unknown_field_is_refused_with_its_nearest_name():
    stored = to_json(Experiment())
    stored["model"]["embed_dimm"] = 3
    with pytest.raises(UserError, match=r"experiment\.model\.embed_dimm: no such field in ModelConfig \(did you mean 'embed_dim'\?\)"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))


def test_an_unknown_kind_is_refused_with_its_nearest_name():
    stored = to_json(Experiment())
    stored["optimizer"]["kind"] = "AdanW"
    with pytest.raises(UserError, match=r"experiment\.optimizer: unknown kind 'AdanW' \(did you mean 'AdamW'\?\)"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))
    stored["optimizer"]["kind"] = "train.experiment:AdanW"
    with pytest.raises(UserError, match=r"unknown kind 'train.experiment:AdanW' \(did you mean 'AdamW'\?\)"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))
    stored["optimizer"]["kind"] = "CausalLM"  # a kind, but of something else
    with pytest.raises(UserError, match="experiment.optimizer: unknown kind 'CausalLM'"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))
    del stored["optimizer"]["kind"]
    with pytest.raises(UserError, match="unknown kind None"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))


def test_a_missing_field_takes_its_default_and_is_said():
    """What a newer version added: the run goes on, and the reader knows with what."""
    experiment = Experiment(seed=7, optimizer=SGD(momentum=0.5), steps=12)
    stored = to_json(experiment)
    del stored["seed"], stored["optimizer"]["momentum"], stored["logging"]
    said: list[str] = []
    found = from_json(Experiment, stored, "experiment", finder("here", None, said.append), said.append)
    assert found == dataclasses.replace(experiment, seed=0, optimizer=SGD())
    assert [line.partition(" not")[0] for line in said] == ["experiment: seed, logging", "experiment.optimizer: momentum"]
    assert all("default" in line for line in said)


def test_a_value_where_an_object_should_be_is_named():
    stored = to_json(Experiment())
    stored["optimizer"] = True
    with pytest.raises(UserError, match="experiment.optimizer: True is no Optimizer"):
        from_json(Experiment, stored, "experiment", finder("here", None, pytest.fail))


def test_flat_names_are_those_of_the_command_line():
    flat = flatten(to_json(Experiment()))
    assert flat["optimizer.kind"] == "train.experiment:AdamW" and flat["model.embed_dim"] == 768 and flat["data.shards"] == []
    assert not any(isinstance(value, dict) for value in flat.values())


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("samples", "prompts", "the ", "samples.prompts is 'the '"),
        ("samples", "prompts", ("a", 3), "samples.prompts is"),
        ("logging", "tensorboard", "no", "logging.tensorboard is 'no'"),
        ("logging", "tensorboard", 1, "logging.tensorboard is 1"),
        ("", "steps", 5.5, "steps is 5.5"),
        ("", "steps", True, "steps is True"),
        ("schedule", "decay", "cosin", "'cosine' or 'linear'"),
        ("evaluation", "rows", 1.5, "evaluation.rows is 1.5"),
        ("", "evaluation", Schedule(), "of the class Evaluation"),
        ("", "samples", None, "samples is None"),
        ("", "optimizer", "adam", "of the class Optimizer"),
        ("optimizer", "learning_rate", "fast", "optimizer.learning_rate is 'fast'"),
        ("model", "init_std", math.nan, "model.init_std is nan"),
        ("model", "init_std", math.inf, "a finite number"),
        ("data", "weights", (1.0, "2"), "data.weights is"),
    ],
)
def test_values_of_another_type_are_refused_by_name(part, field, value, said):
    """Set past the checks of __init__, which see the values of some fields alone."""
    experiment = copy.deepcopy(Experiment())
    object.__setattr__(getattr(experiment, part) if part else experiment, field, value)
    with pytest.raises(UserError, match=re.escape(said)):
        check_types(experiment)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_values_of_all_configs_have_their_types(path):
    check_types(load_config(str(path)))


def test_whole_numbers_are_numbers():
    check_types(Experiment(optimizer=AdamW(learning_rate=1, weight_decay=0)))


@pytest.mark.parametrize("name", OLD_FIELDS)
def test_fields_are_read_by_the_names_that_they_once_had(name):
    find = finder("run", None, print)
    option = find(name)(**{"critic": "shared"} if name.endswith(":PolicyGradient") else {})
    stored = to_json(option)
    for old, new in OLD_FIELDS[name].items():
        stored[old] = stored.pop(new)
    assert from_json(type(option), stored, "run", find) == option
