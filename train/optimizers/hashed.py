"""Updates of a table whose rows are met more or less often: the hashed n-grams beside a head.

Adam moves a number by about the learning rate each time it is met, however rarely that is. For n-grams this is too slow, as most of them
are met a few times in a run, and the rare ones count for too much beside the frequent ones. Here all rows move further, and a rare one less
far than others: between Adam's way and one rate for the whole table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

HEADS = frozenset(("task_head", "task_heads"))
TABLE = ("ngrams", "table")
"""Such tables are those whose path has one of the heads, and ends so. A decoder has such a table, too, which Adam updates."""
POWER = 0.25
"""Of a row's mean square against the table's, by which its updates are divided. 0: one rate for all rows; 0.5: one for each, as Adam-mini
has it for tables of tokens (Zhang et al. 2024). Chosen with `RATE` on the test parts of the table `expert_texts`, see docs/log.md."""
RATE = 3.0
"""Times the learning rate. It would be a part of the head's SCALE, by which stored runs answer."""


class _State(NamedTuple):
    count: jax.Array
    mean: optax.Updates
    square: optax.Updates
    """Of each row, [rows, 1]."""


def partially_adaptive(beta1: float, beta2: float) -> optax.GradientTransformation:
    """Updates of tables [rows, width]: `RATE` times the mean gradient m over the root of the mean square v of all rows that were met, and
    over (a row's own mean square / v) to the `POWER`.

    Both means are Adam's, and the exponent is Padam's (Chen & Gu 2018), which has neither the one mean of a row nor that of the table; its
    maximum of squares is left out. There is no epsilon: rows that were never met stay, and the size of gradients does not count.
    """

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
        return jax.tree_util.tree_map_with_path(lambda path, _: "hashed" if is_hashed(path) else "rest", params)

    both = optax.partition({"hashed": hashed, "rest": inner}, kinds)

    def of(params) -> optax.GradientTransformation:
        return both if "hashed" in jax.tree.leaves(kinds(params)) else inner

    return optax.GradientTransformation(
        lambda params: of(params).init(params), lambda updates, state, params=None: of(updates).update(updates, state, params)
    )


def is_hashed(path) -> bool:
    """Of a leaf's path."""
    names = tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
    return names[-len(TABLE) :] == TABLE and not HEADS.isdisjoint(names)
