"""Rows of samples with images, video and audio: of the embedded world, or of shards."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash

from data.errors import UserError
from data.media.batches import MediaBatches, Source, StepMaker
from data.media.kinds import Kind
from data.media.rows import MediaBatch, empty_media_batch
from data.media.shards import MediaCorpus
from data.media.source import ShardSource
from data.media.world import WRITING, World
from data.tokenizer import Tokenizer, byte_tokenizer, load_tokenizer
from train.devices import hosts
from train.experiment import Experiment
from train.kinds import Dataset, Sample, Units
from train.sources.media.options import MediaData, MediaShards, WorldScenes
from train.sources.media.shapes import layout_of, shapes_of


class MediaSource:
    """A source of samples as a run sees it: what a Corpus is to text. Attributes: source, path, digest, document_end, ids."""

    def __init__(self, source: Source, tokenizer: Tokenizer):
        self.source, self._tokenizer = source, tokenizer
        self.path, self.document_end, self.ids = source.path, tokenizer.specials["document_end"], tokenizer.size
        self.digest = xxhash.xxh3_128_hexdigest(f"{source.digest} {tokenizer.digest}".encode())

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


class MediaDataset(Dataset):
    """What the two kinds of media data have in common."""

    options: MediaData
    experiment: Experiment
    counts_tokens = False
    shows_media = True

    @property
    def workers(self) -> int:  # type: ignore[override]
        return hosts.spare_cores() if self.options.workers < 0 else self.options.workers

    def open(self, tokenizer: Tokenizer | None = None) -> list[MediaSource]:
        if tokenizer is None:
            named = self.experiment.start or (self.options.tokenizer if self.options.tokenizer != "byte" else "")
            tokenizer = load_tokenizer(named) if named else byte_tokenizer()
        return [MediaSource(source, tokenizer) for source in self.raw_sources()]

    def raw_sources(self) -> list[Source]:
        """Sources that know no tokenizer."""
        raise NotImplementedError

    def describe(self, source: MediaSource) -> str:
        return ", ".join(f"{name} {source.source.count(name):,} samples" for name in ("train", "validation"))

    # Rows

    def batches(self, sources: Sequence[MediaSource], split: str = "train") -> MediaBatches:
        return self.batches_of([one.source for one in sources], sources[0].tokenizer(), split)

    def batches_of(self, sources: Sequence[Source], tokenizer: Tokenizer, split: str, *, blind: bool = False) -> MediaBatches:
        """blind: all media are kept from the model."""
        training = split == "train"
        return MediaBatches(
            sources,
            tokenizer,
            shapes_of(self.experiment),
            layout_of(self.experiment, 1.0 if blind else self.options.media_dropout if training else 0.0),
            split=split,
            seed=self.experiment.seed if training else 0,
            weights=getattr(self.options, "weights", ()) if training else (),
            max_damaged=self.options.max_damaged,
        )

    def units(self, sources: list, user: str = "", rows: int = 1) -> Units:
        """Samples, each in a row of its own."""
        if user:
            raise UserError(f"gradient.user {user!r}: samples of media do not say whose they are", "Leave it out: a unit is then a sample.")
        if getattr(self.options, "weights", ()):
            raise UserError("data.weights mixes samples, and here each is drawn by itself", "Leave --data.weights out.")
        batches = self.batches(sources)
        return Units("sample", batches.planned, batches.alone)

    def empty(self, count: int) -> MediaBatch:
        return empty_media_batch(layout_of(self.experiment), shapes_of(self.experiment), np.arange(count))

    def maker(self, batches: MediaBatches, first: int, size: int, rows: int) -> StepMaker:
        return StepMaker(batches, first, size, rows)

    def check(self, sources: list) -> None:
        """UserError where nothing is learned of the samples of a source, or where no source has both sides that the objective aligns: the
        loss would be zero and look perfect. And for samples to validate with that no row has room for. Of shards it is asked what they
        have, not whether that is together in a sample."""
        if self.experiment.mesh.context > 1:
            raise UserError("rows with media cannot be split over positions: mesh.context must be 1", "Leave --mesh.context out.")
        for one in sources:
            if missing := self.missing(one.source, "train"):
                count = one.source.count("train")
                raise UserError(
                    f"{one.path}: none of its {count} samples for training has {missing}: nothing would be learned of it",
                    "Leave it out of --data.shards, or prepare it again so that they have: --fields OURS=THEIRS says which field is what.",
                )
        pair = getattr(self.experiment.objective, "pair", None)
        if pair and not any(self.has_both(one.source, *pair) for one in sources):
            raise UserError(
                f"objective: none of the data has {pair[0]} and {pair[1]} to align", "Choose other data, or --objective.left and right."
            )

    def missing(self, source: Any, split: str) -> str:
        """What no sample of a split has and the objective needs; "" where nothing is missing."""
        return ""

    def has_both(self, source: Any, left: str, right: str) -> bool:
        """Whether samples of a source have both."""
        raise NotImplementedError

    # Evaluation

    def validation(self, sources: Sequence[MediaSource]) -> dict[str, tuple[Source, str]]:
        """What a model is measured on, each by a name of its own: sources and splits of them, in which is something to learn. May be
        empty."""
        raise NotImplementedError

    def written(self, source: Any) -> Kind | None:
        """The kind of medium that a source has the model write, where what it writes can be recognised."""
        return None

    def can_validate(self, sources: list) -> bool:
        return bool(self.validation(sources))

    def evaluate(
        self, evaluator, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        from train.evaluation.media import evaluate_media

        return evaluate_media(self, evaluator, params, sources, rows=rows, between=between)

    def samples(self, run, params, sources: list, said: Callable[[str], None]) -> list[Sample]:
        """What the model writes about some samples; beside it pictures of what answers rest on, and of media that it writes."""
        if not self.experiment.objective.generates:
            return []
        from train.explain import occlusion
        from train.generation import media
        from train.generation.about_media import sample_answers

        if hosts.first():
            of, plots = (self, params, sources, run.tokenizer()), run.path / "plots"
            try:
                occlusion.draw_occlusions(occlusion.find_occlusions(*of), shapes_of(self.experiment), plots / occlusion.NAME)
                media.draw_written(*of, plots / media.NAME)
            except OSError as error:
                said(f"WARNING: no pictures of samples ({error.strerror or error}); training goes on")
        return sample_answers(self, run, params, sources)


class WorldDataset(MediaDataset):
    """The embedded world, rendered on the spot."""

    options: WorldScenes

    def paths(self) -> tuple[str, ...]:
        return (World.path,)

    def raw_sources(self) -> list[Source]:
        data = self.options
        return [World(data.tasks, data.scenes, data.validation * len(data.tasks))]

    def has_both(self, source: Any, left: str, right: str) -> bool:
        return right == "text" and left in source.kinds

    def validation(self, sources: Sequence[MediaSource]) -> dict[str, tuple[Source, str]]:
        """Each task, and each again on pairs of shape and colour that training never shows."""
        data = self.options
        each: list[tuple[str, Source]] = [(task, World((task,), data.scenes, data.validation)) for task in data.tasks]
        unseen = {f"{task}/unseen": (world, "unseen") for task, world in each}
        return {task: (world, "validation") for task, world in each} | unseen if data.validation else {}

    def written(self, source: Any) -> Kind | None:
        return WRITING.get(source.tasks[0])


class ShardDataset(MediaDataset):
    """Folders that `omnia prepare images|video|audio|interleaved` made."""

    options: MediaShards

    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in folders_of(self.options, self.experiment.model))

    def raw_sources(self) -> list[Source]:
        options: dict[str, Any] = {"question": self.options.question, "augment": self.options.augment}
        folders = folders_of(self.options, self.experiment.model)
        return [ShardSource(MediaCorpus(path), write=kind, **options) for path, kind in folders]

    def check(self, sources: list) -> None:
        super().check(sources)
        for source, split in self.validation(sources).values():
            self.batches_of([source], sources[0].tokenizer(), split)

    def missing(self, source: Any, split: str) -> str:
        labelled = bool((source.corpus.split(split).labels >= 0).any()) if source.count(split) else False
        return self.experiment.objective.missing(source.learned(split), labelled, source.corpus.parts(split))  # type: ignore[attr-defined]

    def has_both(self, source: Any, left: str, right: str) -> bool:
        counts = source.corpus.parts("train") | {"text": source.learned("train")}
        return not source.write and all(counts[kind] for kind in (left, right))

    def validation(self, sources: Sequence[MediaSource]) -> dict[str, tuple[Source, str]]:
        return {
            str(number): (one.source, "validation")
            for number, one in enumerate(sources)
            if one.source.count("validation") and not self.missing(one.source, "validation")
        }


def folders_of(data: MediaShards, model) -> list[tuple[str, Kind | None]]:
    """The folders of shards as sources: each to be read, and once more for each kind to be written that is in it. Where media are written a
    folder is read only if it has a kind that the model reads."""
    if not data.write:
        return [(path, None) for path in data.shards]
    parts = {path: MediaCorpus(path).parts("train") for path in data.shards}
    for kind in data.write:
        if not any(counts[kind] for counts in parts.values()):
            raise UserError(f"data.write: none of the shards has {kind} to write", "Choose another kind, or other shards.")
    read = [encoder.kind for encoder in getattr(model, "encoders", ())]
    found: list[tuple[str, Kind | None]] = [(path, None) for path in data.shards if any(parts[path][kind] for kind in read)]
    return found + [(path, kind) for kind in data.write for path in data.shards if parts[path][kind]]
