"""GPT-2 (Radford et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, one_of, require, their_activation


def config_of(theirs: Mapping[str, Any]) -> ModelConfig:
    require(
        theirs,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        reorder_and_upcast_attn=False,
        add_cross_attention=False,
    )
    return ModelConfig(
        vocab_size=theirs["vocab_size"],
        context_length=theirs["n_positions"],
        num_layers=theirs["n_layer"],
        embed_dim=theirs["n_embd"],
        num_heads=theirs["n_head"],
        mlp_dim=theirs.get("n_inner") or 0,
        norm_epsilon=theirs.get("layer_norm_epsilon", 1e-5),
        activation=one_of(theirs, "activation_function", ACTIVATIONS, "gelu_new"),
        tied_embeddings=theirs.get("tie_word_embeddings", True),
    )


def theirs(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": [FAMILY.architecture],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_layer": config.num_layers,
        "n_embd": config.embed_dim,
        "n_head": config.num_heads,
        "n_inner": config.mlp_width,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": their_activation(config.activation),
        "tie_word_embeddings": config.tied_embeddings,
    }


def tensors(config: ModelConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    """Their kernels are [in, out], which llama.cpp turns; those of query, key and value stand side by side in one."""
    layer = "transformer.h.{layer}."
    joint = [f"layers/attention/{part}/" for part in ("query", "key", "value")]

    def kernel(name: str, ours: str | tuple[str, ...], inputs: str, outputs: str, right: str) -> Tensor:
        left = f"{outputs} {inputs}" if layout == "gguf" else f"{inputs} {outputs}"
        return Tensor(f"{layer}{name}.weight", ours, f"{left} -> {right}")

    def norm(name: str, ours: str) -> list[Tensor]:
        return [Tensor(f"{name}.weight", f"{ours}/scale", "d -> d"), Tensor(f"{name}.bias", f"{ours}/bias", "d -> d")]

    found = [
        Tensor("transformer.wte.weight", "embedding/table", "v d -> v d"),
        Tensor("transformer.wpe.weight", "positions/table", "p d -> p d"),
        *norm(layer + "ln_1", "layers/attention_norm"),
        kernel("attn.c_attn", tuple(part + "kernel" for part in joint), "d", "(c h k)", "c d h k"),
        Tensor(layer + "attn.c_attn.bias", tuple(part + "bias" for part in joint), "(c h k) -> c h k"),
        kernel("attn.c_proj", "layers/attention/out/kernel", "(h k)", "d", "h k d"),
        Tensor(layer + "attn.c_proj.bias", "layers/attention/out/bias", "d -> d"),
        *norm(layer + "ln_2", "layers/feed_forward_norm"),
        kernel("mlp.c_fc", "layers/feed_forward/up/kernel", "d", "f", "d f"),
        Tensor(layer + "mlp.c_fc.bias", "layers/feed_forward/up/bias", "f -> f"),
        kernel("mlp.c_proj", "layers/feed_forward/down/kernel", "f", "d", "f d"),
        Tensor(layer + "mlp.c_proj.bias", "layers/feed_forward/down/bias", "d -> d"),
        *norm("transformer.ln_f", "final_norm"),
    ]
    if not config.tied_embeddings:
        found.append(Tensor("lm_head.weight", "head/table", "v d -> v d"))
    return found


FAMILY = Family(("gpt2",), "GPT2LMHeadModel", config_of, theirs, tensors, prefix="transformer.", gguf="gpt2")
