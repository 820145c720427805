"""The encoder of Whisper (Radford et al. 2023); its decoder is left out. Its sinusoids are a table like any other positions."""

from collections.abc import Mapping
from typing import Any

from model.convert.blocks import block, norm, projection
from model.convert.family import Family, Layout, Tensor, require
from model.convert.towers import encoder_sizes, parts_of, positions
from model.media.encoder_config import AudioEncoder
from model.media.tower_config import TowerConfig

KEY_BIAS = "tower/encoder/layers/attention/key/bias"
"""Theirs has none. It adds the same to all scores of a query, and so changes nothing, whatever it is."""


def config_of(theirs: Mapping[str, Any]) -> TowerConfig:
    require(theirs, activation_function="gelu", scale_embedding=False)
    encoder = AudioEncoder(
        num_layers=theirs["encoder_layers"],
        embed_dim=theirs["d_model"],
        num_heads=theirs["encoder_attention_heads"],
        mlp_dim=theirs["encoder_ffn_dim"],
        norm_epsilon=1e-5,
        positions="learned",
        mel_bands=theirs.get("num_mel_bins", 80),
        times=theirs.get("max_source_positions", 1500),
    )
    return TowerConfig(encoder)


def theirs(config: TowerConfig) -> dict[str, Any]:
    """Of a model without layers in its decoder."""
    parts_of(config, image=False, text=False)
    c = config.encoder
    assert isinstance(c, AudioEncoder)
    if config.classes:
        raise ValueError("theirs has another layer before the classifier")
    return {
        "architectures": [FAMILY.architecture],
        "model_type": "whisper",
        "encoder_layers": c.num_layers,
        "d_model": c.embed_dim,
        "encoder_attention_heads": c.num_heads,
        "encoder_ffn_dim": c.mlp_width,
        "activation_function": "gelu",
        "num_mel_bins": c.mel_bands,
        "max_source_positions": c.times,
        "decoder_layers": 0,
        "decoder_attention_heads": c.num_heads,
        "decoder_ffn_dim": c.mlp_width,
    }


def tensors(config: TowerConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    ours, layer = "tower/encoder", "model.encoder.layers.{layer}."
    names = {part: f"{layer}self_attn.{part[0]}_proj" for part in ("query", "key", "value")}
    names |= {"out": f"{layer}self_attn.out_proj", "up": f"{layer}fc1", "down": f"{layer}fc2"}
    names |= {"attention_norm": f"{layer}self_attn_layer_norm", "feed_forward_norm": f"{layer}final_layer_norm"}
    return [
        *projection("model.encoder.conv1", f"{ours}/stem/first", "d a n -> (n a) d", "d -> d"),
        *projection("model.encoder.conv2", f"{ours}/stem/second", "d z n -> (n z) d", "d -> d"),
        positions("model.encoder.embed_positions.weight", ours),
        *(one for one in block(names, f"{ours}/layers") if one.ours != KEY_BIAS),
        *norm("model.encoder.layer_norm", f"{ours}/final_norm"),
    ]


FAMILY = Family(
    ("whisper",),
    "WhisperModel",
    config_of,
    theirs,
    tensors,
    prefix="model.",
    spare=r"^(model\.)?(decoder\.|proj_out\.)",
    sizes=encoder_sizes,
    zeros=lambda config: ("tower/projection/kernel", "bias", KEY_BIAS),
)
