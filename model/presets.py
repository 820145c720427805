"""Published model sizes by name. `preset("gpt2")` is a ModelConfig to train as it is or to change with dataclasses.replace."""

import dataclasses
from typing import Any

from model.config import ModelConfig


def _gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    """Radford et al. 2019, table 2; vocabulary 50,257, context 1024."""
    return ModelConfig(vocab_size=50_257, context_length=1024, num_layers=layers, embed_dim=width, num_heads=heads, activation="gelu_tanh")


def _llama(layers: int, width: int, heads: int, kv_heads: int, mlp: int, **rest) -> ModelConfig:
    """Touvron et al. 2023 (Llama 2) and Grattafiori et al. 2024 (Llama 3, table 3)."""
    return ModelConfig(
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        mlp_dim=mlp,
        norm="rmsnorm",
        activation="silu",
        gated=True,
        positions="rotary",
        bias=False,
        **rest,
    )


_LLAMA2 = {"vocab_size": 32_000, "context_length": 4096, "tied_embeddings": False}
_LLAMA3 = {"vocab_size": 128_256, "context_length": 8192, "tied_embeddings": False, "rotary_base": 500_000.0}

MODERN: dict[str, Any] = {"norm": "rmsnorm", "activation": "relu_squared", "positions": "rotary", "bias": False, "qk_norm": True}
"""The block of our own models, as fields of ModelConfig."""

PRESETS = {
    "gpt2": _gpt2(12, 768, 12),
    "gpt2_medium": _gpt2(24, 1024, 16),
    "gpt2_large": _gpt2(36, 1280, 20),
    "gpt2_xl": _gpt2(48, 1600, 25),
    # GPT-3 XL (Brown et al. 2020, table 2.1), with the head width of 128 that its row states.
    "gpt3_1b3": dataclasses.replace(_gpt2(24, 2048, 16), context_length=2048),
    "llama2_7b": _llama(32, 4096, 32, 32, 11_008, **_LLAMA2),
    "llama2_13b": _llama(40, 5120, 40, 40, 13_824, **_LLAMA2),
    "llama2_70b": _llama(80, 8192, 64, 8, 28_672, **_LLAMA2),
    "llama3_1b": _llama(16, 2048, 32, 8, 8192, **_LLAMA3 | {"tied_embeddings": True}),
    "llama3_3b": _llama(28, 3072, 24, 8, 8192, **_LLAMA3 | {"tied_embeddings": True}),
    "llama3_8b": _llama(32, 4096, 32, 8, 14_336, **_LLAMA3),
    "llama3_70b": _llama(80, 8192, 64, 8, 28_672, **_LLAMA3),
    # Ours, for a pod: the depth of the 70B models, a wider stream, plain multi-head attention with a squared ReLU.
    "decoder_100b": ModelConfig(
        vocab_size=32_768,
        context_length=4096,
        num_layers=80,
        embed_dim=10_240,
        num_heads=80,
        scan=True,
        remat="full",
        **MODERN,
    ),
}


def preset(name: str) -> ModelConfig:
    """The ModelConfig of a published size; ValueError names the known ones."""
    if name not in PRESETS:
        raise ValueError(f"no model size {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
