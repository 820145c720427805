"""What data names of a machine: a run that moves has other paths, and what comes from others, or goes to them, has none."""

import dataclasses
import re
import typing

import pytest

from tests.train.kinds.options import classes_in, kinds_of_data, naming
from train.kinds import Data
from train.rl.environments.files import PromptFile
from train.rl.options import Prompts
from train.rl.rewards.rewards import Judged, RewardModel
from train.runs.serialize import flatten, to_json
from train.tasks.changes.augmentation import Augment
from train.tasks.classification import Classification
from train.tasks.recommending.interactions import Recommendation
from train.tasks.together import Together
from train.tasks.tracing import Tracing
from train.verbs.reference import Source

NAMES_FILES = re.compile(r"(?!Column|Name)(.*\b(file|folder|directory)s?\b|Run\b)", re.I)
"""How a field is described that names something on a disk."""


def named(data: Data, path: str) -> list[str]:
    """Fields of data, and of the options inside it, that have a path."""
    return [name for name, value in flatten(to_json(data)).items() if path in str(value)]


def test_a_text_that_is_described_as_a_file_or_a_run_is_among_path_fields():
    described = {(one.path.removesuffix(".py").replace("/", "."), one.name): one.fields for one in Source().options}
    found = []
    for kind in set[type]().union(*map(classes_in, kinds_of_data())):
        fields = {field.name for field in dataclasses.fields(kind)}
        paths = getattr(kind, "path_fields", ())
        assert {*paths} - {*Data.path_fields} <= fields, kind
        assert fields & {*Data.path_fields} <= {*paths} or not issubclass(kind, Data), kind
        hints, own = typing.get_type_hints(kind), described.get((kind.__module__, kind.__name__), {})
        texts = [name for name, field in own.items() if hints[name] in (str, tuple[str, ...]) and NAMES_FILES.match(field.doc)]
        assert {*texts} <= {*paths}, f"{kind.__name__}: {', '.join({*texts} - {*paths})}"
        found += texts
    assert len(found) > 30


@pytest.mark.parametrize("kind", kinds_of_data(), ids=lambda kind: kind.__name__)
def test_every_path_of_data_is_reached(kind, tmp_path):
    """Also where options lie inside options."""
    data = naming(kind(), str(tmp_path))
    moved, plain = data.with_paths(lambda path: "moved" + path.removeprefix(str(tmp_path))), data.without_files()
    assert named(moved, "moved") == named(data, str(tmp_path)) and not named(moved, str(tmp_path))
    assert not named(plain, str(tmp_path)) and type(plain) is kind
    assert data.with_paths(lambda path: path) == data


def test_data_that_names_nothing_stays_as_it_is():
    for kind in kinds_of_data():
        assert kind().with_paths(lambda path: "moved") == kind() == kind().without_files()


def test_paths_inside_environments_and_rewards_are_reached():
    data = Prompts(environments=(Judged(PromptFile("a", reward=RewardModel("b")), RewardModel("c")),))
    for changed, wanted in (
        (data.with_paths(lambda path: f"moved/{path}"), ("moved/a", "", "moved/b", "moved/c")),
        (data.without_files(), ("", "", "", "")),
    ):
        (one,) = changed.environments
        assert (one.environment.path, one.environment.validation_path, one.environment.reward.run, one.reward.run) == wanted


def test_changes_by_a_table_of_synonyms_go_with_it():
    """As nothing is left to change by; other changes of texts are no file, and stay."""
    by_table = Classification(augment=Augment(rate=0.5, operations=("synonyms",), synonyms="table"))
    assert by_table.without_files().augment == Augment()
    plain = Classification(augment=Augment(rate=0.5, operations=("swap",)))
    assert plain.without_files() == plain
    assert Together(tasks=(by_table, plain)).without_files().tasks == (Classification(), plain)


@pytest.mark.parametrize("data", [Classification(), Tracing(), Recommendation()], ids=lambda data: type(data).__name__)
def test_rows_can_be_left_out_wherever_data_has_such(data):
    assert data.leaving_out() == dataclasses.replace(data, leave_out=True)


def test_rows_are_left_out_of_all_tasks_of_a_run():
    assert all(task.leave_out for task in Together().leaving_out().tasks)
