"""Whether a classifier treats groups alike: rates of each group, the gaps between groups, and whether a gap is more than chance.

Demographic parity asks that each class is given equally often (`given`), equal opportunity that those who have a class are found equally
often (`tpr`), equalised odds that also those who have it not are taken for it equally often (`fpr`; Hardt et al. 2016, def. 2.1 and 2.2). A
gap is the largest rate minus the smallest.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from train.tasks.metrics.bootstrap import bootstrap_sums
from train.tasks.metrics.scores import check_pairs

BINS = 10
"""Of confidence, for the calibration error."""
PERMUTATIONS = 1999
SLACK = 1e-12
"""Gaps that differ by no more are equal: rounding."""


class Measure(NamedTuple):
    """A measure of a group, from its examples alone. parts_NP: what each one adds. counts_N: whether it counts, as only those that have a
    class count for its true-positive rate. The measure is the sum over parts of the absolute sum, over the number that counts."""

    parts_NP: np.ndarray
    counts_N: np.ndarray


def fairness(
    truth_N: Sequence[int] | np.ndarray,
    probabilities_NC: np.ndarray,
    groups_N: Sequence[str],
    names: Sequence[str],
    *,
    positive: str = "",
    smallest: int = 30,
    resamples: int = 1000,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Rates and gaps. truth_N: classes, indices of `names`. groups_N: of each example. positive: the class whose rates are measured; empty:
    each against the rest. smallest: a group with fewer examples is left out; of a measure also one with fewer that count for it.

    Returns {"groups": [{"group", "count", measure: value}], "left_out": {group: examples}, "gaps": {measure: see `gap_of`}, "unmeasured":
    {measure: why it has no gap}}. Measures are `accuracy`, `ece_10` (Guo et al. 2017, eq. 3), `given/CLASS`, `tpr/CLASS` and `fpr/CLASS`; a
    group lacks one that no example of it counts for. ValueError where fewer than two groups are large enough.
    """
    check_pairs(truth_N, probabilities_NC)
    of_N = np.asarray(groups_N)
    if len(of_N) != len(probabilities_NC):
        raise ValueError(f"{len(of_N)} groups of {len(probabilities_NC)} examples")
    found, sizes = np.unique(of_N, return_counts=True)
    kept = [str(group) for group, size in zip(found, sizes, strict=True) if size >= smallest]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} of {len(found)} groups have {smallest} examples")
    measures = measures_of(np.asarray(truth_N), np.asarray(probabilities_NC, np.float64), names, positive)
    member_NG = of_N[:, None] == np.array(kept)
    rows: list[dict[str, Any]] = [{"group": group, "count": int(count)} for group, count in zip(kept, member_NG.sum(0), strict=True)]
    gaps, unmeasured = {}, {}
    for name, measure in measures.items():
        for row, value in zip(rows, values_of(*sums_of(measure, member_NG)), strict=True):
            row |= {} if np.isnan(value) else {name: float(value)}
        enough_G = (member_NG & measure.counts_N[:, None]).sum(0) >= smallest
        if enough_G.sum() < 2:
            unmeasured[name] = f"{enough_G.sum()} groups have {smallest} examples that count for it"
            continue
        those = [group for group, enough in zip(kept, enough_G, strict=True) if enough]
        how: dict[str, Any] = {"resamples": resamples, "permutations": permutations, "seed": seed}
        gaps[name] = gap_of(measure, member_NG[:, enough_G], those, **how)
        gaps[name]["left_out"] = [group for group in kept if group not in those]
    for name, p in zip(gaps, holm([gap["p"] for gap in gaps.values()]), strict=True):
        gaps[name]["p_holm"] = p
    left_out = {str(group): int(size) for group, size in zip(found, sizes, strict=True) if size < smallest}
    return {"groups": rows, "left_out": left_out, "gaps": gaps, "unmeasured": unmeasured}


def measures_of(truth_N: np.ndarray, probabilities_NC: np.ndarray, names: Sequence[str], positive: str = "") -> dict[str, Measure]:
    """All measures by name. ValueError for a positive class that is not there."""
    if positive and positive not in names:
        raise ValueError(f"no class {positive!r}; they are {', '.join(names)}")
    answers_N, everyone_N = probabilities_NC.argmax(-1), np.ones(len(truth_N), bool)
    right_N, confidence_N = answers_N == truth_N, probabilities_NC.max(-1)
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    surplus_NP = np.eye(BINS)[bin_N] * (right_N - confidence_N)[:, None]
    found = {"accuracy": Measure(right_N[:, None], everyone_N), f"ece_{BINS}": Measure(surplus_NP, everyone_N)}
    for number, name in enumerate(names):
        if positive in ("", name):
            given_N1, true_N = (answers_N == number)[:, None], truth_N == number
            found[f"given/{name}"] = Measure(given_N1, everyone_N)
            found[f"tpr/{name}"] = Measure(given_N1, true_N)
            found[f"fpr/{name}"] = Measure(given_N1, ~true_N)
    return found


def sums_of(measure: Measure, member_NG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each group the sums of the parts [G, P], and how many examples count [G]."""
    counted_NG = (member_NG & measure.counts_N[:, None]).astype(np.float64)
    return counted_NG.T @ measure.parts_NP.astype(np.float64), counted_NG.sum(0)


def values_of(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """sums [..., G, P] and counts [..., G] to values [..., G]; NaN where nothing counts."""
    return np.where(counts > 0, np.abs(sums).sum(-1) / np.maximum(counts, 1), np.nan)


def gap_between(values: np.ndarray) -> np.ndarray:
    """The largest of values [..., G] minus the smallest; NaN where a group has none."""
    return values.max(-1) - values.min(-1)


def gap_of(
    measure: Measure, member_NG: np.ndarray, groups: Sequence[str], *, resamples: int, permutations: int, seed: int
) -> dict[str, Any]:
    """{"gap", "low", "high", "p", "lowest", "highest"}, the last two being groups.

    low, high: a 95 % interval. A gap is never below 0, and of a resample it is larger than of the examples on average, so quantiles of
    resampled gaps would leave the truth out where groups are alike. Instead the gap is off by at most the range of what the groups' values
    are off, whose 95 % quantile comes from resamples of the examples of all groups together (as in Tukey's simultaneous intervals; Miller
    1981, ch. 2). p: the share of permutations of groups, among the examples that count, whose gap is at least as large, with the observed
    one among them (Phipson and Smyth 2010): it says whether the gap is more than chance.
    """
    values_G = values_of(*sums_of(measure, member_NG))
    gap = float(gap_between(values_G))
    inside_NG = (member_NG & measure.counts_N[:, None]).astype(np.float64)
    parts_NGP, size = inside_NG[:, :, None] * measure.parts_NP[:, None], member_NG.shape[1]

    def score(sums_R: np.ndarray) -> np.ndarray:
        return gap_between(values_of(sums_R[:, size:].reshape(len(sums_R), size, -1), sums_R[:, :size]) - values_G)

    together_NP = np.concatenate([inside_NG, parts_NGP.reshape(len(inside_NG), -1)], -1)
    off = bootstrap_sums(together_NP, score, resamples=resamples, seed=seed, level=0.9)[1]  # 5 % above it
    permuted_R = permuted_gaps(measure, member_NG, permutations, seed)
    return {
        "gap": gap,
        "low": max(0.0, gap - off),
        "high": gap + off,
        "p": float((1 + (permuted_R >= gap - SLACK).sum()) / (1 + permutations)),
        "lowest": groups[int(values_G.argmin())],
        "highest": groups[int(values_G.argmax())],
    }


def permuted_gaps(measure: Measure, member_NG: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """The gap for each of so many permutations of groups among the examples that count and are of a group.

    Where examples add 1 or 0, how many ones each group gets is all that matters: it is drawn at once (multivariate hypergeometric).
    """
    rng = np.random.default_rng(seed)
    chosen_M = measure.counts_N & member_NG.any(-1)
    parts_MP, group_M = measure.parts_NP[chosen_M], member_NG[chosen_M].argmax(-1)
    sizes_G = np.bincount(group_M, minlength=member_NG.shape[1])
    if parts_MP.dtype == bool:
        ones_RG = rng.multivariate_hypergeometric(sizes_G, int(parts_MP.sum()), size=permutations, method="marginals")
        return gap_between(ones_RG / sizes_G)
    place_M, value_M = np.abs(parts_MP).argmax(-1), parts_MP.sum(-1)  # an example adds to one part alone
    groups, parts, found = len(sizes_G), parts_MP.shape[1], []
    for _ in range(permutations):
        sums = np.bincount(rng.permutation(group_M) * parts + place_M, value_M, groups * parts).reshape(groups, parts)
        found.append(gap_between(values_of(sums, sizes_G)))
    return np.array(found)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that one of them below a level means what it means for a single test (Holm 1979)."""
    order, found, highest = np.argsort(ps, kind="stable"), [0.0] * len(ps), 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = highest
    return found
