"""Updates of a table whose rows are met more or less often: the hashed n-grams beside a head.

Adam moves a row that one text has as far as one that all have, so that the model learns its texts by heart; one rate for the whole table
hardly moves rare rows, which tell most. Here the rate of a row is between the two.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

PLACE = ("task_head", "ngrams", "table")
"""Names that such a table's path ends with."""
POWER = 0.25
"""Of a row's mean square against the table's, by which its updates are divided: 0 for one rate of all rows, as Adam-mini has it (Zhang et
al. 2024), 0.5 as Adam."""
RATE = 3.0
"""Updates, in Adam's: rows begin at zero and are many, so that each has to go further than a weight of the network beside them."""


class _State(NamedTuple):
    count: jax.Array
    mean: optax.Updates
    square: optax.Updates
    """Of each row, [rows, 1]."""


def partially_adaptive(beta1: float, beta2: float) -> optax.GradientTransformation:
    """Adam whose second moment is shared by the numbers of a row, and counts with a smaller exponent (Padam: Chen et al. 2018) against
    that of all rows that were met. Updates of tables [rows, width]."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _State(jnp.zeros([], jnp.int32), zeros, jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:, :1]), params))

    def update(gradients, state, params=None):
        count = state.count + 1
        mean = jax.tree.map(lambda old, new: beta1 * old + (1 - beta1) * new, state.mean, gradients)
        squares = jax.tree.map(lambda new: jnp.square(new).mean(1, keepdims=True), gradients)
        square = jax.tree.map(lambda old, new: beta2 * old + (1 - beta2) * new, state.square, squares)
        updates = jax.tree.map(lambda m, v: _step(m / (1 - beta1**count), v / (1 - beta2**count)), mean, square)
        return updates, _State(count, mean, square)

    return optax.GradientTransformation(init, update)


def _step(mean_RW, square_R1):
    met_R1 = square_R1 > 0
    whole = jnp.maximum(square_R1.sum() / jnp.maximum(met_R1.sum(), 1), jnp.finfo(jnp.float32).tiny)
    own_R1 = jnp.where(met_R1, square_R1 / whole, 1.0)
    return RATE * mean_RW / jnp.sqrt(whole) / own_R1**POWER


def with_hashed(inner: optax.GradientTransformation, hashed: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, but for hashed tables, which `hashed` updates. Of parameters without any it is `inner`, state and all."""

    def kinds(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: "hashed" if _is_hashed(path) else "rest", params)

    both = optax.partition({"hashed": hashed, "rest": inner}, kinds)

    def init(params):
        return (both if "hashed" in jax.tree.leaves(kinds(params)) else inner).init(params)

    def update(updates, state, params=None):
        return (both if isinstance(state, type(both_state)) else inner).update(updates, state, params)

    both_state = both.init({})
    return optax.GradientTransformation(init, update)


def _is_hashed(path) -> bool:
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))[-len(PLACE) :] == PLACE
