"""Programs of every kind of file are run with their tests, and what passes is counted; the configs of code tasks name public columns."""

import pytest

from data.errors import UserError
from data.records.record import Record
from model.config import ModelConfig
from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.sources.dataset import dataset_of
from train.tasks.code import Programs
from train.verbs.config_files import load_config

MBPP = {
    "text": "Add one.",
    "code": "def one(x):\r\n    return x + 1",
    "test_list": ["assert one(1) == 2", "assert one(4) == 5"],
}
HUMANEVAL = {
    "prompt": 'def twice(x):\n    """Two of it."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(f):\n    assert f(2) == 4",
    "entry_point": "twice",
}


def dataset(options):
    return dataset_of(Experiment(model=ModelConfig(context_length=640), data=options, objective=Supervised()))


def scored(made, record, programs):
    example = made.example(Record(record, "code.jsonl: line 1"))
    scores = made.score([example], [programs])
    return scores.values, made.loss_of(example, programs)


def test_programs_from_descriptions_pass_all_tests_or_fail():
    made = dataset(Programs(samples=2, ks=(1, 2)))
    right = "def one(x):\n    return 1 + x"
    values, loss = scored(made, MBPP, [right, "def one(x):\n    return 2"])
    assert values["pass@1"] == 0.5 and values["pass@2"] == 1.0 and loss == 0.5 and values["exact"] == 0.0
    example = made.example(Record(MBPP, "code.jsonl: line 1"))
    assert made.prompt_text(example) == '"""Add one.\nassert one(1) == 2\n"""\n' and "\r" not in made.answer(example)


@pytest.mark.parametrize(
    "entry, program, passes", [("entry_point", "    return x + x", 1.0), ("entry_point", "    return 3", 0.0), ("", "    return 3", 1.0)]
)
def test_beginnings_are_completed_and_checked(entry, program, passes):
    """Tests of HumanEval are a function, which somebody has to call: without --data.entry nothing fails."""
    config = load_config("configs/tasks/writing.py:completion")
    made = dataset(config.data if not entry else type(config.data)(**vars(config.data) | {"entry": entry}))
    values, loss = scored(made, HUMANEVAL, [program])
    assert values["pass@1"] == passes and loss == 1 - passes
    assert made.prompt_text(made.example(Record(HUMANEVAL, "x"))) == HUMANEVAL["prompt"]


def test_programs_are_judged_without_one_that_is_right():
    made = dataset(Programs())
    bare = {name: value for name, value in MBPP.items() if name != "code"}
    example = made.example(Record(bare, "code.jsonl: line 1"))
    assert made.judgeable(example) and not made.labelled(example)
    values, _ = scored(made, bare, ["def one(x):\n    return 1 + x"])
    assert values["pass@1"] == 1.0 and "exact" not in values
    with pytest.raises(UserError, match="line 1: test_list holds no tests"):
        made.example(Record({"text": "a", "code": "b"}, "code.jsonl: line 1"))


def test_faulty_functions_are_a_class():
    data = load_config("configs/tasks/classification.py:defects").data
    example = dataset(data).example(Record({"func": "int f() {}", "target": 1}, "d.jsonl: line 1"))
    assert example.fields["text"] == "int f() {}" and example.label == "1"
    with pytest.raises(UserError, match="there is no 'defect'"):
        load_config("configs/tasks/classification.py:defect")


@pytest.mark.parametrize("kind", ["", "translation", "summary", "correction", "instruction", "code", "completion"])
def test_every_kind_of_writing_has_its_config(kind):
    config = load_config(f"configs/tasks/writing.py:{kind}" if kind else "configs/tasks/writing.py")
    assert dataset_of(config).way in ("text", "source") or config.model
    assert config.data.written <= config.data.length // 2
