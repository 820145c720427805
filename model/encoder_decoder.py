"""An encoder and a decoder that attends to it (Vaswani et al. 2017); T5 is a setting of it (Raffel et al. 2020)."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model.attention.dispatch import Mask, layer_kernels
from model.encoder_decoder_config import EncoderDecoderConfig
from model.layers import Table, compute_dtype, constrain, dropped
from model.stack import Context, Source, angles_of, create_layers, run_layers, source_cache
from model.text import (
    as_prefix,
    at_index,
    before_text,
    empty_cache,
    final_norm,
    place,
    relative_bias,
    shifted,
    token_vectors,
    vectors_of,
)
from model.transformer import DECODER, Output


@flax.struct.dataclass
class SourceText:
    """What is read: tokens_BS, segments_BS and positions_BS, int32, as of an encoder. A target sees the source of its own segment.
    shift_BSD: added to the vectors of its tokens."""

    tokens_BS: Any
    segments_BS: Any
    positions_BS: Any
    shift_BSD: Any = None


class Encoder(nn.Module):
    """The stack that reads the source: x_BSD, its tokens' vectors, to hidden_BSD and the cache, if it was given one (as of a TextEncoder).
    Parameters: a decoder's, without embedding and head."""

    config: EncoderDecoderConfig

    @nn.compact
    def __call__(self, x_BSD, source: SourceText, keys_B=None, cache=None):
        c, length = self.config, x_BSD.shape[1]
        x_BSD = place(c, x_BSD, source.positions_BS).astype(compute_dtype(c))
        x_BSD = constrain(dropped(c, x_BSD, keys_B), "batch", "length", "residual")
        counted_BT = source.segments_BS != 0 if c.experts else None
        where = angles_of(c, source.positions_BS) | {"bias_1HTS": relative_bias(c, length, length, both_ways=True)}
        context = Context(Mask(causal=False, query_segments_BT=source.segments_BS), keys_B=keys_B, counted_BT=counted_BT, **where)
        if self.is_initializing():
            x_BSD = create_layers(c.encoder, x_BSD, context)
        else:
            x_BSD, cache, *_ = run_layers(c.encoder, self.variables["params"], x_BSD, (context,), cache=cache)
        return final_norm(c, x_BSD), cache


class EncoderDecoder(nn.Module):
    """Source and target tokens to the target's hidden states, which `heads.score_tokens` turns into predictions.

    Parameters: those of a Decoder, whose layers have cross_attention and its norm too, and beside them `encoder`, which shares the
    embedding.
    """

    config: EncoderDecoderConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT,
        *,
        segments_BT=None,
        positions_BT=None,
        keys_B=None,
        source: SourceText | None = None,
        source_segments_BS=None,
        cache=None,
        valid_BS=None,
    ) -> Output:
        """tokens_BT, segments_BT, positions_BT, keys_B, cache, valid_BS: as of Decoder, of the target. source: what is read. Where its keys
        and values are in the cache, behind each layer's own, source_segments_BS alone: 0 on padding."""
        c, length = self.config, tokens_BT.shape[1]
        positions_BT = jnp.broadcast_to(jnp.arange(length), tokens_BT.shape) if positions_BT is None else positions_BT
        look_up = token_vectors(c)
        encoder_keys_B = None if keys_B is None else jax.vmap(lambda key: jax.random.fold_in(key, _ENCODER))(keys_B)
        hidden_BSD = None
        if source is not None:
            hidden_BSD, _ = Encoder(c, name="encoder")(shifted(look_up(source.tokens_BS), source.shift_BSD), source, encoder_keys_B)
            source_segments_BS = source.segments_BS
        x_BTD = place(c, look_up(tokens_BT), positions_BT).astype(compute_dtype(c))
        x_BTD = constrain(dropped(c, x_BTD, keys_B), "batch", "length", "residual")

        keys, offset = (length, None) if cache is None else (valid_BS.shape[1], cache[1])
        if cache is not None:
            segments_BT = at_index(valid_BS, offset, length)
        mask = Mask(causal=True, query_segments_BT=segments_BT, key_segments_BS=valid_BS, offset=offset)
        queries_BT = jnp.ones_like(tokens_BT) if segments_BT is None else segments_BT
        reads = Source(hidden_BSD, Mask(causal=False, query_segments_BT=queries_BT, key_segments_BS=source_segments_BS))
        counted_BT = segments_BT != 0 if c.experts and segments_BT is not None else None
        where = angles_of(c, positions_BT) | {"bias_1HTS": relative_bias(c, length, keys, offset)}
        context = Context(mask, source=reads, keys_B=keys_B, counted_BT=counted_BT, **where)
        router = None
        if self.is_initializing():
            x_BTD = create_layers(c, x_BTD, context)
            if not c.tied_embeddings:
                Table(c.vocab_size, c.embed_dim, ("vocab", "embed"), c.init_std, name="head")()
        else:
            x_BTD, cache, router, _ = run_layers(c, self.variables["params"], x_BTD, (context,), cache=cache)
        hidden_BTD = final_norm(c, x_BTD)
        return Output(hidden_BTD * c.embed_dim**-0.5 if c.scaled_logits else hidden_BTD, cache, router)

    @nn.nowrap
    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        one = jnp.ones((1, 1), jnp.int32)
        return self.init(key, one, source=SourceText(one, one, one * 0))["params"]

    @nn.nowrap
    def prompted(self, params, vectors_PD):
        """As of a TextEncoder: a prompt before every source."""
        c, (count, _) = self.config, vectors_PD.shape
        zeros_1P = jnp.zeros((1, count), jnp.int32)
        source = SourceText(zeros_1P, zeros_1P, before_text(c, count))
        cache = (empty_cache(c.encoder, 1, count), 0)
        _, found = Encoder(c).apply({"params": params["encoder"]}, vectors_PD[None], source, cache=cache)
        return {"encoder": {"layers": {"attention": {"prefix": as_prefix(found)}}}}

    @nn.nowrap
    def conditioned(self, params, source: SourceText) -> "Conditioned":
        """Read the sources once, and return what continues their targets with the functions of model/decoding/. source: one text per
        row."""
        x_BSD = vectors_of(self.config, params["embedding"]["table"], source.tokens_BS)
        hidden_BSD, _ = Encoder(self.config).apply({"params": params["encoder"]}, x_BSD, source)
        return Conditioned(self, source_cache(self.config, params, hidden_BSD), (source.segments_BS > 0).astype(jnp.int32))

    @nn.nowrap
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Where each part stands, by names that all decoders share."""
        return {name: (name,) for name in (*DECODER, "encoder")}

    @nn.nowrap
    def kernels(self, platform: str, *, split_positions: bool = False) -> list[str]:
        """Attention kernels in use on a platform. ValueError where the one asked for cannot serve."""
        found = [layer_kernels(self.config, platform, split_positions=split_positions, causal=causal) for causal in (False, True)]
        return list(dict.fromkeys(found[0] + found[1]))

    @nn.nowrap
    def training_flops_per_token(self, length: int) -> float | None:
        """None, because the objective decides the lengths of sources and targets."""
        return None


_ENCODER = 1 << 20
"""Folded into the keys of dropout, so that both stacks draw masks of their own."""


@dataclasses.dataclass(frozen=True)
class Conditioned:
    """An encoder-decoder that has read its sources: a decoder, as the functions of model/decoding/ see it.

    caches: keys and values of the sources, for each layer, and segments_BS, int32, 0 on a source's padding. Both go into the cache that a
    prefill begins with: to go on from that they need not be here. Without them a cache has room for sources as long as targets.
    """

    model: EncoderDecoder
    caches: tuple = ()
    segments_BS: Any = None

    @property
    def config(self) -> EncoderDecoderConfig:
        return self.model.config

    def empty_cache(self, rows: int, size: int):
        """For each layer keys and values of the target, empty, and those of the source; behind the layers the source's segments."""
        own = empty_cache(self.config, rows, size)
        caches = self.caches or own
        segments_BS = jnp.zeros((rows, size), jnp.int32) if self.segments_BS is None else self.segments_BS
        return *(mine + source for mine, source in zip(own, caches, strict=True)), (segments_BS[..., None],)

    def apply(self, variables, tokens_BT, *, positions_BT, cache, valid_BS, media=None) -> Output:
        """As of a Decoder."""
        (*layers, (segments_BS1,)), index = cache
        where = {"positions_BT": positions_BT, "cache": (tuple(layers), index), "valid_BS": valid_BS}
        output = self.model.apply(variables, tokens_BT, source_segments_BS=segments_BS1[..., 0], **where)
        return output._replace(cache=(*output.cache, (segments_BS1,)))
