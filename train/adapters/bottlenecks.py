"""Bottleneck adapters."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from train.adapters.method import FLOAT, Method, key_of
from train.adapters.options import Houlsby

STD = 1e-3
"""Of the kernels at the start, near the identity; the second is zero."""
SUBLAYERS = ("attention", "cross_attention", "feed_forward")
LAST = (("out", "kernel"), ("down", "kernel"))
"""The last kernel of a sub-layer, whose last axis is the stream's."""


class Bottlenecks(Method):
    """Houlsby et al. (2019, sec. 2.1): behind each sub-layer, x + up(activation(down(x))), exactly the identity at the start, since up is
    zero."""

    options: Houlsby
    mergeable = False

    def fresh(self, key, boxed):
        found, width = {}, self.options.width
        for path in sorted({place[: i + 1] for place in boxed for i, name in enumerate(place) if name in SUBLAYERS}):
            kernels = [box for place, box in boxed.items() if place[: len(path)] == path and place[-2:] in LAST]
            if not kernels:
                continue
            out = kernels[0]
            stack, size = nn.unbox(out).shape[: int("layers" in path)], nn.unbox(out).shape[-1]
            place, names = (*path[:-1], f"{path[-1]}_bottleneck"), out.names[: len(stack)]
            down = STD * jax.random.normal(key_of(key, path), (*stack, size, width), FLOAT)
            for name, value, axes in (
                ("down", down, ("embed", None)),
                ("down_bias", jnp.zeros((*stack, width), FLOAT), (None,)),
                ("up", jnp.zeros((*stack, width, size), FLOAT), (None, "embed")),
                ("up_bias", jnp.zeros((*stack, size), FLOAT), ("norm",)),
            ):
                found[*place, name] = nn.LogicallyPartitioned(value, (*names, *axes))
        return found
