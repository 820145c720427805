"""CLIP (Radford et al. 2021): an encoder of images and a decoder of texts that share a space."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.convert.blocks import block, capitals, norm
from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, one_of, text_sizes, their_activation
from model.convert.towers import PATCHES, encoder_sizes, image_settings, parts_of, positions, their_image_settings
from model.media.encoder_config import ImageEncoder
from model.media.tower_config import TowerConfig

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
USUAL: dict[str, Any] = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
"""What Hugging Face's library takes for settings that a file leaves out."""
TEXT = USUAL | {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "max_position_embeddings": 77}
VISION = USUAL | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224, "patch_size": 32}


def config_of(theirs: Mapping[str, Any]) -> TowerConfig:
    text, vision = TEXT | theirs["text_config"], VISION | theirs["vision_config"]
    pixels = {name: theirs.get(name) for name in ("image_mean", "image_std")}
    encoder = ImageEncoder(
        **_shared(vision),
        **image_settings(vision | pixels, MEAN, STD),
        patch_bias=False,
        embedding_norm=True,
    )
    decoder = ModelConfig(**_shared(text), vocab_size=text["vocab_size"], context_length=text["max_position_embeddings"])
    return TowerConfig(encoder, text=decoder, width=theirs.get("projection_dim", 512))


def _shared(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_layers": theirs["num_hidden_layers"],
        "embed_dim": theirs["hidden_size"],
        "num_heads": theirs["num_attention_heads"],
        "mlp_dim": theirs["intermediate_size"],
        "norm_epsilon": theirs["layer_norm_eps"],
        "activation": one_of(theirs, "hidden_act", ACTIVATIONS),
    }


def theirs(config: TowerConfig) -> dict[str, Any]:
    parts_of(config, image=True, text=True)
    text, encoder = config.text, config.encoder
    assert text is not None and isinstance(encoder, ImageEncoder)
    pixels = their_image_settings(encoder)
    shared = {"projection_dim": config.width}
    return {
        "architectures": [FAMILY.architecture],
        "model_type": "clip",
        **shared,
        "text_config": {
            "model_type": "clip_text_model",
            **_their_shared(text),
            **shared,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **_their_shared(encoder),
            **shared,
            **{name: value for name, value in pixels.items() if name not in ("image_mean", "image_std")},
        },
        **{name: pixels[name] for name in ("image_mean", "image_std")},
    }


def _their_shared(config: ModelConfig | ImageEncoder) -> dict[str, Any]:
    return {
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config.activation),
    }


def tensors(config: TowerConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    text, vision = "text_model.", "vision_model."
    left, right = "left/encoder", "right/decoder"
    return [
        Tensor("logit_scale", "log_scale", "->"),
        Tensor(f"{text}embeddings.token_embedding.weight", f"{right}/embedding/table", "v d -> v d"),
        positions(f"{text}embeddings.position_embedding.weight", right),
        *block(_names(text), f"{right}/layers"),
        *norm(f"{text}final_layer_norm", f"{right}/final_norm"),
        Tensor("text_projection.weight", "right/projection/kernel", "e d -> d e"),
        *capitals(
            [
                Tensor(f"{vision}embeddings.class_embedding", f"{left}/token", "d -> d"),
                positions(f"{vision}embeddings.position_embedding.weight", left),
                Tensor(f"{vision}embeddings.patch_embedding.weight", f"{left}/patches/kernel", PATCHES),
                *norm(f"{vision}pre_layrnorm", f"{left}/embedding_norm"),
                *block(_names(vision), f"{left}/layers"),
                *norm(f"{vision}post_layernorm", f"{left}/final_norm"),
                Tensor("visual_projection.weight", "left/projection/kernel", "e d -> d e"),
            ]
        ),
    ]


def _names(tower: str) -> dict[str, str]:
    layer = f"{tower}encoder.layers.{{layer}}."
    names = {part: f"{layer}self_attn.{part[0]}_proj" for part in ("query", "key", "value")}
    names |= {"out": f"{layer}self_attn.out_proj", "up": f"{layer}mlp.fc1", "down": f"{layer}mlp.fc2"}
    return names | {"attention_norm": f"{layer}layer_norm1", "feed_forward_norm": f"{layer}layer_norm2"}


def _sizes(config: TowerConfig) -> dict[str, int]:
    assert config.text is not None
    return text_sizes(config.text) | {"e": config.width} | {name.upper(): size for name, size in encoder_sizes(config).items()}


FAMILY = Family(("clip",), "CLIPModel", config_of, theirs, tensors, sizes=_sizes)
