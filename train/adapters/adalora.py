"""AdaLoRA: terms of low rank as singular values and vectors, of which the less important are set to zero while training."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from train.adapters.low_rank import NAME, Factored
from train.adapters.method import FLOAT, at, found_at, key_of, projections
from train.adapters.options import AdaLoRA
from train.kinds import Path
from train.objectives.terms import Mean, Term
from train.runs.parts import get, put

ORTHONORMAL = jax.nn.initializers.orthogonal()
"""Singular vectors at the start: drawn as in the paper's code they are so short that a value of theirs hardly changes the kernel."""


class SingularTerms(Factored):
    """AdaLoRA (Zhang et al. 2023, eq. 3): W + scale * left diag(values) right, the values being zero at the start.

    Leaves: left [inputs, r], values [r], right [r, outputs]. A triplet is a value with its column of `left` and its row of `right`.
    """

    options: AdaLoRA

    def fresh(self, key, boxed):
        found, rank = {}, self.options.initial_rank
        for one in projections(boxed, self.options.targets):
            place, (into, out) = (*one.path[:-1], NAME), one.names[-2:]
            first, second = jax.random.split(key_of(key, one.path))
            found[*place, "left"] = one.box(ORTHONORMAL(first, (*one.stack, one.inputs, rank), FLOAT), into, None)
            found[*place, "values"] = one.box(jnp.zeros((*one.stack, rank), FLOAT), None)
            found[*place, "right"] = one.box(ORTHONORMAL(second, (*one.stack, rank, one.outputs), FLOAT), None, out)
        return found

    def read(self, base, trained, key=None):
        scale = self.options.alpha / self.options.rank

        def factors(leaf):
            return {"a": leaf["left"], "b": scale * leaf["values"][..., None] * leaf["right"]}

        return at(trained, NAME, factors)

    def terms(self, trained):
        """How far the factors are from orthogonal: `deviation`."""
        if not self.options.orthogonality:
            return {}
        return {"orthogonality": Term(self.options.orthogonality, deviation(trained), jnp.float32(1))}

    def metrics(self, opt_state):
        """rank/PROJECTION: how many of its values stayed at the last choice, as a mean over layers; rank: of all projections."""
        found: dict[str, tuple] = {}
        for path, mask in flatten_dict(opt_state.mask).items():
            name = f"rank/{'/'.join(path[-2:])}"
            total, weight = found.get(name, (0.0, 0))
            found[name] = total + mask.sum(), weight + mask.size // mask.shape[-1]
        total, weight = (sum(part) for part in zip(*found.values(), strict=True))
        return {name: Mean(*map(jnp.float32, mean)) for name, mean in (found | {"rank": (total, weight)}).items()}

    def optimizer(self, inner, steps):
        return budgeted(inner, self.options, steps)


def deviation(trained):
    """How far the factors are from orthogonal (eq. 4): the mean over projections of both squared Frobenius norms.

    The paper's code takes the norms themselves, whose gradient is as large near the optimum as far from it, and drowns that of the loss.
    """
    found = []
    for leaf in found_at(trained, NAME).values():
        left, right, unit = leaf["left"], leaf["right"], jnp.eye(leaf["values"].shape[-1])
        products = jnp.swapaxes(left, -1, -2) @ left, right @ jnp.swapaxes(right, -1, -2)
        found.append(sum(jnp.square(product - unit).sum((-2, -1)) for product in products))
    return sum(one.sum() for one in found) / sum(one.size for one in found)


def budget_at(step, options: AdaLoRA, projections: int, steps: int):
    """How many triplets of all projections stay after update `step`, counted from 0 (eq. 10): all at first, then by a cubic down to
    rank * projections, which it is in the last `final` share of the steps."""
    first, last = options.initial_rank * projections, options.rank * projections
    begin, end = (math.floor(share * steps) for share in (options.warmup, 1.0 - options.final))
    left = 1.0 - jnp.clip((step - begin) / max(1, end - begin), 0.0, 1.0)
    return jnp.int32(jnp.round(last + (first - last) * left**3))


class Allocation(NamedTuple):
    """The state of `budgeted`: that of the optimizer within, updates done, and for each leaf the means of its sensitivity and of how
    uncertain that is (eq. 8-9); mask: for the values of each projection, 1 for those that stayed at the last choice."""

    inner: Any
    step: Any
    sensitivity: Any
    uncertainty: Any
    mask: Any


def budgeted(inner: optax.GradientTransformation, options: AdaLoRA, steps: int) -> optax.GradientTransformation:
    """The optimizer `inner`, after which the values of all but the most important triplets are zero (algorithm 1).

    It sees gradients before they are clipped. What matters is what the loss says: the regulariser's part of a gradient, often the larger
    one, is left out. Exactly as many triplets stay as the budget says: of equal ones the first. Every `every` updates they are chosen anew,
    and one that was set to zero may come back; from the beginning of the last phase on the choice stands, and what is zero stays zero.
    """
    end = math.floor((1.0 - options.final) * steps)

    def terms(tree):
        return unflatten_dict({path: leaf for path, leaf in flatten_dict(tree).items() if NAME in path})

    def init(params):
        own = terms(params)
        zeros, again = (jax.tree.map(jnp.zeros_like, own) for _ in range(2))
        mask = {path: jnp.ones_like(leaf["values"]) for path, leaf in found_at(nn.unbox(own), NAME).items()}
        return Allocation(inner.init(params), jnp.int32(0), zeros, again, unflatten_dict(mask))

    def update(gradients, state, params):
        own = terms(params)
        regular = jax.grad(deviation)(own)
        now = jax.tree.map(
            lambda weight, gradient, other: jnp.abs(weight * (gradient - options.orthogonality * other)), own, terms(gradients), regular
        )
        sensitivity = jax.tree.map(lambda mean, new: options.beta1 * mean + (1 - options.beta1) * new, state.sensitivity, now)
        uncertainty = jax.tree.map(
            lambda mean, new, old: options.beta2 * mean + (1 - options.beta2) * jnp.abs(new - old), state.uncertainty, now, sensitivity
        )
        updates, within = inner.update(gradients, state.inner, params)
        scores = found_at(jax.tree.map(jnp.multiply, sensitivity, uncertainty), NAME)
        chosen = most_important({path: triplet_scores(leaf) for path, leaf in scores.items()}, options, state.step, steps)
        due = (state.step <= end) & ((state.step % options.every == 0) | (state.step == end))
        mask = jax.tree.map(lambda new, old: jnp.where(due, new, old), unflatten_dict(chosen), state.mask)
        held = due | (state.step > end)  # between two choices, values that were set to zero are trained, and so may win the next
        for path in scores:
            place = (*path, NAME, "values")
            goes = held & (get(mask, path) == 0)
            updates = put(updates, place, jnp.where(goes, -get(params, place), get(updates, place)))
        return updates, Allocation(within, state.step + 1, sensitivity, uncertainty, mask)

    return optax.GradientTransformation(init, update)


def triplet_scores(leaf):
    """[..., r]: how important each triplet is (eq. 7): the score of its value and the mean scores of both vectors."""
    return leaf["values"] + leaf["left"].mean(-2) + leaf["right"].mean(-1)


def most_important(scores: dict[Path, Any], options: AdaLoRA, step, steps: int) -> dict[Path, Any]:
    """1 for the triplets of highest score in all projections together, as many as the budget of a step; of equal ones the first."""
    flat = jnp.concatenate([score.reshape(-1) for score in scores.values()])
    count = budget_at(step, options, flat.size // options.initial_rank, steps)
    order = jnp.argsort(-flat, stable=True)
    stays = jnp.zeros(flat.size, FLOAT).at[order].set((jnp.arange(flat.size) < count).astype(FLOAT))
    ends = [0]
    for score in scores.values():
        ends.append(ends[-1] + score.size)
    return {
        name: stays[first:last].reshape(score.shape) for (name, score), first, last in zip(scores.items(), ends, ends[1:], strict=False)
    }
