"""The data of an experiment on media: its sources, the sizes that its model wants, its rows."""

from collections.abc import Sequence
from typing import Any

import xxhash

from data.errors import UserError
from data.media.batches import MediaBatches, Source
from data.media.kinds import Kind
from data.media.rows import Layout
from data.media.shards import MediaCorpus
from data.media.signals.shapes import AudioShape, ImageShape, Shape, VideoShape
from data.media.source import ShardSource
from data.media.world import World
from data.tokenizer import Tokenizer, byte_tokenizer, load_tokenizer
from model.media.encoder_config import AudioEncoder, EncoderConfig, ImageEncoder, VideoEncoder
from model.media.omni_config import OmniConfig
from train.experiment import Experiment
from train.sources.media_options import (
    ENCODER_OBJECTIVES,
    Codebook,
    HiddenPatches,
    MediaClassification,
    MediaData,
    MediaLM,
    MediaShards,
    Pairing,
    WorldScenes,
)


class MediaSource:
    """A source of samples as a run sees it: what a Corpus is to text. Attributes: source, path, digest, document_end, ids."""

    def __init__(self, source: Source, tokenizer: Tokenizer):
        self.source, self._tokenizer = source, tokenizer
        self.path, self.document_end, self.ids = source.path, tokenizer.specials["document_end"], tokenizer.size
        self.digest = xxhash.xxh3_128_hexdigest(f"{source.digest} {tokenizer.digest}".encode())

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


def open_media(experiment: Experiment, tokenizer: Tokenizer | None = None) -> list[MediaSource]:
    """The sources that an experiment names, with their tokenizer, or the one given."""
    data = experiment.data
    assert isinstance(data, MediaData)
    if tokenizer is None:
        named = experiment.start or (data.tokenizer if data.tokenizer != "byte" else "")
        tokenizer = load_tokenizer(named) if named else byte_tokenizer()
    return [MediaSource(source, tokenizer) for source in _sources(experiment)]


def folders_of(experiment: Experiment) -> list[tuple[str, Kind | None]]:
    """The folders of shards as sources: each to be read, and once more for each kind to be written that is in it. Where media are written a
    folder is read only if it has a kind that the model reads."""
    data = experiment.data
    assert isinstance(data, MediaShards)
    if not data.write:
        return [(path, None) for path in data.shards]
    parts = {path: MediaCorpus(path).parts("train") for path in data.shards}
    for kind in data.write:
        if not any(counts[kind] for counts in parts.values()):
            raise UserError(f"data.write: none of the shards has {kind} to write", "Choose another kind, or other shards.")
    read = [encoder.kind for encoder in getattr(experiment.model, "encoders", ())]
    found: list[tuple[str, Kind | None]] = [(path, None) for path in data.shards if any(parts[path][kind] for kind in read)]
    return found + [(path, kind) for kind in data.write for path in data.shards if parts[path][kind]]


def _sources(experiment: Experiment) -> list[Source]:
    data = experiment.data
    match data:
        case WorldScenes():
            return [World(data.tasks, data.scenes, data.validation * len(data.tasks))]
        case MediaShards():
            options: dict[str, Any] = {"question": data.question, "augment": data.augment}
            return [ShardSource(MediaCorpus(path), write=kind, **options) for path, kind in folders_of(experiment)]
    raise UserError(f"data: {type(data).__name__} is no kind of media", "Choose WorldScenes or MediaShards in the config file.")


def judged(experiment: Experiment, sources: Sequence[MediaSource]) -> dict[str, tuple[Source, str]]:
    """What a model is judged by, each by a name of its own: sources and splits of them, in which is something to learn. May be none."""
    data = experiment.data
    if isinstance(data, WorldScenes):
        each: list[tuple[str, Source]] = [(task, World((task,), data.scenes, data.validation)) for task in data.tasks]
        unseen = {f"{task}/unseen": (world, "unseen") for task, world in each}
        return {task: (world, "validation") for task, world in each} | unseen if data.validation else {}
    return {
        str(number): (one.source, "validation")
        for number, one in enumerate(sources)
        if one.source.count("validation") and not _nothing_to_learn(one.source, experiment.objective, "validation")
    }


def shapes_of(experiment: Experiment) -> dict[Kind, Shape]:
    """The sizes of media, by the encoders of the model."""
    data, model = experiment.data, experiment.model
    assert isinstance(data, MediaData)
    if not isinstance(model, OmniConfig):
        raise UserError(f"data: {type(data).__name__} needs a model with encoders", "Make the model an OmniConfig in the config file.")
    square = data.square if isinstance(data, MediaShards) else True
    found: dict[Kind, Shape] = {}
    for encoder in model.encoders:
        projector = encoder.projector
        share: dict[str, Any] = {"block": projector.shuffle, "latents": projector.latents if projector.method == "resampler" else 0}
        share["inline"] = model.fusion == "tokens"
        if encoder.pool == "token" and not isinstance(experiment.objective, Codebook):
            share["class_token"] = True
        _check_encoder(encoder)
        match encoder:
            case ImageEncoder():
                found["image"] = ImageShape(patch=encoder.patch, rows=encoder.rows, columns=encoder.columns, square=square, **share)
            case VideoEncoder():
                size: dict[str, Any] = {"patch": encoder.patch, "rows": encoder.rows, "columns": encoder.columns, "times": encoder.times}
                fps = data.fps if isinstance(data, MediaShards) else 4.0
                found["video"] = VideoShape(frames=encoder.frames, fps=fps, square=square, **size, **share)
            case AudioEncoder():
                found["audio"] = AudioShape(times=encoder.times, bands=encoder.mel_bands, **share)
    return found


def _check_encoder(encoder: EncoderConfig) -> None:
    """UserError where rows cannot be what the encoder wants: no whole number of the projector's blocks."""
    side = encoder.projector.shuffle
    unit = side**2 if isinstance(encoder, AudioEncoder) else side
    sizes = encoder.extent if isinstance(encoder, AudioEncoder) else encoder.extent[-2:]
    if any(size % unit for size in sizes):
        raise UserError(
            f"model.encoders: the {encoder.kind} encoder's grid of {' x '.join(map(str, sizes))} does not consist of blocks of {unit}",
            "Change its size, or projector.shuffle.",
        )


def rooms_of(experiment: Experiment) -> dict[Kind, int]:
    """Patches of each kind that a row has room for."""
    data = experiment.data
    assert isinstance(data, MediaData)
    counts = {"image": data.images, "video": data.videos, "audio": data.recordings}
    return {kind: counts[kind] * shape.most for kind, shape in shapes_of(experiment).items()}


def layout_of(experiment: Experiment, dropped: float = 0.0) -> Layout:
    assert isinstance(experiment.data, MediaData)
    return Layout(experiment.model.context_length, rooms_of(experiment), experiment.data.prefix, dropped)


def make_media_batches(
    experiment: Experiment, sources: Sequence[Source], tokenizer: Tokenizer, split: str = "train", *, blind: bool = False
) -> MediaBatches:
    """Rows of the experiment's samples. blind: all media are kept from the model."""
    data, shapes = experiment.data, shapes_of(experiment)
    assert isinstance(data, MediaData)
    training = split == "train"
    return MediaBatches(
        sources,
        tokenizer,
        shapes,
        layout_of(experiment, 1.0 if blind else data.dropped if training else 0.0),
        split=split,
        seed=experiment.seed if training else 0,
        weights=data.weights if isinstance(data, MediaShards) and training else (),
        max_damaged=data.max_damaged,
    )


def check_media(experiment: Experiment) -> None:
    """UserError where objective and data do not belong together."""
    if isinstance(experiment.data, MediaData) != isinstance(experiment.objective, (MediaLM, *ENCODER_OBJECTIVES)):
        raise UserError(
            f"objective {type(experiment.objective).__name__} and data {type(experiment.data).__name__} do not belong together",
            "Rows with media are for the objectives of train.sources.media_options, and those for them.",
        )
    if experiment.mesh.context > 1:
        raise UserError("rows with media are not divided: mesh.context must be 1", "Leave --mesh.context out.")


def check_learned(experiment: Experiment, sources: Sequence[MediaSource]) -> None:
    """UserError where nothing is learned of the samples of a source, or where no source has both parts that the objective aligns: the loss
    would be zero and look perfect. And for samples to judge by that no row has room for. Of shards it is asked what they have, not
    whether that is together in a sample."""
    o = experiment.objective
    if not isinstance(experiment.data, MediaData):
        return
    for one in sources:
        if missing := _nothing_to_learn(one.source, o, "train"):
            raise UserError(
                f"{one.path}: none of its {one.source.count('train')} samples for training has {missing}: nothing would be learned of it",
                "Leave it out of --data.shards, or prepare it again so that they have: --fields OURS=THEIRS says which field is what.",
            )
    if isinstance(o, Pairing) and not any(_has_pairs(one.source, o) for one in sources):
        raise UserError(
            f"objective: none of the data has {o.left} and {o.right} to align", "Choose other data, or --objective.left and right."
        )
    for source, split in judged(experiment, sources).values() if isinstance(experiment.data, MediaShards) else ():
        make_media_batches(experiment, [source], sources[0].tokenizer(), split)


def _nothing_to_learn(source: Source, objective, split: str) -> str:
    """What no sample of a split has, and all would need; "" where there is no such."""
    if not isinstance(source, ShardSource):
        return ""
    if isinstance(objective, MediaLM) and not source.learned(split):
        return "a text to learn (a caption, an answer) or a class"
    if isinstance(objective, MediaClassification) and not (source.corpus.split(split).labels >= 0).any():
        return "a class"
    if isinstance(objective, MediaClassification | HiddenPatches | Codebook) and not source.corpus.parts(split)[objective.medium]:
        return f"{objective.medium} in it"
    return ""


def _has_pairs(source: Source, pairing: Pairing) -> bool:
    if isinstance(source, World):
        return pairing.right == "text" and pairing.left in source.kinds
    assert isinstance(source, ShardSource)
    counts = source.corpus.parts("train") | {"text": source.learned("train")}
    return not source.write and all(counts[kind] for kind in (pairing.left, pairing.right))
