"""How long the gradient of each unit is, without making all of it: the first of two passes."""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from model.watched import watched


def norms_of(loss, params, units):
    """(float32 [B], the norm of each unit's gradient; the metrics of each).

    Kernels of projections and tables of tokens are watched; of all other leaves, which are small, each unit has its own gradient.
    """
    flat = flatten_dict(params)
    large = {path: leaf for path, leaf in flat.items() if watchable(path)}
    small = {path: leaf for path, leaf in flat.items() if path not in large}
    squares = {path: jnp.zeros(_stack(path, leaf)) for path, leaf in large.items()}

    def of_unit(unit):
        def own(small, squares):
            seen = {path: watched(leaf, stacked="layers" in path).replace(square=squares[path]) for path, leaf in large.items()}
            return loss(unflatten_dict(small | seen), unit)

        (small_gradients, found), metrics = jax.grad(own, (0, 1), has_aux=True)(small, squares)
        return sum(jnp.square(g.astype(jnp.float32)).sum() for g in small_gradients.values()) + sum(
            g.sum() for g in found.values()
        ), metrics

    squares_B, metrics = jax.vmap(of_unit)(units)
    return jnp.sqrt(jnp.maximum(squares_B, 0)), metrics


def _stack(path, leaf) -> tuple[int, ...]:
    return leaf.shape[:1] if "layers" in path else ()


def watchable(path: tuple[str, ...]) -> bool:
    """Whether `Dense`, the embedding or the head reads this leaf, as an object that may be something else than an array."""
    if path[-1] == "kernel":
        return "experts" not in path and "patches" not in path
    return path[-2:] in (("embedding", "table"), ("head", "table"))
