"""What a metric gives."""

import importlib
from collections.abc import Sized
from typing import Any, NamedTuple

from data.errors import UserError

LOWER_IS_BETTER = frozenset({"ece_10", "ece_15", "brier", "rmse", "mae", "wer", "cer"})
"""Of these values less is better, of all others more."""


class Scores(NamedTuple):
    """values: numbers by name. tables: rows by name, each a dict of the same columns. NaN is a value that these examples do not define."""

    values: dict[str, float]
    tables: dict[str, list[dict[str, Any]]] = {}


def load(module: str, package: str) -> Any:
    """A module of a library that computes metrics."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"These metrics need the package {package}.", "pip install 'omnia[metrics]'") from None


def check_pairs(truth: Sized, predicted: Sized) -> None:
    """ValueError unless there are examples, and as many predictions as truths."""
    if not len(truth) or len(truth) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions of {len(truth)} examples")
