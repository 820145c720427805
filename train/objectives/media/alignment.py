"""Learning which things belong together: a picture and its caption, a clip and its sound."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from model.media.multimodal_config import MultimodalConfig
from model.media.towers import MediaTower, TextTower
from model.transformer import DECODER
from train.experiment import Experiment
from train.kinds import Bound, Path
from train.objectives.media.options import Pairing
from train.objectives.media.views import OnRows, Pairs, count_of, decoder_config, encoder_of, pairs_of
from train.objectives.terms import Mean, Term

MASKED = -1e30


def unit(x_BE):
    """x_BE in float32, of length one; zeros stay zeros."""
    x_BE = x_BE.astype(jnp.float32)
    return x_BE * jax.lax.rsqrt(jnp.maximum(jnp.square(x_BE).sum(-1, keepdims=True), 1e-12))


def similarities(left_BE, right_BE):
    """Cosines of all pairs, float32 [B, B]."""
    return jnp.einsum("BE,CE->BC", unit(left_BE), unit(right_BE), precision="highest")


def alike(texts_B):
    """bool [B, B]: other pairs with the same text. Neither is wrong for the other, so they are left out where pairs are told apart."""
    return (texts_B[:, None] == texts_B) & ~jnp.eye(len(texts_B), dtype=bool)


def info_nce(cosine_BC, valid_B, scale, alike_BC=False):
    """Nats per pair, float32 [B]: the mean of choosing its right side among all, and its left one (CLIP, Radford et al. 2021, fig. 3).

    cosine_BC: of the whole batch, pairs on the diagonal. valid_B: 0 for what is no pair; it is nobody's choice. scale: the inverse
    temperature. alike_BC: what is no choice either (`alike`).
    """
    logits_BC = jnp.where(alike_BC, MASKED, scale * cosine_BC)
    right_B = jax.nn.logsumexp(jnp.where(valid_B[None, :] > 0, logits_BC, MASKED), axis=1)
    left_B = jax.nn.logsumexp(jnp.where(valid_B[:, None] > 0, logits_BC, MASKED), axis=0)
    return jnp.where(valid_B > 0, 0.5 * (right_B + left_B) - jnp.diagonal(logits_BC), 0.0)


def sigmoid_loss(cosine_BC, valid_B, scale, bias, alike_BC=False):
    """Nats per pair, float32 [B]: whether a left side belongs to each of the right ones, added up (SigLIP, Zhai et al. 2023, eq. 1)."""
    logits_BC = scale * cosine_BC + bias
    sign_BC = 2.0 * jnp.eye(len(valid_B)) - 1.0
    both_BC = jnp.where(alike_BC, 0.0, valid_B[:, None] * valid_B[None, :])
    return -(both_BC * jax.nn.log_sigmoid(sign_BC * logits_BC)).sum(1)


def recall(cosine_BC, valid_B, most: int = 1, alike_BC=False):
    """float32 [B]: 1 where the right side that belongs to a left one is among the `most` nearest; a tie counts against it."""
    own_B = jnp.diagonal(cosine_BC)
    others_BC = (cosine_BC >= own_B[:, None]) & (valid_B[None, :] > 0) & ~(alike_BC | jnp.eye(len(valid_B), dtype=bool))
    return (others_BC.sum(1) < most) * valid_B


@dataclasses.dataclass(frozen=True)
class AlignmentLoss:
    """Two towers under which the sides of a pair lie near each other, and those of different pairs apart.

    batch: Pairs. Term `loss`: nats per pair, over the pairs of the global batch, on however many devices: so it cannot be accumulated over
    micro-batches. Metrics: accuracy, how often the nearest one is the right one, both ways; scale, the inverse temperature.
    Parameters: left and right, those of the towers; log_scale and, for the sigmoid, bias.
    """

    left: Callable
    """tower(params, side, keys_B) -> [B, S, E], and tower.start(key) -> params, as of model/media/towers.py."""
    right: Callable
    """The same, of the other side."""
    kind: Literal["softmax", "sigmoid"] = "sigmoid"
    """InfoNCE or SigLIP's loss."""

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names. Temperatures and bias begin as in the papers."""
        left, right = jax.random.split(key)
        params = {"left": self.left.start(left), "right": self.right.start(right)}  # type: ignore[attr-defined]
        if self.kind == "sigmoid":
            return params | {"log_scale": jnp.float32(math.log(10.0)), "bias": jnp.float32(-10.0)}
        return params | {"log_scale": jnp.float32(math.log(1 / 0.07))}

    def __call__(self, params, batch: Pairs, key, *, frozen=None, carry=None):
        left_keys_B = right_keys_B = None
        if key is not None:
            left_keys_B, right_keys_B = jnp.moveaxis(jax.vmap(lambda row: jax.random.split(jax.random.fold_in(key, row)))(batch.rows), 1, 0)
        left, right = self.left(params["left"], batch.left, left_keys_B), self.right(params["right"], batch.right, right_keys_B)
        cosine = similarities(left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1]))
        valid, scale = batch.valid.reshape(-1), jnp.exp(params["log_scale"])
        same = False if batch.texts is None else alike(batch.texts.reshape(-1))
        if self.kind == "softmax":
            scale = jnp.minimum(scale, 100.0)  # CLIP's bound, beyond which training is not stable
            losses = info_nce(cosine, valid, scale, same)
        else:
            losses = sigmoid_loss(cosine, valid, scale, params["bias"], same)
        count, one = valid.sum(), jnp.float32(1)
        hits = recall(cosine, valid, 1, same).sum() + recall(cosine.T, valid, 1, same).sum()
        return {"loss": Term(1.0, losses.sum(), count)}, {"accuracy": Mean(hits, 2 * count), "scale": Mean(scale, one)}, carry


def pairing_loss(options: Pairing, experiment: Experiment) -> OnRows:
    """The contrastive loss of an experiment's pairs."""
    o, size = options, count_of(experiment, options.left)
    left = MediaTower(encoder_of(experiment, o.left), o.width, size)
    if o.right == "text":
        assert isinstance(experiment.model, MultimodalConfig)
        right: Any = TextTower(decoder_config(experiment.model), o.width, size, o.text_pool, o.text_start)
    else:
        right = MediaTower(encoder_of(experiment, o.right), o.width, size)
    return OnRows(AlignmentLoss(left, right, o.loss), lambda batch: pairs_of(batch, o.left, o.right, size))


def bind(options: Pairing, experiment: Experiment, shards: int) -> Bound:
    loss = pairing_loss(options, experiment)
    parts = tower_parts(options)
    if options.text_pool == "last":  # a decoder whose last state stands for a text is none that generates
        parts = {f"text tower's {name}" if path[0] == "right" else name: path for name, path in parts.items()}
    return Bound(loss, start=loss.start, parts=parts | space_parts(options))


def space_parts(pairing: Pairing) -> dict[str, Path]:
    """Where the pools, projections and the temperature stand: of the same space only if it is the same pairing."""
    names: list[Path] = [(side, part) for side in ("left", "right") for part in ("pool", "projection")] + [("log_scale",), ("bias",)]
    right = "last tokens" if pairing.text_pool == "last" else pairing.right
    space = f"{pairing.loss} space of {pairing.left} and {right}, {pairing.width} wide"
    return {f"{space}: {' '.join(path)}": path for path in names}


def tower_parts(pairing: Pairing) -> dict[str, Path]:
    """Where the towers' encoders and decoder stand among the parameters of an AlignmentLoss."""
    found: dict[str, Path] = {f"{pairing.left} encoder": ("left", "encoder")}
    if pairing.right == "text":
        return found | {name: ("right", "decoder", name) for name in DECODER}
    return found | {f"{pairing.right} encoder": ("right", "encoder")}
