"""Verdicts are Student's t tests over seeds, and keep their promised rate of errors."""

import math

import numpy as np
import pytest
from scipy import stats

from train.reproduce.resampling import DRAWS, drawn, drawn_mean
from train.reproduce.table import Better, Metric, Row, Table
from train.reproduce.verdict import Measured, of_claim, of_row, of_table

LOSS = Metric("loss", "loss")


def table(*claims: Better, paper: float | None = None) -> Table:
    rows = (Row("a", "", ("python -c 0",), paper=paper, same_setting=True), Row("b", "", ("python -c 0",)))
    return Table("", "", "", (LOSS,), rows, claims)


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


def test_tolerance_covers_one_more_draw_as_often_as_it_says():
    """Of normal draws, 95 % of fourth ones lie within the tolerance of the three before: what a prediction interval is."""
    draws = np.random.default_rng(0).normal(3, 0.2, size=(4000, 4))
    hits = [abs(row[3] - found.mean) <= found.tolerance for row in draws for found in [Measured(tuple(row[:3]))]]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


def test_claims_without_substance_hold_in_one_case_of_twenty():
    draws = np.random.default_rng(1).normal(size=(4000, 2, 3))
    verdicts = [of_claim(Better("a", "b"), {"a": by_seed(a), "b": by_seed(b)}, True).verdict for a, b in draws]
    assert np.mean([verdict == "holds" for verdict in verdicts]) == pytest.approx(0.05, abs=0.011)
    assert np.mean([verdict == "fails" for verdict in verdicts]) == pytest.approx(0.05, abs=0.011)


def test_claim_is_the_paired_test_of_scipy():
    """Seeds that move both rows alike take nothing from a claim: differences count."""
    a, b = np.array([1.0, 3.0, 2.0]), np.array([1.2, 3.15, 2.3])
    judged = of_claim(Better("a", "b"), {"a": by_seed(a), "b": by_seed(b)}, lower_is_better=True)
    assert judged.gain == pytest.approx((b - a).mean())
    assert judged.verdict == "holds"
    assert stats.ttest_rel(b, a, alternative="greater").pvalue < 0.05
    least = stats.ttest_rel(b, a, alternative="greater").confidence_interval(0.95).low
    assert judged.gain - judged.slack == pytest.approx(least)
    assert of_claim(Better("a", "b"), {"a": by_seed(a), "b": by_seed(b)}, lower_is_better=False).verdict == "fails"
    assert of_claim(Better("a", "b", by=0.5), {"a": by_seed(a), "b": by_seed(b)}, lower_is_better=True).verdict == "fails"


def test_only_seeds_that_both_rows_have_are_compared():
    results = {"a": {0: 1.0, 1: 1.1, 2: 1.2, 5: -50.0}, "b": {0: 2.0, 1: 2.1, 2: 2.2, 7: 99.0}}
    assert of_claim(Better("a", "b"), results, True).gain == pytest.approx(1.0)
    assert of_claim(Better("a", 2.0), {"a": {0: 1.0, 1: 1.01, 2: 1.0}}, True).verdict == "holds"
    assert of_claim(Better("a", "b"), {"a": {0: 1.0}, "b": {0: 2.0}}, True).verdict == "too few seeds"
    assert of_claim(Better("a", "b"), {"a": {0: 1.0}}, True).verdict == "not measured"


@pytest.mark.parametrize("paper, verdict", [(2.0, "equal"), (2.9, "better"), (1.1, "worse")])
def test_row_against_the_paper(paper, verdict):
    row = Row("a", "", ("python -c 0",), paper=paper, same_setting=True)
    found = Measured((2.0, 2.05, 1.95))
    assert of_row(row, found, lower_is_better=True) == verdict
    assert of_row(row, Measured((2.0,)), lower_is_better=True) == "too few seeds"
    assert of_row(Row("a", "", ("python -c 0",), paper=paper), found, lower_is_better=True) == ""
    assert math.isnan(Measured((2.0,)).tolerance)


def test_verdict_of_a_table():
    close, far = (
        {"a": by_seed([1.0, 1.02, 0.98]), "b": by_seed([2.0, 2.01, 2.0])},
        {"a": by_seed([1.0, 3.0, 2.0]), "b": by_seed([2.0, 2.1, 2.2])},
    )
    claim = Better("a", "b")
    assert of_table(table(claim, paper=1.0), "cpu", {"loss": close}) == "equal"
    assert of_table(table(claim, paper=0.5), "cpu", {"loss": close}) == "not reproduced", "worse than the paper in its own setting"
    assert of_table(table(claim), "cpu", {"loss": close}) == "same order"
    assert of_table(table(claim), "cpu", {"loss": far}) == "undecided"
    assert of_table(table(Better("b", "a"), paper=1.0), "cpu", {"loss": close}) == "not reproduced"
    assert of_table(table(paper=0.5), "cpu", {"loss": close}) == "not reproduced"
    assert of_table(table(claim), "cpu", {"loss": {"a": {0: 1.0}, "b": {0: 2.0}}}) == "too few seeds"
    assert of_table(table(claim), "cpu", {}) == "not measured"


def test_claims_of_rows_that_run_once_are_judged_over_resampled_cases():
    """As scipy's paired bootstrap has it."""
    rng = np.random.default_rng(2)
    one, other = rng.random(100), rng.random(100)
    same = {"a": dict.fromkeys(range(3), float(one.mean())), "b": dict.fromkeys(range(3), float(other.mean()))}
    draws = {"a": drawn_mean(one), "b": drawn_mean(other)}
    judged = of_claim(Better("a", "b"), same, False, draws)
    wanted = stats.bootstrap((one - other,), np.mean, confidence_level=0.9, method="percentile", rng=0).confidence_interval
    assert judged.gain == pytest.approx((one - other).mean()) and judged.gain - judged.slack == pytest.approx(wanted.low, abs=0.01)
    assert judged.verdict == "undecided" and of_claim(Better("a", "b"), same, False).verdict in ("holds", "fails")
    assert of_claim(Better("a", 0.2), same, False, draws).verdict == "holds"
    assert of_claim(Better("a", 0.8), same, False, draws).verdict == "fails"
    seeds = {"a": by_seed([1.0, 1.1, 1.2]), "b": by_seed([0.5, 0.6, 0.65])}
    assert of_claim(Better("a", "b"), seeds, False, draws) == of_claim(Better("a", "b"), seeds, False)  # seeds tell their own noise


def test_resampled_cases_are_the_same_for_all_rows():
    seen = []
    drawn(7, lambda places: seen.append(places.tolist()) or 0.0)
    drawn(7, lambda places: seen.append(places.tolist()) or 0.0)
    assert seen[:DRAWS] == seen[DRAWS:] and len({*map(tuple, seen)}) > DRAWS / 2 and {*sum(seen, [])} == {*range(7)}
