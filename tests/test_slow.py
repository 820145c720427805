"""What is left out of `make test` is there."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTED = [line for line in (ROOT / "tests/slow.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_test_exists(name):
    """By its file and function: a renamed one would be run again by `make test`, and nobody would know why it is slow."""
    file, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text()
    assert sorted({*LISTED}) == LISTED
