"""Areas against scikit-learn, and what single columns tell."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from train.apps.medicine.shortcuts import binned, mean_area, probe


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_areas_are_those_of_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    scores, labels = draw.integers(0, 6, (60, 3)) / 6, draw.integers(0, 3, 60)
    wanted = np.mean([roc_auc_score(labels == one, scores[:, one]) for one in range(3)])
    assert np.isclose(mean_area(scores, labels), wanted)


def test_a_column_that_tells_all_is_found_and_noise_is_not():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400)
    owners = np.arange(400)
    assert probe([labels.tolist()], labels, owners, 2) > 0.999
    assert abs(probe([draw.integers(0, 3, 400).tolist()], labels, owners, 2) - 0.5) < 0.08


def test_a_name_of_the_owner_tells_nothing_of_others():
    """All cases of an owner have one label: who may look at the same owner's other cases would know it."""
    owners = np.repeat(np.arange(40), 10)
    labels = np.random.default_rng(1).integers(0, 2, 40)[owners]
    assert probe([owners.tolist()], labels, owners, 2) == 0.5 < 0.99 < probe([owners.tolist()], labels, np.arange(400), 2)


def test_several_columns_add_up():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 600)
    columns = [np.where(draw.random(600) < 0.7, labels, 1 - labels).tolist() for _ in range(4)]
    alone = [probe([column], labels, np.arange(600), 2) for column in columns]
    assert probe(columns, labels, np.arange(600), 2) > max(alone) + 0.08


def test_quarters_of_numbers():
    assert binned([None, 1, 2, 3, 4, None]) == [-1, 0, 1, 2, 3, -1] and binned([None, None]) == [-1, -1]
    assert len(set(binned([5, 5, 5]))) == 1 and -1 not in binned([5, 5, 5])


def test_quarters_of_large_numbers_are_in_order():
    """Whose differences no float can hold."""
    assert binned([-1.5e308, 1.5e308]) == [0, 3]


def test_labels_that_are_all_alike_have_no_area():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(mean_area(np.zeros((5, 2)), np.zeros(5, int)))
