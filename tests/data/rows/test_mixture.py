import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.rows.mixture import LONGEST_PERIOD, Mixture, counts_of_sizes, counts_of_weights


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), period=st.integers(0, 10**6))
def test_every_period_has_the_exact_counts(counts, period):
    """And each source's rows come in turn, none twice: the rows of a source number themselves from 0 on."""
    length = sum(counts)
    source, index = Mixture(counts)(np.arange(period * length, (period + 1) * length))
    for number, count in enumerate(counts):
        assert np.array_equal(index[source == number], period * count + np.arange(count))


def test_sources_are_spread_evenly():
    """In any stretch of rows a source is within one row of its share, for two sources."""
    source, _ = Mixture([700, 300])(np.arange(1000))
    seen = np.cumsum(source == 1)
    assert np.abs(seen - 0.3 * np.arange(1, 1001)).max() < 1


def test_weights_become_the_shortest_exact_counts():
    assert counts_of_weights([0.7, 0.3]) == [7, 3]
    assert counts_of_weights([2, 1, 1]) == [2, 1, 1]
    assert counts_of_weights([5]) == [1]
    assert counts_of_weights([1 / 3, 1 / 3, 1 / 3]) == [1, 1, 1]


@settings(deadline=None, max_examples=50)
@given(weights=st.lists(st.floats(0.02, 1), min_size=1, max_size=8))
def test_counts_are_within_one_of_the_weights(weights):
    counts = np.array(counts_of_weights(weights))
    assert counts.sum() <= LONGEST_PERIOD
    wanted = np.array(weights) / sum(weights) * counts.sum()
    assert np.abs(counts - wanted).max() < 1 + 1e-6
    whole = np.floor(wanted + 1e-6)
    up, remainders = counts > whole, wanted - whole
    assert not up.any() or up.all() or remainders[up].min() > remainders[~up].max() - 1e-6  # the largest remainders are rounded up


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1e-9]])
def test_a_weight_that_cannot_be_honoured_is_an_error(weights):
    with pytest.raises(UserError, match="weight"):
        counts_of_weights(weights)


def test_the_smallest_corpus_is_not_forgotten():
    assert counts_of_sizes([10**9, 1]) == [100_000, 1]
    small, large = counts_of_sizes([1_400, 10**6])
    assert abs(small / large - 0.0014) < 0.00007
    assert counts_of_sizes([300, 100]) == [3, 1]
