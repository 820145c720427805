"""What a metric gives: values, tables, and how sure the values are."""

import importlib
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from train.tasks.metrics.bootstrap import bootstrap, bootstrap_sums

LOWER_IS_BETTER = frozenset({"ece_10", "ece_15", "brier", "rmse", "mae", "wer", "cer", "spoiled", "contradicting"})
"""Of these values less is better, of all others more."""


class Additive(NamedTuple):
    """A value that depends on sums over examples alone. parts_NP: what each example adds. of: sums [R, P] to values [R]."""

    parts_NP: np.ndarray
    of: Callable[[np.ndarray], np.ndarray]


class Drawn(NamedTuple):
    """Any other value. examples: their number. of: from their indices, each any number of times, to the value."""

    examples: int
    of: Callable[[np.ndarray], float]


class Scores(NamedTuple):
    """values: numbers by name; NaN is a value that these examples do not define. tables: rows by name, each a dict of the same columns.

    measures: how values follow from the examples, of those that have intervals.
    """

    values: dict[str, float]
    tables: dict[str, list[dict[str, Any]]] = {}
    measures: Mapping[str, Additive | Drawn] = {}

    def intervals(self, *, level: float = 0.95, groups: Sequence | None = None) -> dict[str, list[float]]:
        """{name: [low, high]} of the values with a measure, as `bootstrap` finds them."""
        found = {}
        for name, one in self.measures.items():
            if isinstance(one, Additive):
                found[name] = list(bootstrap_sums(one.parts_NP, one.of, level=level, groups=groups))
            else:
                found[name] = list(bootstrap(one.of, one.examples, level=level, groups=groups))
        return found


def mean_of(values_N: Sequence[float] | np.ndarray) -> Additive:
    """The mean of a value of each example."""
    return ratio_of(values_N, np.ones(len(values_N)))


def ratio_of(above_N: Sequence[float] | np.ndarray, below_N: Sequence[float] | np.ndarray) -> Additive:
    """The sum of one value over the sum of another; 0 where that is 0."""
    parts_NP = np.stack([np.asarray(above_N, np.float64), np.asarray(below_N, np.float64)], -1)
    return Additive(parts_NP, lambda sums: np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1e-300), 0.0))


def load(module: str, package: str) -> Any:
    """A module of a library that computes metrics, or tells what they count."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"This needs the package {package}.", "pip install 'omnia[metrics]'") from None


def check_pairs(truth: Sized, predicted: Sized) -> None:
    """ValueError unless there are examples, and as many predictions as truths."""
    if not len(truth) or len(truth) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions of {len(truth)} examples")
