"""Tensors of what published Transformers have in common: projections with biases, LayerNorms, blocks of both."""

import dataclasses
from collections.abc import Iterable, Mapping

from model.convert.family import Tensor


def projection(name: str, ours: str, axes: str, bias: str = "", kernel: str = "kernel") -> list[Tensor]:
    """A projection, or a norm."""
    return [Tensor(f"{name}.weight", f"{ours}/{kernel}", axes), Tensor(f"{name}.bias", f"{ours}/bias", bias or axes)]


def norm(name: str, ours: str, axis: str = "d") -> list[Tensor]:
    return projection(name, ours, f"{axis} -> {axis}", kernel="scale")


def block(names: Mapping[str, str], ours: str = "layers") -> list[Tensor]:
    """The tensors of a block, by what each part is called there."""
    found = []
    for part in ("query", "key", "value"):
        found += projection(names[part], f"{ours}/attention/{part}", "(h k) d -> d h k", "(h k) -> h k")
    return [
        *found,
        *projection(names["out"], f"{ours}/attention/out", "d (h k) -> h k d", "d -> d"),
        *norm(names["attention_norm"], f"{ours}/attention_norm"),
        *projection(names["up"], f"{ours}/feed_forward/up", "f d -> d f", "f -> f"),
        *projection(names["down"], f"{ours}/feed_forward/down", "d f -> f d", "d -> d"),
        *norm(names["feed_forward_norm"], f"{ours}/feed_forward_norm"),
    ]


def capitals(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same, with capital letters for their axes and layers."""
    return [dataclasses.replace(one, axes=one.axes.upper(), layers=one.layers.upper()) for one in tensors]
