"""What an answer rests on: how much less likely it becomes when one place of a picture, clip or recording is kept from the model, and how
much attention is given to each.

Occlusion (Zeiler & Fergus 2014, sec. 4.2) of places of the row asks the whole model; attention is what its layers look at, whether it
matters or not. Both show how the places lie over the medium.
"""

import dataclasses
import functools
import io
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.files import storage
from data.media.contact_sheet import pictures_of
from data.media.rows import MISSING, Layout, MediaBatch, Piece, RowFiller
from data.media.signals.shapes import Cut, Shape
from data.tokenizer import Tokenizer
from model.heads import Head, score_tokens, vocabulary_table
from model.media.multimodal import MultimodalDecoder
from model.media.multimodal_config import MultimodalConfig
from train.experiment import Experiment
from train.generation.about_media import first_samples
from train.objectives.media.media_lm import media_of
from train.sources.media.shapes import capacities_of, shapes_of

NAME = "occlusion.png"
AT_ONCE = 16
"""Rows of a forward pass."""


class Occlusion(NamedTuple):
    """A medium, the words about it, and for each of its places the nats that the answer loses without it and its share of the attention."""

    kind: str
    cut: Cut
    question: str
    answer: str
    lost: np.ndarray  # float32 [tokens of the medium]
    seen: np.ndarray  # float32 [tokens of the medium]: of what the positions that predict the answer give, the mean of layers and heads


def find_occlusions(dataset: Any, params, sources: list, tokenizer: Tokenizer) -> list[Occlusion]:
    """One of each set of the validation data, where a medium stands in the row."""
    experiment, found = dataset.experiment, list[Occlusion]()
    if not isinstance(experiment.model, MultimodalConfig) or experiment.model.fusion != "tokens":
        return found
    for name, (source, split) in dataset.validation(sources).items():
        if "/" in name:
            continue
        for pieces, _ in first_samples(dataset, source, split, tokenizer, 1):
            if any(isinstance(piece.content, Cut) for piece in pieces):
                found.append(occlude(experiment, params, pieces, tokenizer))
    return found


def occlude(experiment: Experiment, params, pieces: list[Piece], tokenizer: Tokenizer) -> Occlusion:
    """What a sample's learned texts rest on in its first medium."""
    shapes = shapes_of(experiment)
    filler = RowFiller(Layout(experiment.model.context_length, capacities_of(experiment)), shapes, tokenizer, np.arange(1))
    filler.add(0, pieces)
    medium = next(piece for piece in pieces if isinstance(piece.content, Cut))
    assert isinstance(medium.content, Cut)
    batch, count = filler.batch, int(shapes[medium.kind].tokens(np.int64(len(medium.content.patches))))
    first = np.flatnonzero(batch.slots[0])[:count]
    rows = -(-(1 + count) // AT_ONCE) * AT_ONCE
    tokens, slots = (np.repeat(getattr(batch, name), rows, 0) for name in ("tokens", "slots"))
    hidden = (1 + np.arange(count), first)  # row i + 1 lacks place i
    slots[hidden], tokens[hidden] = 0, tokenizer.specials[MISSING]
    nats = _nats(experiment, params, batch, tokens, slots)
    seen_T = np.asarray(_attention(experiment.model, params, batch))
    words: dict[bool, Any] = {
        learned: "".join(tokenizer.decode(p.content) for p in pieces if isinstance(p.content, np.ndarray) and p.learned == learned)
        for learned in (False, True)
    }
    return Occlusion(medium.kind, medium.content, words[False], words[True], nats[1 : 1 + count] - nats[0], seen_T[first])


@functools.partial(jax.jit, static_argnums=0)
def _row_nats(config: MultimodalConfig, params, batch: MediaBatch):
    where = {"segments_BT": batch.segments, "positions_BT": batch.positions}
    output = MultimodalDecoder(config).apply({"params": params}, batch.tokens, **where, media=media_of(config, params, batch))
    scores = score_tokens(Head(output.hidden_BTD, vocabulary_table(params)), batch.targets, softcap=config.logit_softcap)
    assert scores.nll is not None
    return (scores.nll * batch.weights).sum(1)


@functools.partial(jax.jit, static_argnums=0)
def _attention(config: MultimodalConfig, params, batch: MediaBatch):
    """float32 [T]: what the learned positions of the one row of a batch give to each, the mean of them, of all layers and heads."""
    plain, weights = dataclasses.replace(config, scan=False, remat="none"), list[Any]()
    where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "media": media_of(plain, params, batch), "watch": weights}
    MultimodalDecoder(plain).apply({"params": params}, batch.tokens, **where)
    given_TS = jnp.stack(weights).mean((0, 2))[0]
    return batch.weights[0] @ given_TS / jnp.maximum(batch.weights[0].sum(), 1)


def _nats(experiment: Experiment, params, batch: MediaBatch, tokens, slots) -> np.ndarray:
    """Of the learned tokens of the one row of a batch, for each of the rows that its tokens and slots are replaced by."""
    same = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), AT_ONCE, 0), batch)
    found = []
    for start in range(0, len(tokens), AT_ONCE):
        chunk = slice(start, start + AT_ONCE)
        found.append(_row_nats(experiment.model, params, same._replace(tokens=tokens[chunk], slots=slots[chunk])))
    return np.concatenate(found)


def draw_occlusions(found: list[Occlusion], shapes: dict, path: Path) -> bool:
    """Each medium beside itself under maps of what its places are worth and of the attention to them. False where matplotlib is not
    installed or nothing is shown."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not found:
        return False
    figure = Figure(figsize=(7.8, 2.7 * len(found)), layout="constrained")
    for axes, one in zip(figure.subplots(len(found), 3, squeeze=False), found, strict=True):
        picture, worth, seen = _shown(one, shapes[one.kind])
        for side in axes:
            side.imshow(picture, aspect="auto" if one.kind == "audio" else "equal")
            side.set_axis_off()
        extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
        most = max(float(np.abs(worth).max()), 1e-6)
        maps: tuple = ((axes[1], worth, {"cmap": "RdBu_r", "vmin": -most, "vmax": most}), (axes[2], seen, {"cmap": "viridis", "vmin": 0.0}))
        for side, values, colours in maps:
            drawn = side.imshow(values, extent=extent, alpha=0.65, aspect=side.get_aspect(), **colours)
            figure.colorbar(drawn, ax=side, shrink=0.8)
        axes[0].set_title(textwrap.fill(f"{one.kind}: {one.question}", 40), fontsize=8)
        axes[1].set_title(textwrap.fill(f"nats that `{one.answer}` loses without a place", 40), fontsize=8)
        axes[2].set_title("share of the attention", fontsize=8)
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    storage.write_atomically(str(path), buffer.getvalue())
    return True


def _shown(one: Occlusion, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture to draw, uint8 [H, W, 3], and the worth of its places and the attention to them as grids; of a clip the time that is
    worth most. A class token, which lies nowhere, is left out."""
    pictures, maps = pictures_of(shape, one.cut.patches, one.cut.places), np.stack([one.lost, one.seen])
    if shape.kind == "audio" or shape.latents:
        return pictures[0], *maps[:, None, :]
    rows, columns = (one.cut.places[:, -2:].max(0) + 1) // shape.block
    worth, seen = maps[:, int(shape.class_token) :].reshape(2, -1, rows, columns)
    best = int(np.abs(worth).sum((1, 2)).argmax())
    return pictures[best * len(pictures) // len(worth)], worth[best], seen[best]
