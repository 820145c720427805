"""Rows of examples: each stands in one, none is too full, and few shapes serve all batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.tasks.packing import enough_rows, lay, lay_in_order

ROOM = (32, 16, 5)
SIZES = st.lists(st.tuples(st.integers(1, 32), st.integers(0, 16), st.integers(1, 5)), min_size=1, max_size=60).map(np.array)


@given(SIZES)
def test_every_item_stands_in_one_row_that_has_room(sizes):
    for rows in (lay(sizes, ROOM), lay_in_order(sizes, ROOM)):
        assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
        assert all((sizes[row].sum(0) <= ROOM).all() for row in rows)


@given(SIZES)
def test_no_two_rows_could_be_one(sizes):
    """First fit leaves no two rows of which the second would have fitted into the first as a whole."""
    rows = lay(sizes, ROOM)
    for place, row in enumerate(rows[1:], 1):
        first = sizes[row[0]]
        assert all((sizes[before].sum(0) + first > ROOM).any() for before in rows[:place])


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 8))
def test_shapes_are_few_and_large_enough(needed, usual, multiple):
    usual = -(-usual // multiple) * multiple
    rows = enough_rows(needed, usual, 64, multiple)
    assert rows >= needed and rows % multiple == 0
    assert len({enough_rows(one, usual, 64, multiple) for one in range(1, 65)}) <= 2 + 64 // max(usual // 3, 1)
