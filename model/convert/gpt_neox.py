"""GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, one_of, require, rotary_settings, their_activation


def config_of(theirs: Mapping[str, Any]) -> ModelConfig:
    require(theirs, attention_bias=True)
    rope = dict(theirs.get("rope_parameters") or {})
    share = float(rope.pop("partial_rotary_factor", theirs.get("rotary_pct", 0.25)))
    base = rope.setdefault("rope_theta", theirs.get("rotary_emb_base", 10_000.0))
    parallel = theirs.get("use_parallel_residual", True)
    return ModelConfig(
        vocab_size=theirs["vocab_size"],
        context_length=theirs["max_position_embeddings"],
        num_layers=theirs["num_hidden_layers"],
        embed_dim=theirs["hidden_size"],
        num_heads=theirs["num_attention_heads"],
        mlp_dim=theirs["intermediate_size"],
        norm_epsilon=theirs.get("layer_norm_eps", 1e-5),
        activation=one_of(theirs, "hidden_act", ACTIVATIONS, "gelu"),
        positions="rotary",
        rotary_share=share,
        parallel=parallel,
        parallel_norms=2 if parallel else 1,
        tied_embeddings=theirs.get("tie_word_embeddings", False),
        **rotary_settings({**theirs, "rope_parameters": rope, "rope_theta": base}),
    )


def theirs(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": [FAMILY.architecture],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config.activation),
        "rotary_pct": config.rotary_share,
        "rotary_emb_base": config.rotary_base,
        "use_parallel_residual": config.parallel,
        "attention_bias": True,
        "tie_word_embeddings": config.tied_embeddings,
    }


def tensors(config: ModelConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    """Query, key and value of each head stand together, in a GGUF file those of all heads."""
    layer, joint = "gpt_neox.layers.{layer}.", [f"layers/attention/{part}/" for part in ("query", "key", "value")]
    order = "c h k" if layout == "gguf" else "h c k"

    def both(name: str, ours: str, axes: str, bias: str, kernel: str = "kernel") -> list[Tensor]:
        return [Tensor(f"{name}.weight", f"{ours}/{kernel}", axes), Tensor(f"{name}.bias", f"{ours}/bias", bias)]

    found = [
        Tensor("gpt_neox.embed_in.weight", "embedding/table", "v d -> v d"),
        *both(layer + "input_layernorm", "layers/attention_norm", "d -> d", "d -> d", "scale"),
        Tensor(layer + "attention.query_key_value.weight", tuple(part + "kernel" for part in joint), f"({order}) d -> c d h k"),
        Tensor(layer + "attention.query_key_value.bias", tuple(part + "bias" for part in joint), f"({order}) -> c h k"),
        *both(layer + "attention.dense", "layers/attention/out", "d (h k) -> h k d", "d -> d"),
        *both(layer + "post_attention_layernorm", "layers/feed_forward_norm", "d -> d", "d -> d", "scale"),
        *both(layer + "mlp.dense_h_to_4h", "layers/feed_forward/up", "f d -> d f", "f -> f"),
        *both(layer + "mlp.dense_4h_to_h", "layers/feed_forward/down", "d f -> f d", "d -> d"),
        *both("gpt_neox.final_layer_norm", "final_norm", "d -> d", "d -> d", "scale"),
    ]
    if not config.tied_embeddings:
        found.append(Tensor("embed_out.weight", "head/table", "v d -> v d"))
    return found


FAMILY = Family(("gpt_neox",), "GPTNeoXForCausalLM", config_of, theirs, tensors, prefix="gpt_neox.", gguf="gptneox")
