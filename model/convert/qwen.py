"""Qwen 2 and 2.5 (Yang et al. 2024) and Qwen 3 (Yang et al. 2025), those without experts."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.family import Family, Layout, Tensor, require, require_layers
from model.convert.llama import shared_settings, their_shared_settings
from model.convert.llama import tensors as llama_tensors


def config_of_2(theirs: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(**_shared(theirs), qkv_bias=True)


def config_of_3(theirs: Mapping[str, Any]) -> ModelConfig:
    require(theirs, attention_bias=False)
    return ModelConfig(**_shared(theirs), qk_norm=True)


def _shared(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Their window begins at one of the last layers and is used by none of the released models."""
    require(theirs, use_sliding_window=False)
    require_layers(theirs, lambda layer: "full_attention")
    return shared_settings({**theirs, "sliding_window": None})


def theirs_2(config: ModelConfig) -> dict[str, Any]:
    own = {"use_sliding_window": False}
    return {"architectures": [QWEN2.architecture], "model_type": "qwen2", **own, **their_shared_settings(config)}


def theirs_3(config: ModelConfig) -> dict[str, Any]:
    own = {"use_sliding_window": False, "attention_bias": False}
    return {"architectures": [QWEN3.architecture], "model_type": "qwen3", **own, **their_shared_settings(config)}


def tensors_2(config: ModelConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    parts = {"q": ("query", "h"), "k": ("key", "g"), "v": ("value", "g")}
    return llama_tensors(config, layout, settings, turned=False) + [
        Tensor(f"model.layers.{{layer}}.self_attn.{name}_proj.bias", f"layers/attention/{ours}/bias", f"({heads} k) -> {heads} k")
        for name, (ours, heads) in parts.items()
    ]


def tensors_3(config: ModelConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    return llama_tensors(config, layout, settings, turned=False) + [
        Tensor(f"model.layers.{{layer}}.self_attn.{name}_norm.weight", f"layers/attention/{ours}_norm/scale", "k -> k")
        for name, ours in (("q", "query"), ("k", "key"))
    ]


QWEN2 = Family(("qwen2",), "Qwen2ForCausalLM", config_of_2, theirs_2, tensors_2, prefix="model.", gguf="qwen2")
QWEN3 = Family(("qwen3",), "Qwen3ForCausalLM", config_of_3, theirs_3, tensors_3, prefix="model.", gguf="qwen3")
