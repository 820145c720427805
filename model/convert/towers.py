"""What the tables of published encoders of media have in common."""

from collections.abc import Mapping
from typing import Any

from model.convert.family import Tensor
from model.media.encoder_config import ImageEncoder
from model.media.tower_config import TowerConfig


def parts_of(config: TowerConfig, *, image: bool, text: bool) -> None:
    """ValueError unless the config has an encoder of images, or else of audio, and a decoder beside it, or none."""
    if not isinstance(config, TowerConfig) or isinstance(config.encoder, ImageEncoder) != image or bool(config.text) != text:
        raise ValueError("another kind of model")


def encoder_sizes(config: TowerConfig) -> dict[str, int]:
    """What the letters of an encoder's axes stand for."""
    c = config.encoder
    token = isinstance(c, ImageEncoder) and c.token_position
    positions = 1
    for places in c.extent:
        positions *= places
    sizes = {"d": c.embed_dim, "h": c.num_heads, "k": c.embed_dim // c.num_heads, "f": c.mlp_width, "l": c.num_layers}
    sizes |= {"p": positions + token, "s": config.classes, "e": config.width}
    return sizes | ({"q": c.patch, "w": c.patch, "a": 3} if isinstance(c, ImageEncoder) else {"a": c.patch_values, "n": 3})


def image_settings(theirs: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Fields of an ImageEncoder with a class token. mean and std: where theirs does not say what preprocessor_config.json holds."""
    size, patch = theirs["image_size"], theirs["patch_size"]
    if not isinstance(size, int) or not isinstance(patch, int) or size % patch:
        raise ValueError(f"image_size {size} and patch_size {patch}: only squares of whole patches can be read")
    return {
        "patch": patch,
        "rows": size // patch,
        "columns": size // patch,
        "positions": "learned",
        "pool": "token",
        "token_position": True,
        "pixel_mean": tuple(theirs.get("image_mean") or mean),
        "pixel_std": tuple(theirs.get("image_std") or std),
    }


def their_image_settings(config: ImageEncoder) -> dict[str, Any]:
    """The reverse of `image_settings`; the mean and standard deviation of pixels belong into preprocessor_config.json."""
    return {
        "image_size": config.rows * config.patch,
        "patch_size": config.patch,
        "num_channels": 3,
        "image_mean": list(config.pixel_mean),
        "image_std": list(config.pixel_std),
    }


PATCHES = "d a q w -> (q w a) d"
"""The kernel of a convolution whose stride is its size: patches here are rows of pixels, of which colours lie together."""
TOKEN = "() () d -> d"


def positions(name: str, ours: str, axes: str = "p d -> p d") -> Tensor:
    return Tensor(name, f"{ours}/positions/table", axes)
