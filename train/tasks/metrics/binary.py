"""Measures of probabilities of yes or no."""

from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import check_pairs


def auc(true_N: Sequence[bool] | np.ndarray, given_N: Sequence[float] | np.ndarray) -> float:
    """Area under the ROC curve: how often a yes has the larger value of a yes and a no, ties counting half (Hanley and McNeil 1982). NaN
    where there is but one of the two."""
    check_pairs(true_N, given_N)
    true, given = np.asarray(true_N, bool), np.asarray(given_N, np.float64)
    yes, no = int(true.sum()), int((~true).sum())
    if not yes or not no:
        return float("nan")
    _, place, counts = np.unique(given, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of equals the mean one, from 1
    return float((rank[true].sum() - yes * (yes + 1) / 2) / (yes * no))
