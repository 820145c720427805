"""The formula against XLA's own count, a count by hand of each product, and published figures."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from model.config import ModelConfig
from model.flops import forward_flops_per_token, training_flops_per_token
from model.heads import Head, logits, vocabulary_table
from model.presets import preset
from model.transformer import Decoder
from train.planning.flops import peak_flops

SMALL = ModelConfig(vocab_size=512, context_length=64, num_layers=2, embed_dim=256, num_heads=4, dtype="float32", attention="reference")
LLAMA = dataclasses.replace(
    SMALL, num_kv_heads=2, mlp_dim=640, gated=True, activation="silu", norm="rmsnorm", positions="rotary", bias=False, tied_embeddings=False
)


@pytest.mark.parametrize("config", [SMALL, LLAMA, dataclasses.replace(SMALL, head_dim=96)], ids=["gpt2", "llama", "wide_heads"])
def test_full_square_equals_what_xla_counts(config):
    """XLA counts the norms and the softmax too, and the whole square of the masked scores: a few per cent more at these sizes."""
    batch, length = 2, config.context_length
    tokens_BT = jnp.zeros((batch, length), jnp.int32)
    variables = jax.eval_shape(Decoder(config).init, jax.random.key(0), tokens_BT)

    def forward(variables, tokens_BT):
        hidden_BTD = Decoder(config).apply(variables, tokens_BT).hidden_BTD
        return logits(Head(hidden_BTD, vocabulary_table(variables["params"])))

    counted = jax.jit(forward).lower(nn.unbox(variables), tokens_BT).cost_analysis()["flops"] / (batch * length)
    assert forward_flops_per_token(config, length, causal=False) == pytest.approx(counted, rel=0.05)
    assert forward_flops_per_token(config, length, causal=False) < counted


LOCAL = dataclasses.replace(LLAMA, num_layers=5, window=9, global_every=2)


@pytest.mark.parametrize("config", [SMALL, LLAMA, LOCAL], ids=["gpt2", "llama", "local"])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_causal_count_equals_a_loop_over_queries_and_keys(config, length):
    def product(rows, inner, columns):
        return 2 * rows * inner * columns

    c, total = config, 0
    for layer in range(c.num_layers):
        reach = c.window if c.window and layer in (0, 2, 4) else length
        total += product(length, c.embed_dim, c.num_heads * c.head_width)
        total += 2 * product(length, c.embed_dim, c.kv_heads * c.head_width)
        total += product(length, c.num_heads * c.head_width, c.embed_dim)
        for query in range(length):
            for _ in range(max(0, query + 1 - reach), query + 1):
                total += c.num_heads * (product(1, c.head_width, 1) + product(1, 1, c.head_width))
        total += (3 if c.gated else 2) * product(length, c.embed_dim, c.mlp_width)
    total += product(length, c.embed_dim, c.vocab_size)
    assert forward_flops_per_token(config, length) * length == pytest.approx(total, rel=1e-12)


def test_experts_count_as_those_that_a_token_goes_through():
    dense = dataclasses.replace(LLAMA, num_layers=3)
    experts = dataclasses.replace(dense, experts=8, experts_per_token=3)
    extra = forward_flops_per_token(experts, 64) - forward_flops_per_token(dense, 64)
    one = 3 * 2 * dense.embed_dim * dense.mlp_dim
    assert extra == 3 * (2 * one + 2 * dense.embed_dim * 8)


def test_gpt2_lies_near_six_flops_per_parameter():
    """6 N + 12 L D T per token (Chowdhery et al. 2022, appendix B), N without the positions, which are only looked up."""
    config = preset("gpt2")
    parameters = 124_439_808 - 1024 * 768
    palm = 6 * parameters + 12 * config.num_layers * config.embed_dim * 1024
    assert training_flops_per_token(config, 1024, causal=False) == pytest.approx(palm, rel=1e-3)
    causal, square = (training_flops_per_token(config, 1024, causal=causal) for causal in (True, False))
    assert square - causal == 6 * config.num_layers * config.embed_dim * (1024 - 1)


def test_a_slice_of_a_gpu_has_no_known_peak():
    assert peak_flops("NVIDIA H100 80GB HBM3") is not None
    assert peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
