"""Models: parameters and arrays in, arrays out. Pure Flax (linen); no files, no tokenizers, no training.

Array names end in their axes, one letter each:

    B  row of the batch          T  time of the query (the row's positions)   S  time of the key
    D  width of the residual     F  width of the feed-forward layer           V  vocabulary
    H  query heads               G  key and value heads                       K  width of one head
    L  layers                    N  samples of one prompt
    E  experts                   C  experts that a token chooses                   M  slots: tokens times choices
    R  slots that one expert has room for
"""

import importlib

_FACE = {
    "ModelConfig": "config",
    "OfStart": "config",
    "Decoder": "transformer",
    "TextEncoderConfig": "text_encoder_config",
    "TextEncoder": "text_encoder",
    "EncoderDecoderConfig": "encoder_decoder_config",
    "EncoderDecoder": "encoder_decoder",
    "MultimodalConfig": "media.multimodal_config",
    "ImageEncoder": "media.encoder_config",
    "VideoEncoder": "media.encoder_config",
    "AudioEncoder": "media.encoder_config",
    "Projection": "media.encoder_config",
    "unstack_layers": "stack",
    "count_parameters": "transformer",
    "score_tokens": "heads",
    "vocabulary_table": "heads",
    "Sampling": "decoding.sampling",
    "prefill": "decoding.generate",
    "decode": "decoding.generate",
    "preset": "presets",
}
__all__ = list(_FACE)


def __getattr__(name):
    """Load a name of the face on first use, so that importing the room costs nothing (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FACE[name]}"), name)


def __dir__():
    return sorted(__all__)
