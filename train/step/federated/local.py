"""What one client does in a round: the same function in a simulation and on a machine of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from train.objectives.terms import Mean
from train.step.federated.options import Rounds
from train.step.gradients import loss_of, weights_of, with_terms
from train.step.private.gradient import there


class Update(NamedTuple):
    """What a client sends. change: a tree like the parameters, after minus before. weight: its rows' weight in the loss; 0 for a client
    without rows. metrics: sums over its steps. steps: local steps that it took."""

    change: Any
    weight: Any
    metrics: dict[str, Any]
    steps: Any


def with_loss(objective: Callable, frozen: Any) -> Callable:
    """loss(params, rows, key) -> (loss, metrics) of an objective (train/objectives/__init__.py)."""

    def loss(params, rows, key):
        terms, metrics, _ = objective(params, rows, key, frozen=frozen or None, carry=None)
        return loss_of(terms, weights_of(terms)), with_terms(metrics, terms)

    return loss


def local_update(loss: Callable, params, rows, key, options: Rounds, correction=None) -> Update:
    """Local SGD (McMahan et al. 2017, algorithm 1, ClientUpdate) on `rows`, a batch with an axis of R rows.

    R is a multiple of the local batch. Every epoch goes over them in an order of its own; batches of padding change nothing.
    correction: a tree that is added to every gradient (SCAFFOLD); None for none.
    """
    count, size = len(jax.tree.leaves(rows)[0]), min(options.local_batch, len(jax.tree.leaves(rows)[0]))
    here_R = there(rows)
    batches = count // size

    def order(epoch):
        """Rows that are there first, in an order of chance: so that they fill as few batches as they can."""
        return jnp.argsort(jax.random.uniform(jax.random.fold_in(key, epoch), (count,)) + ~here_R)

    def step(own, number):
        places = jax.lax.dynamic_slice_in_dim(order(number // batches), number % batches * size, size)
        batch = jax.tree.map(lambda x: x[places], rows)
        gradient, metrics = jax.grad(loss, has_aux=True)(own, batch, jax.random.fold_in(key, options.local_epochs + number))
        real = here_R[places].any()
        if options.proximal:
            gradient = jax.tree.map(lambda g, new, old: g + options.proximal * (new - old), gradient, own, params)
        if correction is not None:
            gradient = jax.tree.map(jnp.add, gradient, correction)
        own = jax.tree.map(lambda p, g: jnp.where(real, p - options.local_learning_rate * g, p).astype(p.dtype), own, gradient)
        return own, (jax.tree.map(lambda x: jnp.where(real, x, 0), metrics), real)

    own, (metrics, real) = jax.lax.scan(step, params, jnp.arange(options.local_epochs * batches))
    change = jax.tree.map(lambda new, old: new.astype(jnp.float32) - old, own, params)
    metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    steps = real.sum().astype(jnp.float32)
    return Update(change, metrics["loss"].weight / options.local_epochs, metrics, steps)


def norm_of(tree):
    """Global norm, float32."""
    return jnp.sqrt(sum((jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)), jnp.float32(0)))


def clipped(update: Update, most) -> tuple[Update, Any]:
    """The update, its change at most so long (0: any), and how long it was. One that is not finite becomes one of nothing, of weight 0."""
    norm = norm_of(update.change)
    sound = jnp.isfinite(norm) & (update.weight > 0)
    scale = jnp.where(most > 0, jnp.minimum(1.0, most * (1 - 1e-6) / jnp.maximum(norm, 1e-30)), 1.0)
    change = jax.tree.map(lambda x: jnp.where(sound, x * scale, 0), update.change)
    metrics = jax.tree.map(lambda x: jnp.where(sound & jnp.isfinite(x), x, 0).astype(jnp.float32), update.metrics)
    rejected = Mean((~sound & (update.weight > 0)).astype(jnp.float32), (update.weight > 0).astype(jnp.float32))
    return Update(change, jnp.where(sound, update.weight, 0), metrics | {"rejected": rejected}, update.steps), norm
