"""What a class of a picture or a recording rests on: a Subject whose tokens are its patches, and a map over it."""

import io
from typing import Literal

import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.media.contact_sheet import pictures_of
from data.media.rows import Packed
from data.media.signals.shapes import Cut, Shape
from data.records.record import read_content
from train.checkpoints.checkpointer import load_parameters
from train.explain.page import AGAINST, FOR
from train.explain.subject import Subject, asked, odds
from train.generation.about_media import read_media
from train.objectives.media.classification import MediaClassificationLoss
from train.objectives.media.options import MediaClassification
from train.objectives.media.views import encoder_of
from train.runs.directory import Run

Kind = Literal["image", "audio"]
SIDE = 320
"""Pixels of the shorter side of a map, about."""


def medium_of(run: Run, kind: Kind, path: str, *, answer: str = "", against: str = "", step: int | None = None) -> tuple[Subject, Cut]:
    """Of a run that classifies pictures or recordings, and a file. answer, against: names of classes; empty: the likeliest, and none.

    UserError for other runs, for a file that cannot be decoded, and for classes that are none.
    """
    options = run.experiment.objective
    if not isinstance(options, MediaClassification) or options.medium != kind:
        raise UserError(f"{run.path}: does not classify {kind} files", "Give a run with the objective MediaClassification of that medium.")
    tokenizer, content = run.tokenizer(), read_content(path)
    (piece,) = read_media(run.experiment, tokenizer, [(kind, content)])
    assert isinstance(piece.content, Cut)
    names = max((getattr(one.source, "classes", ()) for one in run.corpora()), key=len)
    names = [*names, *(f"class {number}" for number in range(len(names), options.classes))]
    params = load_parameters(run, step=step)[0]
    loss = MediaClassificationLoss(encoder_of(run.experiment, kind), options.classes)
    return subject_of_patches(loss, params, piece.content, kind, names, answer, against), piece.content


def subject_of_patches(loss: MediaClassificationLoss, params, cut: Cut, kind: Kind, names: list[str], answer: str, against: str) -> Subject:
    """Patches (of a recording: frames of its spectrogram) are the tokens; where one is taken away, there is black, or silence.

    Black, as Sundararajan et al. (2017, sec. 3) have it: from grey, sums of gradients came less close to completeness.
    """
    patches_NC = np.asarray(cut.patches, np.float32) / 127.5 - 1.0 if cut.patches.dtype == np.uint8 else np.asarray(cut.patches)
    nothing_C = np.full_like(patches_NC[:1], patches_NC.min() if kind == "audio" else -1.0)
    table, places_NA = jnp.asarray(np.concatenate([nothing_C, patches_NC])), jnp.asarray(cut.places)

    def scores(params, ids_BN, shift_BNC):
        patches_BNC = table[ids_BN] + (0.0 if shift_BNC is None else shift_BNC)
        places_BNA = jnp.broadcast_to(places_NA, (*ids_BN.shape, places_NA.shape[-1]))
        ones = jnp.ones(ids_BN.shape, jnp.int32)
        return loss.tower(params["tower"], Packed(patches_BNC, places_BNA, ones, ones, ones))[:, 0] + params["bias"]

    def number(name: str, option: str) -> int:
        if name not in names:
            raise UserError(f"{option} {name!r} is none of the run's classes", f"They are {', '.join(names)}.")
        return names.index(name)

    ids_N = 1 + np.arange(len(patches_NC), dtype=np.int32)
    chosen, other = asked(scores, params, ids_N, number, answer, against)
    free_N = np.asarray((cut.places >= 0).all(-1))  # a class token lies nowhere
    return Subject(
        ids_T=ids_N,
        texts=[f"frame {place[0]}" if kind == "audio" else f"row {place[0]}, column {place[1]}" for place in cut.places],
        free_T=free_N,
        baseline=0,
        answer=names[chosen],
        number=chosen,
        against="" if other is None else names[other],
        params=params,
        score=lambda params, ids_BN, shift_BNC: odds(scores(params, ids_BN, shift_BNC), chosen, other),
        vectors=lambda params, ids: table[ids],
    )


def heat_map(cut: Cut, shape: Shape, attributions: list[float]) -> bytes:
    """PNG: the medium, and the same under its attributions: blue speaks for the answer, orange against it."""
    from PIL import Image

    picture = np.asarray(pictures_of(shape, cut.patches, cut.places)[0], np.float64)
    lies = (cut.places >= 0).all(-1)
    places, values = cut.places[lies], np.asarray(attributions, np.float64)[lies]
    where = places if places.shape[1] == 2 else np.concatenate([np.zeros_like(places), places], 1)
    worth = np.zeros(where.max(0) + 1)
    worth[tuple(where.T)] = values
    over = worth / max(np.abs(worth).max(), 1e-12)
    over = np.repeat(np.repeat(over, picture.shape[0] // over.shape[0], 0), picture.shape[1] // over.shape[1], 1)[..., None]
    colours = [np.array([int(part) for part in colour.split(",")], np.float64) for colour in (FOR, AGAINST)]
    shown = picture * (1 - 0.75 * np.abs(over)) + np.where(over >= 0, colours[0], colours[1]) * 0.75 * np.abs(over)
    gap = np.full((picture.shape[0], max(1, picture.shape[1] // 16), 3), 255.0)
    beside = np.concatenate([picture, gap, shown], 1).round().astype(np.uint8)
    scale = max(1, SIDE // min(picture.shape[:2]))
    buffer = io.BytesIO()
    Image.fromarray(beside.repeat(scale, 0).repeat(scale, 1)).save(buffer, "PNG")
    return buffer.getvalue()
