"""What a single column tells of an outcome: a model may have learned no more than that, or than what is missing."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.apps.medicine.cases import LARGEST
from train.tasks.metrics.binary import auc

FOLDS = 5
BINS = 4
"""Of a column of numbers, by its quartiles."""
NAMES = 20
"""A column of more different texts is no classification, but tells cases apart."""


def mean_area(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """The mean of the areas of all classes, each against the others (Provost & Domingos 2001, unweighted): 0.5 by chance, whatever their
    shares. NaN where all have one label."""
    scores_NC = np.asarray(scores_NC)
    areas = [auc(labels_N == one, scores_NC[:, one]) for one in range(scores_NC.shape[1])]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def probe(columns: Sequence[Sequence[Any]], labels_N: np.ndarray, owners_N: Sequence[Any], classes: int) -> float:
    """`mean_area` of labels by these columns alone, as a naive Bayes classifier learns from them on four fifths of the owners and tells
    them of the others. columns: of each the cases' entries. owners_N: cases of one are never apart."""
    labels = np.asarray(labels_N)
    fold = np.unique(np.asarray(owners_N), return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(fold.max() + 1) % FOLDS
    held = order[fold]
    scores_NC = np.zeros((len(labels), classes))
    for one in range(FOLDS):
        learned = np.flatnonzero(held != one).tolist()
        of_class = np.bincount(labels[learned], minlength=classes)
        for column in columns:
            seen = Counter((column[place], int(labels[place])) for place in learned)
            entries = Counter(column[place] for place in learned)
            for place in np.flatnonzero(held == one).tolist():
                if not entries[column[place]]:  # which says nothing
                    continue
                share = entries[column[place]] / len(learned)
                counts = np.array([seen[column[place], number] for number in range(classes)])
                scores_NC[place] += np.log((counts + share) / (of_class + 1)) - np.log(share)
    return mean_area(scores_NC, labels)


def binned(numbers: Sequence[float | None]) -> list[int]:
    """The quarter of each number among them; -1 for none."""
    known = np.clip([number for number in numbers if number is not None], -LARGEST, LARGEST)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else []
    return [-1 if number is None else int(np.searchsorted(edges, number, side="right")) for number in numbers]
