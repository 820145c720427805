"""Options refuse what lies outside of their range."""

import math

import pytest

from train.experiment import SGD, AdamW, Muon


@pytest.mark.parametrize(
    ("kind", "name"),
    [(AdamW, "beta1"), (AdamW, "beta2"), (SGD, "momentum"), (Muon, "momentum")],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_what_lies_below_one_may_be_nothing_and_not_one(kind, name):
    """Of an average that forgets nothing, nothing would ever be learned."""
    assert getattr(kind(**{name: 0.0}), name) == 0
    for value in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=rf"optimizer\.{name} is {value}; it must be at least 0 and below 1"):
            kind(**{name: value})
