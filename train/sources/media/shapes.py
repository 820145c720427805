"""The sizes of an experiment's media: what its encoders take, and how many fit a row."""

from typing import Any

from data.errors import UserError
from data.media.kinds import Kind
from data.media.rows import Layout
from data.media.signals.shapes import AudioShape, ImageShape, Shape, VideoShape
from model.media.encoder_config import AudioEncoder, EncoderConfig, ImageEncoder, VideoEncoder
from model.media.multimodal_config import MultimodalConfig
from train.experiment import Experiment
from train.sources.media.options import MediaData


def shapes_of(experiment: Experiment) -> dict[Kind, Shape]:
    """The sizes of media, by the encoders of the model."""
    data, model = experiment.data, experiment.model
    if not isinstance(model, MultimodalConfig):
        raise UserError(f"data: {type(data).__name__} needs a model with encoders", "Make the model a MultimodalConfig in the config file.")
    square, fps = getattr(data, "square", True), getattr(data, "fps", 4.0)
    found: dict[Kind, Shape] = {}
    for encoder in model.encoders:
        projector = encoder.projector
        share: dict[str, Any] = {"block": projector.shuffle, "latents": projector.latents if projector.method == "resampler" else 0}
        share["inline"] = model.fusion == "tokens"
        if encoder.pool == "token" and not getattr(experiment.objective, "of_patches", False):
            share["class_token"] = True
        _check_encoder(encoder)
        match encoder:
            case ImageEncoder():
                found["image"] = ImageShape(patch=encoder.patch, rows=encoder.rows, columns=encoder.columns, square=square, **share)
            case VideoEncoder():
                size: dict[str, Any] = {"patch": encoder.patch, "rows": encoder.rows, "columns": encoder.columns, "times": encoder.times}
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


def capacities_of(experiment: Experiment) -> dict[Kind, int]:
    """Patches of each kind that fit a row."""
    data = experiment.data
    assert isinstance(data, MediaData)
    counts = {"image": data.images, "video": data.videos, "audio": data.audios}
    return {kind: counts[kind] * shape.most for kind, shape in shapes_of(experiment).items()}


def layout_of(experiment: Experiment, media_dropout: float = 0.0) -> Layout:
    assert isinstance(experiment.data, MediaData)
    return Layout(experiment.model.context_length, capacities_of(experiment), experiment.data.prefix, media_dropout)
