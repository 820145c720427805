"""When a classifier is believed: by brute force, and by what is known of made-up probabilities."""

import numpy as np
import pytest
from scipy.stats import entropy

from train.apps.confidence import FLATTENED, NEVER, conformal, coverage, familiarity, log_odds, temperature, tempered, threshold


def drawn(count: int, seed: int, by: float = 1.0):
    """Probabilities of three classes that say what is true once their logits are divided by `by`, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in true])
    return tempered(true, 1 / by), labels


@pytest.mark.parametrize("by", [0.5, 1.0, 3.0])
def test_the_temperature_that_probabilities_were_sharpened_by_is_found(by):
    probabilities, labels = drawn(6000, 0, by)
    assert temperature(probabilities, labels) == pytest.approx(by, rel=0.1)


def test_the_temperature_is_the_best_of_a_grid():
    probabilities, labels = drawn(300, 1, 2.0)

    def loss(by: float) -> float:
        return -np.log(tempered(probabilities, by)[np.arange(300), labels]).mean()

    assert loss(temperature(probabilities, labels)) <= min(loss(by) for by in np.geomspace(0.06, 19, 200)) + 1e-9


def test_familiarity_is_what_flattened_entropy_leaves():
    probabilities, _ = drawn(200, 2)
    flat = probabilities ** (1 / FLATTENED)
    flat /= flat.sum(1, keepdims=True)
    assert familiarity(probabilities) == pytest.approx(1 - entropy(flat, axis=1) / np.log(3))
    assert familiarity(np.array([[1.0, 0, 0, 0], [0.25] * 4])) == pytest.approx([1, 0], abs=1e-4)
    assert familiarity(np.full((1, 77), 1 / 77))[0] >= 0
    equal = familiarity(np.array([[0.6, 0.4, 0, 0], [0.6, 0.2, 0.2, 0], [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3]]))
    assert equal[0] > equal[1] > equal[2], "at the same confidence the more labels compete, the less is known"
    assert familiarity(np.ones((2, 1))) == pytest.approx([1, 1]) and familiarity(np.zeros((0, 3))).shape == (0,)


def test_an_interval_holds_as_many_errors_as_it_promises():
    errors = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))
    assert [conformal(errors, coverage) for coverage in (0.5, 0.9, 0.0, 0.999)] == [50.0, 90.0, 1.0, np.inf]


def test_without_examples_nothing_is_changed():
    assert temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_gives_the_most_answers_that_are_precise(seed):
    """Beside all thresholds there are, with equal confidences among them."""
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(0, 10, 40) / 10, rng.random(40) < 0.7
    found = threshold(confidence, right, 0.8)
    fitting = [at for at in np.unique(confidence) if right[confidence >= at].mean() >= 0.8]
    assert found == (min(fitting) if fitting else NEVER)


def test_answers_that_are_never_right_are_never_given():
    assert threshold(np.array([0.9, 0.8]), np.array([False, False]), 0.5) == NEVER > 1
    assert threshold(np.zeros(0), np.zeros(0, bool), 0.5) == NEVER


def test_coverage_counts_the_most_confident_first():
    share, precise = coverage(np.array([0.2, 0.9, 0.5]), np.array([False, True, False]))
    assert share == pytest.approx([1 / 3, 2 / 3, 1]) and precise == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_log_odds_are_numbers_however_sure_a_classifier_is(kind):
    """Models give float32, in which the largest probability below 1 is 1 less 6e-8."""
    found = log_odds(np.array([0, 0.25, 1], kind))
    np.testing.assert_allclose(found, [-np.log(1e9), -np.log(3), np.log(1e9)], rtol=1e-6)
