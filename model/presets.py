"""Published model sizes by name: `preset("gpt2")` is a ModelConfig, `preset("bert_base")` a TextEncoderConfig, to train as it is or to
change with dataclasses.replace."""

import dataclasses
from typing import Any

from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig


def _gpt2(layers: int, width: int, heads: int) -> ModelConfig:
    """Radford et al. 2019, table 2; vocabulary 50,257, context 1024."""
    return ModelConfig(vocab_size=50_257, context_length=1024, num_layers=layers, embed_dim=width, num_heads=heads, activation="gelu_tanh")


def _llama(layers: int, width: int, heads: int, kv_heads: int, mlp: int, **rest) -> ModelConfig:
    """Touvron et al. 2023 (Llama 2) and Grattafiori et al. 2024 (Llama 3, table 3; its longer context is that of Llama 3.1)."""
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
_LLAMA31 = _LLAMA3 | {"context_length": 131_072, "rotary_scaling": "llama3", "rotary_factor": 8.0, "rotary_original_context": 8192}
# The two small ones are of Llama 3.2, whose factor is 32; their context stays at the length of one pretraining row.
_LLAMA32 = _LLAMA31 | {"context_length": 8192, "rotary_factor": 32.0, "tied_embeddings": True}


def _gemma2(layers: int, width: int, heads: int, kv_heads: int, mlp: int) -> ModelConfig:
    """Gemma Team 2024 (Gemma 2, table 1), for the sizes whose scores are divided by the root of the head width."""
    return ModelConfig(
        vocab_size=256_000,
        context_length=8192,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=256,
        mlp_dim=mlp,
        norm="rmsnorm",
        norm_epsilon=1e-6,
        activation="gelu_tanh",
        gated=True,
        positions="rotary",
        bias=False,
        window=4096,
        global_every=2,
        attention_softcap=50.0,
        logit_softcap=30.0,
        norm_position="both",
        embed_scale=True,
    )


def _gemma3(layers: int, width: int, heads: int, mlp: int, **rest) -> ModelConfig:
    """Gemma Team 2025 (Gemma 3, tables 1 and 2), the sizes that read text alone."""
    return ModelConfig(
        vocab_size=262_144,
        context_length=32_768,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=1,
        head_dim=256,
        mlp_dim=mlp,
        norm="rmsnorm",
        norm_position="both",
        norm_epsilon=1e-6,
        activation="gelu_tanh",
        gated=True,
        positions="rotary",
        rotary_base=1e6,
        local_rotary_base=1e4,
        bias=False,
        qk_norm=True,
        window=512,
        global_every=6,
        embed_scale=True,
        **rest,
    )


def _pythia(layers: int, width: int, heads: int) -> ModelConfig:
    """Biderman et al. 2023, table 1: the blocks of GPT-NeoX (Black et al. 2022)."""
    return ModelConfig(
        vocab_size=50_304,
        context_length=2048,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        positions="rotary",
        rotary_share=0.25,
        parallel=True,
        parallel_norms=2,
        tied_embeddings=False,
    )


def _bert(layers: int, width: int, heads: int, **rest) -> TextEncoderConfig:
    """Devlin et al. 2019, sec. 3; Liu et al. 2019 (RoBERTa) and Sanh et al. 2019 (DistilBERT) differ in vocabulary and token types."""
    shape = {"vocab_size": 30_522, "context_length": 512, "num_layers": layers, "embed_dim": width, "num_heads": heads}
    return TextEncoderConfig(norm_position="post", **shape | {"norm_epsilon": 1e-12} | rest)


def _t5(layers: int, width: int, heads: int, mlp: int, *, newer: bool) -> EncoderDecoderConfig:
    """Raffel et al. 2020, sec. 3.7; newer: T5 v1.1 (gated, its own head), which mT5 and Flan-T5 (Chung et al. 2022) go on from."""
    return EncoderDecoderConfig(
        vocab_size=32_128,
        context_length=512,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        head_dim=64,
        mlp_dim=mlp,
        norm="rmsnorm",
        norm_epsilon=1e-6,
        activation="gelu_tanh" if newer else "relu",
        gated=newer,
        positions="relative",
        bias=False,
        tied_embeddings=not newer,
        scaled_logits=not newer,
        start_token=0,
    )


_QWEN25 = {"vocab_size": 151_936, "context_length": 32_768, "norm_epsilon": 1e-6, "rotary_base": 1e6, "qkv_bias": True}
_QWEN3 = {"vocab_size": 151_936, "context_length": 40_960, "norm_epsilon": 1e-6, "rotary_base": 1e6, "head_dim": 128, "qk_norm": True}
_SMOLLM2 = {"vocab_size": 49_152, "context_length": 8192, "rotary_base": 1e5}
_ROBERTA = {"vocab_size": 50_265, "norm_epsilon": 1e-5, "token_types": 1}
_ALBERT = {"vocab_size": 30_000, "embedding_dim": 128, "layer_groups": 1, "activation": "gelu_tanh"}

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
    "llama3_1b": _llama(16, 2048, 32, 8, 8192, **_LLAMA32),
    "llama3_3b": _llama(28, 3072, 24, 8, 8192, **_LLAMA32),
    "llama3_8b": _llama(32, 4096, 32, 8, 14_336, **_LLAMA3),
    "llama3_70b": _llama(80, 8192, 64, 8, 28_672, **_LLAMA3),
    "llama31_8b": _llama(32, 4096, 32, 8, 14_336, **_LLAMA31),
    "llama31_70b": _llama(80, 8192, 64, 8, 28_672, **_LLAMA31),
    "llama31_405b": _llama(126, 16_384, 128, 8, 53_248, **_LLAMA31),
    "mixtral_8x7b": dataclasses.replace(
        _llama(32, 4096, 32, 8, 14_336, vocab_size=32_000, context_length=32_768, tied_embeddings=False, rotary_base=1e6),
        experts=8,  # Jiang et al. 2024, table 1; two of them a token
    ),
    "gemma2_2b": _gemma2(26, 2304, 8, 4, 9216),
    "gemma2_9b": _gemma2(42, 3584, 16, 8, 14_336),
    "gemma3_270m": _gemma3(18, 640, 4, 2048),
    "gemma3_1b": _gemma3(26, 1152, 4, 6912),
    "mistral_7b": _llama(32, 4096, 32, 8, 14_336, vocab_size=32_000, context_length=32_768, tied_embeddings=False, window=4096),
    "smollm2_135m": _llama(30, 576, 9, 3, 1536, **_SMOLLM2),
    "smollm2_360m": _llama(32, 960, 15, 5, 2560, **_SMOLLM2),
    "qwen25_05b": _llama(24, 896, 14, 2, 4864, **_QWEN25),
    "qwen3_06b": _llama(28, 1024, 16, 8, 3072, **_QWEN3),
    "pythia_160m": _pythia(12, 768, 12),
    "pythia_410m": _pythia(24, 1024, 16),
    "bert_base": _bert(12, 768, 12),
    "bert_large": _bert(24, 1024, 16),
    "roberta_base": _bert(12, 768, 12, **_ROBERTA),
    "distilbert": _bert(6, 768, 12, token_types=0, pooler=False),
    "minilm_l6": _bert(6, 384, 12, mlp_dim=1536, prediction_head=False),
    "albert_base": _bert(12, 768, 12, **_ALBERT),
    "albert_large": _bert(24, 1024, 16, **_ALBERT),
    "t5_small": _t5(6, 512, 8, 2048, newer=False),
    "t5_base": _t5(12, 768, 12, 3072, newer=False),
    "t5_v1_1_small": _t5(8, 512, 6, 1024, newer=True),
    "flan_t5_base": _t5(12, 768, 12, 2048, newer=True),
    # Vaswani et al. 2017, table 3.
    "transformer_base": EncoderDecoderConfig(
        vocab_size=37_000,
        context_length=512,
        num_layers=6,
        embed_dim=512,
        num_heads=8,
        norm_position="post",
        activation="relu",
        positions="sinusoidal",
        embed_scale=True,
        dropout=0.1,
    ),
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
    """The config of a published model size. ValueError names the known sizes."""
    if name not in PRESETS:
        raise ValueError(f"no model size {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
