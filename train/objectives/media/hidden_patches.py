"""Masked patch modelling: what is hidden of a picture or a clip is predicted from the rest."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.layers import Dense, compute_dtype
from model.media.encoder_config import EncoderConfig, VideoEncoder
from model.media.encoders import Encoder, block_config
from train.experiment import Experiment
from train.kinds import Bound
from train.objectives.media.options import HiddenPatches
from train.objectives.media.views import MediaRows, OnRows, encoder_of, present
from train.objectives.terms import Mean, Term


def tubes(config: EncoderConfig, places_BNA):
    """int32 [B, N], the same for places that are hidden together: for clips those at one row and column, at all times (VideoMAE, Tong et
    al. 2022, sec. 3.3); for images each its own."""
    rows, columns = config.extent[-2:]
    assert isinstance(config, VideoEncoder) or config.kind == "image"
    return places_BNA[..., -2] * columns + places_BNA[..., -1]


def choose_hidden(key, tubes_BN, segments_BN, rows_B, rate: float):
    """bool [B, N]: the places to hide, `rate` of each segment's tubes, rounded up; none of padding, nor of class tokens (negative tubes).

    What is hidden in a row depends on the key, the row's number, and each place's segment and tube alone.
    """

    def row(tubes_N, segments_N, row):
        own = jax.random.fold_in(key, row)

        def chance(segment, tube):
            return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(own, segment), tube))

        counted_N = (segments_N > 0) & (tubes_N >= 0)
        group_N = jnp.where(counted_N, segments_N, 0)
        chance_N = jax.vmap(chance)(group_N, tubes_N)
        order_N = jnp.lexsort((chance_N, group_N))
        place_N = jnp.arange(len(tubes_N))
        group, drawn = group_N[order_N], chance_N[order_N]
        begins = jnp.concatenate([jnp.ones(1, bool), group[1:] != group[:-1]])
        new_tube = begins | jnp.concatenate([jnp.ones(1, bool), drawn[1:] != drawn[:-1]])
        start = jax.lax.cummax(jnp.where(begins, place_N, 0))
        tube_start = jax.lax.cummax(jnp.where(new_tube, place_N, 0))
        size = jnp.bincount(group, length=len(tubes_N) + 1)[group]
        hidden = (tube_start - start < rate * size) & (group > 0)
        return jnp.zeros(len(tubes_N), bool).at[order_N].set(hidden)

    return jax.vmap(row)(tubes_BN, segments_BN, rows_B)


def normalised(patches_BNC):
    """float32: each patch less its mean, over its standard deviation (He et al. 2022, sec. 4.1)."""
    x = patches_BNC.astype(jnp.float32)
    if patches_BNC.dtype == jnp.uint8:
        x = x / 127.5 - 1.0
    x -= x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


@dataclasses.dataclass(frozen=True)
class HiddenPatchesLoss:
    """Hidden places say where they lie but not what they show; a linear layer after the encoder predicts it (SimMIM, Xie et al. 2022).

    batch: MediaRows of images or clips. Term `loss`: squared error of the normalised values of a hidden patch, averaged over them; saying
    nothing costs 1. Metric: hidden, the share of places. Without a key (evaluation) the same places are hidden each time.
    Parameters: encoder; mask [E], which stands for hidden values; predict.
    """

    config: EncoderConfig
    rate: float = 0.6
    """Share of an image's patches, or of a clip's tubes, that are hidden."""

    def __post_init__(self):
        if self.config.kind not in ("image", "video"):
            raise ValueError(f"patches of images and video can be hidden; this encoder is for {self.config.kind}")
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"objective.rate is {self.rate}; it must lie in (0, 1]")

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        c, keys = self.config, jax.random.split(key, 3)
        patches, places = jnp.zeros((1, 1, c.patch_values)), jnp.zeros((1, 1, len(c.axes)), jnp.int32)
        mask = nn.with_logical_partitioning(nn.initializers.normal(c.init_std), ("embed",))(keys[1], (c.embed_dim,))
        return {
            "encoder": Encoder(c).init(keys[0], patches, places, jnp.ones((1, 1), jnp.int32))["params"],
            "mask": mask,
            "predict": self._head().init(keys[2], jnp.zeros((1, 1, c.embed_dim)))["params"],
        }

    def __call__(self, params, batch: MediaRows, key, *, frozen=None, carry=None):
        media, rows_B = batch.media, batch.rows
        keys_B = None if key is None else jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), 1))(rows_B)
        mask_key = jax.random.key(0) if key is None else key
        hidden_BN = choose_hidden(mask_key, tubes(self.config, media.places), media.segments, rows_B, self.rate)
        encoder = Encoder(self.config)
        where = {"keys_B": keys_B, "masked_BN": hidden_BN, "mask_E": params["mask"]}
        hidden_BNE = encoder.apply({"params": params["encoder"]}, media.patches, media.places, media.segments, **where)
        predicted_BNC = self._head().apply({"params": params["predict"]}, hidden_BNE).astype(jnp.float32)
        error_BN = jnp.square(predicted_BNC - normalised(media.patches)).mean(-1)
        count, places = hidden_BN.sum().astype(jnp.float32), (media.segments > 0).sum().astype(jnp.float32)
        return {"loss": Term(1.0, (error_BN * hidden_BN).sum(), count)}, {"hidden": Mean(count, places)}, carry

    def _head(self) -> Dense:
        c = self.config
        return Dense((c.patch_values,), ("embed", "mlp"), 1.0 / math.sqrt(c.embed_dim), compute_dtype(block_config(c)), bias=True)


def bind(options: HiddenPatches, experiment: Experiment, shards: int) -> Bound:
    loss = HiddenPatchesLoss(encoder_of(experiment, options.medium), options.rate)
    on_rows = OnRows(loss, lambda batch: MediaRows(present(batch, options.medium), batch.rows))
    return Bound(on_rows, start=loss.start, parts={f"{options.medium} encoder": ("encoder",)})
