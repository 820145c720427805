"""What is filled in stands in other sheets, beside what is there, and as often."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.apps.writing.facts import Facts, closed

SHEETS = (
    [(("kind", "Dragon"), ("size", "Large"), ("lair", "cave"))] * 6
    + [(("kind", "Dragon"), ("size", "Huge"), ("lair", "cave"))] * 2
    + [(("kind", "Fish"), ("size", "Small"), ("lair", "sea"))] * 4
    + [(("kind", "Fish"), ("size", "Large"), ("lair", "sea"))] * 4
    + [(("kind", "Spell"), ("name", "Light"))] * 6
)
CHOICES = {name: sorted({value.casefold() for sheet in SHEETS for own, value in sheet if own == name}) for name in ("kind", "size", "lair")}


def test_choices_have_few_values():
    assert closed(SHEETS, 3) == CHOICES | {"name": ["light"]} and closed(SHEETS, 2) == {"lair": ["cave", "sea"], "name": ["light"]}


@given(
    st.dictionaries(
        st.sampled_from(["kind", "size", "lair", "name"]), st.sampled_from(["Dragon", "Fish", "Large", "sea", "other", "spell"])
    ),
    st.integers(0, 2**31),
)
def test_any_sheet_is_filled_with_values_of_others_and_keeps_its_own(sheet, seed):
    facts = Facts(SHEETS, CHOICES)
    found = facts.filled(sheet, seed)
    assert found == facts.filled(sheet, seed) and {**found, **sheet} == found
    assert all(value.casefold() in CHOICES[name] for name, value in found.items() if name not in sheet)


def test_what_never_stood_together_does_not_while_something_else_did():
    facts = Facts(SHEETS, CHOICES)
    for seed in range(200):
        found = facts.filled({}, seed)
        pairs = {frozenset(pair) for sheet in SHEETS for pair in [((a, b), (c, d)) for a, b in sheet for c, d in sheet]}
        assert all(frozenset(((a, b), (c, d))) in pairs for a, b in found.items() for c, d in found.items())
        assert found.keys() - {"name"} in ({"kind", "size", "lair"}, {"kind"})  # a spell has neither size nor lair


def test_values_are_drawn_as_often_as_they_stand_there():
    """Of dragons three in four are large, by Bayes with half a sheet added to each count."""
    facts = Facts(SHEETS, CHOICES)
    drawn = Counter(facts.filled({"kind": "Dragon"}, seed)["size"] for seed in range(4000))
    size = {"large": (10, 6), "huge": (2, 2), "small": (4, 0), "": (6, 0)}
    weights = {name: count * (both + 0.5) / (count + 1.5) for name, (count, both) in size.items() if both}
    share = weights["large"] / sum(weights.values())
    assert drawn["Large"] / 4000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000)) and drawn.keys() == {"Large", "Huge"}
