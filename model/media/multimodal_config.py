"""The shape of a decoder that reads images, video and audio beside text."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar, Literal

from model.config import ModelConfig
from model.media.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class MultimodalConfig(ModelConfig):
    """A decoder with an encoder for each medium that it reads."""

    home: ClassVar[str] = "model.media.multimodal:MultimodalDecoder"

    encoders: tuple[EncoderConfig, ...] = ()
    """At most one of each kind: ImageEncoder, VideoEncoder, AudioEncoder."""
    fusion: Literal["tokens", "cross_attention"] = "tokens"
    """tokens: media are tokens in the row. cross_attention: text attends to media in extra layers, whose gates start closed (Alayrac et al.
    2022, sec. 2.2)."""
    cross_every: int = 2
    """With cross_attention: one such layer before every n blocks."""

    def __post_init__(self):
        super().__post_init__()
        kinds = [encoder.kind for encoder in self.encoders]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"model.encoders are of the kinds {', '.join(kinds)}; there can be one of each")
        if self.window:
            raise ValueError("model.window: a picture's places see one another, which no window allows; leave it 0")

        if self.cross_every < 1:
            raise ValueError(f"model.cross_every is {self.cross_every}; it must be positive")
        if self.fusion == "cross_attention" and self.scan:
            raise ValueError("model.fusion cross_attention runs its layers one by one: leave model.scan out")

    def encoder(self, kind: str) -> EncoderConfig | None:
        """The encoder of image, video or audio; None where the model has none."""
        return next((encoder for encoder in self.encoders if encoder.kind == kind), None)

    def started_from(self, theirs: ModelConfig, has_decoder: bool, projectors: Collection[str] = (), **switches) -> "MultimodalConfig":
        """Encoders that the other lacks are the new run's own, and so are decoder and projectors where the other has trained none."""
        found = {encoder.kind: encoder for encoder in getattr(theirs, "encoders", ())}

        def encoder_of(own: EncoderConfig) -> EncoderConfig:
            kept = {name: getattr(own, name) for name in ("scan", "remat", "dtype", "kernel")}
            kept |= {} if own.kind in projectors else {"projector": own.projector}
            return dataclasses.replace(found[own.kind], **kept) if own.kind in found else own

        encoders = tuple(encoder_of(encoder) for encoder in self.encoders)
        decoder = theirs if has_decoder else self
        plain = {field.name: getattr(decoder, field.name) for field in dataclasses.fields(ModelConfig)}
        return dataclasses.replace(self, **{**plain, **switches}, encoders=encoders)
