"""How the gradient of an objective is taken: at once, or accumulated over micro-batches. Both give the same gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from data.errors import UserError
from train.experiment import Exact, Experiment
from train.objectives.terms import Mean


def exact(options: Exact, experiment: Experiment, unit: str) -> Callable:
    """The gradient of the whole batch, in as many parts as the experiment says."""
    if experiment.micro_batches == 1:
        return plain
    if unit == "batch":
        raise UserError("objective: its loss is of a whole batch, and cannot be taken in micro-batches", "Set --micro-batches 1.")
    return functools.partial(accumulated, micro_batches=experiment.micro_batches)


def loss_of(terms, weights):
    """The sum of coefficient * total / weight, given the global weights; a term without any weight counts nothing."""
    parts = (term.coefficient * term.total / jnp.maximum(weights[name], 1e-8) for name, term in terms.items())
    return sum(parts, jnp.float32(0))


def plain(objective, params, batch, key, *, frozen=None, carry=None):
    """Gradient over the whole batch at once. Returns (gradients, metrics, carry); metrics hold the terms too, as Means."""

    def loss(params):
        terms, metrics, new_carry = objective(params, batch, key, frozen=frozen, carry=carry)
        weights = {name: jax.lax.stop_gradient(term.weight) for name, term in terms.items()}
        return loss_of(terms, weights), (_with_terms(metrics, terms), new_carry)

    gradients, (metrics, carry) = jax.grad(loss, has_aux=True)(params)
    return gradients, metrics, carry


def accumulated(objective, params, batch, key, *, micro_batches: int, frozen=None, carry=None):
    """The same gradient, taken over `micro_batches` parts of the rows one after the other: activations of one part at a time.

    The weights of the terms are totalled over the whole batch first, so that unequal parts (padding, packing, several terms with
    denominators of their own) weigh what they should. Only the weights of that pass are used: the compiler drops the rest of it.
    """
    terms, _, _ = objective(params, batch, key, frozen=frozen, carry=carry)
    weights = {name: jax.lax.stop_gradient(term.weight) for name, term in terms.items()}

    def part(x):
        """[B, ...] to [parts, B / parts, ...], each part with rows of every device."""
        return x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)

    def step(totals, batch):
        gradients, carry = totals

        def loss(params):
            terms, metrics, new_carry = objective(params, batch, key, frozen=frozen, carry=carry)
            return loss_of(terms, weights), (_with_terms(metrics, terms), new_carry)

        more, (metrics, carry) = jax.grad(loss, has_aux=True)(params)
        return (jax.tree.map(jnp.add, gradients, more), carry), metrics

    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    (gradients, carry), metrics = jax.lax.scan(step, (zero, carry), jax.tree.map(part, batch))
    return gradients, jax.tree.map(lambda x: x.sum(0), metrics), carry


def _with_terms(metrics, terms):
    return {name: Mean(term.total, term.weight) for name, term in terms.items()} | metrics
