"""docs/reference_options.md is what the code says: `make docs` writes it."""

import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import omnia
import train
from train.experiment import Experiment, Optimizer
from train.kinds import Adapters, Data, Gradient, Metric, Objective
from train.verbs.reference import SEVERAL, reference_text

ROOT = Path(__file__).parent.parent
for found in pkgutil.walk_packages(train.__path__, "train."):
    if found.name.endswith("options"):  # the classes that they define are kinds
        importlib.import_module(found.name)
TEXT = reference_text()


def kinds(base: type) -> Iterator[type]:
    """Everything that derives from a class, but what tests define."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith(("data.", "model.", "train.")):
            yield kind
        yield from kinds(kind)


def section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading}"
    return found[1]


def test_the_page_is_that_of_the_code():
    written = (ROOT / "docs" / "reference_options.md").read_text()
    assert written == TEXT, "docs/reference_options.md is older than the options in the code: run `make docs`"


def test_every_verb_has_a_section():
    others = {verb for verb, classes in SEVERAL.items() if not classes}
    assert set(re.findall(r"^### omnia (\w+)", TEXT, re.MULTILINE)) == set(omnia.VERBS) - others


@pytest.mark.parametrize(
    "kind", [Experiment, *(kind for base in (Adapters, Data, Gradient, Metric, Objective, Optimizer) for kind in kinds(base))]
)
def test_every_kind_is_listed_with_its_own_fields(kind):
    """By the classes as Python knows them: the page is made from the source, without importing it."""
    inherited = {
        field.name: field.default for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in dataclasses.fields(base)
    }
    own = {field.name for field in dataclasses.fields(kind) if field.name not in inherited or field.default != inherited[field.name]}
    assert own <= set(re.findall(r"^\| `(\w+)` \|", section(kind.__name__), re.MULTILINE))


def test_no_option_is_undescribed():
    rows = re.findall(r"^\| `(--[\w-]+)` \| .* \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) > 100
    assert not [name for name, doc in rows if not doc]


def test_making_the_page_loads_no_kind():
    script = "import sys; from train.verbs.reference import reference_text; reference_text(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "flax", "numpy", "train.experiment"} & set(loaded)
