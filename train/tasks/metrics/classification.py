"""Classes: right and wrong ones, and whether probabilities are what they say (calibration)."""

import warnings
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Additive, Scores, check_pairs, load, mean_of, ratio_of

BINS = (10, 15)


def classification_scores(truth_N: Sequence[int] | np.ndarray, probabilities_NC: np.ndarray, names: Sequence[str]) -> Scores:
    """Accuracy, F1 (macro, micro, weighted; 0 to 1), Matthews' correlation (mcc, -1 to 1), and calibration: see `choice_scores`.

    truth_N: classes, indices of `names`. As in scikit-learn, macro F1 is the mean over classes that occur in either truth or answers, and
    the precision of a class that is never answered is 0. Tables: `per_class`, `confusion` (a row for each true class) and `calibration`.
    """
    check_pairs(truth_N, probabilities_NC)
    truth, answers = np.asarray(truth_N), np.asarray(probabilities_NC).argmax(-1)
    metrics = load("sklearn.metrics", "scikit-learn")
    values = {
        f"{kind}_f1": float(metrics.f1_score(truth, answers, average=kind, zero_division=0)) for kind in ("macro", "micro", "weighted")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class, for which it is 0
        values["mcc"] = float(metrics.matthews_corrcoef(truth, answers))
    scores = choice_scores(truth, probabilities_NC)
    counts = class_counts(truth, answers, len(names))
    of = {"macro_f1": _macro_f1, "weighted_f1": _weighted_f1, "mcc": _mcc}
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (truth, answers), 1)
    rows = [{"true": name, "answers": dict(zip(names, map(int, row), strict=True))} for name, row in zip(names, matrix, strict=True)]
    each = per_class(matrix.diagonal(), matrix.sum(0), matrix.sum(1), names)
    return Scores(
        {"accuracy": scores.values["accuracy"]} | values | scores.values,
        {"per_class": each, "confusion": rows} | scores.tables,
        {**scores.measures, **{name: Additive(counts, one) for name, one in of.items()}, "micro_f1": scores.measures["accuracy"]},
    )


def choice_scores(truth_N: Sequence[int] | np.ndarray, probabilities: Sequence[np.ndarray] | np.ndarray) -> Scores:
    """Accuracy, expected calibration error in 10 and 15 bins (Guo et al. 2017, eq. 3), and Brier's score (Brier 1950, eq. 2: 0 to 2).

    probabilities: of each example those of its own choices, of which truth_N counts the right one. The confidence of an answer is its
    probability. Table: `calibration`, of 15 bins those that are not empty.
    """
    check_pairs(truth_N, probabilities)
    right = np.array([float(np.argmax(each) == true) for each, true in zip(probabilities, truth_N, strict=True)])
    confidence = np.array([np.max(each) for each in probabilities], np.float64)
    brier = [float(((np.asarray(p, np.float64) - np.eye(len(p))[true]) ** 2).sum()) for p, true in zip(probabilities, truth_N, strict=True)]
    curves = {bins: calibration_curve(confidence, right, bins) for bins in BINS}
    errors = {
        f"ece_{bins}": sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(right)
        for bins, rows in curves.items()
    }
    values = {"accuracy": float(right.mean()), **errors, "brier": float(np.mean(brier))}
    measures = {"accuracy": mean_of(right), "brier": mean_of(brier)}
    measures |= {f"ece_{bins}": _calibration_error(confidence, right, bins) for bins in BINS}
    return Scores(values, {"calibration": curves[BINS[-1]]}, measures)


def _calibration_error(confidence_N: np.ndarray, right_N: np.ndarray, bins: int) -> Additive:
    """The sum over bins of |right ones - confidence|, over the number of examples: which is the expected calibration error."""
    place_NB = np.eye(bins)[_bins(confidence_N, bins)]
    parts = [place_NB * (right_N - confidence_N)[:, None], np.ones((len(right_N), 1))]
    return Additive(np.concatenate(parts, -1), lambda sums: np.abs(sums[:, :-1]).sum(-1) / sums[:, -1])


def _bins(confidence_N: np.ndarray, bins: int) -> np.ndarray:
    """The number of the bin (low, high] that each falls in."""
    return np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)


def calibration_curve(confidence_N: np.ndarray, right_N: np.ndarray, bins: int) -> list[dict]:
    """Of the bins (low, high] of confidence that hold examples: their number, mean confidence and accuracy."""
    place = _bins(confidence_N, bins)
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "confidence": float(confidence_N[place == number].mean()),
            "accuracy": float(right_N[place == number].mean()),
            "count": int((place == number).sum()),
        }
        for number in np.unique(place)
    ]


def several_labels_scores(truth_NC: np.ndarray, probabilities_NC: np.ndarray, names: Sequence[str], threshold: float = 0.5) -> Scores:
    """F1 over all decisions (micro_f1), the mean F1 of the labels that occur (macro_f1), and the share of examples with exactly the true
    labels (subset_accuracy). truth_NC: 1 for the labels of an example. Answered are those of at least `threshold`. Tables: `per_class`; and
    `calibration`, of the probability of each label of each example, and how often it holds.
    """
    check_pairs(truth_NC, probabilities_NC)
    metrics = load("sklearn.metrics", "scikit-learn")
    true, claimed = np.asarray(truth_NC) > 0.5, np.asarray(probabilities_NC) >= threshold
    there = (true | claimed).any(0)
    same = (true == claimed).all(-1)
    values = {"subset_accuracy": float(same.mean())}
    for kind in ("micro", "macro"):
        shown = (true[:, there], claimed[:, there])
        values[f"{kind}_f1"] = float(metrics.f1_score(*shown, average=kind, zero_division=0)) if there.any() else 0.0
    hits, both = (true & claimed).sum(-1), true.sum(-1) + claimed.sum(-1)
    measures = {
        "subset_accuracy": mean_of(same),
        "micro_f1": ratio_of(2 * hits, both),
        "macro_f1": Additive(np.concatenate([true & claimed, claimed, true], -1).astype(np.float64), _macro_f1),
    }
    tables = {"per_class": per_class((true & claimed).sum(0), claimed.sum(0), true.sum(0), names)}
    tables["calibration"] = calibration_curve(np.asarray(probabilities_NC).reshape(-1), true.reshape(-1), BINS[0])
    return Scores(values, tables, measures)


def per_class(found: np.ndarray, claimed: np.ndarray, true: np.ndarray, names: Sequence[str]) -> list[dict]:
    """A row for each class, of how many are found, answered and true."""
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


def class_counts(truth: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """What each example adds to the counts of classes, [N, 3 C]: is each one found, answered, true."""
    true, claimed = np.eye(classes)[truth], np.eye(classes)[answers]
    return np.concatenate([true * claimed, claimed, true], -1)


def _class_f1(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1 of each class, whether it occurs, and how often."""
    found, claimed, true = np.split(sums, 3, -1)
    there = claimed + true > 0
    return 2 * found / np.where(there, claimed + true, 1), there, true


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    f1, there, _ = _class_f1(sums)
    return f1.sum(-1) / np.maximum(there.sum(-1), 1)


def _weighted_f1(sums: np.ndarray) -> np.ndarray:
    f1, _, true = _class_f1(sums)
    return (f1 * true).sum(-1) / true.sum(-1)


def _mcc(sums: np.ndarray) -> np.ndarray:
    """Of several classes (Gorodkin 2004)."""
    found, claimed, true = np.split(sums, 3, -1)
    count = true.sum(-1)
    shared = found.sum(-1) * count - (claimed * true).sum(-1)
    square = (count**2 - (claimed**2).sum(-1)) * (count**2 - (true**2).sum(-1))
    return np.where(square > 0, shared / np.sqrt(np.maximum(square, 1e-300)), 0.0)
