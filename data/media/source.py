"""Prepared shards of media as samples of rows: decoded at the size that the model takes, as they are asked for."""

from collections.abc import Sequence

import numpy as np

from data.media.batches import Unusable
from data.media.codes import codes_for
from data.media.kinds import KINDS, Damaged, Facts, Kind, Part, Sample, Undecodable
from data.media.rows import MEDIA, Piece, written
from data.media.shards import MediaCorpus, MediaSplit
from data.media.signals import augment as augment_
from data.media.signals.augment_config import Augment
from data.media.signals.images import decode_image
from data.media.signals.shapes import FRAME, RATE, AudioShape, Cut, ImageShape, VideoShape
from data.media.signals.sounds import decode_audio
from data.media.signals.videos import decode_video
from data.tokenizer import Tokenizer


class ShardSource:
    """One folder of shards. A sample without a text of its own but with a class is asked `question` and learns the name of its class.

    augment: what is changed by chance in media of training. write: the kind of which each sample's first medium is to be written, in codes
    of the tokenizer, after all that the sample says in text; a sample without either is none.
    """

    def __init__(self, corpus: MediaCorpus, *, question: str = "", augment: Augment = Augment(), write: Kind | None = None):
        self.corpus, self.question, self.augment, self.write = corpus, question, augment, write
        self.classes = corpus.classes
        self._text_sizes: dict[tuple[str, str], np.ndarray] = {}
        self.path, self.digest = corpus.path, f"{corpus.digest} {question!r} {augment} {write}"

    def count(self, split: str) -> int:
        if self.write and not self.corpus.parts(split)[self.write]:
            return 0
        return self._split(split).samples if self._has(split) else 0

    def learned(self, split: str) -> int:
        """Number of samples with a target: a learned text, the name of a class, or a medium that is written."""
        if self.write or not self._has(split):
            return self.count(split)
        found = self._split(split)
        parts = np.repeat(np.arange(found.samples), np.diff(found.first_part))
        has_text = np.bincount(parts[found.kinds == KINDS.index("text")], minlength=found.samples) > 0
        return int(np.count_nonzero(found.has_learned() | ((found.labels >= 0) & ~has_text)))

    def sizes(self, split: str, shapes: dict, tokenizer: Tokenizer) -> np.ndarray:
        """From the index alone, but for texts, which are read and counted. A medium that the model has no encoder for fits no row."""
        found = self._split(split)
        parts = np.repeat(np.arange(found.samples), np.diff(found.first_part))
        sizes = np.zeros((found.samples, 5), np.int64)
        if self.write:
            sizes[:, 0] = self._written_tokens(found, self.write, tokenizer) + self._text_tokens(split, tokenizer)
            return sizes
        for place, kind in enumerate(MEDIA, 1):
            chosen = np.flatnonzero(found.kinds == KINDS.index(kind))
            if not len(chosen):
                continue
            if kind not in shapes:
                sizes[parts[chosen], place] = np.iinfo(np.int32).max
                continue
            shape = shapes[kind]
            places = _places(found, chosen, shape)
            sizes[:, place] = np.bincount(parts[chosen], shape.charged(places), found.samples)
            sizes[:, 4] += np.bincount(parts[chosen], shape.tokens(places) + 1, found.samples).astype(np.int64)
        sizes[:, 0] = self._text_tokens(split, tokenizer)
        return sizes

    def samples(self, split, indices, shapes, tokenizer, seeds: Sequence[int] | None) -> list:
        found = self._split(split)
        made: list[tuple[list[Piece], int] | Unusable] = []
        for place, (index, sample) in enumerate(zip(indices, found.read(indices), strict=True)):
            if isinstance(sample, Damaged):
                made.append(Unusable(f"{sample.where} {sample.why}"))
                continue
            rng = None if seeds is None else np.random.Generator(np.random.Philox(seeds[place]))
            parts = found.first_part[index] + np.arange(len(sample.parts))
            try:
                numbered = list(zip(sample.parts, parts.tolist(), strict=True))
                if self.write:
                    pieces = self._written(found, sample, numbered, self.write, tokenizer, rng)
                    made.append((pieces, sample.label))
                    continue
                pieces = [self._piece(found, part, number, shapes, tokenizer, rng) for part, number in numbered]
            except Undecodable as error:
                made.append(Unusable(f"{found.where(int(index))} cannot be decoded: {error}"))
                continue
            pieces += [Piece("text", tokenizer.encode(text), learned) for text, learned in self._named(sample)]
            made.append((pieces, sample.label))
        return made

    def _named(self, sample: Sample) -> list[tuple[str, bool]]:
        """The question and the class of a sample that has no text."""
        if sample.label < 0 or any(part.kind == "text" for part in sample.parts):
            return []
        return self._naming(sample.label)

    def _naming(self, label: int) -> list[tuple[str, bool]]:
        return [(self.classes[label], False)] if self.write else [(self.question + " ", False), (self.classes[label], True)]

    def _written(self, found: MediaSplit, sample: Sample, numbered, kind: Kind, tokenizer: Tokenizer, rng) -> list[Piece]:
        """All texts of a sample, or the name of its class; then its first medium of a kind as it is, in codes."""
        codes = codes_for(tokenizer.codes, kind)
        texts = [part.content for part in sample.parts if isinstance(part.content, str)] or [text for text, _ in self._named(sample)]
        read = [Piece("text", tokenizer.encode(text)) for text in texts]
        part, number = next((part, number) for part, number in numbered if part.kind == kind)
        return [*read, written(codes, cut(part.content, codes.shape, found.facts(number), rng), tokenizer)]

    def _written_tokens(self, found: MediaSplit, kind: Kind, tokenizer: Tokenizer) -> np.ndarray:
        """int64 [samples]: of the marker and the codes of each sample's first medium of a kind; more than any row has where there is
        nothing to write, or to write about."""
        shape, parts = codes_for(tokenizer.codes, kind).shape, np.repeat(np.arange(found.samples), np.diff(found.first_part))
        chosen = np.flatnonzero(found.kinds == KINDS.index(kind))
        chosen = chosen[np.unique(parts[chosen], return_index=True)[1]]
        counts = np.full(found.samples, np.iinfo(np.int32).max, np.int64)
        counts[parts[chosen]] = _places(found, chosen, shape) + 1
        told = (found.labels >= 0) | (np.bincount(parts[found.kinds == KINDS.index("text")], minlength=found.samples) > 0)
        return np.where(told, counts, np.iinfo(np.int32).max)

    def _piece(self, found: MediaSplit, part: Part, number: int, shapes, tokenizer, rng) -> Piece:
        if isinstance(part.content, str):
            return Piece("text", tokenizer.encode(part.content), part.learned)
        shape = shapes[part.kind]
        return Piece(part.kind, cut(part.content, shape, found.facts(number), rng, self.augment))

    def _text_tokens(self, split, tokenizer) -> np.ndarray:
        """int64 [samples]: tokens of texts and names of classes, by the index where tokens are bytes; else texts are read once."""
        known = self._text_sizes.get((split, tokenizer.digest))
        if known is not None:
            return known
        found = self._split(split)
        parts = np.repeat(np.arange(found.samples), np.diff(found.first_part))
        is_text = found.kinds == KINDS.index("text")
        counts = np.bincount(parts[is_text], found.bytes_[is_text], found.samples).astype(np.int64)
        written = np.flatnonzero(np.bincount(parts[is_text], minlength=found.samples))
        for first in range(0, len(written) if tokenizer.kind != "byte" else 0, 1024):
            numbers = written[first : first + 1024]
            for number, sample in zip(numbers, found.read(numbers), strict=True):
                if isinstance(sample, Sample):
                    texts = (part.content for part in sample.parts if isinstance(part.content, str))
                    counts[number] = sum(len(tokenizer.encode(text)) for text in texts)
        sizes = [sum(len(tokenizer.encode(text)) for text, _ in self._naming(label)) for label in range(len(self.classes))]
        named = (found.labels >= 0) & (np.bincount(parts[is_text], minlength=found.samples) == 0)
        counts[named] = np.array(sizes, np.int64)[found.labels[named]]
        self._text_sizes[split, tokenizer.digest] = counts
        return counts

    def _has(self, split: str) -> bool:
        return bool(self.corpus.manifest["splits"].get(split, {}).get("samples"))

    def _split(self, split: str) -> MediaSplit:
        return self.corpus.split(split)


def _places(found: MediaSplit, chosen: np.ndarray, shape) -> np.ndarray:
    """int [n]: patches of the chosen parts of a split."""
    columns = (found.widths, found.heights, found.frames, found.rates, found.samples_)
    return shape.places(grids_of(shape, *(column[chosen] for column in columns)))


def grids_of(shape, widths, heights, frames, rates, samples) -> np.ndarray:
    """The grids of media of these facts, [n] each."""
    match shape:
        case ImageShape():
            return shape.grids(widths, heights)
        case VideoShape():
            return shape.grids(widths, heights, frames / np.maximum(rates, 1e-6))
        case AudioShape():
            return shape.grids(samples / np.maximum(rates, 1e-6))
    raise ValueError(f"no shape {shape!r}")


def cut(content: bytes, shape, facts: Facts, rng: np.random.Generator | None, augment: Augment = Augment()) -> Cut:
    """A medium decoded at the size of its grid. rng: None takes the middle of what is longer, and nothing by chance."""
    known = (facts.width, facts.height, facts.frames, facts.rate, facts.samples)
    grid = tuple(grids_of(shape, *(np.array([value]) for value in known))[0].tolist())
    match shape:
        case ImageShape():
            box = None if rng is None else augment_.crop_box(augment, rng)
            pixels = decode_image(content, size=(grid[0] * shape.patch, grid[1] * shape.patch), box=box)
            return shape.cut(pixels if rng is None else augment_.augment_pixels(augment, pixels, rng), grid)
        case VideoShape():
            duration = facts.frames / max(facts.rate, 1e-6)
            times = augment_.clip_times(rng, duration, grid[0] * shape.frames, shape.fps, augment.time_jitter)
            pixels = decode_video(content, times, size=(grid[1] * shape.patch, grid[2] * shape.patch))
            return shape.cut(pixels if rng is None else augment_.augment_pixels(augment, pixels, rng), grid)
        case AudioShape():
            seconds = grid[0] * FRAME / RATE
            start = augment_.window_start(rng, facts.samples / max(facts.rate, 1), seconds)
            sound = decode_audio(content, RATE, start, seconds)
            if rng is not None and augment.noise and rng.random() < augment.noise_chance:
                sound = augment_.add_noise(sound, rng, (augment.noise[0], augment.noise[1]))
            made = shape.cut(sound, grid)
            return made if rng is None else made._replace(patches=augment_.augment_spectrogram(augment, made.patches, rng))
    raise ValueError(f"no shape {shape!r}")
