"""Objectives: what a step minimises, one small file each.

An objective is a frozen dataclass, its modules and options bound when it is made, with a pure call

    objective(params, batch, key, *, frozen=None, carry=None) -> terms, metrics, carry

terms: name -> Term; the loss is the sum over terms of coefficient * sum / weight, both totals over the *global* batch. Weights depend on
the batch and key only, never on params. metrics: name -> Mean. key: a random key, or None for a deterministic pass (evaluation).
frozen: arrays that are read but not trained. carry: what one step hands the next. `unit` names what the sums run over.
"""

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
