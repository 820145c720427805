"""Measures of lists, by brute force, and what diversity that is asked for does and never does."""

import itertools
import math

import numpy as np
import pytest

from train.apps.recommending.lists import STEPS, diverse, gini, list_measures, novelty, variety


def drawn(seed: int, count: int = 20, width: int = 4):
    rng = np.random.default_rng(seed)
    return np.sort(rng.normal(size=count))[::-1], rng.normal(size=(count, width))


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_their_definitions(seed):
    rng = np.random.default_rng(seed)
    items, users = 30, 50
    lists = [rng.permutation(items)[:12].tolist() for _ in range(8)]
    targets = [int(rng.integers(items)) for _ in lists]
    had = rng.integers(0, users, items)
    vectors = rng.normal(size=(items, 5))
    found = list_measures(lists, targets, had, users, [variety(vectors[one[:10]]) for one in lists])
    top = [one[:10] for one in lists]
    assert found["hit@10"] == pytest.approx(np.mean([target in one for target, one in zip(targets, top, strict=True)]))
    gains = [1 / math.log2(2 + one.index(target)) if target in one else 0 for target, one in zip(targets, top, strict=True)]
    assert found["ndcg@10"] == pytest.approx(np.mean(gains))
    assert found["coverage"] == len(set(itertools.chain(*top))) / items
    assert found["novelty"] == pytest.approx(np.mean([-math.log2(max(had[item], 0.5) / users) for one in top for item in one]))
    counts = [sum(item in one for one in top) for item in range(items)]
    unequal = sum(abs(a - b) for a in counts for b in counts) / (2 * items * sum(counts))  # half the relative mean difference
    assert found["gini"] == pytest.approx(unequal)
    pairs = [np.mean([1 - cosine(vectors[a], vectors[b]) for a, b in itertools.combinations(one, 2)]) for one in top]
    assert found["diversity"] == pytest.approx(np.mean(pairs))


def test_ends_of_the_measures():
    assert gini(np.ones(7)) == pytest.approx(0) and gini(np.eye(100)[0]) == pytest.approx(0.99) and gini(np.zeros(3)) == 0
    assert variety(np.ones((3, 2))) == pytest.approx(0) and variety(np.eye(4)) == pytest.approx(1) and variety(np.ones((1, 2))) == 0
    assert novelty(np.array([8, 4, 0]), 8).tolist() == [0, 1, 4]


@pytest.mark.parametrize("seed", range(20))
def test_no_diversity_changes_nothing_and_more_never_makes_a_list_less_varied(seed):
    scores, vectors = drawn(seed)
    assert diverse(scores, vectors, 10, 0.0) == list(range(10))
    lists = [diverse(scores, vectors, 10, step / STEPS) for step in range(STEPS + 1)]
    varieties = [variety(vectors[one]) for one in lists]
    assert all(after >= before for before, after in itertools.pairwise(varieties))
    assert all(len(set(one)) == 10 for one in lists)


def test_candidates_that_are_fewer_than_wanted_all_come():
    scores, vectors = drawn(0, count=4)
    for diversity in (0.0, 0.5, 1.0):
        assert sorted(diverse(scores, vectors, 10, diversity)) == [0, 1, 2, 3]
    assert diverse(np.zeros(0), np.zeros((0, 3)), 10, 0.0) == []


def test_of_items_that_are_alike_one_is_enough():
    """Three of a kind stand first; with diversity one of each kind comes."""
    kinds = np.eye(3)[[0, 0, 0, 1, 2]]
    assert diverse(np.array([5.0, 4.9, 4.8, 4.0, 0.0]), kinds, 3, 0.5) == [0, 3, 4]
    assert variety(kinds[diverse(np.array([5.0, 4.9, 4.8, 4.0, 0.0]), kinds, 3, 0.2)]) > 0
