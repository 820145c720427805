"""What a number would be on other cases of the same kind: the noise of rows that no seed enters."""

from collections.abc import Callable, Sequence

import numpy as np

from train.tasks.metrics.bootstrap import resamples_of

DRAWS = 400


def drawn(count: int, score: Callable[[np.ndarray], float], groups: Sequence | None = None) -> list[float]:
    """The score of cases that are drawn from `count` with replacement, DRAWS times (Efron and Tibshirani 1993, ch. 13). score: of cases
    with these places. For the same count the same places are drawn, so that what two rows say of the same cases can be compared.

    groups: of each case, such as the text that it is about; groups are then drawn whole, since cases of one are alike.

    A row's last command says them under `draws`, by the metric's path.
    """
    return [round(float(score(places)), 6) for places in resamples_of(count, DRAWS, groups=groups)]


def drawn_mean(values: Sequence[float] | np.ndarray, groups: Sequence | None = None) -> list[float]:
    """The same for the mean of a value of each case."""
    values_N = np.asarray(values, np.float64)
    return drawn(len(values_N), lambda places: values_N[places].mean(), groups)
