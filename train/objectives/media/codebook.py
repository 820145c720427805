"""Training a tokenizer of patches or frames."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from model.media.vq import VectorQuantiser, VQConfig, reseed
from train.experiment import Experiment
from train.kinds import Bound
from train.objectives.media.options import Codebook
from train.objectives.media.views import OnRows, PatchRows, patches_of
from train.objectives.terms import Mean, Term
from train.sources.media.shapes import shapes_of


@dataclasses.dataclass(frozen=True)
class CodebookLoss:
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


def codebook_config(options: Codebook, experiment: Experiment) -> VQConfig:
    return VQConfig(shapes_of(experiment)[options.medium].values, options.codes, options.code_dim, options.hidden_dim)


def bind(options: Codebook, experiment: Experiment, shards: int) -> Bound:
    loss = CodebookLoss(codebook_config(options, experiment), options.commitment)

    def view(batch):
        return patches_of(batch, options.medium)

    def refresh(params, batch, key, carry):
        """Codes that are dead are moved to where data is."""
        return loss.refresh(params, view(batch), key, carry)

    return Bound(OnRows(loss, view), start=loss.start, carry=jnp.ones(options.codes), refresh=refresh)
