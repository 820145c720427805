"""What the numbers of a table say about its claim. Tolerances come from the variance over seeds; none is chosen."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from train.reproduce.table import Better, Row, Table

CONFIDENCE = 0.95
SEEDS_AT_LEAST = 3
"""For a verdict: with two, a t test allows anything."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Values of one metric over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Over seeds, with n - 1 below; NaN for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def tolerance(self) -> float:
        """How far from the mean one more draw may lie: the prediction interval t s sqrt(1 + 1/n). A paper's number is such a draw."""
        count = len(self.values)
        return (
            _quantile(count - 1, (1 + CONFIDENCE) / 2) * self.deviation * math.sqrt(1 + 1 / count) if count >= SEEDS_AT_LEAST else math.nan
        )


def _quantile(degrees: int, share: float) -> float:
    """Of Student's t."""
    from scipy.stats import t

    return float(t.ppf(share, degrees))


def of_row(row: Row, found: Measured | None, lower_is_better: bool) -> str:
    """equal, better, worse (than the paper), or nothing where the paper has no number for this setting."""
    if found is None or row.paper is None or not row.same_setting:
        return ""
    if math.isnan(found.tolerance):
        return "too few seeds"
    if abs(found.mean - row.paper) <= found.tolerance:
        return "equal"
    return "better" if (found.mean < row.paper) == lower_is_better else "worse"


class Judged(NamedTuple):
    """verdict: holds, fails, undecided (within the noise of seeds), too few seeds or not measured.

    gain, slack: the mean gain of the better row over the other, and how far below it the true one may lie.
    """

    verdict: str
    gain: float = math.nan
    slack: float = math.nan


Draws = Mapping[str, Mapping[str, Sequence[float]]]
"""Of each metric's name, of each row, its values on resampled cases."""
EMPTY: Mapping[str, Any] = MappingProxyType({})


def of_claim(
    claim: Better, results: dict[str, dict[int, float]], lower_is_better: bool, draws: Mapping[str, Sequence[float]] = {}
) -> Judged:
    """Judge a claim about rows.

    results: of each row, the metric by seed. Rows of the same seed are compared with each other: the test is Student's t of their
    differences, one-sided, at 95 %. draws: of rows, the metric on resampled cases: by their quantiles numbers are judged that are alike for
    every seed.
    """
    first, second = results.get(claim.row, {}), results.get(claim.than, {}) if isinstance(claim.than, str) else None
    seeds = sorted(first if second is None else set(first) & set(second))
    if not seeds:
        return Judged("not measured")
    sign = -1.0 if lower_is_better else 1.0
    gains = [sign * (first[seed] - (second[seed] if second is not None else float(claim.than))) for seed in seeds]
    gained = Measured(tuple(gains))
    if len(seeds) < SEEDS_AT_LEAST:
        return Judged("too few seeds", gained.mean)
    if len({*gains}) == 1 and claim.row in draws and (not isinstance(claim.than, str) or claim.than in draws):
        others = draws[claim.than] if isinstance(claim.than, str) else [float(claim.than)] * len(draws[claim.row])
        drawn = sorted(sign * (one - other) for one, other in zip(draws[claim.row], others, strict=True))
        low, high = (drawn[min(int(share * len(drawn)), len(drawn) - 1)] for share in (1 - CONFIDENCE, CONFIDENCE))
        verdict = "holds" if low > claim.by else "fails" if high < claim.by else "undecided"
        return Judged(verdict, gained.mean, gained.mean - low)
    slack = _quantile(len(seeds) - 1, CONFIDENCE) * gained.deviation / math.sqrt(len(seeds))
    verdict = "holds" if gained.mean - slack > claim.by else "fails" if gained.mean + slack < claim.by else "undecided"
    return Judged(verdict, gained.mean, slack)


def of_table(table: Table, tier: str, results: dict[str, dict[str, dict[int, float]]], draws: Draws = EMPTY) -> str:
    """equal, same order, undecided, not reproduced, too few seeds, or not measured.

    results: of each metric's name, of each row, its value by seed.
    """
    names = {row.name for row in table.of_tier(tier)}
    main = table.metrics[0]
    claims = [claim for claim in table.claims if claim.row in names]
    found = [judge(claim, table, results, draws).verdict for claim in claims]
    rows = [of_row(row, measured(results, main.name, row.name), main.lower_is_better) for row in table.of_tier(tier)]
    judged = [verdict for verdict in rows if verdict]
    if not results.get(main.name) or "not measured" in found:
        return "not measured"
    if "too few seeds" in (*found, *judged):
        return "too few seeds"
    if "fails" in found or "worse" in judged:
        return "not reproduced"
    if "undecided" in found:
        return "undecided"
    if not claims and not judged:
        return "measured"
    return "equal" if judged and all(verdict in ("equal", "better") for verdict in judged) else "same order"


def judge(claim: Better, table: Table, results: dict[str, dict[str, dict[int, float]]], draws: Draws = EMPTY) -> Judged:
    """A claim of a table."""
    metric = table.metric(claim.metric)
    return of_claim(claim, results.get(metric.name, {}), metric.lower_is_better, draws.get(metric.name, EMPTY))


def measured(results: dict[str, dict[str, dict[int, float]]], metric: str, row: str) -> Measured | None:
    by_seed = results.get(metric, {}).get(row, {})
    return Measured(tuple(by_seed[seed] for seed in sorted(by_seed))) if by_seed else None


def say(claim: Better, table: Table) -> str:
    """The claim in words."""
    about = f" in {claim.metric}" if claim.metric else ""
    than = claim.than if isinstance(claim.than, str) else f"{claim.than:g}"
    return f"{claim.row} is better than {than}{about}" + (f" by {claim.by:g}" if claim.by else "")
