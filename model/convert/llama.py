"""Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024), Mistral (Jiang et al. 2023), SmolLM, and all that are laid out so."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.family import (
    ACTIVATIONS,
    Family,
    Layout,
    Tensor,
    one_of,
    require,
    rotary_settings,
    their_activation,
    their_rotary_settings,
)


def config_of(theirs: Mapping[str, Any]) -> ModelConfig:
    require(theirs, attention_bias=False, mlp_bias=False)
    return ModelConfig(**shared_settings(theirs))


def shared_settings(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every descendant of Llama gives in the same words."""
    heads, kv_heads = theirs["num_attention_heads"], theirs.get("num_key_value_heads") or 0
    return {
        "vocab_size": theirs["vocab_size"],
        "context_length": theirs["max_position_embeddings"],
        "num_layers": theirs["num_hidden_layers"],
        "embed_dim": theirs["hidden_size"],
        "num_heads": heads,
        "num_kv_heads": 0 if kv_heads == heads else kv_heads,
        "head_dim": head_dim(theirs),
        "mlp_dim": theirs["intermediate_size"],
        "norm": "rmsnorm",
        "norm_epsilon": theirs.get("rms_norm_eps", 1e-6),
        "activation": one_of(theirs, "hidden_act", ACTIVATIONS, "silu"),
        "gated": True,
        "positions": "rotary",
        "bias": False,
        "window": theirs.get("sliding_window") or 0,
        "tied_embeddings": theirs.get("tie_word_embeddings", False),
        **rotary_settings(theirs),
    }


def head_dim(theirs: Mapping[str, Any]) -> int:
    """0 where it is the width divided by the heads."""
    width = theirs.get("head_dim") or 0
    return 0 if width * theirs["num_attention_heads"] == theirs["hidden_size"] else width


def theirs(config: ModelConfig) -> dict[str, Any]:
    kind = "mistral" if config.window else "llama"
    own = {"sliding_window": config.window} if config.window else {"attention_bias": False, "mlp_bias": False}
    architecture = "MistralForCausalLM" if config.window else FAMILY.architecture
    return {"architectures": [architecture], "model_type": kind, **their_shared_settings(config), **own}


def their_shared_settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.mlp_width,
        "rms_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config.activation),
        "tie_word_embeddings": config.tied_embeddings,
        **their_rotary_settings(config),
    }


def tensors(config: ModelConfig, layout: Layout, settings: Mapping[str, Any], *, turned: bool = True) -> list[Tensor]:
    """turned: llama.cpp stores the pairs of a head that rotate together as neighbours."""
    layer = "model.layers.{layer}."
    pairs = "({0} j t) d -> d {0} (t j)" if layout == "gguf" and turned else "({0} k) d -> d {0} k"
    found = [
        Tensor("model.embed_tokens.weight", "embedding/table", "v d -> v d"),
        Tensor(layer + "input_layernorm.weight", "layers/attention_norm/scale", "d -> d"),
        Tensor(layer + "self_attn.q_proj.weight", "layers/attention/query/kernel", pairs.format("h")),
        Tensor(layer + "self_attn.k_proj.weight", "layers/attention/key/kernel", pairs.format("g")),
        Tensor(layer + "self_attn.v_proj.weight", "layers/attention/value/kernel", "(g k) d -> d g k"),
        Tensor(layer + "self_attn.o_proj.weight", "layers/attention/out/kernel", "d (h k) -> h k d"),
        Tensor(layer + "post_attention_layernorm.weight", "layers/feed_forward_norm/scale", "d -> d"),
        Tensor(layer + "mlp.gate_proj.weight", "layers/feed_forward/gate/kernel", "f d -> d f"),
        Tensor(layer + "mlp.up_proj.weight", "layers/feed_forward/up/kernel", "f d -> d f"),
        Tensor(layer + "mlp.down_proj.weight", "layers/feed_forward/down/kernel", "d f -> f d"),
        Tensor("model.norm.weight", "final_norm/scale", "d -> d"),
    ]
    if not config.tied_embeddings:
        found.append(Tensor("lm_head.weight", "head/table", "v d -> v d"))
    return found


FAMILY = Family(("llama", "mistral"), "LlamaForCausalLM", config_of, theirs, tensors, prefix="model.", gguf="llama")
