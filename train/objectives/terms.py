"""What an objective returns, in the form that adds up exactly over micro-batches and devices."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Term(NamedTuple):
    """A part of the loss: coefficient * total / weight. `coefficient` is a plain number; total and weight are float32 scalars."""

    coefficient: float
    total: Any
    weight: Any


class Mean(NamedTuple):
    """A metric that is averaged over tokens, examples or devices: total / weight."""

    total: Any
    weight: Any


def means(totals: Mapping[str, Any]) -> dict[str, float]:
    """{name: total / weight} of each (total, weight) that was measured at all: a mean over nothing is no 0, which would look perfect."""
    return {name: float(total) / float(weight) for name, (total, weight) in totals.items() if float(weight)}
