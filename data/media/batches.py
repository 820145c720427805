"""Rows of a decoder that reads images, video and audio: the samples of one or more sources, packed, as the model sees them.

A batch is a pure function of (seed, row), and so is every random choice in it: which clip of a video, which cutout of a picture. What a row
holds is planned from sizes that are known without decoding, so all hosts agree. What cannot be decoded stays padding of weight zero.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from data.errors import UserError
from data.media.kinds import Kind
from data.media.packing import pack
from data.media.rows import MEDIA, Layout, MediaBatch, Packed, Piece, RowFiller
from data.media.signals.shapes import Shape
from data.rows.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.rows.order import fold, row_numbers, shuffled
from data.tokenizer import Tokenizer


class Unusable(NamedTuple):
    """Takes the place of a sample that cannot be used."""

    why: str


class Lost(NamedTuple):
    """A sample that could not be put into its row."""

    source: int
    number: int
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
        if weights and len(weights) != len(self.sources):
            named = ", ".join(source.path for source in self.sources)
            raise UserError(f"{len(weights)} weights for {len(self.sources)} sources: {named}.", "Give one weight for each, or none.")
        self.damaged: set[tuple[int, int]] = set()
        self.damage = "samples that could not be read (data.max_damaged)"
        capacity = np.array([layout.length, *(layout.capacity.get(kind, 0) for kind in MEDIA)])
        self._plans = []
        self.has_media, tokens = False, 0
        for source in self.sources:
            sizes = source.sizes(split, shapes, tokenizer)
            whole = np.concatenate([sizes[:, :1] + sizes[:, 4:] + 1, sizes[:, 1:4]], -1)  # and the end of the sample
            start, samples = pack(whole, capacity)
            if not len(samples):
                raise UserError(
                    f"{source.path}: none of {len(sizes)} samples of {split} fits {layout.length} tokens and patches {layout.capacity}",
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
        if self.split == "train":
            local = local.copy()
            for source in np.unique(which):
                mine, plan_rows = which == source, len(self._plans[source][0]) - 1
                local[mine] = shuffled(local[mine], plan_rows, int(fold(self.seed, int(source))))[1]
        inside = [
            self._plans[source][1][slice(*self._plans[source][0][index : index + 2])] for source, index in zip(which, local, strict=True)
        ]
        sizes = [len(samples) for samples in inside]
        return np.repeat(np.arange(count), sizes), np.repeat(which, sizes), np.concatenate(inside)

    def batch(self, first_row: int, count: int) -> MediaBatch:
        """Rows [first_row, first_row + count). UserError where more samples have been found unusable than are tolerated."""
        made, lost = self.make(first_row, count)
        self.note(lost)
        return made

    def make(self, first_row: int, count: int) -> tuple[MediaBatch, list[Lost]]:
        """Those rows, and what could not be put into them: a pure function."""
        return self._filled(np.arange(first_row, first_row + count), *self.samples(first_row, count))

    @property
    def planned(self) -> int:
        """Samples that have room in a row, over all sources."""
        return sum(len(samples) for _, samples in self._plans)

    def alone(self, units: np.ndarray, coins: np.ndarray) -> MediaBatch:
        """A row for each of some samples, numbered from 0 to `planned`; -1 is padding. coins: uint64 of each, by which chance is drawn.
        UserError as of `batch`."""
        ends = np.cumsum([len(samples) for _, samples in self._plans])
        rows = np.flatnonzero(units >= 0)
        sources = np.searchsorted(ends, units[rows], side="right")
        local = units[rows] - (ends - [len(samples) for _, samples in self._plans])[sources]
        numbers = [self._plans[source][1][place] for source, place in zip(sources, local, strict=True)]
        made, lost = self._filled(row_numbers(coins), rows, sources, np.array(numbers, np.int64))
        self.note(lost)
        made.counts[units < 0] = 0
        return made

    def _filled(self, drawn_by: np.ndarray, rows, sources, numbers) -> tuple[MediaBatch, list[Lost]]:
        """Rows with samples: (row, counted from 0, source, number in its split) of each. drawn_by: of each row, the number by which its
        randomness is drawn."""
        chances = fold(self.seed, drawn_by[rows], sources, numbers)
        dropped = fold(chances, 1).astype(np.float64) / 2.0**64 < self.layout.dropped
        pieces: list = [None] * len(rows)
        for source in np.unique(sources):
            chosen = np.flatnonzero(sources == source)
            seeds = chances[chosen].tolist() if self.split == "train" else None
            found = self.sources[source].samples(self.split, numbers[chosen], self.shapes, self.tokenizer, seeds)
            for place, sample in zip(chosen.tolist(), found, strict=True):
                pieces[place] = sample
        filler = RowFiller(self.layout, self.shapes, self.tokenizer, drawn_by)
        lost = []
        for place, (row, sample) in enumerate(zip(rows.tolist(), pieces, strict=True)):
            if isinstance(sample, Unusable):
                lost.append(Lost(int(sources[place]), int(numbers[place]), sample.why))
            else:
                filler.add(row, *sample, dropped=bool(dropped[place]))
        return filler.batch, lost

    def note(self, lost: list[Lost]) -> None:
        """Count them. UserError where there are too many."""
        for source, number, why in lost:
            self.damaged.add((source, number))
            if len(self.damaged) > self.max_damaged:
                raise UserError(
                    f"{self.sources[source].path}: sample {number} of {self.split}: {why}",
                    f"Prepare the data again, or go on without such samples: --data.max-damaged N ({len(self.damaged)} so far).",
                )


@dataclasses.dataclass(frozen=True)
class StepMaker:
    """The rows of step after step, `count` of the `stride` rows of each, for the processes of data/loading/process_prefetch.py."""

    batches: MediaBatches
    first_row: int
    stride: int
    count: int

    def __call__(self, number: int) -> dict:
        """The arrays of a batch by name, and what was lost."""
        made, lost = self.batches.make(self.first_row + number * self.stride, self.count)
        flat = {}
        for name, value in made._asdict().items():
            flat |= {f"{name}.{field}": array for field, array in value._asdict().items()} if isinstance(value, Packed) else {name: value}
        return flat | {"lost": lost}

    def whole(self, flat: dict) -> MediaBatch:
        """The batch again; what was lost is noted."""
        self.batches.note(flat.pop("lost"))
        image, video, audio = (Packed(*(flat.pop(f"{kind}.{field}") for field in Packed._fields)) for kind in MEDIA)
        return MediaBatch(**flat, image=image, video=video, audio=audio)
