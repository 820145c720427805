"""Intervals hold the truth as often as they say; the fast ways give what the slow one gives."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from train.tasks.metrics.bootstrap import bootstrap, bootstrap_sums
from train.tasks.metrics.classification import classification_scores
from train.tasks.metrics.regression import regression_scores
from train.tasks.metrics.scores import mean_of


def bootstrap_mean(values, **options):
    return bootstrap_sums(*mean_of(values), **options)


def test_fast_intervals_are_the_slow_ones():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=40), rng.integers(0, 7, 40)
    truth, predicted = rng.integers(0, 3, (2, 40))
    for of in (None, groups):
        slow = bootstrap(lambda drawn: values[drawn].mean(), 40, resamples=150, groups=of)
        assert bootstrap_mean(values, resamples=150, groups=of) == pytest.approx(slow)
        slow = bootstrap(lambda drawn: f1_score(truth[drawn], predicted[drawn], average="macro"), 40, resamples=150, groups=of)
        measure = classification_scores(truth, np.eye(3)[predicted], "abc").measures["macro_f1"]
        assert bootstrap_sums(*measure, resamples=150, groups=of) == pytest.approx(slow)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """95 % and 80 % of 400 simulated sets, within four standard errors and what the percentile method lacks with 60 examples."""
    rng = np.random.default_rng(0)
    for level in (0.95, 0.8):
        inside = []
        for seed in range(400):
            low, high = bootstrap_mean(rng.exponential(size=60), resamples=300, seed=seed, level=level)
            inside.append(low <= 1 <= high)
        assert abs(np.mean(inside) - level) < 4 * np.sqrt(level * (1 - level) / 400) + 0.02


def test_groups_widen_an_interval_by_what_they_repeat():
    """Ten copies of each example are no new ones: the interval is that of the examples, and not a third of it."""
    values = np.random.default_rng(0).normal(size=50)
    width = lambda interval: interval[1] - interval[0]  # noqa: E731
    alone = width(bootstrap_mean(values, resamples=2000))
    assert width(bootstrap_mean(np.repeat(values, 10), groups=np.repeat(np.arange(50), 10), resamples=2000)) == pytest.approx(alone)
    assert width(bootstrap_mean(np.repeat(values, 10), resamples=2000)) == pytest.approx(alone / np.sqrt(10), rel=0.15)


def test_what_cannot_vary_has_an_interval_of_no_width():
    assert bootstrap_mean([2.0] * 5) == (2.0, 2.0)
    assert bootstrap(lambda drawn: float("nan") if 0 in drawn else 1.0, 3, resamples=200) == (1.0, 1.0)
    with pytest.raises(ValueError, match="0 examples"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="2 groups"):
        bootstrap_mean([1.0], groups=[0, 1])


def test_intervals_of_scores_are_those_of_their_measures():
    """Of values that add up and of others, around the value; wider for a higher level."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=60)
    scores = regression_scores(true, true + rng.normal(size=60))
    found, wide = scores.intervals(), scores.intervals(level=0.99)
    assert found.keys() == scores.values.keys() == {"pearson", "spearman", "rmse", "mae"}
    for name, (low, high) in found.items():
        assert wide[name][0] < low < scores.values[name] < high < wide[name][1]
    assert np.isnan(regression_scores([1.5, 1.5], [1, 2]).intervals()["pearson"]).all()
