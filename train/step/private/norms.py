"""How long the gradient of each unit is, without making all of it: the first of two passes."""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from model.watched import Uses, Watched, squared_norm


def norms_of(loss, params, units):
    """(float32 [B], the norm of each unit's gradient, or more where kernels are used several times; the metrics of each).

    Kernels of projections and tables of tokens are watched; of all other leaves, which are small, each unit has its own gradient.
    """
    flat = flatten_dict(params)
    large = {path: leaf for path, leaf in flat.items() if watchable(path)}
    small = {path: leaf for path, leaf in flat.items() if path not in large}
    zeros = {path: jnp.zeros((*(leaf.shape[:1] if "layers" in path else ()), 2)) for path, leaf in large.items()}

    def of_unit(unit):
        def own(small, zeros):
            seen = {path: Watched(jax.lax.stop_gradient(leaf), zeros[path], Uses()) for path, leaf in large.items()}
            return loss(unflatten_dict(small | seen), unit)

        (of_small, of_large), metrics = jax.grad(own, (0, 1), has_aux=True)(small, zeros)
        squares = [jnp.square(g.astype(jnp.float32)).sum() for g in of_small.values()]
        squares += [squared_norm(found, table=path[-1] == "table") for path, found in of_large.items()]
        return sum(squares), metrics

    try:
        squares_B, metrics = jax.vmap(of_unit)(units)
    except ValueError as error:  # of a table whose uses have products that are not known
        raise UserError(f"gradient.way two_pass: {error}", "Set --gradient.way vmap.") from None
    return jnp.sqrt(jnp.maximum(squares_B, 0)), metrics


def watchable(path: tuple[str, ...]) -> bool:
    """Whether `Dense`, the embedding or the head reads this leaf, as an object that may be something else than an array."""
    if path[-1] == "kernel":
        return "experts" not in path and "patches" not in path
    return path[-2:] in (("embedding", "table"), ("head", "table"))
