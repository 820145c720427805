"""Gemma 2 (Gemma Team 2024) and the text models of Gemma 3 (Gemma Team 2025).

Their norms multiply by 1 + weight, which llama.cpp stores as it is used. Scores are divided by the root of `query_pre_attn_scalar`, where
we have the width of a head: the difference goes into the projection of queries, or into their norm.
"""

import math
from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.family import Family, Layout, Tensor, require, require_layers
from model.convert.llama import shared_settings, their_shared_settings

GLOBAL_EVERY = {"gemma2": 2, "gemma3_text": 6}


def config_of(theirs: Mapping[str, Any]) -> ModelConfig:
    kind = theirs["model_type"]
    every = GLOBAL_EVERY[kind]
    require(theirs, attention_bias=False, use_bidirectional_attention=False, sliding_window_pattern=every)
    require_layers(theirs, lambda layer: "sliding_attention" if (layer + 1) % every else "full_attention")
    usual = {"hidden_act": theirs.get("hidden_activation") or "gelu_pytorch_tanh", "tie_word_embeddings": True}
    if kind == "gemma3_text":
        usual |= {"rope_theta": theirs.get("rope_theta") or 1_000_000.0}
    said = {name: value for name, value in theirs.items() if value is not None}
    own: dict[str, Any] = {"qk_norm": True, "local_rotary_base": _local_base(theirs)} if kind == "gemma3_text" else {}
    return ModelConfig(
        **shared_settings({**usual, **said, "hidden_act": usual["hidden_act"]}),
        **own,
        norm_position="both",
        global_every=every,
        attention_softcap=theirs.get("attn_logit_softcapping") or 0.0,
        logit_softcap=theirs.get("final_logit_softcapping") or 0.0,
        embed_scale=True,
    )


def _local_base(theirs: Mapping[str, Any]) -> float:
    """Of layers with a window, which rotate unscaled."""
    local = (theirs.get("rope_parameters") or {}).get("sliding_attention") or {}
    require(local, rope_type="default", type="default", factor=1.0, partial_rotary_factor=1.0)
    return float(local.get("rope_theta") or theirs.get("rope_local_base_freq") or 10_000.0)


def theirs(config: ModelConfig) -> dict[str, Any]:
    third = config.qk_norm
    kind, family = ("gemma3_text", GEMMA3) if third else ("gemma2", GEMMA2)
    shared = their_shared_settings(config)
    return {
        "architectures": [family.architecture],
        "model_type": kind,
        **shared,
        "hidden_activation": shared.pop("hidden_act"),
        "query_pre_attn_scalar": config.head_width,
        "sliding_window": config.window,
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
        "attention_bias": False,
        **({"rope_local_base_freq": config.local_rotary_base, "sliding_window_pattern": config.global_every} if third else {}),
    }


def tensors(config: ModelConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    layer, one = "model.layers.{layer}.", 0.0 if layout == "gguf" else 1.0
    scale = math.sqrt(config.head_width / settings["query_pre_attn_scalar"])

    def norm(name: str, ours: str, axes: str = "d -> d", scale: float = 1.0) -> Tensor:
        return Tensor(f"{name}.weight", f"{ours}/scale", axes, scale, one * scale)

    found = [
        Tensor("model.embed_tokens.weight", "embedding/table", "v d -> v d"),
        norm(layer + "input_layernorm", "layers/attention_norm"),
        Tensor(layer + "self_attn.q_proj.weight", "layers/attention/query/kernel", "(h k) d -> d h k", 1.0 if config.qk_norm else scale),
        Tensor(layer + "self_attn.k_proj.weight", "layers/attention/key/kernel", "(g k) d -> d g k"),
        Tensor(layer + "self_attn.v_proj.weight", "layers/attention/value/kernel", "(g k) d -> d g k"),
        Tensor(layer + "self_attn.o_proj.weight", "layers/attention/out/kernel", "d (h k) -> h k d"),
        norm(layer + "post_attention_layernorm", "layers/attention_post_norm"),
        norm(layer + "pre_feedforward_layernorm", "layers/feed_forward_norm"),
        Tensor(layer + "mlp.gate_proj.weight", "layers/feed_forward/gate/kernel", "f d -> d f"),
        Tensor(layer + "mlp.up_proj.weight", "layers/feed_forward/up/kernel", "f d -> d f"),
        Tensor(layer + "mlp.down_proj.weight", "layers/feed_forward/down/kernel", "d f -> f d"),
        norm(layer + "post_feedforward_layernorm", "layers/feed_forward_post_norm"),
        norm("model.norm", "final_norm"),
    ]
    if config.qk_norm:
        found += [
            norm(layer + "self_attn.q_norm", "layers/attention/query_norm", "k -> k", scale),
            norm(layer + "self_attn.k_norm", "layers/attention/key_norm", "k -> k"),
        ]
    return found


GEMMA2 = Family(("gemma2",), "Gemma2ForCausalLM", config_of, theirs, tensors, prefix="model.", gguf="gemma2")
GEMMA3 = Family(("gemma3_text",), "Gemma3ForCausalLM", config_of, theirs, tensors, prefix="model.", gguf="gemma3")
