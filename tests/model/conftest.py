"""Tiny models of both families, and their parameters."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.transformer import Decoder

GPT2 = ModelConfig(vocab_size=61, context_length=24, num_layers=2, embed_dim=24, num_heads=4, init_std=0.3)
LLAMA = dataclasses.replace(
    GPT2,
    num_kv_heads=2,
    mlp_dim=40,
    norm="rmsnorm",
    activation="silu",
    gated=True,
    positions="rotary",
    bias=False,
    tied_embeddings=False,
)
MODERN = dataclasses.replace(LLAMA, activation="relu_squared", gated=False, qk_norm=True, tied_embeddings=True)
GEMMA2 = dataclasses.replace(
    LLAMA,
    activation="gelu_tanh",
    tied_embeddings=True,
    window=3,
    global_every=2,
    attention_softcap=2.0,
    logit_softcap=3.0,
    norm_position="both",
    embed_scale=True,
)
EXPERTS = dataclasses.replace(LLAMA, experts=4, experts_per_token=2)
PARALLEL = dataclasses.replace(
    LLAMA, norm="layernorm", bias=True, parallel=True, rotary_scaling="yarn", rotary_factor=4.0, rotary_original_context=8
)


@functools.cache
def make(config: ModelConfig):
    """A decoder and parameters; biases and norms are random too, so that none of them hides behind its zero or one."""
    model = Decoder(config)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"])
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return jnp.asarray(
            rng.normal(float(path[-1].key == "scale"), 0.1 if path[-1].key in ("scale", "bias") else 0.3, leaf.shape), jnp.float32
        )

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def forward(model: Decoder):
    """The model's forward pass to its hidden states, jitted once: run op by op, each op would be compiled by itself."""
    return jax.jit(lambda params, tokens_BT, **context: model.apply({"params": params}, tokens_BT, **context).hidden_BTD)


@pytest.fixture(params=[GPT2, LLAMA, MODERN], ids=["gpt2", "llama", "modern"])
def tiny(request):
    return make(request.param)
