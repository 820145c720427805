"""Eight-bit weights and activations, for generating and evaluating faster, and for weights that others are trained beside.

Every row of a weight matrix (all that makes one output) has a scale of its own, found once; every row of activations has one that is
found as it comes (Dettmers et al. 2022, sec. 2.1, vector-wise, without their outlier columns). Products are of int8, sums of int32.
"""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

LEAST_ROWS = 8
"""XLA's CPU backend has fast int8 products for eight rows or more: fewer are filled up with zeros."""


class Quantized(flax.struct.PyTreeNode):
    """A matrix [..., outputs, inputs] as values_int8 * scale[..., outputs, None]."""

    values: Any
    scale: Any

    @classmethod
    def of(cls, matrix):
        """Round a float matrix [..., outputs, inputs] to the nearest, symmetric about zero."""
        scale = jnp.maximum(jnp.abs(matrix).max(-1), 1e-12).astype(jnp.float32) / 127.0
        return cls(jnp.round(matrix / scale[..., None]).astype(jnp.int8), scale)

    @property
    def shape(self):
        return self.values.shape

    def __getitem__(self, rows):
        """Rows of the matrix as float32: how a quantized table is read."""
        return self.values[rows].astype(jnp.float32) * self.scale[rows][..., None]


@jax.custom_vjp
def product(x_RK, weights: Quantized):
    """x_RK times the transpose of weights [N, K], float32 [R, N].

    The derivative by x_RK is that of the product with the weights as they are rounded, the rounding of x being passed over (the
    straight-through estimator, Bengio et al. 2013); the weights have none.
    """
    rows = x_RK.shape[0]
    x = Quantized.of(x_RK.astype(jnp.float32))
    values = jnp.pad(x.values, ((0, max(0, LEAST_ROWS - rows)), (0, 0)))
    sums = jax.lax.dot_general(values, weights.values, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
    return sums[:rows].astype(jnp.float32) * x.scale[:, None] * weights.scale


def _product_and_rest(x_RK, weights: Quantized):
    return product(x_RK, weights), (weights, jnp.zeros((), x_RK.dtype))


def _product_gradient(rest, dy_RN):
    weights, like = rest
    scaled_RN = (dy_RN * weights.scale).astype(like.dtype)
    none = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0) if leaf.dtype == jnp.int8 else jnp.zeros_like(leaf), weights)
    return scaled_RN @ weights.values.astype(like.dtype), none


product.defvjp(_product_and_rest, _product_gradient)


def quantize(params, *, tables: bool = True) -> dict:
    """Parameters of a text model with all its kernels, and with `tables` its vocabulary tables, in eight bits. Norms, biases, positions and
    vectors of n-grams stay float32, and a table of n-grams may be most of a small model.

    ValueError for experts, whose products have no such form yet.
    """

    def convert(path, leaf):
        names = [key.key for key in path]
        if "experts" in names:
            raise ValueError("experts cannot be quantized yet")
        if tables and names[-2:] in (["embedding", "table"], ["head", "table"]):
            return Quantized.of(leaf)
        if names[-1] != "kernel":
            return leaf
        stacked = "layers" in names
        inputs = (2 if names[-2] == "out" else 1) + stacked  # axes that a product sums over, behind that of the layers
        shape = leaf.shape[:stacked] + (math.prod(leaf.shape[stacked:inputs]), math.prod(leaf.shape[inputs:]))
        return Quantized.of(jnp.swapaxes(leaf.reshape(shape), -1, -2))

    return jax.tree_util.tree_map_with_path(convert, params)
