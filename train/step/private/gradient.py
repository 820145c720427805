"""Clipped gradients of units, summed, with noise (Abadi et al. 2016, algorithm 1).

A unit's loss is taken of its own rows alone, so it is private whatever the objective does with the rows of a batch; objectives that compare
rows are refused because they would compare a unit with itself.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from train.devices.mesh import over_rows
from train.experiment import Experiment
from train.kinds import Objective
from train.objectives.terms import Mean
from train.optimizers.build import frozen_leaves
from train.step.gradients import loss_of, weights_of, with_terms
from train.step.private.norms import norms_of
from train.step.private.options import Private

SECRET = "privacy"
"""Name among what a step reads and does not train of the key of the noise, uint32 [2]: who knows it can take the noise away."""
TINY = 1e-30


def private(options: Private, experiment: Experiment, unit: str):
    """gradient(...), whose frozen[SECRET] is the key of the noise. The denominator is the number of units drawn on average, which is no
    secret, as the number that was drawn is. Metrics: those of the units as they are, not private; clipped, the share of the units that
    were longer than `clip`."""
    _check(options, experiment, unit)
    rows, deviation = options.unit_rows, options.noise_multiplier * options.clip

    def gradient(objective, params, batch, key, *, frozen=None, carry=None):
        if carry is not None:
            raise UserError("gradient Private: the objective hands something from step to step, which would tell of units", _INSTEAD)
        frozen = dict(frozen or {})
        secret = frozen.pop(SECRET)

        def loss(params, unit):
            terms, metrics, _ = objective(params, unit, key, frozen=frozen or None, carry=None)
            return loss_of(terms, weights_of(terms)), with_terms(metrics, terms)

        flat = flatten_dict(params)
        counts = flatten_dict(frozen_leaves(params, experiment.frozen))
        held = {path: leaf for path, leaf in flat.items() if counts[path] == math.inf}
        trained = unflatten_dict({path: leaf for path, leaf in flat.items() if path not in held})

        def of_trained(trained, unit):
            return loss(unflatten_dict(flatten_dict(trained) | held), unit)

        # Constraints of activations name the rows of a batch, of which a unit is one.
        with nn.logical_axis_rules(()):
            total, metrics = clipped_sum(of_trained, trained, in_units(batch, rows), options)
        noise = normal_like(total, noise_key(secret, key), deviation)
        expected = options.expected_batch or experiment.batch_size
        mean = jax.tree.map(lambda leaf, drawn: (leaf + drawn) / expected, total, noise)
        return unflatten_dict(flatten_dict(mean) | jax.tree.map(jnp.zeros_like, held)), metrics, None

    return gradient


def check_apart(experiment: Experiment) -> None:
    """UserError for options by which what is learned of one unit tells of others."""
    for section, name, default, why, mend in READS_OTHERS:
        if getattr(getattr(experiment, section), name, default) != default:
            raise UserError(f"privacy: {section}.{name} {why}, so what is learned of one unit tells of others", mend)


READS_OTHERS = (
    ("data", "shots", 0, "shows other examples before each one", "Leave it out."),
    ("data", "standardise", False, "measures the values of all examples", "Set --data.no-standardise, and give values ranges."),
    ("objective", "class_weights", "none", "counts the labels of all examples", "Leave it out."),
)
"""Options by which the loss of one unit depends on other units."""
_INSTEAD = "Train with the gradient Exact, or choose an objective whose loss is a sum over examples."


def _check(options: Private, experiment: Experiment, unit: str) -> None:
    name = type(experiment.objective).__name__
    if type(experiment.objective).learner != Objective.learner:
        raise UserError(f"gradient Private: {name} makes its own rows, of which nothing can be promised", _INSTEAD)
    if unit == "batch":
        raise UserError(f"gradient Private: the loss of {name} compares rows with one another, so no unit has one of its own", _INSTEAD)
    check_apart(experiment)
    if experiment.model.expert_capacity:
        raise UserError("gradient Private: with model.expert_capacity rows take room from one another", "Set --model.expert-capacity 0.")
    if experiment.micro_batches > 1:
        raise UserError("gradient Private: micro_batches would split units drawn together", "Set --gradient.micro-batch N instead.")
    if experiment.faults.spike:
        raise UserError("gradient Private: faults.spike would skip steps for what single units do", "Set --faults.spike 0.")
    size, micro = experiment.batch_size, options.micro_batch
    if micro and size % micro:
        raise UserError(f"gradient.micro_batch {micro} does not divide batch_size {size}", "Change one of them.")
    if options.expected_batch > size:
        raise UserError(f"gradient.expected_batch {options.expected_batch} is above batch_size {size}, the room", "Change one of them.")


def in_units(batch, rows: int):
    """[B * rows, ...] to [B, rows, ...]; arrays of media that there are none of hold nothing."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // rows, rows, *x.shape[1:]), batch)


def there(batch):
    """bool [B]: the units that were drawn. A place without one has no weight anywhere."""
    weights = jax.tree.leaves(batch.counts if hasattr(batch, "counts") else batch.weights)
    return jnp.stack([(weight != 0).any(tuple(range(1, weight.ndim))) for weight in weights]).any(0)


def clipped_sum(loss, params, units, options: Private):
    """(sum over units of their gradients, each clipped; the sum of their metrics). float32.

    loss(params, unit) -> loss, metrics; units: a batch whose leaves lead with [units, rows]. A gradient that is not finite counts as none.
    """
    drawn_B = there(units)
    count = len(drawn_B)
    size = options.micro_batch or near(count, UNITS_AT_ONCE * jax.device_count())
    part: Callable = two_pass if options.way == "two_pass" else by_vmap
    if size == count:
        return part(loss, params, units, drawn_B, options.clip)

    def at(first):
        """So many units, on all devices: those that follow one another lie on few."""
        return over_rows(jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), (units, drawn_B)))

    def step(number, totals):
        return jax.tree.map(jnp.add, totals, part(loss, params, *at(number * size), options.clip))

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: part(loss, params, *at(0), options.clip)))
    last = jnp.max(jnp.where(drawn_B, jnp.arange(1, count + 1), 0))
    return jax.lax.fori_loop(0, -(-last // size), step, zero)


UNITS_AT_ONCE = 4
"""On each device, unless options say otherwise: measured, more take more memory and no less time (docs/log.md)."""


def near(count: int, wanted: int) -> int:
    """The largest divisor of `count` that is at most `wanted`."""
    return next(size for size in range(min(count, wanted), 0, -1) if count % size == 0)


def by_vmap(loss, params, units, drawn_B, clip: float):
    """`clipped_sum` of a micro-batch, whose gradients exist all at once."""
    gradients, metrics = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))(params, units)
    gradients = jax.tree.map(lambda g: g.astype(jnp.float32), gradients)
    squares = [jnp.square(g).reshape(len(drawn_B), -1).sum(1) for g in jax.tree.leaves(gradients)]
    weights_B, clipped_B = factors(jnp.sqrt(sum(squares, jnp.zeros(len(drawn_B)))), drawn_B, clip)

    def total(g):
        kept = jnp.where((weights_B > 0).reshape(-1, *(1,) * (g.ndim - 1)), g, 0)
        return jnp.tensordot(weights_B, kept, 1)

    return jax.tree.map(total, gradients), totalled(metrics, drawn_B, weights_B, clipped_B)


def two_pass(loss, params, units, drawn_B, clip: float):
    """The same by norms first, then the gradient of a weighted sum of losses."""
    norms_B, metrics = norms_of(loss, params, units)
    weights_B, clipped_B = factors(norms_B, drawn_B, clip)

    # What is left out becomes padding: 0 times a derivative that is no number would be none.
    kept = jax.tree.map(lambda x: jnp.where((weights_B > 0).reshape(-1, *(1,) * (x.ndim - 1)), x, 0), units)

    def weighted(params):
        return (weights_B * jax.vmap(lambda unit: loss(params, unit)[0])(kept)).sum()

    gradients = jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(weighted)(params))
    return gradients, totalled(metrics, drawn_B, weights_B, clipped_B)


def factors(norms_B, drawn_B, clip: float):
    """(min(1, clip / norm) of the units that were drawn, 0 where the norm is not finite; 1 where it was longer)."""
    finite_B = drawn_B & jnp.isfinite(norms_B)
    # A hair below, so that rounding in the products to come does not lengthen what was clipped.
    scale_B = jnp.minimum(1.0, clip * (1 - 1e-6) / jnp.maximum(norms_B, TINY))
    return jnp.where(finite_B, scale_B, 0.0), (finite_B & (norms_B > clip)).astype(jnp.float32)


def totalled(metrics, drawn_B, weights_B, clipped_B) -> dict[str, Any]:
    """Metrics of a micro-batch: sums over the units that count, so that one of them alone cannot make a step a bad one."""

    def total(x):
        x = x.astype(jnp.float32)
        return jnp.where((weights_B > 0) & jnp.isfinite(x), x, 0).sum()

    drawn = drawn_B.astype(jnp.float32).sum()
    return jax.tree.map(total, metrics) | {"clipped": Mean(clipped_B.sum(), drawn), "drawn": Mean(drawn, jnp.float32(1))}


def normal_like(tree, key, deviation, skipped: int = 0):
    """Independent noise of this standard deviation for each number of a tree of float32 arrays, without their first `skipped` axes.

    Every leaf has a key of its own. How a leaf is split over devices changes nothing, since JAX's random bits are those of the whole array.
    """
    leaves, treedef = jax.tree.flatten(tree)
    drawn = [deviation * jax.random.normal(jax.random.fold_in(key, number), leaf.shape[skipped:]) for number, leaf in enumerate(leaves)]
    return treedef.unflatten(drawn)


def noise_key(secret, key):
    """The key of a step's noise: of the run's secret, and of the step by the key of its other randomness."""
    found = jax.random.wrap_key_data(secret, impl="threefry2x32")
    for word in jax.random.key_data(key):
        found = jax.random.fold_in(found, word)
    return found
