"""Rows of a decoder that reads images, video and audio: the samples of one or more sources, packed, as the model sees them.

A batch is a pure function of (seed, row), and so is every random choice in it: which clip of a video, which part of a picture. What a row
holds is planned from sizes that are known without decoding, so all hosts agree. What cannot be decoded stays padding of weight zero.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from data.errors import UserError
from data.media import KINDS, Kind
from data.media_packing import pack
from data.media_shapes import Cut, Shape
from data.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.order import fold, shuffled
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
    rows: np.ndarray  # int32 [B]


class Piece(NamedTuple):
    """A part of a sample, ready for a row: the ids of a text, or a medium as it was cut."""

    kind: Kind
    content: np.ndarray | Cut
    learned: bool = False


class Unusable(NamedTuple):
    """What stands in the place of a sample that cannot be had."""

    why: str


class Source(Protocol):
    """Samples that rows are made of."""

    @property
    def path(self) -> str:
        """For messages."""

    @property
    def digest(self) -> str:
        """Of all that decides the samples."""

    def count(self, split: str) -> int:
        """Samples of a split; 0 where there is no such."""

    def sizes(self, split: str, shapes: dict[Kind, Shape], tokenizer: Tokenizer) -> np.ndarray:
        """int64 [samples, 5]: tokens of text; patches that image, video and audio are charged; tokens of media, with their markers."""

    def samples(
        self, split: str, indices: np.ndarray, shapes: dict[Kind, Shape], tokenizer: Tokenizer, seeds: Sequence[int] | None
    ) -> list[tuple[list[Piece], int] | Unusable]:
        """The pieces and the class of each sample, of the sizes that `sizes` says. seeds: of what is random in each; None for no chance."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How samples become rows. length: positions of a row. room: patches of each kind that a row has room for. prefix: what comes before
    the first learned token is read both ways. dropped: share of media that is kept from the model."""

    length: int
    room: dict[Kind, int]
    prefix: bool = True
    dropped: float = 0.0


class MediaBatches:
    """Rows of samples: `train` is an endless stream in an order that the seed decides, other splits come once, in their own order."""

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Tokenizer,
        shapes: dict[Kind, Shape],
        layout: Layout,
        *,
        split: str = "train",
        seed: int = 0,
        weights: Sequence[float] = (),
        max_damaged: int = 0,
    ):
        self.sources, self.tokenizer, self.shapes, self.layout = list(sources), tokenizer, shapes, layout
        self.split, self.seed, self.max_damaged = split, seed, max_damaged
        self.damaged: set[tuple[int, int]] = set()
        self.damage = "samples that could not be read (data.max_damaged)"
        room = np.array([layout.length, *(layout.room.get(kind, 0) for kind in MEDIA)])
        self._plans = []
        self.has_media, tokens = False, 0
        for source in self.sources:
            sizes = source.sizes(split, shapes, tokenizer)
            whole = np.concatenate([sizes[:, :1] + sizes[:, 4:] + 1, sizes[:, 1:4]], -1)  # and the end of the sample
            start, samples = pack(whole, room)
            if not len(samples):
                raise UserError(
                    f"{source.path}: none of {len(sizes)} samples of {split} fits {layout.length} tokens and patches {layout.room}",
                    "Give more room: --model.context-length, or smaller media.",
                )
            tokens += int(whole[samples, 0].sum())
            self.has_media |= bool(sizes[samples, 4].any())
            self._plans.append((start, samples))
        rows = np.array([len(start) - 1 for start, _ in self._plans])
        self.left_out = sum(source.count(split) for source in self.sources) - sum(len(samples) for _, samples in self._plans)
        self.rows_per_epoch = int(rows.sum())
        self.padding_share = 1.0 - tokens / (self.rows_per_epoch * layout.length)
        self._mixture = Mixture(counts_of_weights(weights) if weights else counts_of_sizes(rows))

    def samples(self, first_row: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, source, number in its split) of every sample of rows [first_row, first_row + count); row counts from 0."""
        numbers = np.arange(first_row, first_row + count)
        if self.split == "train":
            which, local = self._mixture(numbers)
        else:  # one source after the other
            ends = np.cumsum([len(start) - 1 for start, _ in self._plans])
            numbers = np.minimum(numbers, ends[-1] - 1)  # rows past the end are for nothing
            which = np.searchsorted(ends, numbers, side="right")
            local = numbers - np.concatenate([[0], ends])[which]
        found = []
        for row, (source, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            start, samples = self._plans[source]
            if self.split == "train":
                index = int(shuffled(index, len(start) - 1, int(fold(self.seed, source)))[1])
            inside = samples[start[index] : start[index + 1]]
            found.append(np.stack([np.full(len(inside), row), np.full(len(inside), source), inside]))
        rows, sources, samples = np.concatenate(found, -1)
        return rows, sources, samples

    def batch(self, first_row: int, count: int) -> MediaBatch:
        """Rows [first_row, first_row + count)."""
        batch = self._empty(first_row, count)
        rows, sources, numbers = self.samples(first_row, count)
        pieces: list = [None] * len(rows)
        for source in np.unique(sources):
            chosen = np.flatnonzero(sources == source)
            seeds = None
            if self.split == "train":
                seeds = [int(fold(self.seed, first_row + rows[i], numbers[i])) for i in chosen]
            found = self.sources[source].samples(self.split, numbers[chosen], self.shapes, self.tokenizer, seeds)
            for place, sample in zip(chosen.tolist(), found, strict=True):
                pieces[place] = sample
        filled = _Filled(batch, self.layout, self.shapes, self.tokenizer)
        for row, source, number, sample in zip(rows.tolist(), sources.tolist(), numbers.tolist(), pieces, strict=True):
            if isinstance(sample, Unusable):
                self._leave_out(source, number, sample)
                continue
            chance = fold(self.seed, first_row + row, number, 1) if self.split == "train" else fold(number, 1)
            filled.add(row, *sample, dropped=float(chance) / 2**64 < self.layout.dropped)
        return batch

    def _empty(self, first_row, count) -> MediaBatch:
        def packed(kind: Kind):
            shape, room = self.shapes.get(kind), self.layout.room.get(kind, 0)
            values, axes = (shape.values, shape.axes) if shape else (0, 0)
            patches = np.zeros((count, room, values), np.float32 if kind == "audio" else np.uint8)
            return Packed(patches, np.zeros((count, room, axes), np.int32), np.zeros((count, room), np.int32))

        ids = [np.zeros((count, self.layout.length), np.int32) for _ in range(8)]
        tokens, targets, segments, positions, groups, slots, modalities, labels = ids
        labels -= 1
        media = {kind: packed(kind) for kind in MEDIA}
        return MediaBatch(
            *(tokens, targets, np.zeros(tokens.shape, np.float32), segments, positions, groups, slots, modalities),
            **media,
            labels=labels,
            rows=np.arange(first_row, first_row + count, dtype=np.int32),
        )

    def _leave_out(self, source, number, sample):
        self.damaged.add((source, number))
        if len(self.damaged) > self.max_damaged:
            raise UserError(
                f"{self.sources[source].path}: sample {number} of {self.split}: {sample.why}",
                f"Prepare the data again, or go on without such samples: --data.max-damaged N ({len(self.damaged)} so far).",
            )


class _Filled:
    """How far the rows of a batch are filled."""

    def __init__(self, batch: MediaBatch, layout: Layout, shapes: dict[Kind, Shape], tokenizer: Tokenizer):
        self._batch, self._layout, self._shapes = batch, layout, shapes
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
                base += encoded_places(shapes[kind], layout.room.get(kind, 0))

    def add(self, row: int, pieces: list[Piece], label: int, *, dropped: bool) -> None:
        """One more sample in a row, which has room for it."""
        ids, slots, learned, group, modality = [], [], [], [], []
        about, number = 0, 0
        for piece in pieces:
            if piece.kind == "text":
                assert isinstance(piece.content, np.ndarray)
                length = len(piece.content)
                ids.append(piece.content)
                slots.append(np.zeros(length, np.int64))
                group.append(number + np.arange(length))
                number += length
            else:
                about = KINDS.index(piece.kind)
                assert isinstance(piece.content, Cut)
                places = self._put(row, piece.kind, piece.content, dropped)
                length = len(places) + 1
                ids.append(np.full(length, self._missing if dropped else self._markers[piece.kind]))
                ids[-1][0] = self._markers[piece.kind]
                slots.append(np.concatenate([[0], places]))
                group.append(number + np.minimum(np.arange(length), 1))  # the marker, then all places together
                number += 2
            learned.append(np.full(length, piece.learned))
            modality.append(np.full(length, about))
        for parts, last in ((ids, self._end), (slots, 0), (learned, bool(pieces[-1].learned)), (group, number), (modality, about)):
            parts.append(np.array([last]))
        columns = [np.concatenate(parts) for parts in (ids, slots, learned, group, modality)]
        self._write(row, columns, label)

    def _put(self, row, kind, cut: Cut, dropped) -> np.ndarray:
        """Patches of a medium into their row; the slots of the tokens that they stand for."""
        shape, packed = self._shapes[kind], getattr(self._batch, kind)
        first, size = int(self._places[kind][row]), len(cut.patches)
        tokens = int(shape.tokens(size))
        if dropped:
            return np.zeros(tokens, np.int64)
        inside = slice(first, first + size)
        packed.patches[row, inside], packed.places[row, inside] = cut.patches, cut.places
        self._media[kind][row] += 1
        packed.segments[row, inside] = self._media[kind][row]
        self._places[kind][row] += size
        before = (self._media[kind][row] - 1) * shape.latents if shape.latents else int(shape.tokens(first))
        return self._base[kind] + before + np.arange(tokens)

    def _write(self, row, columns: list[np.ndarray], label):
        """The inputs are what was before: of the first, the end of another sample."""
        ids, slots, learned, group, modality = columns
        batch, length, start = self._batch, len(ids), int(self._column[row])
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


def encoded_places(shape: Shape, room: int) -> int:
    """Places that a projector makes of a row with room for so many patches."""
    if shape.latents:
        return shape.latents * most_media(shape, room)
    return int(shape.tokens(room))


def most_media(shape: Shape, room: int) -> int:
    """Media that a row can hold at most."""
    return room // (int(np.prod(shape.largest)) if shape.latents else shape.rate * shape.block**2)
