"""Perturbations of the vectors of tokens, text by text: several texts share a row, and none says anything of another's size."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from data.errors import UserError
from model.media.multimodal_config import MultimodalConfig
from train.experiment import Experiment
from train.step.gradients import loss_of, weights_of, with_terms

ADVERSARY = 0x61647665
"""Folded into the key of a step for what is random in perturbations."""
TINY = 1e-30


@flax.struct.dataclass
class Contrast:
    """As `shift` of a batch: asks a loss to add the term `divergence`, of the answers with shift_BTW from those without.

    coefficient: of that term. symmetric: both ways; else from the clean answers, which are constants.
    """

    shift_BTW: Any
    coefficient: float = flax.struct.field(pytree_node=False)
    symmetric: bool = flax.struct.field(pytree_node=False)


def table_width(experiment: Experiment) -> int:
    """Of the vectors of tokens; UserError for an objective or a model that they cannot be moved in."""
    objective, model, method = (type(one).__name__ for one in (experiment.objective, experiment.model, experiment.gradient))
    if not type(experiment.objective).shifted:
        raise UserError(f"gradient {method}: {objective} reads no perturbed embeddings", "Train with the gradient Exact.")
    if isinstance(experiment.model, MultimodalConfig):
        raise UserError(f"gradient {method}: the model, a {model}, takes no perturbed embeddings", "Train with the gradient Exact.")
    return getattr(experiment.model, "embedding_width", experiment.model.embed_dim)


def segments_of(batch):
    """int32 [B, T]: of the tokens that are moved. 0 is padding."""
    return getattr(batch, "source_segments", batch.segments)


def no_shift(batch, width: int):
    """float32 [B, T, W] of zeros."""
    return jnp.zeros((*segments_of(batch).shape, width), jnp.float32)


def lengths(shift_BTW, segments_BT):
    """float32 [B, T, 1]: the length of each place's segment of a perturbation, as one vector of all its tokens."""

    def row(square_T, segments_T):
        return jax.ops.segment_sum(square_T, segments_T, len(segments_T) + 1)[segments_T]

    return jnp.sqrt(jax.vmap(row)(jnp.square(shift_BTW).sum(-1), segments_BT))[..., None]


def tokens_in(segments_BT):
    """float32 [B, T, 1]: how many tokens each place's segment has."""
    return jnp.square(lengths(jnp.ones((*segments_BT.shape, 1)), segments_BT))


def direction(gradient_BTW, segments_BT):
    """The gradient at length one for each segment; 0 on padding, and where a segment has none."""
    gradient_BTW /= jnp.maximum(jnp.abs(gradient_BTW).max(), TINY)  # the squares of tiny ones would be 0
    found = gradient_BTW / jnp.maximum(lengths(gradient_BTW, segments_BT), TINY)
    return jnp.where((segments_BT != 0)[..., None], found, 0)


def within(shift_BTW, segments_BT, epsilon: float):
    """The perturbation, each segment cut to the length epsilon; 0 leaves it as it is."""
    return shift_BTW * jnp.minimum(1.0, epsilon / jnp.maximum(lengths(shift_BTW, segments_BT), TINY)) if epsilon else shift_BTW


def noise(draw, batch, key, width: int):
    """draw(key, shape) for each row by its own number, so that micro-batches and devices do not change it; 0 on padding."""
    segments_BT = segments_of(batch)
    key = jax.random.fold_in(key, ADVERSARY)
    drawn = jax.vmap(lambda row: draw(jax.random.fold_in(key, row), (segments_BT.shape[1], width)))(batch.rows)
    return jnp.where((segments_BT != 0)[..., None], drawn, 0)


def pushed(objective, params, batch, shift_BTW, key, *, weights, frozen, carry):
    """(gradient of the parameters, of the perturbation, metrics, carry) of the loss at a perturbation. weights: as of `plain`."""

    def loss(params, shift_BTW):
        terms, metrics, new_carry = objective(params, batch._replace(shift=shift_BTW), key, frozen=frozen, carry=carry)
        return loss_of(terms, weights or weights_of(terms)), (with_terms(metrics, terms), new_carry)

    (gradients, push_BTW), (metrics, carry) = jax.grad(loss, (0, 1), has_aux=True)(params, shift_BTW)
    return gradients, push_BTW, metrics, carry
