"""Towers: what maps a whole image, clip, recording or text to one vector of a space that several of them share."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.layers import Dense, compute_dtype
from model.media.encoder_config import EncoderConfig
from model.media.encoders import Encoder, Pool, block_config, encoded_places, encoded_segments, segment_lasts, segment_means
from model.transformer import Decoder


def _projection(width: int, inputs: int, config: ModelConfig) -> Dense:
    return Dense((width,), ("mlp", "embed"), 1.0 / math.sqrt(inputs), compute_dtype(config))


@dataclasses.dataclass(frozen=True)
class MediaTower:
    """An encoder, its pool and a linear map to `width`. Parameters: encoder, pool (where it has any), projection."""

    config: EncoderConfig
    width: int
    count: int = 1
    """Images, clips or recordings that a row may hold."""

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        c, keys = self.config, jax.random.split(key, 3)
        patches, places = jnp.zeros((1, 2, c.patch_values)), jnp.zeros((1, 2, len(c.axes)), jnp.int32)
        segments, hidden = jnp.ones((1, 2), jnp.int32), jnp.zeros((1, 2, c.embed_dim))
        return {
            "encoder": Encoder(c).init(keys[0], patches, places, segments)["params"],
            "pool": Pool(c).init(keys[1], hidden, segments, 1, places).get("params", {}),
            "projection": _projection(self.width, c.embed_dim, block_config(c)).init(keys[2], hidden)["params"],
        }

    def __call__(self, params, media, keys_B=None):
        """float32 [B, S, width]. media: patches [B, N, C], places [B, N, A] and segments [B, N], as of an Encoder."""
        c = self.config
        hidden_BNE = Encoder(c).apply({"params": params["encoder"]}, media.patches, media.places, media.segments, keys_B=keys_B)
        segments_BN, places_BNA = encoded_segments(c, media.segments), encoded_places(c, media.places)
        pooled_BSE = Pool(c).apply({"params": params["pool"]}, hidden_BNE, segments_BN, self.count, places_BNA)
        projection = _projection(self.width, c.embed_dim, block_config(c))
        return projection.apply({"params": params["projection"]}, pooled_BSE).astype(jnp.float32)


class Texts(NamedTuple):
    """Packed texts; int32 [B, T]. Segments number them from 1, 0 is padding; positions count from 0 in each."""

    tokens: Any
    segments: Any
    positions: Any


def with_start(texts: Texts, start: int, count: int) -> Texts:
    """The texts with the token `start` before each, in rows that are `count` places longer; a row holds at most so many."""

    def row(tokens_T, segments_T, positions_T):
        first_T = (segments_T > 0) & (positions_T == 0)
        size, place_T = len(tokens_T) + count, jnp.arange(len(tokens_T)) + jnp.cumsum(first_T)
        before_T = jnp.where(first_T, place_T - 1, size)  # those beyond the row are dropped
        put = (jnp.zeros(size, jnp.int32).at[place_T].set(values_T) for values_T in (tokens_T, segments_T, positions_T + (segments_T > 0)))
        tokens, segments, positions = put
        return tokens.at[before_T].set(start, mode="drop"), segments.at[before_T].set(segments_T, mode="drop"), positions

    return Texts(*jax.vmap(row)(texts.tokens, texts.segments, texts.positions))


@dataclasses.dataclass(frozen=True)
class TextTower:
    """A decoder, what stands for each text, and a linear map to `width`. Parameters: decoder, projection."""

    config: ModelConfig
    width: int
    count: int = 1
    """Texts that a row may hold."""
    pool: Literal["mean", "last"] = "mean"
    """The mean of a text's hidden states, or that of its last token."""
    start_token: int = -1
    """Id that each text begins with; -1: none."""

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        keys, c = jax.random.split(key), self.config
        hidden = jnp.zeros((1, 1, c.embed_dim))
        return {
            "decoder": Decoder(c).init(keys[0], jnp.zeros((1, 1), jnp.int32))["params"],
            "projection": _projection(self.width, c.embed_dim, c).init(keys[1], hidden)["params"],
        }

    def __call__(self, params, texts: Texts, keys_B=None):
        """float32 [B, S, width]."""
        if self.start_token >= 0:
            texts = with_start(texts, self.start_token, self.count)
        where = {"segments_BT": texts.segments, "positions_BT": texts.positions, "keys_B": keys_B}
        hidden_BTD = Decoder(self.config).apply({"params": params["decoder"]}, texts.tokens, **where).hidden_BTD
        pool = segment_lasts if self.pool == "last" else segment_means
        pooled_BSD = pool(hidden_BTD, texts.segments, self.count)
        projection = _projection(self.width, self.config.embed_dim, self.config)
        return projection.apply({"params": params["projection"]}, pooled_BSD).astype(jnp.float32)
