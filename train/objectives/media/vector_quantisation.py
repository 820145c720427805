"""Training a tokenizer of patches or frames."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.media.vq import VectorQuantiser, VQConfig, reseed
from train.objectives.terms import Mean, Term


class PatchRows(NamedTuple):
    """Rows of patches or frames."""

    patches: jax.Array  # float32 [B, N, C], or uint8, which becomes [-1, 1]
    weights: jax.Array  # float32 [B, N]: 0 on padding


@dataclasses.dataclass(frozen=True)
class VectorQuantisation:
    """Reconstruction through a codebook (van den Oord et al. 2017, eq. 3).

    batch: PatchRows. Terms: `loss`, squared error of a value; `codebook`, which draws codes to their latents, and `commitment`, which draws
    latents to their codes: squared distances. Metric: perplexity, the effective number of codes in use.
    carry: float32 [K], a running count of the uses of each code in a batch, from which `refresh` knows the dead ones.
    """

    config: VQConfig
    commitment: float = 0.25
    """Coefficient of the commitment term (the paper's beta)."""
    memory: float = 0.99
    """Share of the running count that a step keeps."""
    dead: float = 0.03
    """Share of an even count below which a code is dead."""

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        return VectorQuantiser(self.config).init(key, jnp.zeros((1, self.config.values)))["params"]

    def __call__(self, params, batch: PatchRows, key, *, frozen=None, carry=None):
        patches, weights = _floats(batch.patches), batch.weights
        found = VectorQuantiser(self.config).apply({"params": params}, patches)
        count = weights.sum()

        def distance(a, b):
            return (jnp.square(a - b).mean(-1) * weights).sum()

        terms = {
            "loss": Term(1.0, distance(found.patches, patches), count),
            "codebook": Term(1.0, distance(jax.lax.stop_gradient(found.latents), found.vectors), count),
            "commitment": Term(self.commitment, distance(found.latents, jax.lax.stop_gradient(found.vectors)), count),
        }
        uses_K = jnp.zeros(self.config.codes).at[found.codes.reshape(-1)].add(weights.reshape(-1))
        share_K = uses_K / jnp.maximum(count, 1.0)
        perplexity = jnp.exp(-(share_K * jnp.log(share_K + 1e-10)).sum())
        if carry is not None:
            carry = self.memory * carry + (1.0 - self.memory) * uses_K
        return terms, {"perplexity": Mean(perplexity, jnp.float32(1))}, carry

    def refresh(self, params, batch: PatchRows, key, carry):
        """Parameters and carry after dead codes were moved to latents of a batch; for every hundred steps or so, between two updates.

        Padding is not drawn unless all of the batch is padding.
        """
        latents = VectorQuantiser(self.config).apply({"params": params}, _floats(batch.patches)).latents
        likely_M = jnp.log(jnp.maximum(batch.weights.reshape(-1), 1e-12))
        drawn_K = jax.random.categorical(key, likely_M, shape=carry.shape)
        even = carry.sum() / self.config.codes
        least = self.dead * even
        params = reseed(params, carry, latents.reshape(-1, latents.shape[-1])[drawn_K], least)
        return params, jnp.where(carry < least, even, carry)


def _floats(patches):
    return patches.astype(jnp.float32) / 127.5 - 1.0 if patches.dtype == jnp.uint8 else patches
