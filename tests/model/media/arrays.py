"""Random parameters, and trees of arrays that are nearly equal."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def draw(shapes):
    """Random parameters, biases, positions and tokens included, so that none of them hides behind its zero."""
    leaves, tree = jax.tree.flatten(nn.unbox(shapes))
    rng = np.random.default_rng(0)
    return tree.unflatten([jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32) for leaf in leaves])


def near(tree, other, rtol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (np.abs(b).max() + 1e-3)), tree, other)
