"""A model that attends to media across, as what continues texts sees it: the media are in the cache."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from model.media.multimodal import MediaEncoders, MultimodalDecoder
from model.media.multimodal_config import MultimodalConfig
from model.transformer import Attended, Media, Output, made_once


@dataclasses.dataclass(frozen=True)
class Attending:
    """A decoder of fusion cross_attention whose cache also holds what its text attends to, behind the layers: for each block that attends,
    keys and values [B * G, S, K], and the samples that they are of, int32 [B, S, 1], 0 for none.

    Its caches must have at least as many places as a row has of media.
    """

    model: MultimodalDecoder

    @property
    def config(self) -> MultimodalConfig:
        return self.model.config

    def empty_cache(self, rows: int, size: int):
        """As of a Decoder, and places for as many media as for tokens."""
        own = self.model.empty_cache(rows, size)
        across = (own[0],) * MediaEncoders(self.config).cross_blocks
        return *own, (across, jnp.zeros((rows, size, 1), jnp.int32))

    def apply(self, variables, tokens_BT, *, positions_BT, cache, valid_BS, media: Media | None = None) -> Output:
        """As of a Decoder. media: what the first tokens are read with, and what all others attend to from then on."""
        (*layers, held), index = cache
        if media is None:
            across, samples_BS1 = held
            attended = Attended(variables["params"]["cross"], self.config.cross_every, samples_BS1[..., 0], caches=across)
            media = Media(None, None, None, attended)
        else:
            media = made_once(self.config, media)
            found = media.attended.caches, media.attended.samples_BM[..., None]  # type: ignore[union-attr]
            held = jax.tree.map(_padded, found, held)
        where: dict[str, Any] = {"positions_BT": positions_BT, "cache": (tuple(layers), index), "valid_BS": valid_BS}
        output = self.model.apply(variables, tokens_BT, **where, media=media)
        return output._replace(cache=(*output.cache, held))


def _padded(new_BMX, old_BSX):
    return jnp.pad(new_BMX, ((0, 0), (0, old_BSX.shape[1] - new_BMX.shape[1]), (0, 0))).astype(old_BSX.dtype)
