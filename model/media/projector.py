"""From an encoder's hidden places to inputs of a decoder."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.attention.dispatch import Mask
from model.config import ModelConfig
from model.layers import ACTIVATIONS, Dense, FeedForward, Norm, compute_dtype
from model.media.encoder_config import EncoderConfig
from model.media.encoders import block_config
from model.stack import CrossAttention


class Projected(NamedTuple):
    """What a decoder reads of a row's images, clips or recordings.

    media_BMD: M places of the decoder's width; those of one segment stand in the order in which they were encoded. segments_BM: int32,
    the segment of each; 0 is padding, whose values mean nothing.
    """

    media_BMD: jax.Array
    segments_BM: jax.Array


class Projector(nn.Module):
    """Maps hidden_BNE of an encoder to Projected places of `width` D, in the way that config.projector names.

    Parameters: out; hidden before it for an mlp, resampler for the third kind.
    """

    config: EncoderConfig
    width: int

    @nn.compact
    def __call__(self, hidden_BNE, segments_BN, count: int) -> Projected:
        """segments_BN: of the hidden places (`encoded_segments`). count: S, the segments that a row may hold; a resampler makes
        latents of 1 to S. With pixel shuffle each segment fills whole blocks: N and where it begins are multiples of s * s.
        """
        c, block = self.config, block_config(self.config)
        dtype, kind = compute_dtype(block), c.projector.method

        def dense(x, width, name):
            return Dense((width,), ("mlp", "embed"), 1.0 / math.sqrt(x.shape[-1]), dtype, bias=True, name=name)(x)

        if kind == "resampler":
            latents_BME, segments_BM = Resampler(c, name="resampler")(hidden_BNE, segments_BN, count)
            return Projected(dense(latents_BME, self.width, "out"), segments_BM)
        x, segments_BM = _shuffle(hidden_BNE, segments_BN, c.projector.shuffle)
        if kind == "mlp":
            x = ACTIVATIONS["gelu"](dense(x, self.width, "hidden"))
        return Projected(dense(x, self.width, "out"), segments_BM)


def _shuffle(hidden_BNE, segments_BN, side: int):
    """Pixel shuffle, as a reshape, since the places of a block lie together: [B, N, E] to [B, N / side^2, side^2 * E]."""
    batch, places, width = hidden_BNE.shape
    size = side**2
    if places % size:
        raise ValueError(f"a row of {places} places does not consist of blocks of {size} (projector.shuffle {side})")
    return hidden_BNE.reshape(batch, places // size, size * width), segments_BN[:, ::size]


class Resampler(nn.Module):
    """The Perceiver resampler of Flamingo (Alayrac et al. 2022, sec. 2.1): latents attend to places and to themselves, layer by layer.

    Each segment has K latents, which see that segment alone. Parameters: latents [K, E], block_0, block_1, ..., final_norm. Returns
    latents [B, S * K, E] and their segments, 0 for segments that a row does not have.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BNE, segments_BN, count: int):
        c, block = self.config, block_config(self.config)
        batch, size = hidden_BNE.shape[0], c.projector.latents
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0 / math.sqrt(c.embed_dim)), ("positions", "embed"))
        latents_KE = self.param("latents", init, (size, c.embed_dim), jnp.float32)
        x_BME = jnp.broadcast_to(jnp.tile(latents_KE, (count, 1)).astype(hidden_BNE.dtype), (batch, count * size, c.embed_dim))
        numbers_S = jnp.arange(1, count + 1)
        present_BS = (segments_BN[:, None, :] == numbers_S[:, None]).any(-1)
        segments_BM = jnp.repeat(jnp.where(present_BS, numbers_S, 0), size, axis=1)
        mask = Mask(causal=False, query_segments_BT=segments_BM, key_segments_BS=jnp.concatenate([segments_BN, segments_BM], 1))
        for layer in range(c.projector.layers):
            x_BME = ResamplerBlock(block, name=f"block_{layer}")(x_BME, hidden_BNE, mask)
        return Norm(block.norm, block.norm_epsilon, block.bias, name="final_norm")(x_BME), segments_BM


class ResamplerBlock(nn.Module):
    """Latents attend to places and latents, then a feed-forward layer; both add to the latents."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BME, hidden_BNE, mask: Mask):
        c = self.config

        def norm(name, x):
            return Norm(c.norm, c.norm_epsilon, c.bias, name=name)(x)

        h_BME = norm("attention_norm", x_BME)
        source_BXE = jnp.concatenate([norm("media_norm", hidden_BNE), h_BME], 1)
        x_BME += CrossAttention(c, name="attention")(h_BME, source_BXE, mask)
        return x_BME + FeedForward(c, name="feed_forward")(norm("feed_forward_norm", x_BME))
