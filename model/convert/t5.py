"""T5 (Raffel et al. 2020), versions 1.0 and 1.1. It divides scores by nothing, so that queries are larger here."""

import math
from collections.abc import Mapping
from typing import Any

from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, their_activation
from model.encoder_decoder_config import EncoderDecoderConfig


def config_of(theirs: Mapping[str, Any]) -> EncoderDecoderConfig:
    gate, _, activation = theirs.get("feed_forward_proj", "relu").rpartition("-")
    if activation == "gelu" and gate:
        activation = "gelu_new"  # as their library reads it
    if activation not in ACTIVATIONS or gate not in ("", "gated"):
        raise ValueError(f"feed_forward_proj is {theirs['feed_forward_proj']!r}")
    tied = theirs.get("tie_word_embeddings", True)
    return EncoderDecoderConfig(
        vocab_size=theirs["vocab_size"],
        context_length=theirs.get("n_positions", 512),
        num_layers=theirs.get("num_decoder_layers") or theirs["num_layers"],
        encoder_layers=theirs["num_layers"],
        embed_dim=theirs["d_model"],
        num_heads=theirs["num_heads"],
        head_dim=theirs["d_kv"],
        mlp_dim=theirs["d_ff"],
        norm="rmsnorm",
        norm_epsilon=theirs.get("layer_norm_epsilon", 1e-6),
        activation=ACTIVATIONS[activation],
        gated=bool(gate),
        positions="relative",
        relative_buckets=theirs.get("relative_attention_num_buckets", 32),
        relative_distance=theirs.get("relative_attention_max_distance", 128),
        bias=False,
        tied_embeddings=tied,
        scaled_logits=theirs.get("scale_decoder_outputs", tied),
        start_token=theirs.get("decoder_start_token_id") or 0,
    )


def theirs(config: EncoderDecoderConfig) -> dict[str, Any]:
    activation = their_activation(config.activation)
    if config.gated:
        activation = "gated-" + ("gelu" if activation == "gelu_new" else activation)
    return {
        "architectures": [FAMILY.architecture],
        "model_type": "t5",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "num_layers": config.encoder.num_layers,
        "num_decoder_layers": config.num_layers,
        "d_model": config.embed_dim,
        "num_heads": config.num_heads,
        "d_kv": config.head_width,
        "d_ff": config.mlp_width,
        "layer_norm_epsilon": config.norm_epsilon,
        "feed_forward_proj": activation,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "tie_word_embeddings": config.tied_embeddings,
        "scale_decoder_outputs": config.scaled_logits,
        "decoder_start_token_id": config.start_token,
        "is_encoder_decoder": True,
    }


def tensors(config: EncoderDecoderConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    found = [
        Tensor("shared.weight", "embedding/table", "v d -> v d"),
        *_stack("encoder", "encoder/", config, "m", {"SelfAttention": "attention"}),
        *_stack("decoder", "", config, "l", {"SelfAttention": "attention", "EncDecAttention": "cross_attention"}),
    ]
    if not config.tied_embeddings:
        found.append(Tensor("lm_head.weight", "head/table", "v d -> v d"))
    return found


def _stack(name: str, ours: str, config: EncoderDecoderConfig, layers: str, attentions: dict[str, str]) -> list[Tensor]:
    """The tensors of one of the two stacks; the sub-layers of a block have numbers."""
    block, scale = f"{name}.block.{{layer}}.layer.", math.sqrt(config.head_width)
    found = []
    for number, (attention, part) in enumerate(attentions.items()):
        of = f"{block}{number}.{attention}."
        found += [
            Tensor(f"{block}{number}.layer_norm.weight", f"{ours}layers/{part}_norm/scale", "d -> d", layers=layers),
            Tensor(of + "q.weight", f"{ours}layers/{part}/query/kernel", "(h k) d -> d h k", scale, layers=layers),
            Tensor(of + "k.weight", f"{ours}layers/{part}/key/kernel", "(h k) d -> d h k", layers=layers),
            Tensor(of + "v.weight", f"{ours}layers/{part}/value/kernel", "(h k) d -> d h k", layers=layers),
            Tensor(of + "o.weight", f"{ours}layers/{part}/out/kernel", "d (h k) -> h k d", layers=layers),
        ]
    last = f"{block}{len(attentions)}."
    names = {"wi_0": "gate", "wi_1": "up"} if config.gated else {"wi": "up"}
    found.append(Tensor(last + "layer_norm.weight", f"{ours}layers/feed_forward_norm/scale", "d -> d", layers=layers))
    for theirs, part in names.items():
        kernel = f"{ours}layers/feed_forward/{part}/kernel"
        found.append(Tensor(f"{last}DenseReluDense.{theirs}.weight", kernel, "f d -> d f", layers=layers))
    first = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return [
        *found,
        Tensor(f"{last}DenseReluDense.wo.weight", f"{ours}layers/feed_forward/down/kernel", "d f -> f d", layers=layers),
        Tensor(first, f"{ours}relative_bias/table", "b h -> b h"),
        Tensor(f"{name}.final_layer_norm.weight", f"{ours}final_norm/scale", "d -> d"),
    ]


FAMILY = Family(("t5",), "T5ForConditionalGeneration", config_of, theirs, tensors, spare=r"^(encoder|decoder)\.embed_tokens\.weight$")
