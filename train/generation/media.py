"""Media that a model writes: how well, for the embedded world, where what is drawn can be recognised; and a sheet of them to look at."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.files import storage
from data.media.contact_sheet import Cell, draw_sheet, pictures_of
from data.media.kinds import Kind
from data.media.rows import Piece
from data.media.signals.shapes import Cut
from data.media.world import World, recognise
from data.tokenizer import Tokenizer
from model.decoding.sampling import Sampling
from train.experiment import Experiment
from train.generation.about_media import MediaWriter, first_samples

WRITTEN = 128
"""Descriptions that are measured, of each validation set."""
AT_ONCE = 64


SHOWN = 6
"""Descriptions on the sheet, of each validation set."""
NAME = "written.png"


class Written(NamedTuple):
    """right: share of the media drawn that show all that was described, and nothing else. coded: the same of the true media, coded and
    decoded."""

    right: float
    coded: float


def write_all(experiment: Experiment, params, tokenizer: Tokenizer, world: World, split: str, kind: Kind, count: int) -> Written:
    """What the model draws, at temperature 1, after the first `count` descriptions of a split of a world with one task."""
    codes = tokenizer.codes[kind]
    samples = world.samples(split, np.arange(count), {}, tokenizer, None)
    prompts: list[list[Piece]] = [pieces[:1] for pieces, _ in samples]
    descriptions = [world.described(split, index) for index in range(count)]
    true = [codes.decode(pieces[1].content[1:]) for pieces, _ in samples]
    writer, drawn = MediaWriter(experiment, tokenizer, params), list[Cut | None]()
    for first in range(0, count, AT_ONCE):
        chunk = prompts[first : first + AT_ONCE]
        chunk += prompts[:1] * (min(AT_ONCE, count) - len(chunk))  # one program for all
        drawn += writer.media(chunk, kind, sampling=Sampling(), first_row=first)[: min(AT_ONCE, count - first)]

    def share(media: Sequence[Cut | None]) -> float:
        said = ("" if cut is None else recognise(cut, codes.shape) for cut in media)
        return float(np.mean([one == wanted for one, wanted in zip(said, descriptions, strict=True)]))

    return Written(share(drawn), share(true))


def draw_written(dataset: Any, params, sources: list, tokenizer: Tokenizer, path: Path) -> bool:
    """A sheet of what the model writes after the first descriptions of each validation set, at temperature 1, each behind the true medium
    as its codes give it back. False where nothing is written, or Pillow is not installed."""
    cells: list[Cell] = []
    for name, (source, split) in dataset.validation(sources).items():
        pieces = [sample[0] for sample in first_samples(dataset, source, split, tokenizer, SHOWN)]
        pieces = [one for one in pieces if one[-1].kind in tokenizer.codes and isinstance(one[-1].content, np.ndarray)]
        if not pieces:
            continue
        kind = pieces[0][-1].kind
        codes = tokenizer.codes[kind]
        drawn = MediaWriter(dataset.experiment, tokenizer, params).media([one[:-1] for one in pieces], kind, sampling=Sampling())
        for one, cut in zip(pieces, drawn, strict=True):
            text = "".join(tokenizer.decode(piece.content) for piece in one[:-1] if isinstance(piece.content, np.ndarray))
            true = codes.decode(np.asarray(one[-1].content)[1:])
            shown = [] if cut is None else pictures_of(codes.shape, *cut)[:2]
            cells.append(Cell(name, tuple(pictures_of(codes.shape, *true)[:2] + shown), text))
    if not cells:
        return False
    try:
        sheet = draw_sheet(cells)
    except ImportError:  # Pillow
        return False
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    storage.write_atomically(str(path), buffer.getvalue())
    return True
