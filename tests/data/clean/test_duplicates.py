import itertools

import numpy as np
import pytest

from data.clean import duplicates
from data.clean.duplicates import exact_copies, near_copies
from data.clean.minhash import banding, bands_of, jaccard, shingles
from data.clean.units import units_of

WORDS = [f"w{number}" for number in range(400)]


def sets_of(texts):
    values, counts = shingles(units_of(texts))
    return [np.unique(part) for part in np.split(values, np.cumsum(counts)[:-1])]


def clusters(seed, size=40, copies=4):
    """Texts of which some are others with a few words changed."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(size):
        words = list(random.choice(WORDS, random.integers(20, 120)))
        for _ in range(random.integers(1, copies + 1)):
            texts.append(" ".join(words))
            for place in random.integers(0, len(words), random.integers(0, 4)):
                words[place] = str(random.choice(WORDS))
    return [texts[place] for place in random.permutation(len(texts))]


def brute_force(texts, threshold):
    """{text: first of its group}, by all pairs and repeated relabelling."""
    sets, label = sets_of(texts), list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        if jaccard(sets[one], sets[other]) >= threshold and label[one] != label[other]:
            low, high = sorted((label[one], label[other]))
            label = [low if now == high else now for now in label]
    return label


def found_by_bands(texts, threshold):
    sets = sets_of(texts)
    bands = bands_of(units_of(texts), banding(0.3))  # so loose that no pair of the tests is missed
    rank = bands[:, 0]
    compare = lambda pairs: np.array([jaccard(sets[one], sets[other]) for one, other in pairs])  # noqa: E731
    copies = near_copies(bands.T, len(texts), rank, compare, threshold)
    label = np.arange(len(texts))
    label[copies.texts] = copies.kept
    return label.tolist(), copies


@pytest.mark.parametrize("threshold", [0.6, 0.8, 1.0])
def test_groups_are_those_of_all_pairs(threshold):
    texts = clusters(seed=3)
    label, copies = found_by_bands(texts, threshold)
    assert label == brute_force(texts, threshold)
    assert len(set(label)) < len(texts)
    assert (copies.similarity >= threshold).all() and (copies.kept < copies.texts).all()


def test_the_order_changes_only_which_text_of_a_group_stays(monkeypatch):
    """Also where a bucket has more texts than are compared with each other."""
    monkeypatch.setattr(duplicates, "LEADERS", 2)
    texts = list(dict.fromkeys(clusters(seed=5, copies=9)))
    groups = []
    for order in (np.arange(len(texts)), np.random.default_rng(0).permutation(len(texts))):
        label, _ = found_by_bands([texts[place] for place in order], 0.7)
        assert all(first <= place for place, first in enumerate(label))
        groups.append({frozenset(int(order[place]) for place in range(len(texts)) if label[place] == first) for first in set(label)})
    assert groups[0] == groups[1]


def test_all_of_a_bucket_are_compared_not_only_with_its_first():
    alike = {(1, 3), (2, 3)}
    compare = lambda pairs: np.array([float(tuple(pair) in alike) for pair in pairs.tolist()])  # noqa: E731
    copies = near_copies([np.ones(4, np.uint64)], 4, np.arange(4), compare, 0.8)
    assert copies.texts.tolist() == [2, 3] and copies.kept.tolist() == [1, 1]


def test_leaders_are_chosen_by_rank_not_by_place(monkeypatch):
    monkeypatch.setattr(duplicates, "LEADERS", 1)
    asked = []

    def compare(pairs):
        asked.extend(pairs.tolist())
        return np.zeros(len(pairs))

    near_copies([np.ones(4, np.uint64)], 4, np.array([2, 3, 0, 1]), compare, 0.8)
    assert asked == [[0, 2], [1, 2], [2, 3]]


def test_buckets_cost_a_bounded_number_of_comparisons():
    size, asked = 3000, []

    def compare(pairs):
        asked.append(len(pairs))
        return np.zeros(len(pairs))

    near_copies([np.ones(size, np.uint64)] * 2, size, np.arange(size), compare, 0.8)
    assert sum(asked) < duplicates.LEADERS * size

    asked.clear()
    near_copies([np.ones(size, np.uint64)] * 2, size, np.arange(size), lambda pairs: compare(pairs) + 1, 0.8)
    assert sum(asked) < size  # all are in the first one's group at once


def test_exact_copies_name_the_first():
    digests = np.array([[1, 2], [1, 3], [1, 2], [4, 2], [1, 2], [1, 3]], np.uint64)
    copies = exact_copies(digests)
    assert copies.texts.tolist() == [2, 4, 5] and copies.kept.tolist() == [0, 0, 1]
