"""What a decoder reads beside text: an encoder and a projector for each medium, whose places stand among the tokens.

Their parameters stand beside the decoder's, under the names of the media, so that generation and a start from a text model take the
decoder's as they are: `image` {encoder, projector}, and so on.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from model.encoder_config import AudioEncoder, EncoderConfig
from model.encoders import Encoder, encoded_segments
from model.omni_config import OmniConfig
from model.projector import Projector


@dataclasses.dataclass(frozen=True)
class Omni:
    """The encoders of a model and their projectors."""

    config: OmniConfig

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names."""
        found = {}
        for number, encoder in enumerate(self.config.encoders):
            keys = jax.random.split(jax.random.fold_in(key, number))
            places = 2 * encoder.projector.shuffle**2
            segments = jnp.zeros((1, places), jnp.int32)
            inputs = jnp.zeros((1, places, encoder.patch_values)), jnp.zeros((1, places, len(encoder.axes)), jnp.int32), segments
            hidden = jnp.zeros((1, places, encoder.embed_dim))
            found[encoder.kind] = {
                "encoder": Encoder(encoder).init(keys[0], *inputs)["params"],
                "projector": Projector(encoder, self.config.embed_dim).init(keys[1], hidden, segments, 1)["params"],
            }
        return found

    def encode(self, params, kind: str, media, keys_B=None):
        """hidden_BNE of the media of one kind, and its segments."""
        encoder = self.config.encoder(kind)
        assert encoder is not None
        where = media.places, media.segments
        hidden_BNE = Encoder(encoder).apply({"params": params[kind]["encoder"]}, media.patches, *where, keys_B=keys_B)
        return hidden_BNE, encoded_segments(encoder, media.segments)

    def read(self, params, media: dict[str, Any], keys_B=None):
        """hidden_BMD: the places of all media of a row, in the decoder's width: images, then videos, then recordings.

        media: by kind, what has patches [B, N, C], places [B, N, A] and segments [B, N]; what has no places is passed over.
        """
        found = []
        for encoder in sorted(self.config.encoders, key=lambda encoder: ("image", "video", "audio").index(encoder.kind)):
            packed = media[encoder.kind]
            if not packed.segments.shape[1]:
                continue
            hidden_BNE, segments_BN = self.encode(params, encoder.kind, packed, keys_B)
            projector = Projector(encoder, self.config.embed_dim)
            count = most_media(encoder, packed.segments.shape[1])
            found.append(projector.apply({"params": params[encoder.kind]["projector"]}, hidden_BNE, segments_BN, count).media_BMD)
        return jnp.concatenate(found, 1) if found else None


def most_media(encoder: EncoderConfig, places: int) -> int:
    """Media that a resampler makes latents for, in a row with so many places: as many as would be there were all of the largest size."""
    return max(1, places // (math.prod(encoder.extent) * (2 if isinstance(encoder, AudioEncoder) else 1)))
