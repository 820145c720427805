"""Attention of some places to others: of a pooling query or a resampler's latents to the places of an image, of text to media."""

import math

import flax.linen as nn
import jax.numpy as jnp

from model.attention.dispatch import Mask, attend
from model.config import ModelConfig
from model.layers import Dense, FeedForward, Norm, compute_dtype, constrain


class CrossAttention(nn.Module):
    """Multi-head attention whose queries come from x_BTD and whose keys and values come from source_BSX, of any width. Returns y_BTD.

    mask: with key_segments_BS, those of the source. Parameters: query, key, value and out, as of self-attention.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, source_BSX, mask: Mask):
        c, dtype = self.config, compute_dtype(self.config)

        def project(x, heads, name):
            axes = ("embed", "heads" if name == "query" else "kv_heads", "head")
            x = Dense((heads, c.head_width), axes, c.init_std, dtype, bias=c.bias, name=name)(x)
            return constrain(x, "batch", "length" if name == "query" else None, axes[1], "head")

        q_BTHK = project(x_BTD, c.num_heads, "query")
        k_BSGK, v_BSGK = project(source_BSX, c.kv_heads, "key"), project(source_BSX, c.kv_heads, "value")
        # The kernels for accelerators want as many queries as keys; here the queries are few.
        y_BTHK = attend(q_BTHK, k_BSGK, v_BSGK, mask, "xla", c.attention_softcap)
        std = c.init_std / math.sqrt(2 * c.num_layers)
        return Dense((c.embed_dim,), ("heads", "head", "embed"), std, dtype, inputs=2, bias=c.bias, name="out")(y_BTHK)


class GatedCrossBlock(nn.Module):
    """Adds to text what it attends to in media, and a feed-forward layer, each times tanh of a gate (Alayrac et al. 2022, fig. 4).

    The gates begin at zero, so that the block does nothing. x_BTD to y_BTD. Parameters: attention, attention_norm, attention_gate [],
    feed_forward, feed_forward_norm, feed_forward_gate [].
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, media_BMD, mask: Mask):
        c = self.config

        def gated(name, y_BTD):
            gate = jnp.tanh(self.param(f"{name}_gate", nn.initializers.zeros, (), jnp.float32))
            return gate.astype(x_BTD.dtype) * y_BTD

        def norm(name):
            return Norm(c.norm, c.norm_epsilon, c.bias, name=f"{name}_norm")(x_BTD)

        seen_B1T1 = mask.allowed(x_BTD.shape[1], media_BMD.shape[1]).any(-1, keepdims=True)
        found_BTD = CrossAttention(c, name="attention")(norm("attention"), media_BMD, mask)
        x_BTD += gated("attention", jnp.where(seen_B1T1[:, 0], found_BTD, 0))  # a text without media is shown nothing
        return x_BTD + gated("feed_forward", FeedForward(c, name="feed_forward")(norm("feed_forward")))
