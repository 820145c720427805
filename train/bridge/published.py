"""A model as others have published it, opened but not read: what the formats have in common."""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from data.errors import UserError
from model.convert.families import MODEL_TYPES
from model.convert.family import HARMLESS, Family, Layout
from train.generation.chat import Chat


@dataclasses.dataclass(frozen=True)
class Published:
    """where: for messages. shapes: of every tensor of the file, by Hugging Face's names. read: a tensor by such a name, float32; one at a
    time is in memory. tokenizer: a Hugging Face tokenizer.json, or empty."""

    where: str
    family: Family
    settings: dict[str, Any]
    layout: Layout
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    tokenizer: bytes
    chat: Chat


@dataclasses.dataclass(frozen=True)
class Leaving:
    """What is written of a run. tensors: layout, the settings that readers will find -> (their name, the array) one after the other, float32.
    tokenizer: tokenizer.json, or empty."""

    family: Family
    config: Any
    settings: dict[str, Any]
    chat: Chat
    tokenizer: bytes
    tensors: Callable[[Layout, dict[str, Any]], Iterator[tuple[str, np.ndarray]]]


def config_of(where: str, settings: dict[str, Any], names: Collection[str] = ()) -> tuple[Family, Any]:
    """The family of a config.json, and our config; names: of the file's tensors, which decide some fields. UserError for an unknown family,
    or a setting that cannot be honoured."""
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise UserError(f"{where}: the model type {kind!r} is not known", f"Known: {', '.join(MODEL_TYPES)}.")
    try:
        family = MODEL_TYPES[kind]
        return family, dataclasses.replace(family.config_of(settings), **family.found(names))
    except KeyError as missing:
        raise UserError(f"{where}: the settings of a {kind} model lack {missing}", "Fetch the file again.") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: {error}", "This model cannot be run here as it is meant to; choose another.") from None


def check_tensors(published: Published, config) -> dict[str, str]:
    """Their name in the file of each tensor that the model needs, by the name in the family's table.

    UserError that names all missing, unexpected and wrongly shaped tensors.
    """
    family, there = published.family, dict(published.shapes)
    prefix = family.prefix
    bare = bool(prefix) and not any(name.startswith(prefix) for name in there)
    names, missing, wrong = {}, [], []
    for name, tensor, _ in family.each(config, published.layout, published.settings):
        inside = name.removeprefix(prefix) if bare else name
        found, wanted = there.pop(inside, None), tensor.shape(family.sizes(config))
        names[name] = inside
        if found is None:
            missing.append(inside)
        elif found != wanted:
            wrong.append(f"{inside} is {_said(found)}, expected {_said(wanted)}")
    tied = {"lm_head.weight"} if getattr(config, "tied_embeddings", False) else set()
    spare = re.compile(family.spare) if family.spare else HARMLESS
    extra = [name for name in there if name not in tied and not HARMLESS.search(name) and not spare.search(name)]
    found_wrong = {"missing": missing, "unexpected": extra, "of another shape": wrong}
    if any(found_wrong.values()):
        lines = [f"{what}: {', '.join(sorted(those))}" for what, those in found_wrong.items() if those]
        raise UserError(
            f"{published.where}: the tensors are not those of a {family.model_types[0]} model with these settings",
            "\n".join([*lines, "Fetch the files again, or choose another model."]),
        )
    return names


def _said(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
