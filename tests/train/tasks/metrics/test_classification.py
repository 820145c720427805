"""Classes, labels and calibration, against their definitions in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.tasks.metrics.classification import choice_scores, classification_scores, several_labels_scores

NAMES = ["a", "b", "c", "d"]


def values_by_sums(scores):
    """The values that intervals vary, of all examples once."""
    return {name: one.of(one.parts_NP.sum(0)[None])[0] for name, one in scores.measures.items()}


def f1_by_class(truth, predicted):
    """{class: F1} of those that occur."""
    found = {}
    for one in set(truth) | set(predicted):
        hits = sum(t == p == one for t, p in zip(truth, predicted, strict=True))
        found[one] = 2 * hits / (truth.count(one) + predicted.count(one))
    return found


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_classes_follow_their_definitions(pairs):
    truth, predicted = map(list, zip(*pairs, strict=True))
    scores, each = classification_scores(truth, np.eye(4)[predicted], NAMES), f1_by_class(truth, predicted)
    accuracy = sum(t == p for t, p in pairs) / len(pairs)
    expected = {"accuracy": accuracy, "micro_f1": accuracy, "macro_f1": sum(each.values()) / len(each)}
    expected["weighted_f1"] = sum(each[one] * truth.count(one) for one in set(truth)) / len(truth)
    true, given_ = np.eye(4)[truth], np.eye(4)[predicted]
    covariance = lambda x, y: ((x - x.mean(0)) * (y - y.mean(0))).sum()  # noqa: E731
    scale = np.sqrt(covariance(true, true) * covariance(given_, given_))
    expected["mcc"] = covariance(true, given_) / scale if scale > 1e-9 else 0.0  # Gorodkin 2004, eq. 2
    expected |= {"ece_10": 1 - accuracy, "ece_15": 1 - accuracy, "brier": 2 * (1 - accuracy)}  # answers that are always sure
    assert scores.values == pytest.approx(expected, abs=1e-9)
    assert [row["f1"] for row in scores.tables["per_class"]] == pytest.approx([each.get(one, 0.0) for one in range(4)])
    counts = [[sum(pair == (t, p) for pair in pairs) for p in range(4)] for t in range(4)]
    assert [[row["answers"][name] for name in NAMES] for row in scores.tables["confusion"]] == counts
    assert values_by_sums(scores) == pytest.approx({name: scores.values[name] for name in scores.measures}, abs=1e-9)


def test_probabilities_that_are_what_they_say_have_no_calibration_error():
    """Of ten examples at 0.7 seven are right; at 0.9 nine of ten. Then one bin says 0.95 of what is right half of the time."""
    probabilities = np.array([[0.7, 0.3]] * 10 + [[0.1, 0.9]] * 10)
    truth = [0] * 7 + [1] * 3 + [1] * 9 + [0]
    scores = choice_scores(truth, probabilities)
    assert scores.values["ece_10"] == pytest.approx(0) and scores.values["ece_15"] == pytest.approx(0)
    assert scores.values["brier"] == pytest.approx((7 * 0.18 + 3 * 0.98 + 9 * 0.02 + 1.62) / 20)
    assert [(row["count"], row["accuracy"]) for row in scores.tables["calibration"]] == [(10, 0.7), (10, 0.9)]
    assert choice_scores([0, 1], np.array([[0.95, 0.05]] * 2)).values["ece_10"] == pytest.approx(0.45)


def test_a_bin_holds_its_upper_end_alone():
    """Guo et al. 2017: ((m - 1) / M, m / M]. At 0.8 and just above, two bins of ten."""
    rows = choice_scores([0, 0, 0], np.array([[0.5, 0.5], [0.8 - 1e-9, 0.2 + 1e-9], [0.8 + 1e-9, 0.2 - 1e-9]])).tables["calibration"]
    assert [row["count"] for row in rows] == [1, 1, 1] and choice_scores([0], [np.array([1.0, 0.0])]).tables["calibration"][0]["high"] == 1


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3))), min_size=1, max_size=20))
def test_labels_follow_their_definitions(rows):
    truth, predicted = zip(*rows, strict=True)
    pairs = [[(one in t, one in p) for t, p in rows] for one in range(4)]
    counts = [(sum(t and p for t, p in each), sum(t + p for t, p in each)) for each in pairs]
    there = [(hits, both) for hits, both in counts if both]
    marks = [np.array([[float(one in chosen) for one in range(4)] for chosen in side]) for side in (truth, predicted)]
    scores = several_labels_scores(marks[0], 0.2 + 0.1 * marks[1], NAMES, threshold=0.25)
    assert scores.values["subset_accuracy"] == pytest.approx(sum(t == p for t, p in rows) / len(rows))
    assert scores.values["micro_f1"] == pytest.approx(2 * sum(h for h, _ in counts) / max(sum(b for _, b in counts), 1))
    assert scores.values["macro_f1"] == pytest.approx(sum(2 * h / b for h, b in there) / max(len(there), 1))
    assert [row["count"] for row in scores.tables["per_class"]] == [sum(one in t for t in truth) for one in range(4)]
    assert values_by_sums(scores) == pytest.approx(scores.values)


def test_as_many_predictions_as_truths():
    for truth, predicted in (([], []), ([0], np.eye(4))):
        with pytest.raises(ValueError, match="predictions of"):
            classification_scores(truth, predicted, NAMES)


def test_each_question_has_choices_of_its_own():
    scores = choice_scores([2, 0], [np.array([0.1, 0.2, 0.7]), np.array([0.4, 0.6])])
    assert scores.values["accuracy"] == 0.5 and scores.values["brier"] == pytest.approx((0.01 + 0.04 + 0.09 + 0.36 + 0.36) / 2)
