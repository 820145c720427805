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
    return in_parts(plain, experiment, unit)


def in_parts(whole: Callable, experiment: Experiment, unit: str) -> Callable:
    """A gradient of a batch, such as `plain`, taken in as many parts of it as the experiment says."""
    if experiment.micro_batches == 1:
        return whole
    if unit == "batch":
        raise UserError("objective: its loss is of a whole batch, and cannot be taken in micro-batches", "Set --micro-batches 1.")
    return functools.partial(accumulated, micro_batches=experiment.micro_batches, whole=whole)


def loss_of(terms, weights):
    """The sum of coefficient * total / weight, given the global weights; a term without any weight counts nothing."""
    parts = (term.coefficient * term.total / jnp.maximum(weights[name], 1e-8) for name, term in terms.items())
    return sum(parts, jnp.float32(0))


def plain(objective, params, batch, key, *, weights=None, frozen=None, carry=None):
    """Gradient over all rows of `batch` at once. weights: of the terms, over what the batch is a part of; None: it is the whole.

    Returns (gradients, metrics, carry); metrics hold the terms too, as Means.
    """

    def loss(params):
        terms, metrics, new_carry = objective(params, batch, key, frozen=frozen, carry=carry)
        return loss_of(terms, weights or weights_of(terms)), (with_terms(metrics, terms), new_carry)

    gradients, (metrics, carry) = jax.grad(loss, has_aux=True)(params)
    return gradients, metrics, carry


def accumulated(objective, params, batch, key, *, micro_batches: int, whole=plain, frozen=None, carry=None):
    """The same gradient, taken over `micro_batches` parts of the rows one after the other: activations of one part at a time.

    The weights of the terms are totalled over the whole batch first, so that unequal parts (padding, packing, several terms with
    denominators of their own) weigh what they should. Only the weights of that pass are used: the compiler drops the rest of it.
    """
    weights = weights_of(objective(params, batch, key, frozen=frozen, carry=carry)[0])

    def part(x):
        """[B, ...] to [parts, B / parts, ...], each part with rows of every device."""
        return x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)

    def step(totals, batch):
        gradients, carry = totals
        more, metrics, carry = whole(objective, params, batch, key, weights=weights, frozen=frozen, carry=carry)
        return (jax.tree.map(jnp.add, gradients, more), carry), metrics

    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    (gradients, carry), metrics = jax.lax.scan(step, (zero, carry), jax.tree.map(part, batch))
    return gradients, jax.tree.map(lambda x: x.sum(0), metrics), carry


def weights_of(terms):
    """The weights of terms, by name."""
    return {name: jax.lax.stop_gradient(term.weight) for name, term in terms.items()}


def with_terms(metrics, terms):
    """The metrics and, as Means, the terms."""
    return {name: Mean(term.total, term.weight) for name, term in terms.items()} | metrics
