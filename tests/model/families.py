"""Tiny models of every family, with random parameters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from model.encoder_decoder import EncoderDecoder, SourceText
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder import TextEncoder
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Decoder

PLAIN = {"vocab_size": 61, "context_length": 24, "num_layers": 2, "embed_dim": 24, "num_heads": 4}
T5 = {"norm": "rmsnorm", "bias": False, "positions": "relative", "relative_buckets": 6, "relative_distance": 8}
LLAMA = {"norm": "rmsnorm", "positions": "rotary", "bias": False, "activation": "silu", "gated": True}
DECODERS = {
    "gpt_neox": ModelConfig(**PLAIN, positions="rotary", rotary_share=0.34, parallel=True, parallel_norms=2, tied_embeddings=False),
    "qwen2": ModelConfig(
        **PLAIN, norm="rmsnorm", positions="rotary", bias=False, qkv_bias=True, num_kv_heads=2, activation="silu", gated=True
    ),
    "gemma3": ModelConfig(
        **PLAIN | {"num_layers": 4},
        norm="rmsnorm",
        norm_position="both",
        positions="rotary",
        rotary_base=1e6,
        local_rotary_base=1e4,
        rotary_scaling="linear",
        rotary_factor=8.0,
        window=3,
        global_every=2,
        qk_norm=True,
        bias=False,
    ),
    "shared": ModelConfig(**PLAIN | {"num_layers": 4}, layer_groups=2, norm_position="post", activation="relu"),
    "relative": ModelConfig(**PLAIN, **T5, num_kv_heads=2),
    "distance": ModelConfig(**PLAIN, positions="distance"),
    "sinusoidal": ModelConfig(**PLAIN, positions="sinusoidal", embed_scale=True, activation="quick_gelu"),
    "ngrams": ModelConfig(**PLAIN, **LLAMA, ngrams=4, ngram_rows=97),
    "ngrams_remembered": ModelConfig(**PLAIN, positions="distance", ngrams=3, ngram_rows=97),
}
ENCODERS = {
    "bert": TextEncoderConfig(**PLAIN, norm_position="post"),
    "albert": TextEncoderConfig(**PLAIN, norm_position="post", embedding_dim=16, layer_groups=1, activation="gelu_tanh"),
    "rotary": TextEncoderConfig(**PLAIN, positions="rotary", token_types=0, norm="rmsnorm"),
    "relative": TextEncoderConfig(**PLAIN, **T5),
}
TRANSLATORS = {
    "t5": EncoderDecoderConfig(**PLAIN, **T5, encoder_layers=1, scaled_logits=True, activation="relu"),
    "t5_v1_1": EncoderDecoderConfig(**PLAIN, **T5, activation="gelu_tanh", gated=True, tied_embeddings=False, head_dim=8),
    "vaswani": EncoderDecoderConfig(**PLAIN, positions="sinusoidal", norm_position="post", activation="relu", embed_scale=True),
}
MODULES = {ModelConfig: Decoder, TextEncoderConfig: TextEncoder, EncoderDecoderConfig: EncoderDecoder}
RNG = np.random.default_rng(3)
TOKENS = RNG.integers(1, 61, (2, 12))
FIRST, SECOND = 5, 7
SEGMENTS = np.array([[1] * FIRST + [2] * SECOND] * 2)
POSITIONS = np.array([[*range(FIRST), *range(SECOND)]] * 2)
ALL = {f"{kind}-{name}": config for kind in ("DECODERS", "ENCODERS", "TRANSLATORS") for name, config in globals()[kind].items()}


@functools.cache
def make(config):
    """A model and parameters, all of them random, norms and biases too; biases of attention scores large enough to matter."""
    model = MODULES[type(config)](config)
    shapes = nn.unbox(jax.eval_shape(model.start, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        spread = 0.1 if name in ("scale", "bias") else 1.0 if path[0].key == "relative_bias" else 0.3
        return jnp.asarray(rng.normal(float(name == "scale"), spread, leaf.shape), jnp.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def forward(config):
    """hidden(params, tokens, segments, positions), jitted once a family; an encoder-decoder reads its target, reversed, as a source."""
    model = make(config)[0]

    def run(params, tokens_BT, segments_BT, positions_BT):
        where = {"segments_BT": segments_BT, "positions_BT": positions_BT}
        if isinstance(model, EncoderDecoder):
            where["source"] = SourceText((tokens_BT * 7 + 3) % 61, segments_BT, positions_BT)
        return model.apply({"params": params}, tokens_BT, **where).hidden_BTD

    return jax.jit(run)
