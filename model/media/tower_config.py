"""The shapes of published encoders of media, as plain values. Imports nothing heavy."""

import dataclasses

from model.config import ModelConfig
from model.media.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """An encoder by itself, one with a classifier, or one beside a decoder whose texts it shares a space with.

    Its parameters stand as those of a MediaClassification, or of an Alignment, with softmax, of last tokens.
    """

    encoder: EncoderConfig
    classes: int = 0
    """Of the classifier; 0: there is none."""
    text: ModelConfig | None = None
    """The decoder; None where there is none."""
    width: int = 0
    """Of the shared space; 0 without a decoder."""
