"""ViT (Dosovitskiy et al. 2021), with a classifier or without one. Its pooler, which no classifier reads, is left out."""

from collections.abc import Mapping
from typing import Any

from model.convert.blocks import block, norm, projection
from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, one_of, require, their_activation
from model.convert.towers import PATCHES, TOKEN, encoder_sizes, image_settings, parts_of, positions, their_image_settings
from model.media.encoder_config import ImageEncoder
from model.media.tower_config import TowerConfig

CLASSIFIER = "ViTForImageClassification"
HALF = (0.5, 0.5, 0.5)


def config_of(theirs: Mapping[str, Any]) -> TowerConfig:
    require(theirs, qkv_bias=True, num_channels=3)
    names = theirs.get("id2label")
    classified = CLASSIFIER in (theirs.get("architectures") or ())
    usual = {"image_size": 224, "patch_size": 16}
    encoder = ImageEncoder(
        num_layers=theirs["num_hidden_layers"],
        embed_dim=theirs["hidden_size"],
        num_heads=theirs["num_attention_heads"],
        mlp_dim=theirs["intermediate_size"],
        norm_epsilon=theirs.get("layer_norm_eps", 1e-12),
        activation=one_of(theirs, "hidden_act", ACTIVATIONS, "gelu"),
        **image_settings({**usual, **theirs}, HALF, HALF),
    )
    return TowerConfig(encoder, classes=(len(names) if names else theirs.get("num_labels", 2)) if classified else 0)


def theirs(config: TowerConfig) -> dict[str, Any]:
    parts_of(config, image=True, text=False)
    c = config.encoder
    assert isinstance(c, ImageEncoder)
    labels = {str(number): f"LABEL_{number}" for number in range(config.classes)}
    return {
        "architectures": [CLASSIFIER if config.classes else "ViTModel"],
        "model_type": "vit",
        "num_hidden_layers": c.num_layers,
        "hidden_size": c.embed_dim,
        "num_attention_heads": c.num_heads,
        "intermediate_size": c.mlp_width,
        "layer_norm_eps": c.norm_epsilon,
        "hidden_act": their_activation(c.activation),
        "qkv_bias": True,
        **their_image_settings(c),
        **({"id2label": labels, "label2id": {name: int(number) for number, name in labels.items()}} if labels else {}),
    }


def tensors(config: TowerConfig, layout: Layout, settings: Mapping[str, Any]) -> list[Tensor]:
    ours, layer = "tower/encoder", "vit.encoder.layer.{layer}."
    names = {part: f"{layer}attention.attention.{part}" for part in ("query", "key", "value")}
    names |= {"out": layer + "attention.output.dense", "attention_norm": layer + "layernorm_before"}
    names |= {"up": layer + "intermediate.dense", "down": layer + "output.dense", "feed_forward_norm": layer + "layernorm_after"}
    found = [
        Tensor("vit.embeddings.cls_token", f"{ours}/token", TOKEN),
        positions("vit.embeddings.position_embeddings", ours, "() p d -> p d"),
        *projection("vit.embeddings.patch_embeddings.projection", f"{ours}/patches", PATCHES, "d -> d"),
        *block(names, f"{ours}/layers"),
        *norm("vit.layernorm", f"{ours}/final_norm"),
    ]
    if config.classes:
        found += [Tensor("classifier.weight", "tower/projection/kernel", "s d -> d s"), Tensor("classifier.bias", "bias", "s -> s")]
    return found


FAMILY = Family(
    ("vit",),
    CLASSIFIER,
    config_of,
    theirs,
    tensors,
    prefix="vit.",
    spare=r"^(vit\.)?(pooler\.|embeddings\.mask_token$)",
    sizes=encoder_sizes,
    zeros=lambda config: () if config.classes else ("tower/projection/kernel", "bias"),
)
