"""Numbers: scores, grades and similarities."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from train.tasks.metrics.scores import Additive, Drawn, Scores, check_pairs, load, mean_of


def regression_scores(truth_N: Sequence[float], predicted_N: Sequence[float]) -> Scores:
    """Correlation (Pearson's, Spearman's), root mean square error and mean absolute error.

    Where all truths are whole numbers, as grades are, also the quadratic weighted kappa (Cohen 1968) of predictions that are rounded to the
    nearest grade between the lowest true one and the highest. NaN: a correlation where all values are the same.
    """
    check_pairs(truth_N, predicted_N)
    true, given = np.asarray(truth_N, np.float64), np.asarray(predicted_N, np.float64)
    stats = load("scipy.stats", "scipy")
    correlations = {"pearson": _correlation(stats.pearsonr, true, given), "spearman": _correlation(stats.spearmanr, true, given)}
    squares, errors = (given - true) ** 2, np.abs(given - true)
    everything = np.arange(len(true))
    values = {name: one(everything) for name, one in correlations.items()}
    values |= {"rmse": float(np.sqrt(squares.mean())), "mae": float(errors.mean())}
    means = mean_of(squares)
    measures: dict[str, Additive | Drawn] = {
        **{name: Drawn(len(true), one) for name, one in correlations.items()},
        "rmse": Additive(means.parts_NP, lambda sums: np.sqrt(means.of(sums))),
        "mae": mean_of(errors),
    }
    if (true == np.rint(true)).all() and true.min() < true.max() <= true.min() + 100:
        grades = np.arange(int(true.min()), int(true.max()) + 1)
        rounded = np.clip(np.rint(given), grades[0], grades[-1]).astype(int)
        values["quadratic_kappa"] = quadratic_kappa(true, rounded)
        measures["quadratic_kappa"] = _kappa(true.astype(int) - grades[0], rounded - grades[0], len(grades))
    return Scores(values, {}, measures)


def quadratic_kappa(first_N: Sequence[float] | np.ndarray, second_N: Sequence[float] | np.ndarray) -> float:
    """Agreement of two graders on the same texts (Cohen 1968): 1 - the squared differences over those of pairs by chance, which is what
    weights "quadratic" give for grades that are whole numbers. NaN where both give one and the same grade to all."""
    check_pairs(first_N, second_N)
    first, second = np.asarray(first_N, np.float64), np.asarray(second_N, np.float64)
    by_chance = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    return float(1 - ((first - second) ** 2).mean() / by_chance) if by_chance > 0 else float("nan")


def _correlation(method: Callable, true: np.ndarray, given: np.ndarray) -> Callable[[np.ndarray], float]:
    """A correlation of the examples with some indices."""

    def of(drawn: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are all the same, whose correlation is NaN
            return float(method(true[drawn], given[drawn]).statistic) if len(drawn) > 1 else float("nan")

    return of


def _kappa(true: np.ndarray, given: np.ndarray, grades: int) -> Additive:
    """Squared differences over those of pairs by chance."""
    one_hot, distance = np.eye(grades), (np.arange(grades)[:, None] - np.arange(grades)) ** 2.0
    parts_NP = np.concatenate([((true - given) ** 2.0)[:, None], one_hot[true], one_hot[given]], -1)

    def of(sums: np.ndarray) -> np.ndarray:
        of_true, of_given = sums[:, 1 : grades + 1], sums[:, grades + 1 :]
        by_chance = np.einsum("ri,ij,rj->r", of_true, distance, of_given) / of_true.sum(-1)
        return np.where(by_chance > 0, 1 - sums[:, 0] / np.where(by_chance > 0, by_chance, 1), np.nan)

    return Additive(parts_NP, of)
