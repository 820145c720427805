"""How far the probabilities of a classifier can be trusted, and when it had better say nothing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NEVER = 2.0
"""A threshold that no probability reaches."""
FLATTENED = 2.0
"""Temperature of the probabilities whose entropy tells what a classifier never learned from. It was chosen on the questions of the table
service_at_work; from 1.5 to 3 they are told about as well."""
_GOLDEN = (np.sqrt(5) - 1) / 2


def temperature(probabilities_NV: np.ndarray, labels_N: np.ndarray) -> float:
    """What the logits are best divided by, between 1/20 and 20, so that probabilities are right as often as they say (Guo et al. 2017,
    sec. 4.2): the log-likelihood of labels is concave in its inverse. 1 where there is nothing to learn from."""
    if not len(labels_N):
        return 1.0
    logits_NV = np.log(np.maximum(np.asarray(probabilities_NV, np.float64), 1e-12))

    def loss(inverse: float) -> float:
        scaled_NV = logits_NV * inverse
        most_N = scaled_NV.max(-1)
        total_N = np.log(np.exp(scaled_NV - most_N[:, None]).sum(-1)) + most_N
        return float((total_N - scaled_NV[np.arange(len(labels_N)), labels_N]).mean())

    low, high = 0.05, 20.0
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return 2 / (low + high)


def tempered(probabilities_NV: np.ndarray, by: float) -> np.ndarray:
    """float64 [N, V]: the probabilities after their logits were divided by a temperature."""
    logits_NV = np.log(np.maximum(np.asarray(probabilities_NV, np.float64), 1e-12)) / by
    weights_NV = np.exp(logits_NV - logits_NV.max(-1, keepdims=True))
    return weights_NV / weights_NV.sum(-1, keepdims=True)


def log_odds(p: Any) -> Any:
    """Of probabilities, which count as 1e-9 from 0 and from 1 at least."""
    p = np.clip(np.asarray(p, np.float64), 1e-9, 1 - 1e-9)  # in float32 the latter is 1
    return np.log(p) - np.log1p(-p)


def familiarity(probabilities_NV: np.ndarray) -> np.ndarray:
    """float64 [N], 0 to 1: how far one label stands out, and how few stand out with it. 1 less the entropy over that of V equal labels, of
    probabilities flattened by a temperature as Liang et al. (2018, eq. 1) flatten them.

    Of questions to an assistant (CLINC150) those about nothing that was learned were told by it better than by the largest probability,
    which looks at one label alone; whether a label is the right one was told better by that.
    """
    flat_NV = tempered(probabilities_NV, FLATTENED)
    entropy_N = -(flat_NV * np.log(np.maximum(flat_NV, 1e-300))).sum(-1)
    return np.clip(1 - entropy_N / np.log(max(flat_NV.shape[-1], 2)), 0, 1)


def threshold(confidence_N: np.ndarray, right_N: np.ndarray, precision: float) -> float:
    """The lowest confidence from which on answers are right at least so often; NEVER where they are not from any. Answers of equal
    confidence are given or held back together."""
    order = np.argsort(-np.asarray(confidence_N), kind="stable")
    confidence, right = np.asarray(confidence_N)[order], np.asarray(right_N, bool)[order]
    precise = np.cumsum(right) / np.arange(1, len(right) + 1) >= precision
    last_of_equals = np.append(confidence[:-1] > confidence[1:], True)[: len(confidence)]
    fitting = np.flatnonzero(precise & last_of_equals)
    return float(confidence[fitting[-1]]) if len(fitting) else NEVER


def coverage(confidence_N: np.ndarray, right_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share answered, precision of what is answered), each [N]: of the most confident answer alone, the two most confident, and so on."""
    right = np.asarray(right_N, bool)[np.argsort(-np.asarray(confidence_N), kind="stable")]
    counts = np.arange(1, len(right) + 1)
    return counts / max(len(right), 1), np.cumsum(right) / counts


class Calibration(NamedTuple):
    """What held-out answers tell of a classifier. probabilities_NV: theirs, tempered; confidence_N, right_N: of the likeliest label."""

    temperature: float
    probabilities_NV: np.ndarray
    confidence_N: np.ndarray
    right_N: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[np.ndarray], labels_N: np.ndarray, *, few: int = 0) -> "Calibration":
        """answers: probabilities of each. few: so many answers count half, by the logarithm of their temperature, which is then never below
        1: those that all happen to be right are no reason for more confidence than the model has, and few that are wrong none for doubt.
        0: they count as they are."""
        by = temperature(np.stack(answers), labels_N)
        if few:
            by = max(by, 1.0) ** (len(labels_N) / (len(labels_N) + few))
        probabilities_NV = tempered(np.stack(answers), by)
        return cls(by, probabilities_NV, probabilities_NV.max(-1), probabilities_NV.argmax(-1) == labels_N)

    @property
    def curve(self) -> list[list[float]]:
        """[share answered, precision], at 101 places at most."""
        share, precise = coverage(self.confidence_N, self.right_N)
        points = np.unique(np.linspace(0, len(share) - 1, 101).astype(int))
        return [[float(share[point]), float(precise[point])] for point in points]


def conformal(errors_N: np.ndarray, coverage: float) -> float:
    """What an error of a further answer stays within with at least this probability, given errors of answers that were held out: split
    conformal prediction (Lei et al. 2018, algorithm 2). Infinite where there are too few of them to say."""
    place = max(int(np.ceil((len(errors_N) + 1) * coverage)) - 1, 0)
    return float(np.sort(np.asarray(errors_N, np.float64))[place]) if place < len(errors_N) else float("inf")
