import collections

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows import order

SEEDS = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=60)
@given(size=st.one_of(st.integers(1, 70), st.integers(1, 3000)), seed=SEEDS)
def test_every_index_comes_once(size, seed):
    assert np.array_equal(np.sort(order.permute(np.arange(size), size, order.fold(seed, 0))), np.arange(size))


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 2**40), seed=SEEDS, rows=st.lists(st.integers(0, 2**50), min_size=1, max_size=20))
def test_a_row_does_not_depend_on_those_asked_with_it(size, seed, rows):
    epoch, index = order.shuffled(np.array(rows), size, seed)
    alone = [order.shuffled(np.array([row]), size, seed) for row in rows]
    assert np.array_equal(epoch, np.array(rows) // size)
    assert np.array_equal(index, np.concatenate([one[1] for one in alone]))
    assert ((index >= 0) & (index < size)).all()


def test_epochs_and_seeds_differ():
    size = 1000
    epochs = order.shuffled(np.arange(3 * size), size, seed=5)[1].reshape(3, size)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(size), (3, 1)))
    other = order.shuffled(np.arange(size), size, seed=6)[1]
    for a, b in ((epochs[0], epochs[1]), (epochs[1], epochs[2]), (epochs[0], other), (epochs[0], np.arange(size))):
        assert (a == b).mean() < 0.02  # one in a thousand agrees by chance


def test_all_orders_of_few_rows_are_about_as_frequent():
    """A network over too few bits would prefer some: chi-square per degree of freedom is near 1 where none is."""
    epochs, size = 24_000, 4
    orders = order.shuffled(np.arange(epochs * size), size, seed=1)[1].reshape(epochs, size)
    counts = np.array(list(collections.Counter(map(tuple, orders)).values()))
    expected = epochs / 24
    assert len(counts) == 24
    assert ((counts - expected) ** 2 / expected).sum() / 23 < 2.5


def test_neighbours_are_scattered():
    """Neither a row's place nor the distance of two neighbours tells where they go."""
    size = 10_007
    index = order.permute(np.arange(size), size, order.fold(3, 0))
    assert abs(np.corrcoef(np.arange(size), index)[0, 1]) < 0.05
    assert abs(np.corrcoef(index[1:], index[:-1])[0, 1]) < 0.05


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, values=st.lists(SEEDS, max_size=3))
def test_fold_is_arithmetic_modulo_2_to_the_64(seed, values):
    """Against Python's integers: the same on every machine."""
    everything = 2**64 - 1
    key = seed & everything
    for value in values:
        x = (key * 0x9E3779B97F4A7C15 + value + 0x632BE59BD9B4E019) & everything
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & everything
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & everything
        key = x ^ (x >> 31)
    assert int(order.fold(seed, *values)) == key
    assert order.fold(seed, *[np.array([value] * 3) for value in values]).tolist() == ([key] * 3 if values else key)
