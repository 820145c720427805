"""The small parts: the projection that everything goes through, norms, embedding table, feed-forward, dropout."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.adapters import with_low_rank
from model.config import ModelConfig
from model.decoding.quantize import Quantized, product
from model.watched import Watched


def compute_dtype(config: ModelConfig):
    """The type of matrix products: bfloat16 where hardware has it, float32 on a CPU, which would emulate it."""
    if config.dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.dtype(config.dtype)


def constrain(x, *axes):
    """Say where an activation lives by logical axis names; does nothing outside a mesh."""
    return x if isinstance(x, Quantized | Watched) else nn.with_logical_constraint(x, axes)


class Dense(nn.Module):
    """The one linear projection: contracts the trailing `inputs` axes of x with the leading ones of its kernel.

    Parameters, float32: kernel [*x.shape[-inputs:], *features] with the logical `axes`, bias [*features]. A quantized kernel works too.
    A term of low rank is added where `low_rank` stands beside the kernel (model/adapters.py).
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    std: float
    dtype: jnp.dtype
    inputs: int = 1
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        contracted = x.shape[x.ndim - self.inputs :]
        rows, width = math.prod(x.shape[: x.ndim - self.inputs]), math.prod(contracted)
        x_RK = x.reshape(rows, width)
        y = self._product(x_RK, contracted)
        if self.has_variable("params", "low_rank"):
            kernel, factors = (self.get_variable("params", name) for name in ("kernel", "low_rank"))
            y = with_low_rank(x_RK.astype(self.dtype), y, kernel, factors)
        y = y.reshape(*x.shape[: x.ndim - self.inputs], *self.features)
        if self.bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[self.inputs :])
            y += self.param("bias", init, self.features, jnp.float32).astype(self.dtype)
        return y

    def _product(self, x_RK, contracted):
        given = self.get_variable("params", "kernel")
        if isinstance(given, Quantized):
            return product(x_RK, given).astype(self.dtype)
        if isinstance(given, Watched):
            return given.product(x_RK, self.dtype)
        init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
        kernel = self.param("kernel", init, (*contracted, *self.features), jnp.float32).astype(self.dtype)
        # Two flat matrices: the only shape for which every backend picks its fastest product, forward and backward.
        return x_RK.astype(self.dtype) @ kernel.reshape(x_RK.shape[1], -1)


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016, eq. 3-4) or RMSNorm (Zhang & Sennrich 2019, eq. 4) over the last axis, computed in float32.

    Parameters, float32: scale [width], and bias [width] for a LayerNorm with biases. The result has x's type.
    """

    kind: str
    epsilon: float
    bias: bool = False
    axes: tuple[str, ...] = ("norm",)

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.with_logical_partitioning(nn.initializers.ones, self.axes), x.shape[-1:], jnp.float32)
        y = x.astype(jnp.float32)
        if self.kind == "layernorm":
            y -= y.mean(-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon) * scale
        if self.kind == "layernorm" and self.bias:
            y += self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, self.axes), x.shape[-1:], jnp.float32)
        return y.astype(x.dtype)


class Table(nn.Module):
    """A float32 table [rows, width] with logical axes: token embeddings, learned positions, the output projection."""

    rows: int
    width: int
    axes: tuple[str, str]
    std: float

    @nn.compact
    def __call__(self):
        if isinstance(self.get_variable("params", "table"), Quantized | Watched):
            return self.get_variable("params", "table")
        init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
        return self.param("table", init, (self.rows, self.width), jnp.float32)


def _gelu(x):
    """x times the normal distribution function at x, in float32. By erf: jax.nn's goes by erfc, three times slower on a CPU."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
    "silu": jax.nn.silu,
}


class FeedForward(nn.Module):
    """Position-wise feed-forward layer, gated or plain (Shazeer 2020, eq. 5-6). Maps x_BTD to y_BTD."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD):
        c, dtype = self.config, compute_dtype(self.config)
        activation = ACTIVATIONS[c.activation]

        def up(name):
            return Dense((c.mlp_width,), ("embed", "mlp"), c.init_std, dtype, bias=c.bias, name=name)(x_BTD)

        h_BTF = activation(up("gate")) * up("up") if c.gated else activation(up("up"))
        h_BTF = constrain(h_BTF, "batch", "length", "mlp")
        std = c.init_std / math.sqrt(2 * c.num_layers)
        return Dense((c.embed_dim,), ("mlp", "embed"), std, dtype, bias=c.bias, name="down")(h_BTF)


TOKENS, LAYERS = 1 << 22, 16
"""Sites of dropout: of whole tokens, beyond the numbers of layers, and of what sub-layers add, beyond those of their elements."""


def dropout(x_BTD, rate: float, keys_B, site: int, together: int = 0):
    """Inverted dropout whose mask is drawn per row from that row's own key, so that micro-batches and meshes do not change it.

    keys_B: random keys, or None to leave x as it is; `site` tells apart the places that share a key. together: last axes whose elements
    stay or go as one: 1 for whole tokens, 2 for whole rows.
    """
    if keys_B is None or rate == 0.0:
        return x_BTD

    def keep(key):
        shape = x_BTD.shape[1 : x_BTD.ndim - together] + (1,) * together
        return jax.random.bernoulli(jax.random.fold_in(key, site), 1.0 - rate, shape)

    return jnp.where(jax.vmap(keep)(keys_B), x_BTD / (1.0 - rate), 0).astype(x_BTD.dtype)


def dropped(config: ModelConfig, x_BTD, keys_B):
    """What the first layer reads of embedded tokens, in training: see the config's dropout and token_dropout."""
    x_BTD = dropout(x_BTD, config.dropout, keys_B, 0)
    return dropout(x_BTD, config.token_dropout, keys_B, TOKENS, together=1)
