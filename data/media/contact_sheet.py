"""Pictures of what a model is fed: the samples of a batch, or of a folder of shards, each with its media and texts."""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.errors import UserError
from data.media.batches import MediaBatches
from data.media.codes import MediaCodes
from data.media.kinds import Damaged, Kind, Undecodable
from data.media.rows import MARKERS, MISSING, MediaBatch
from data.media.shards import MediaSplit
from data.media.signals.images import decode_image
from data.media.signals.mel import log_mel
from data.media.signals.probing import probe
from data.media.signals.shapes import RATE, Cut, ImageShape, Shape, VideoShape, frames_of
from data.media.signals.sounds import decode_audio
from data.media.signals.videos import decode_video
from data.tokenizer import Tokenizer

_CELL, _LINE, _WORDS = 176, 13, 28  # pixels of a cell and of a line, characters of a line
_FRAMES = 4  # of a clip that are shown
_SECONDS = 10.0  # of a recording


@dataclasses.dataclass(frozen=True)
class Cell:
    """One sample: its pictures, uint8 [H, W, 3], and what is read and what is learned of it."""

    title: str
    pictures: tuple[np.ndarray, ...]
    read: str = ""
    learned: str = ""


def draw_sheet(cells: list[Cell], columns: int = 6) -> Any:
    """A Pillow image of all cells, row by row: what is learned is green."""
    from PIL import Image, ImageDraw

    if not cells:
        raise UserError("there is nothing to show", "Choose another step, row or split.")
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    texts = [[_lines(cell) for cell in row] for row in rows]
    tall = [max(_CELL // 2 if len(cell.pictures) == 2 else _CELL for cell in row) for row in rows]
    heights = [high + 4 + _LINE * max(map(len, row)) + 8 for high, row in zip(tall, texts, strict=True)]
    sheet = Image.new("RGB", (min(columns, len(cells)) * (_CELL + 8) + 8, sum(heights) + 8), "white")
    pen, top = ImageDraw.Draw(sheet), 8
    for row, lines, high, height in zip(rows, texts, tall, heights, strict=True):
        for column, (cell, words) in enumerate(zip(row, lines, strict=True)):
            left = 8 + column * (_CELL + 8)
            for place, picture in enumerate(cell.pictures):
                side = _CELL if len(cell.pictures) == 1 else _CELL // 2 - 2
                shown = Image.fromarray(picture)
                scale = side / max(shown.size)
                shown = shown.resize((max(1, round(shown.width * scale)), max(1, round(shown.height * scale))), Image.Resampling.NEAREST)
                if place < 4:
                    sheet.paste(shown, (left + place % 2 * (side + 4), top + place // 2 * (side + 4)))
            for number, (text, colour) in enumerate(words):
                pen.text((left, top + high + 4 + number * _LINE), text, fill=colour)
        top += height
    return sheet


def _lines(cell: Cell) -> list[tuple[str, str]]:
    found = [(cell.title, "grey")]
    for text, colour in ((cell.read, "black"), (cell.learned, "green")):
        found += [(line, colour) for line in textwrap.wrap(text, _WORDS)[:8]]
    return found


# ------------------------------------------------------------------------------------------------------------------ of a batch


def cells_of_batch(batches: MediaBatches, first_row: int, count: int) -> list[Cell]:
    """The samples of rows [first_row, first_row + count), as the model sees them: cut, scaled, augmented."""
    batch, found = batches.batch(first_row, count), []
    for row in range(count):
        for segment in range(1, int(batch.segments[row].max()) + 1):
            inside = batch.segments[row] == segment
            pictures = []
            for kind, patches, places in media_of_segment(batch, row, segment, batches.shapes):
                pictures += pictures_of(batches.shapes[kind], patches, places)
            for codes in batches.tokenizer.codes.values():
                pictures += _written(codes, batch.targets[row][inside])
            learned = inside & (batch.weights[row] > 0)
            texts = (_text(batch, row, chosen, batches.tokenizer) for chosen in (inside & ~learned, learned))
            found.append(Cell(f"row {first_row + row}, sample {segment}", tuple(pictures), *texts))
    return found


def _text(batch: MediaBatch, row: int, chosen, tokenizer: Tokenizer) -> str:
    """The text of the targets, without markers of media."""
    hidden = {tokenizer.specials[name] for name in (*MARKERS.values(), MISSING, "document_end")}
    return tokenizer.decode([token for token in batch.targets[row][chosen].tolist() if token not in hidden])


def _written(codes: MediaCodes, targets: np.ndarray) -> list[np.ndarray]:
    """Pictures of the one medium that the codes among a sample's targets stand for."""
    ids = targets[(targets >= codes.ids[0]) & (targets < codes.ids[1])]
    return pictures_of(codes.shape, *codes.decode(ids)) if len(ids) else []


def media_of_segment(batch: MediaBatch, row: int, segment: int, shapes: dict[Kind, Shape]) -> Iterator[tuple[Kind, np.ndarray, np.ndarray]]:
    """(kind, patches, places) of each medium of a sample."""
    for kind in shapes:
        packed = getattr(batch, kind)
        for number in np.unique(packed.segments[row][packed.samples[row] == segment]).tolist():
            mine = packed.segments[row] == number
            yield kind, packed.patches[row][mine], packed.places[row][mine]


def pictures_of(shape: Shape, patches: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    """uint8 [H, W, 3] each: a picture, some frames of a clip, a spectrogram."""
    if shape.kind == "audio":
        return [_spectrogram(patches)]
    assert isinstance(shape, ImageShape | VideoShape)
    whole = frames_of(shape, Cut(patches, places))
    return list(whole[np.linspace(0, len(whole) - 1, min(_FRAMES, len(whole))).round().astype(int)])


def _spectrogram(frames_NM: np.ndarray) -> np.ndarray:
    """Time to the right, frequency upwards."""
    grey = np.clip((frames_NM.T[::-1] + 1.0) * 127.5, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


# ---------------------------------------------------------------------------------------------------------------- of a folder


def cells_of_split(split: MediaSplit, indices: np.ndarray, classes: list[str]) -> list[Cell]:
    """Samples as they are stored, before anything is done to them."""
    found = []
    for index, sample in zip(indices.tolist(), split.read(indices), strict=True):
        if isinstance(sample, Damaged):
            found.append(Cell(f"{index}: {sample.why}", ()))
            continue
        pictures: list[np.ndarray] = []
        for part in sample.parts:
            if isinstance(part.content, bytes):
                try:
                    pictures += _decoded(part.kind, part.content)
                except Undecodable as error:
                    found.append(Cell(f"{index}: {error}", ()))
        written = [(part.content, part.learned) for part in sample.parts if isinstance(part.content, str)]
        texts = (" ".join(text for text, learned in written if learned == wanted) for wanted in (False, True))
        title = f"{index}: {classes[sample.label]}" if sample.label >= 0 else str(index)
        found.append(Cell(title, tuple(pictures), *texts))
    return found


def _decoded(kind: Kind, content: bytes) -> list[np.ndarray]:
    if kind == "image":
        return [decode_image(content)]
    facts = probe(kind, content)
    if kind == "video":
        step = facts.frames / facts.rate / _FRAMES
        return list(decode_video(content, (np.arange(_FRAMES) + 0.5) * step))
    return [_spectrogram(log_mel(decode_audio(content, RATE, 0.0, _SECONDS)))]
