"""Several passes over the same rows, in minibatches: how learners that make their own rows learn from them."""

import dataclasses

import jax
import jax.numpy as jnp

from train.objectives.terms import Mean
from train.step.state import State


def learn_in_epochs(update, state: State, frozen, rows, key, *, epochs: int, minibatches: int) -> tuple[State, dict]:
    """`update` on every minibatch of every epoch; one step of the run. rows: a tree of arrays with an axis of rows first.

    Each epoch has an order of its own. Returns the state, one step further, and the metrics of all updates together; `skipped` is that of
    the last. Within, state.step counts updates.
    """
    updates, count = epochs * minibatches, jax.tree.leaves(rows)[0].shape[0]
    size = count // minibatches

    def one(state: State, number):
        order_N = jax.random.permutation(jax.random.fold_in(key, number // minibatches), count)
        chosen = jax.lax.dynamic_slice_in_dim(order_N, number % minibatches * size, size)
        return update(state, frozen, jax.tree.map(lambda x: x[chosen], rows))

    inner, metrics = jax.lax.scan(one, dataclasses.replace(state, step=state.step * updates), jnp.arange(updates))
    skipped = metrics.pop("skipped")
    metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    metrics["skipped"] = Mean(skipped.total[-1], jnp.float32(1))
    return dataclasses.replace(inner, step=state.step + 1), metrics
