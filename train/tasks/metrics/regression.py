"""Numbers: scores, grades and similarities."""

import warnings
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Scores, check_pairs, load


def regression(truth: Sequence[float], predicted: Sequence[float]) -> Scores:
    """Correlation (Pearson's, Spearman's), root mean square error and mean absolute error.

    Where all truths are whole numbers, as grades are, also the quadratic weighted kappa (Cohen 1968) of predictions that are rounded to the
    nearest grade between the lowest true one and the highest. NaN: a correlation where all values are the same.
    """
    check_pairs(truth, predicted)
    stats = load("scipy.stats", "scipy")
    true, given = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant values, whose correlation is NaN
        pearson, spearman = (
            (float(correlate(true, given).statistic) if len(true) > 1 else float("nan")) for correlate in (stats.pearsonr, stats.spearmanr)
        )
    values = {
        "pearson": pearson,
        "spearman": spearman,
        "rmse": float(np.sqrt(((given - true) ** 2).mean())),
        "mae": float(np.abs(given - true).mean()),
    }
    if (true == np.rint(true)).all():
        grades = np.arange(int(true.min()), int(true.max()) + 1)
        rounded = np.clip(np.rint(given), grades[0], grades[-1])
        kappa = load("sklearn.metrics", "scikit-learn").cohen_kappa_score
        alone = len(grades) == 1
        values["quadratic_kappa"] = float("nan") if alone else float(kappa(true, rounded, labels=grades, weights="quadratic"))
    return Scores(values)
