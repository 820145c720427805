"""Several objectives on one model, added up."""

import dataclasses
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from data.errors import UserError
from train.experiment import Experiment
from train.kinds import Bound, Path, realise
from train.objectives.terms import Mean
from train.objectives.text.options import Sum


@dataclasses.dataclass(frozen=True)
class SumLoss:
    """L = sum over objectives of coefficient * loss, each with weights of its own; all see the same batch, with keys of their own.

    Terms and metrics: those of each, its name in front. `loss`, a metric: that of the first, and `tokens` its number of tokens.
    """

    losses: tuple[Any, ...]
    names: tuple[str, ...]
    coefficients: tuple[float, ...]

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        terms, metrics = {}, {}
        for number, (loss, name, coefficient) in enumerate(zip(self.losses, self.names, self.coefficients, strict=True)):
            own = None if key is None else jax.random.fold_in(key, number)
            more, measured, _ = loss(params, batch, own, frozen=frozen)
            if not number:
                first = more["loss"]
                metrics = {"loss": Mean(first.total, first.weight), "tokens": measured.get("tokens", Mean(first.weight, first.weight))}
            terms |= {f"{name}/{part}": term._replace(coefficient=coefficient * term.coefficient) for part, term in more.items()}
            metrics |= {f"{name}/{part}": mean for part, mean in measured.items() if part not in ("tokens", "unsound")}
            if "unsound" in measured:
                before = metrics.get("unsound", Mean(jnp.float32(0), jnp.float32(0)))
                metrics["unsound"] = Mean(*(a + b for a, b in zip(before, measured["unsound"], strict=True)))
        return terms, metrics, carry


def merged(trees: list[tuple[str, Any]], path: Path = ()) -> Any:
    """One tree of parameters of several, those of equal names being one; UserError where they are not of the same shape."""
    name, first = trees[0]
    for other, tree in trees[1:]:
        if isinstance(first, dict) != isinstance(tree, dict) or (not isinstance(first, dict) and _shape(first) != _shape(tree)):
            raise UserError(
                f"objective Sum: {name} and {other} both have parameters {'/'.join(path)}, of different shapes",
                "Leave one of the two out.",
            )
    if not isinstance(first, dict):
        return first
    keys = dict.fromkeys(key for _, tree in trees for key in tree)
    return {key: merged([(name, tree[key]) for name, tree in trees if key in tree], (*path, key)) for key in keys}


def _shape(leaf) -> tuple:
    return tuple(nn.unbox(leaf).shape), getattr(leaf, "names", None)


def names_of(options: Sum) -> tuple[str, ...]:
    """A name of each objective: its class in lower case, numbered where there are several of it."""
    found: list[str] = []
    for one in options.objectives:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(one).__name__).lower()
        found.append(name if name not in found else f"{name}_{sum(other.startswith(name) for other in found) + 1}")
    return tuple(found)


def bind(options: Sum, experiment: Experiment, shards: int) -> Bound:
    bounds = [realise(one, dataclasses.replace(experiment, objective=one), shards) for one in options.objectives]
    names = names_of(options)
    if any(bound.refresh or bound.inherit for bound in bounds):
        raise UserError("objective Sum: one of its objectives changes parameters by itself", "Leave it out.")
    for one, bound in zip(options.objectives, bounds, strict=True):
        if bound.carry is not None:
            raise UserError(f"objective Sum: {type(one).__name__} carries something from batch to batch", "Train it by itself.")

    def start(key):
        return merged([(name, bound.start(key)) for name, bound in zip(names, bounds, strict=True)])

    return Bound(
        SumLoss(tuple(bound.loss for bound in bounds), names, options.coefficients or (1.0,) * len(bounds)),
        start=start,
        parts={part: path for bound in bounds for part, path in bound.parts.items()},
        reference=tuple(dict.fromkeys(name for bound in bounds for name in bound.reference)),
        outputs=bounds[0].outputs,
    )
