"""Rates of groups are scikit-learn's; gaps find planted bias, hold the truth as often as they say, and see none where groups are drawn by
lot."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from train.tasks.metrics.classification import choice_scores
from train.tasks.metrics.fairness import Measure, fairness, gap_of, holm, measures_of, permuted_gaps, values_of

QUICK = {"resamples": 200, "permutations": 199}


def drawn(count: int, groups: int, right, seed: int, classes: int = 2):
    """Truth, probabilities and groups of a classifier that is right in the share `right` of each group."""
    rng = np.random.default_rng(seed)
    of, truth = rng.integers(0, groups, count), rng.integers(0, classes, count)
    hit = rng.random(count) < np.broadcast_to(right, groups)[of]
    answers = np.where(hit, truth, (truth + rng.integers(1, classes, count)) % classes)
    probabilities = rng.dirichlet(np.ones(classes), count)
    top = probabilities.argmax(1)
    rows = np.arange(count)
    probabilities[rows, top], probabilities[rows, answers] = probabilities[rows, answers], probabilities[rows, top]
    return truth, probabilities, [f"g{group}" for group in of]


def test_rates_of_groups_are_those_of_scikit_learn():
    truth, probabilities, groups = drawn(400, 3, 0.7, seed=0, classes=3)
    found = fairness(truth, probabilities, groups, "abc", smallest=2, **QUICK)
    answers = probabilities.argmax(1)
    assert [row["group"] for row in found["groups"]] == ["g0", "g1", "g2"]
    for row in found["groups"]:
        own = np.array(groups) == row["group"]
        assert row["count"] == own.sum()
        assert row["accuracy"] == pytest.approx(accuracy_score(truth[own], answers[own]))
        assert row["ece_10"] == pytest.approx(choice_scores(truth[own], probabilities[own]).values["ece_10"])
        for place, name in enumerate("abc"):
            true, given = truth[own] == place, answers[own] == place
            assert row[f"given/{name}"] == pytest.approx(given.mean())
            assert row[f"tpr/{name}"] == pytest.approx(recall_score(true, given))
            assert row[f"fpr/{name}"] == pytest.approx(1 - recall_score(~true, ~given))
    for name, gap in found["gaps"].items():
        values = [row[name] for row in found["groups"]]
        assert gap["gap"] == pytest.approx(max(values) - min(values)) and gap["low"] <= gap["gap"] <= gap["high"]
        assert (gap["lowest"], gap["highest"]) == (f"g{np.argmin(values)}", f"g{np.argmax(values)}")


def test_planted_bias_is_found_where_it_is_planted():
    """One group's examples of the class `yes` are found less often; those of `no` are as everywhere. Two groups have other shares of `yes`,
    so they are given it less often though the classifier treats them alike."""
    rng = np.random.default_rng(0)
    of = rng.integers(0, 3, 3000)
    truth = (rng.random(3000) < np.array([0.5, 0.5, 0.2])[of]).astype(int)
    yes = np.where(truth == 1, rng.random(3000) < np.array([0.8, 0.6, 0.8])[of], rng.random(3000) < 0.2)
    probabilities = np.stack([1 - yes, yes], 1) * 0.6 + 0.2
    how = {"resamples": 200, "permutations": 999}
    gaps = fairness(truth, probabilities, [f"g{one}" for one in of], ("no", "yes"), positive="yes", **how)["gaps"]
    assert set(gaps) == {"accuracy", "ece_10", "given/yes", "tpr/yes", "fpr/yes"}
    assert gaps["tpr/yes"]["p"] < 0.01 and gaps["tpr/yes"]["lowest"] == "g1" and gaps["tpr/yes"]["low"] > 0.05
    assert gaps["given/yes"]["p"] < 0.01 and gaps["given/yes"]["lowest"] == "g2"
    assert gaps["fpr/yes"]["p"] > 0.05 and gaps["fpr/yes"]["low"] == 0.0
    same = fairness(truth, probabilities, [f"g{one}" for one in rng.permutation(of)], ("no", "yes"), positive="yes", **how)["gaps"]
    assert min(gap["p_holm"] for gap in same.values()) > 0.01 and max(gap["low"] for gap in same.values()) < 0.02


def test_p_values_are_uniform_where_groups_are_drawn_by_lot():
    """Of 300 sets, for rates that are drawn at once and for calibration, which is permuted one by one: as many below a level as it says,
    within four standard errors; the class is rarer in one group, which must not matter for its true-positive rate."""
    found: dict[str, list[float]] = {"accuracy": [], "ece_10": [], "tpr/b": []}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of = rng.integers(0, 3, 150)
        truth = (rng.random(150) < np.array([0.2, 0.6, 0.6])[of]).astype(int)
        given = np.where(truth == 1, rng.random(150) < 0.7, rng.random(150) < 0.3)
        probabilities = np.stack([1 - given, given], 1) * rng.uniform(0.1, 1.0, (150, 1))
        probabilities = np.where(given[:, None] == np.arange(2), 0.5 + probabilities / 2, 0.5 - probabilities[:, ::-1] / 2)
        measures = measures_of(truth, probabilities, "ab")
        member = of[:, None] == np.arange(3)
        for name, ps in found.items():
            how = {"resamples": 1, "permutations": 99, "seed": seed}
            ps.append(gap_of(measures[name], member, "xyz", **how)["p"])
    for name, ps in found.items():
        for level in (0.1, 0.3, 0.6):
            share, error = np.mean(np.array(ps) <= level), 4 * np.sqrt(level * (1 - level) / 300)
            assert abs(share - level) < error + 0.02, (name, level, share)


def test_what_is_drawn_at_once_is_what_permutations_give():
    """The same quantiles as permuting each example, which weights that are no truth values ask for."""
    rng = np.random.default_rng(0)
    hits, of = rng.random(120) < 0.4, rng.integers(0, 3, 120)
    member, everyone = of[:, None] == np.arange(3), np.ones(120, bool)
    fast = permuted_gaps(Measure(hits[:, None], everyone), member, 4000, 0)
    slow = permuted_gaps(Measure(hits[:, None].astype(float), everyone), member, 4000, 1)
    np.testing.assert_allclose(np.quantile(fast, [0.1, 0.5, 0.9]), np.quantile(slow, [0.1, 0.5, 0.9]), atol=0.02)
    by_hand = [np.ptp([shuffled[of == group].mean() for group in range(3)]) for shuffled in (rng.permutation(hits) for _ in range(2000))]
    np.testing.assert_allclose(np.quantile(fast, [0.1, 0.5, 0.9]), np.quantile(by_hand, [0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize("right", [(0.8, 0.8), (0.8, 0.77), (0.8, 0.8, 0.8, 0.65)])
def test_intervals_of_gaps_hold_the_truth_as_often_as_they_say(right):
    """Also where groups are alike or nearly so, which intervals of resampled gaps miss; where several differ they are wider than they need
    be."""
    inside = []
    for seed in range(80):
        truth, probabilities, groups = drawn(300, len(right), right, seed)
        member = np.array(groups)[:, None] == np.unique(groups)
        measure = measures_of(truth, probabilities, "ab")["accuracy"]
        gap = gap_of(measure, member, np.unique(groups).tolist(), resamples=150, permutations=1, seed=seed)
        inside.append(gap["low"] <= max(right) - min(right) <= gap["high"])
    assert np.mean(inside) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 80)


def test_equal_groups_have_no_gap():
    truth, probabilities, _ = drawn(60, 1, 0.7, seed=0)
    found = fairness(np.tile(truth, 2), np.tile(probabilities, (2, 1)), ["a"] * 60 + ["b"] * 60, "ny", smallest=10, **QUICK)
    for gap in found["gaps"].values():
        assert gap["gap"] == pytest.approx(0.0, abs=1e-12) and gap["p"] == 1.0 and gap["low"] == 0.0


def test_names_and_order_of_groups_change_nothing():
    truth, probabilities, groups = drawn(300, 3, (0.9, 0.7, 0.6), seed=1)
    found = fairness(truth, probabilities, groups, "ny", **QUICK)
    renamed = fairness(truth, probabilities, [{"g0": "c", "g1": "a", "g2": "b"}[group] for group in groups], "ny", **QUICK)
    for name, gap in found["gaps"].items():
        for value in ("gap", "low", "high"):
            assert renamed["gaps"][name][value] == pytest.approx(gap[value], abs=1e-12)
        assert renamed["gaps"][name]["p"] == pytest.approx(gap["p"], abs=0.15)
        assert {"g0": "c", "g1": "a", "g2": "b"}[gap["lowest"]] == renamed["gaps"][name]["lowest"]


def test_small_groups_are_named_and_left_out():
    """Of all, and of the rates that too few of a group count for."""
    truth, probabilities, groups = drawn(200, 2, 0.7, seed=2)
    of = np.where(np.arange(200) < 5, "few", groups)
    truth = np.where(of == "g1", 0, truth)
    found = fairness(truth, probabilities, of, "ny", smallest=20, **QUICK)
    assert found["left_out"] == {"few": 5} and {row["group"] for row in found["groups"]} == {"g0", "g1"}
    assert "tpr/y" in found["unmeasured"] and "tpr/y" not in found["gaps"] and "tpr/n" in found["gaps"]
    assert "tpr/y" not in next(row for row in found["groups"] if row["group"] == "g1")
    truth = np.where((of == "few") & (np.arange(200) < 3), 1, truth)
    more = fairness(truth, probabilities, of, "ny", smallest=4, **QUICK)
    assert more["gaps"]["accuracy"]["left_out"] == [] and more["gaps"]["fpr/y"]["gap"] >= found["gaps"]["fpr/y"]["gap"] - 1e-12
    for groups, why in ((["one"] * 200, "1 of 1 groups"), (of[:5], "5 groups of 200")):
        with pytest.raises(ValueError, match=why):
            fairness(truth, probabilities, groups, "ny", **QUICK)
    with pytest.raises(ValueError, match="no class 'maybe'"):
        fairness(truth, probabilities, of, ("no", "yes"), positive="maybe", **QUICK)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    assert np.isnan(values_of(np.zeros((2, 1)), np.array([0.0, 3.0]))).tolist() == [True, False]
