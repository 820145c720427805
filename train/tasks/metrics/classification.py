"""One class of several: right and wrong ones, and whether probabilities are what they say (calibration)."""

import warnings
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Scores, check_pairs, load


def classification(truth: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> Scores:
    """Accuracy, F1 (macro, micro, weighted) and Matthews' correlation coefficient, from 0 to 1 (mcc: -1 to 1).

    truth, predicted: classes, indices of `names`. As in scikit-learn, macro F1 is the mean over classes that occur in either; precision
    of a class that is never predicted is 0. Tables: `per_class` and `confusion` (a row for each true class).
    """
    check_pairs(truth, predicted)
    metrics = load("sklearn.metrics", "scikit-learn")
    values = {"accuracy": float(metrics.accuracy_score(truth, predicted))}
    for average in ("macro", "micro", "weighted"):
        values[f"{average}_f1"] = float(metrics.f1_score(truth, predicted, average=average, zero_division=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class, for which it is 0
        values["mcc"] = float(metrics.matthews_corrcoef(truth, predicted))
    matrix = confusion_matrix(truth, predicted, len(names))
    rows = [{"true": name, **dict(zip(names, map(int, row), strict=True))} for name, row in zip(names, matrix, strict=True)]
    return Scores(values, {"per_class": per_class(matrix.diagonal(), matrix.sum(0), matrix.sum(1), names), "confusion": rows})


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Counts [true class, predicted class]."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(truth), np.asarray(predicted)), 1)
    return matrix


def class_counts(truth: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """What each example adds to the counts of F1, [N, 3 C]: is each class found, predicted, true. `bootstrap_sums` takes it."""
    one_hot = np.eye(classes)
    true, claimed = one_hot[np.asarray(truth)], one_hot[np.asarray(predicted)]
    return np.concatenate([true * claimed, claimed, true], -1)


def macro_f1_of(sums: np.ndarray) -> np.ndarray:
    """Macro F1 from sums of `class_counts`, [..., 3 C]. Classes that do not occur are left out."""
    found, claimed, true = np.split(sums, 3, -1)
    there = claimed + true > 0
    return (2 * found / np.where(there, claimed + true, 1)).sum(-1) / there.sum(-1)


def per_class(found: np.ndarray, claimed: np.ndarray, true: np.ndarray, names: Sequence[str]) -> list[dict]:
    """A row for each class, of how many are found, predicted and true."""
    return [
        {
            "class": name,
            "precision": float(hit / max(guess, 1)),
            "recall": float(hit / max(there, 1)),
            "f1": float(2 * hit / max(guess + there, 1)),
            "count": int(there),
        }
        for name, hit, guess, there in zip(names, found, claimed, true, strict=True)
    ]


def calibration(truth: Sequence[int], probabilities: np.ndarray) -> Scores:
    """Expected calibration error in 10 and 15 bins (Guo et al. 2017, eq. 3), and Brier's score (Brier 1950, eq. 2: 0 to 2).

    probabilities: [N, C]. The confidence of an example is its highest one. Table: `calibration`, the 15 bins that are not empty.
    """
    check_pairs(truth, probabilities)
    probabilities = np.asarray(probabilities, np.float64)
    errors = probabilities.copy()
    errors[np.arange(len(truth)), np.asarray(truth)] -= 1
    curves = {bins: calibration_curve(truth, probabilities, bins) for bins in (10, 15)}
    values = {
        f"ece_{bins}": sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(truth)
        for bins, rows in curves.items()
    }
    return Scores(values | {"brier": float((errors**2).sum(-1).mean())}, {"calibration": curves[15]})


def calibration_curve(truth: Sequence[int], probabilities: np.ndarray, bins: int) -> list[dict]:
    """Of the bins (low, high] of confidence that hold examples: their number, mean confidence and accuracy."""
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == np.asarray(truth)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(right[place == number].mean()),
            "count": int((place == number).sum()),
        }
        for number in np.unique(place)
    ]


def several_labels(truth: Sequence[Sequence[int]], predicted: Sequence[Sequence[int]], names: Sequence[str]) -> Scores:
    """F1 over all decisions (micro) and the mean of those of the classes that occur (macro), and how many examples have exactly the true
    labels (subset_accuracy). truth, predicted: the labels of each example, indices of `names`; none is possible. Table: `per_class`.
    """
    check_pairs(truth, predicted)
    metrics = load("sklearn.metrics", "scikit-learn")
    true, claimed = (_marks(labels, len(names)) for labels in (truth, predicted))
    there = (true | claimed).any(0)
    values = {"subset_accuracy": float(metrics.accuracy_score(true, claimed))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without any example, whose F1 is said to be 0 below
        for average in ("micro", "macro"):
            score = metrics.f1_score(true[:, there], claimed[:, there], average=average, zero_division=0) if there.any() else 0.0
            values[f"{average}_f1"] = float(score)
    return Scores(values, {"per_class": per_class((true & claimed).sum(0), claimed.sum(0), true.sum(0), names)})


def _marks(labels: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    marks = np.zeros((len(labels), classes), bool)
    for row, chosen in zip(marks, labels, strict=True):
        row[list(chosen)] = True
    return marks
