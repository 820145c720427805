"""The shape of a decoder that reads images, video and audio beside text."""

import dataclasses

from model.config import ModelConfig
from model.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class OmniConfig(ModelConfig):
    """A decoder with an encoder for each medium that it reads."""

    encoders: tuple[EncoderConfig, ...] = ()
    """At most one of each kind: ImageEncoder, VideoEncoder, AudioEncoder."""

    def __post_init__(self):
        super().__post_init__()
        kinds = [encoder.kind for encoder in self.encoders]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"model.encoders are of the kinds {', '.join(kinds)}; there can be one of each")
        if self.window:
            raise ValueError("model.window: a picture's places see one another, which no window allows; leave it 0")

    def encoder(self, kind: str) -> EncoderConfig | None:
        """The encoder of image, video or audio; None where the model has none."""
        return next((encoder for encoder in self.encoders if encoder.kind == kind), None)
