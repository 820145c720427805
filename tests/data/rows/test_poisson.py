"""Units are drawn by themselves, each with the same probability, and there is room for all of them."""

import numpy as np
from scipy import stats

from data.rows.order import by_owner, few_of
from data.rows.poisson import drawn, expected_in, overflow, room_for


def test_sizes_are_binomial_and_units_independent():
    rate, count, steps = 0.02, 500, 4000
    there = np.zeros((steps, count), bool)
    for step in range(steps):
        there[step, drawn(7, step, count, rate, count)] = True
    sizes = there.sum(1)
    expected = stats.binom.pmf(np.arange(26), count, rate) * steps
    counts = np.bincount(np.minimum(sizes, 25), minlength=26)
    kept = expected > 5
    square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert square < stats.chi2.ppf(0.9999, kept.sum())
    often = there.sum(0)
    assert abs(often - steps * rate).max() < 5 * np.sqrt(steps * rate)
    pairs = (there[:, :-1] & there[:, 1:]).mean()  # neighbours, and a unit in two steps in a row
    again = (there[:-1] & there[1:]).mean()
    assert abs(pairs - rate**2) < 1e-4 and abs(again - rate**2) < 1e-4


def test_a_step_is_a_pure_function_and_another_secret_draws_others():
    np.testing.assert_array_equal(drawn(1, 5, 1000, 0.1, 1000), drawn(1, 5, 1000, 0.1, 1000))
    assert not np.array_equal(drawn(1, 5, 1000, 0.1, 1000), drawn(2, 5, 1000, 0.1, 1000))
    assert len(drawn(1, 5, 1000, 1.0, 1000)) == 1000
    assert len(drawn(1, 5, 1000, 0.5, 10)) == 10
    assert not len(drawn(1, 5, 1000, 0.0, 10))


def test_the_bound_of_an_overflow_is_above_the_truth():
    for count, expected, room in ((1000, 50, 80), (200, 20, 40), (60000, 256, 370)):
        truth = stats.binom.sf(room, count, expected / count)
        assert truth <= overflow(expected, room) <= 1e4 * truth + 1e-300
    assert overflow(10, 9) == 1.0
    for room in (1, 8, 64, 500):
        expected = expected_in(room)
        assert expected == 1 or overflow(expected, room) <= 1e-12 < overflow(expected + 1, room)
    assert overflow(256, room_for(256)) <= 1e-12 < overflow(256, room_for(256) - 1)


def test_rows_by_owner_and_a_fair_few_of_them():
    found = by_owner(np.array(["b", "a", "b", "c", "a"]))
    assert [rows.tolist() for rows in found] == [[0, 2], [1, 4], [3]]
    rows = np.arange(10)
    assert few_of(rows, 10, 0) is rows
    often = np.bincount(np.concatenate([few_of(rows, 3, key) for key in range(3000)]), minlength=10)
    assert abs(often - 900).max() < 120
