"""A model as others have published it, opened but not read: what the formats have in common."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data.errors import UserError
from model.convert.families import MODEL_TYPES
from model.convert.family import HARMLESS, Family, Layout
from train.generation.chat import Chat
from train.kinds import Objective
from train.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Published:
    """where: for messages. shapes: of every tensor of the file, by Hugging Face's names. read: a tensor by such a name, float32; one at a
    time is in memory. tokenizer: a Hugging Face tokenizer.json, or empty. task: what its head was trained for, and the objective."""

    where: str
    family: Family
    settings: dict[str, Any]
    layout: Layout
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    tokenizer: bytes
    chat: Chat
    task: tuple[Task, Objective] | None = None


@dataclasses.dataclass(frozen=True)
class Leaving:
    """What is written of a run. tensors: layout, the settings that readers will find -> (their name, the array) one after the other,
    float32. tokenizer: tokenizer.json, or empty."""

    family: Family
    config: Any
    settings: dict[str, Any]
    chat: Chat
    tokenizer: bytes
    tensors: Callable[[Layout, dict[str, Any]], Iterator[tuple[str, np.ndarray]]]


COPIES = (
    "lm_head.weight",
    "cls.predictions.decoder.weight",
    "lm_head.decoder.weight",
    "predictions.decoder.weight",
    "vocab_projector.weight",
)
"""Of the embedding, by name, in files of models whose head it is."""


def config_of_file(published: Published) -> Any:
    """Our config, by settings and tensors. A head that the settings call tied, and that is there and another than the embedding, is a head
    of its own, as Hugging Face's library reads it; UserError in a family that has none."""
    family = published.family
    config = dataclasses.replace(config_of(published.where, published.settings)[1], **family.found(published.shapes))
    check_layers(published.where, family, config, len(published.shapes))
    if not getattr(config, "tied_embeddings", False):
        return config
    untied = dataclasses.replace(config, tied_embeddings=False) if config.generates else config
    names = {tensor.ours: name for name, tensor, _ in family.each(untied, published.layout, published.settings)}
    head, table = names.get("head/table"), names["embedding/table"]
    table = table if table in published.shapes else table.removeprefix(family.prefix)
    copy = next((name for name in (head, *COPIES) if name in published.shapes), None)
    if copy is None or table not in published.shapes or np.array_equal(published.read(copy), published.read(table)):
        return config
    if copy != head:
        raise UserError(f"{published.where}: {copy} is another table than {table}", "This model cannot be run here as it is meant to.")
    return untied


def check_layers(where: str, family: Family, config, tensors: int) -> None:
    """UserError before so many names are made of what a damaged file calls layers."""
    most = max(family.sizes(config).get(letter, 0) for letter in ("l", "m", "L"))
    if most > tensors:
        raise UserError(f"{where}: it says {most:,} layers, and holds {tensors:,} tensors", "Fetch the files again.")


def config_of(where: str, settings: dict[str, Any]) -> tuple[Family, Any]:
    """The family of a config.json, and our config, of which the file's tensors may decide some fields yet. UserError for an unknown family,
    or a setting that cannot be honoured."""
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise UserError(f"{where}: the model type {kind!r} is not known", f"Known: {', '.join(MODEL_TYPES)}.")
    try:
        family = MODEL_TYPES[kind]
        return family, dataclasses.replace(family.config_of(settings), **family.found(()))
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
    tied = set(COPIES) | {"embed_out.weight"} if getattr(config, "tied_embeddings", False) else set()
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
