"""Attention of some places to others: of a pooling query or a resampler's latents to the places of an image, of text to media."""

import math

import flax.linen as nn

from model.attention import Mask, attend
from model.config import ModelConfig
from model.layers import Dense, compute_dtype, constrain


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
