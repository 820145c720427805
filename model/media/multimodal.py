"""What a decoder reads beside text: an encoder and a projector for each medium, whose places stand among the tokens.

Their parameters stand beside the decoder's, under the names of the media, so that generation and a start from a text model take the
decoder's as they are: `image` {encoder, projector}, and so on.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.attention.dispatch import Mask
from model.media.cross_attention import GatedCrossBlock
from model.media.encoder_config import AudioEncoder, EncoderConfig
from model.media.encoders import Encoder, encoded_segments
from model.media.multimodal_config import MultimodalConfig
from model.media.projector import Projector
from model.transformer import Attended, Decoder, Media


@dataclasses.dataclass(frozen=True)
class MediaEncoders:
    """The encoders of a model and their projectors."""

    config: MultimodalConfig

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
        if self.config.fusion == "cross_attention":
            x_BTD, mask = jnp.zeros((1, 1, self.config.embed_dim)), Mask(causal=True, query_groups_BT=jnp.zeros((1, 1), jnp.int32))
            block, keys = GatedCrossBlock(self.config), jax.random.split(jax.random.fold_in(key, len(found)), self.cross_blocks)
            found["cross"] = {f"block_{number}": block.init(one, x_BTD, x_BTD, mask)["params"] for number, one in enumerate(keys)}
        return found

    @property
    def cross_blocks(self) -> int:
        """Layers that attend to media."""
        return -(-self.config.num_layers // self.config.cross_every)

    def encode(self, params, kind: str, media, keys_B=None):
        """hidden_BNE of the media of one kind, and its segments."""
        encoder = self.config.encoder(kind)
        assert encoder is not None
        where = media.places, media.segments
        hidden_BNE = Encoder(encoder).apply({"params": params[kind]["encoder"]}, media.patches, *where, keys_B=keys_B)
        return hidden_BNE, encoded_segments(encoder, media.segments)

    def media(self, params, packed: dict[str, Any], slots_BT, groups_BT, keys_B=None) -> Media:
        """All media of the rows, for a decoder. packed: by kind, what has patches [B, N, C], places [B, N, A] and, int32 [B, N], segments,
        samples and groups (data/media/rows.py); a kind without places is passed over."""
        hidden, samples, groups = [], [], []
        for encoder in sorted(self.config.encoders, key=lambda encoder: ("image", "video", "audio").index(encoder.kind)):
            one = packed[encoder.kind]
            places = one.segments.shape[1]
            if not places:
                continue
            hidden_BNE, segments_BN = self.encode(params, encoder.kind, one, keys_B)
            projector, count = Projector(encoder, self.config.embed_dim), most_media(encoder, places)
            found = projector.apply({"params": params[encoder.kind]["projector"]}, hidden_BNE, segments_BN, count)
            hidden.append(found.media_BMD)
            samples.append(_of_media(one.samples, one.segments, found.segments_BM))
            groups.append(_of_media(one.groups, one.segments, found.segments_BM))
        if not hidden:  # nothing but text
            hidden = [jnp.zeros((len(slots_BT), 1, self.config.embed_dim))]
            samples = groups = [jnp.zeros((len(slots_BT), 1), jnp.int32)]
        hidden_BMD, samples_BM, groups_BM = (jnp.concatenate(parts, 1) for parts in (hidden, samples, groups))
        across = self.config.fusion == "cross_attention"
        attended = Attended(params["cross"], self.config.cross_every, samples_BM, groups_BM) if across else None
        return Media(hidden_BMD, slots_BT, groups_BT, attended)


class MultimodalDecoder(Decoder):
    """A decoder with encoders, whose parameters stand beside its own."""

    config: MultimodalConfig

    @nn.nowrap
    def start(self, key):
        return super().start(key) | MediaEncoders(self.config).start(key)

    @nn.nowrap
    def parts(self) -> dict[str, tuple[str, ...]]:
        beside: dict[str, tuple[str, ...]] = {
            f"{encoder.kind} {part}": (encoder.kind, part) for encoder in self.config.encoders for part in ("encoder", "projector")
        }
        return super().parts() | beside | {"cross": ("cross",)}


def _of_media(values_BN, segments_BN, segments_BM):
    """What is said of the patches of a medium, at its places after the projector; 0 at padding."""

    def row(values_N, segments_N, segments_M):
        return jnp.maximum(jax.ops.segment_max(values_N, segments_N, len(segments_N) + 1), 0)[segments_M]

    return jnp.where(segments_BM > 0, jax.vmap(row)(values_BN, segments_BN, segments_BM), 0)


def most_media(encoder: EncoderConfig, places: int) -> int:
    """Media that a resampler makes latents for, in a row with so many places: as many as would be there were all of the largest size."""
    largest = math.prod(encoder.extent) * (2 if isinstance(encoder, AudioEncoder) else 1) + (encoder.pool == "token")
    return max(1, places // largest)
