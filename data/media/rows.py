"""One row of a decoder that reads media: how parts of samples become positions, patches and slots."""

import dataclasses
from typing import NamedTuple

import numpy as np

from data.media.codes import MediaCodes
from data.media.kinds import KINDS, Kind
from data.media.signals.shapes import Cut, Shape
from data.tokenizer import Tokenizer

MEDIA: tuple[Kind, ...] = KINDS[1:]
MARKERS: dict[Kind, str] = {"image": "spare_4", "video": "spare_5", "audio": "spare_6"}
"""The special ids that stand before a medium."""
MISSING = "spare_7"
"""The special id in the places of a medium that is kept from the model."""


class Packed(NamedTuple):
    """The media of one kind in a batch, N places a row; N may be 0."""

    patches: np.ndarray  # uint8 or float32 [B, N, C]
    places: np.ndarray  # int32 [B, N, A]: where each lies
    segments: np.ndarray  # int32 [B, N]: number of the medium among those of its kind in the row, from 1; 0 on padding
    samples: np.ndarray  # int32 [B, N]: the segment of the row that it belongs to; 0 on padding
    groups: np.ndarray  # int32 [B, N]: the group of the row in which it stands


class MediaBatch(NamedTuple):
    """B rows of T positions, as TextBatch, and what stands in the places of some tokens.

    The encoded places of a row are numbered image first, then video, then audio, those of a kind in the order of its patches.
    """

    tokens: np.ndarray  # int32 [B, T]: inputs; at the place of a medium, its marker
    targets: np.ndarray  # int32 [B, T]
    weights: np.ndarray  # float32 [B, T]: 1 where a target is predicted
    segments: np.ndarray  # int32 [B, T]: 1, 2, ... for the samples of a row; 0 on padding
    positions: np.ndarray  # int32 [B, T]
    groups: np.ndarray  # int32 [B, T]: a position sees its own group and those before it, within its segment
    slots: np.ndarray  # int32 [B, T]: 0, or 1 + the encoded place that stands here instead of the token
    modalities: np.ndarray  # int32 [B, T]: place in KINDS of what the target is about, the medium nearest before it
    image: Packed
    video: Packed
    audio: Packed
    labels: np.ndarray  # int32 [B, T]: class of the sample that a segment's first position belongs to; -1 elsewhere and for none
    counts: np.ndarray  # float32 [B]: 0 for padding rows, such as the last of an evaluation
    rows: np.ndarray  # int32 [B]


class Piece(NamedTuple):
    """A part of a sample, ready for a row: the ids of a text, a medium as it was cut, or the codes of one that is written (`written`)."""

    kind: Kind
    content: np.ndarray | Cut
    learned: bool = False


def written(codes: MediaCodes, cut: Cut, tokenizer: Tokenizer) -> Piece:
    """A medium that the model is to write: its marker, then its codes."""
    return Piece(codes.kind, np.concatenate([[tokenizer.specials[MARKERS[codes.kind]]], codes.encode(cut)]), learned=True)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How samples become rows. length: positions of a row. capacity: patches of each kind that fit a row. prefix: what comes before
    the first learned token is read both ways. dropped: share of media that is kept from the model."""

    length: int
    capacity: dict[Kind, int]
    prefix: bool = True
    dropped: float = 0.0


class RowFiller:
    """Rows that samples are put into, one after the other, while they have room. Attribute: batch."""

    def __init__(self, layout: Layout, shapes: dict[Kind, Shape], tokenizer: Tokenizer, rows: np.ndarray):
        """rows: int32 [B], the numbers of the rows."""
        self._layout, self._shapes = layout, shapes
        self.batch = batch = empty_media_batch(layout, shapes, rows)
        self._end = tokenizer.specials["document_end"]
        self._markers = {kind: tokenizer.specials[name] for kind, name in MARKERS.items()}
        self._missing = tokenizer.specials[MISSING]
        count = len(batch.rows)
        self._column, self._number = np.zeros(count, np.int64), np.zeros(count, np.int32)
        self._places = {kind: np.zeros(count, np.int64) for kind in MEDIA}
        self._media = {kind: np.zeros(count, np.int32) for kind in MEDIA}
        self._base, base = {}, 1
        for kind in MEDIA:
            self._base[kind] = base
            if kind in shapes:
                base += encoded_places(shapes[kind], layout.capacity.get(kind, 0))

    def add(self, row: int, pieces: list[Piece], label: int = -1, *, dropped: bool = False) -> int:
        """One more sample in a row, which has room for it; the positions that it takes. dropped: its media are kept from the model."""
        ids, slots, learned, group, modality = [], [], [], [], []
        about, number = 0, 0
        for piece in pieces:
            if piece.kind != "text":
                about = KINDS.index(piece.kind)
            if isinstance(piece.content, np.ndarray):
                length = len(piece.content)
                ids.append(piece.content)
                slots.append(np.zeros(length, np.int64))
                group.append(number + np.arange(length))
                number += length
            else:
                places = self._put(row, piece.kind, piece.content, number + 1, dropped)
                length = len(places) + 1
                ids.append(np.full(length, self._missing if dropped else self._markers[piece.kind]))
                ids[-1][0] = self._markers[piece.kind]
                slots.append(np.concatenate([[0], places]))
                group.append(number + np.minimum(np.arange(length), 1))  # the marker, then all places together
                number += 2
            learned.append(np.full(length, piece.learned))
            modality.append(np.full(length, about))
        for column, last in ((ids, self._end), (slots, 0), (learned, bool(pieces[-1].learned)), (group, number), (modality, about)):
            column.append(np.array([last]))
        columns = [np.concatenate(column) for column in (ids, slots, learned, group, modality)]
        self._write(row, columns, label)
        return len(columns[0])

    def _put(self, row, kind, cut: Cut, group: int, dropped) -> np.ndarray:
        """Patches of a medium into their row; the slots of the tokens that they stand for."""
        shape, packed = self._shapes[kind], getattr(self.batch, kind)
        first, size = int(self._places[kind][row]), len(cut.patches)
        tokens = int(shape.tokens(np.int64(size)))
        if dropped:
            return np.zeros(tokens, np.int64)
        inside = slice(first, first + size)
        packed.patches[row, inside], packed.places[row, inside] = cut.patches, cut.places
        self._media[kind][row] += 1
        packed.segments[row, inside] = self._media[kind][row]
        packed.samples[row, inside], packed.groups[row, inside] = self._number[row] + 1, group
        self._places[kind][row] += size
        before = (self._media[kind][row] - 1) * shape.latents if shape.latents else int(shape.projected(first))
        return self._base[kind] + before + np.arange(tokens)

    def _write(self, row, columns: list[np.ndarray], label):
        """The inputs are what was before: of the first, the end of another sample."""
        ids, slots, learned, group, modality = columns
        batch, length, start = self.batch, len(ids), int(self._column[row])
        inside = slice(start, start + length)
        batch.targets[row, inside] = ids
        batch.tokens[row, inside] = np.concatenate([[self._end], ids[:-1]])
        batch.slots[row, inside] = np.concatenate([[0], slots[:-1]])
        batch.weights[row, inside] = learned
        batch.modalities[row, inside] = modality
        batch.positions[row, inside] = np.arange(length)
        group = np.concatenate([[0], group[:-1] + 1])
        if self._layout.prefix and learned.any():
            group = np.maximum(group, group[learned.argmax()])  # all that the first learned token is predicted from
        batch.groups[row, inside] = group
        self._number[row] += 1
        batch.segments[row, inside] = self._number[row]
        batch.labels[row, start] = label
        self._column[row] += length


def empty_media_batch(layout: Layout, shapes: dict[Kind, Shape], rows: np.ndarray) -> MediaBatch:
    """A batch of padding alone; `rows` numbers its rows."""
    count = len(rows)

    def packed(kind: Kind):
        shape, capacity = shapes.get(kind), layout.capacity.get(kind, 0)
        values, axes = (shape.values, shape.axes) if shape else (0, 0)
        patches = np.zeros((count, capacity, values), np.float32 if kind == "audio" else np.uint8)
        return Packed(patches, np.zeros((count, capacity, axes), np.int32), *(np.zeros((count, capacity), np.int32) for _ in range(3)))

    tokens, targets, segments, positions, groups, slots, modalities, labels = (np.zeros((count, layout.length), np.int32) for _ in range(8))
    labels -= 1
    return MediaBatch(
        *(tokens, targets, np.zeros(tokens.shape, np.float32), segments, positions, groups, slots, modalities),
        **{kind: packed(kind) for kind in MEDIA},
        labels=labels,
        counts=np.ones(count, np.float32),
        rows=rows.astype(np.int32),
    )


def encoded_places(shape: Shape, capacity: int) -> int:
    """Places that a projector makes of a row that so many patches fit."""
    if shape.latents:
        return shape.latents * most_media(shape, capacity)
    return int(shape.projected(capacity))


def most_media(shape: Shape, capacity: int) -> int:
    """Media that a row can hold at most."""
    return capacity // (shape.most if shape.latents else shape.rate * shape.block**2)
