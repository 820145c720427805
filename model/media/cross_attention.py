"""How text attends to media that do not stand in its row."""

import flax.linen as nn
import jax.numpy as jnp

from model.attention.dispatch import Mask
from model.config import ModelConfig
from model.layers import FeedForward, Norm
from model.stack import CrossAttention


class GatedCrossBlock(nn.Module):
    """Adds to text what it attends to in media, and a feed-forward layer, each times tanh of a gate (Alayrac et al. 2022, fig. 4).

    The gates begin at zero, so that the block does nothing. x_BTD to y_BTD. cache: as of CrossAttention. Parameters: attention,
    attention_norm, attention_gate [], feed_forward, feed_forward_norm, feed_forward_gate [].
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, media_BMD, mask: Mask, cache=None):
        c = self.config

        def gated(name, y_BTD):
            gate = jnp.tanh(self.param(f"{name}_gate", nn.initializers.zeros, (), jnp.float32))
            return gate.astype(x_BTD.dtype) * y_BTD

        def norm(name):
            return Norm(c.norm, c.norm_epsilon, c.bias, name=f"{name}_norm")(x_BTD)

        x_BTD += gated("attention", CrossAttention(c, name="attention")(norm("attention"), media_BMD, mask, cache))
        return x_BTD + gated("feed_forward", FeedForward(c, name="feed_forward")(norm("feed_forward")))
