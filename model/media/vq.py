"""A tokenizer for what is not text: patches or frames to codes and back (VQ-VAE, van den Oord et al. 2017)."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.layers import ACTIVATIONS, Dense


@dataclasses.dataclass(frozen=True)
class VQConfig:
    """Every patch or frame becomes one code, by itself."""

    values: int
    """Numbers in a patch or frame."""
    codes: int = 512
    """Size of the codebook."""
    code_dim: int = 16
    """Width of a code's vector."""
    hidden_dim: int = 256
    """Width of the two hidden layers before the codebook, and of those after it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products."""

    def __post_init__(self):
        for name in ("values", "codes", "code_dim", "hidden_dim"):
            if getattr(self, name) <= 0:
                raise ValueError(f"vq.{name} is {getattr(self, name)}; it must be positive")


class Quantised(NamedTuple):
    """codes int32 [...]; latents [..., Z], before the codebook; vectors [..., Z], those of the codes; patches [..., C], reconstructed,
    whose gradient reaches the latents as if they had been the vectors."""

    codes: jax.Array
    latents: jax.Array
    vectors: jax.Array
    patches: jax.Array


class Perceptron(nn.Module):
    """Two hidden layers with GELU and a linear one."""

    hidden_dim: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        for name in ("first", "second"):
            x = ACTIVATIONS["gelu"](self._dense(x, self.hidden_dim, name))
        return self._dense(x, self.width, "out").astype(jnp.float32)

    def _dense(self, x, width, name):
        return Dense((width,), ("embed", "mlp"), 1.0 / math.sqrt(x.shape[-1]), self.dtype, bias=True, name=name)(x)


class VectorQuantiser(nn.Module):
    """patches [..., C], float32, to Quantised. Parameters: encoder, decoder; codebook [K, Z]."""

    config: VQConfig

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.encoder = Perceptron(c.hidden_dim, c.code_dim, dtype)
        self.decoder = Perceptron(c.hidden_dim, c.values, dtype)
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("vocab", "embed"))
        self.codebook = self.param("codebook", init, (c.codes, c.code_dim), jnp.float32)

    def __call__(self, patches) -> Quantised:
        latents = self.encoder(patches)
        codes = nearest(latents, self.codebook)
        vectors = self.codebook[codes]
        through = latents + jax.lax.stop_gradient(vectors - latents)  # straight through (eq. 2)
        return Quantised(codes, latents, vectors, self.decoder(through))

    def encode(self, patches):
        """int32 [...]: the code of each patch."""
        return nearest(self.encoder(patches), self.codebook)

    def decode(self, codes):
        """float32 [..., C]: the patch that each code stands for."""
        return self.decoder(self.codebook[codes])


def nearest(latents, codebook_KZ):
    """int32 [...]: the number of the nearest vector of the codebook (van den Oord et al. 2017, eq. 1); the first of equals."""
    products = jnp.einsum("...Z,KZ->...K", latents, codebook_KZ, precision="highest")
    return jnp.argmin(jnp.square(codebook_KZ).sum(-1) - 2.0 * products, axis=-1).astype(jnp.int32)


def reseed(params, uses_K, drawn_KZ, least: float):
    """Parameters whose dead codes, those used less than `least` times, become vectors drawn from a batch's latents; others stay.

    A code that nothing is near gets no gradient and would stay dead. uses_K: how often each was used of late.
    """
    return params | {"codebook": jnp.where((uses_K < least)[:, None], drawn_KZ, params["codebook"])}
