"""The decoder. GPT-2, Llama and what lies between are settings of the same code."""

import dataclasses
import importlib
import math
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model.attention.dispatch import Mask, layer_kernels
from model.config import ModelConfig
from model.flops import training_flops_per_token
from model.layers import Table, compute_dtype, constrain, dropped
from model.media.cross_attention import GatedCrossBlock
from model.mixture_of_experts import Router
from model.ngrams import ngram_vectors, tokens_before, tokens_before_in_cache
from model.stack import Context, Remembered, angles_of, create_layers, keys_and_values, run_layers, written
from model.text import (
    as_prefix,
    at_index,
    before_text,
    empty_cache,
    final_norm,
    key_distances,
    place,
    relative_bias,
    shifted,
    token_vectors,
)


class Output(NamedTuple):
    """What a decoder gives: hidden_BTD after the final norm; the cache, if it was given one; what its routers did, if it has any; the
    residual stream before the layer that was asked for, if one was."""

    hidden_BTD: jax.Array
    cache: Any = None
    router: Router | None = None
    stream_BTD: jax.Array | None = None


@flax.struct.dataclass
class Attended:
    """How text attends to media that do not stand in its row: before the first of `every` blocks by a GatedCrossBlock, with
    params["block_0"] and so on, to those of its own sample (samples_BM: segments of the row, 0 for padding), of its own group or one before
    it (groups_BM; None where the text comes after all of them). caches: of each such block its keys and values, where they are made."""

    params: Any
    every: int = flax.struct.field(pytree_node=False)
    samples_BM: Any
    groups_BM: Any = None
    caches: Any = None


@flax.struct.dataclass
class Media:
    """What there is beside text in a row: hidden_BMD, the encoded places of all media, in the decoder's width.

    slots_BT: int32, 0 where the token counts, else 1 + the place that stands there instead. groups_BT: int32, ascending within a segment; a
    position sees its own group and those before it. Text is one group a token, a picture's places are one group (or see one another with
    all that is only read). slots_BT and groups_BT are None for text that comes after all of them. attended: None where they stand in the
    row.
    """

    hidden_BMD: Any
    slots_BT: Any
    groups_BT: Any
    attended: Attended | None = None

    def instead_of(self, x_BTD):
        """x_BTD with the places that belong there."""
        slots_BT1 = self.slots_BT[..., None]
        places_BTD = jnp.take_along_axis(self.hidden_BMD, jnp.maximum(slots_BT1 - 1, 0), axis=1)
        return jnp.where(slots_BT1 > 0, places_BTD.astype(x_BTD.dtype), x_BTD)


def made_once(config: ModelConfig, media: Media) -> Media:
    """With the keys and values of what text attends to, for many passes over the same media."""
    if media.attended is None:
        return media
    blocks, hidden_BMD = media.attended.params, media.hidden_BMD.astype(compute_dtype(config))
    caches = tuple(keys_and_values(config, blocks[f"block_{number}"]["attention"], hidden_BMD) for number in range(len(blocks)))
    return dataclasses.replace(media, attended=dataclasses.replace(media.attended, caches=caches))


def _cross_layers(config: ModelConfig, media: Media | None, segments_BT):
    """between(layer, x_BTD) -> x_BTD, for `run_layers`; None where no layer attends to media."""
    if media is None or media.attended is None:
        return None
    attended = media.attended
    mask = Mask(causal=False, query_segments_BT=segments_BT, key_segments_BS=attended.samples_BM)
    if media.groups_BT is not None:
        mask = dataclasses.replace(mask, causal=True, query_groups_BT=media.groups_BT, key_groups_BS=attended.groups_BM)

    def between(layer: int, x_BTD):
        if layer % attended.every:
            return x_BTD
        number = layer // attended.every
        own = {"params": attended.params[f"block_{number}"]}
        if attended.caches is not None:
            return GatedCrossBlock(config).apply(own, x_BTD, None, mask, attended.caches[number])
        return GatedCrossBlock(config).apply(own, x_BTD, media.hidden_BMD.astype(x_BTD.dtype), mask)

    return between


DECODER = ("embedding", "ngrams", "positions", "relative_bias", "layers", "final_norm", "head")
"""The names of a decoder's parameters; others may stand beside them."""


class Decoder(nn.Module):
    """Decoder-only Transformer: tokens to hidden states, which `heads.score_tokens` turns into predictions.

    Parameters: embedding/table [V, D], ngrams/table [rows, D] where the config has n-grams, positions/table [context, D] when learned,
    layers/... each stacked over a leading axis `layers`, relative_bias/table [buckets, H] where positions are relative, final_norm, and
    head/table [V, D] unless the embedding is tied. How the stack runs (`scan`, unrolled, with a cache) never changes them.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT,
        *,
        segments_BT=None,
        positions_BT=None,
        keys_B=None,
        cache=None,
        valid_BS=None,
        stream_BTD=None,
        branch: int | None = None,
        media: Media | None = None,
        groups_BT=None,
        branches_BT=None,
        memory: Remembered | None = None,
        shift_BTD=None,
        watch: list | None = None,
        streams: list | None = None,
    ) -> Output:
        """tokens_BT: int32 ids. segments_BT: int32, tokens see their own segment only; 0 is padding, which no router counts. positions_BT:
        int32 within the document, default 0..T-1. keys_B: random keys, one a row, for dropout. cache: tuple over layers of (keys, values),
        both [B * G, S, K], with n-grams also (tokens,) behind them, int32 [B, S, 1], and the index of the first new token, as (caches,
        index), one for all rows or [B]; valid_BS marks, with 1, the cached positions that hold or will hold a token of the row. branch:
        number of the layer whose input is returned too, as stream_BTD; given one, from another decoder, these layers go on from it, and the
        tokens are not looked up. media: what stands in the places of some tokens; with a cache it belongs to its first tokens. groups_BT:
        int32, ascending within a segment: tokens see all of their own group, such as a prefix, and of those before it. branches_BT: int32,
        as of Mask, for a model that `knows_branches`; positions_BT restart behind the trunk in each. memory: of the rows before, for
        positions that are distances or relative; what these leave is returned as the cache. shift_BTD: added to the vectors of tokens.
        watch: a list that takes the attention weights of every layer; the config must neither scan nor rematerialise. streams: a list that
        takes the residual stream behind every layer.
        """
        c = self.config
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        held = cache
        if c.ngrams and cache is not None:
            held = _with_tokens(cache, tokens_BT)
            cache = (held[0][:-1], held[1])
        x_BTD = stream_BTD
        if x_BTD is None:
            before_BTN = self._before(tokens_BT, segments_BT, positions_BT, held, valid_BS, memory) if c.ngrams else None
            x_BTD = self._embed(tokens_BT, before_BTN, positions_BT, keys_B, media, shift_BTD)

        queries_BT, valid = segments_BT, valid_BS
        if cache is not None:
            queries_BT = at_index(valid_BS, cache[1], tokens_BT.shape[1])
        if memory is not None:
            if c.positions not in ("distance", "relative"):
                raise ValueError(
                    f"model.positions {c.positions} say nothing of what is remembered: a memory needs distance or relative ones"
                )
            valid, cache = memory.segments(segments_BT, positions_BT), (memory.layers, memory.open_BM.shape[1])
        groups_BT = groups_BT if media is None else media.groups_BT
        mask = _mask(queries_BT, None if cache is None else cache[1], valid, groups_BT)
        if branches_BT is not None:
            if not knows_branches(c):
                raise ValueError("branches need positions that are looked up or turned, and a model without a window and n-grams")
            mask = dataclasses.replace(mask, branches_BT=branches_BT)
        counted_BT = segments_BT != 0 if c.experts and segments_BT is not None else None
        length = tokens_BT.shape[1]
        keys, offset = (length, None) if cache is None else (valid.shape[1], cache[1])
        scores = {"bias_1HTS": relative_bias(c, length, keys, offset), "distances": key_distances(c, keys, None if memory else offset)}
        context = Context(mask, keys_B=keys_B, counted_BT=counted_BT, watch=watch, **angles_of(c, positions_BT), **scores)
        router, stream_BTD = None, None
        if self.is_initializing():
            x_BTD, cache = create_layers(c, x_BTD, context), None
        else:
            between = _cross_layers(c, media, queries_BT)
            stack = {"cache": memory.layers if memory else cache, "branch": branch, "between": between, "streams": streams}
            x_BTD, cache, router, stream_BTD = run_layers(c, self.variables["params"], x_BTD, (context,), **stack)

        if not c.tied_embeddings and self.is_initializing():
            Table(c.vocab_size, c.embed_dim, ("vocab", "embed"), c.init_std, name="head")()
        hidden_BTD = final_norm(c, x_BTD)
        if memory is not None and cache is not None:
            cache = memory.after(cache, valid, tokens_BT)
        elif held is not None and c.ngrams:
            cache = (*cache, held[0][-1])
        return Output(hidden_BTD, cache, router, stream_BTD)

    @nn.nowrap
    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        return self.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    @nn.nowrap
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Where each part stands, by names that all decoders share."""
        return {name: (name,) for name in DECODER}

    @nn.nowrap
    def kernels(self, platform: str, *, split_positions: bool = False) -> list[str]:
        """Attention kernels in use on a platform. ValueError where the one asked for cannot serve."""
        return layer_kernels(self.config, platform, split_positions=split_positions)

    @nn.nowrap
    def training_flops_per_token(self, length: int) -> float | None:
        """FLOPs per token of one training step on a row of `length` tokens; None with positions that add products nobody has counted."""
        return None if self.config.positions == "distance" else training_flops_per_token(self.config, length)

    @nn.nowrap
    def empty_cache(self, rows: int, size: int):
        """The caches of `rows` rows that hold nothing yet, for `size` tokens each: a pair of keys and values for each layer, and with
        n-grams the tokens."""
        tokens = ((jnp.zeros((rows, size, 1), jnp.int32),),) if self.config.ngrams else ()
        return empty_cache(self.config, rows, size) + tokens

    @nn.nowrap
    def prompted(self, params, vectors_PD):
        """What a prompt adds to the parameters: a prefix, which is made of vectors that stand before every text, where tokens have been
        looked up and placed."""
        c, (count, _) = self.config, vectors_PD.shape
        output = self.apply(
            {"params": params},
            jnp.zeros((1, count), jnp.int32),
            stream_BTD=vectors_PD[None].astype(compute_dtype(c)),
            positions_BT=before_text(c, count),
            cache=(self.empty_cache(1, count), 0),
            valid_BS=jnp.ones((1, count), jnp.int32),
        )
        return {"layers": {"attention": {"prefix": as_prefix(output.cache[: c.num_layers])}}}

    @nn.nowrap
    def _before(self, tokens_BT, segments_BT, positions_BT, cache, valid_BS, memory: Remembered | None):
        """The tokens that n-grams reach back to. cache: with these tokens in it."""
        count = self.config.ngrams - 1
        if cache is not None:
            (ids_BS1,), index = cache[0][-1], cache[1]
            return tokens_before_in_cache(ids_BS1[..., 0], valid_BS, index, positions_BT, count)
        tokens_BS, segments_BS = tokens_BT, segments_BT
        if memory is not None:  # what was read before belongs to the first text, if that goes on
            tokens_BS = jnp.concatenate([memory.before_BN, tokens_BT], 1)
            if segments_BT is not None:
                segments_BS = jnp.concatenate([jnp.repeat(segments_BT[:, :1], count, 1), segments_BT], 1)
        return tokens_before(tokens_BS, positions_BT, count, segments_BS)

    @nn.nowrap
    def _embed(self, tokens_BT, before_BTN, positions_BT, keys_B, media: Media | None, shift_BTD):
        """What the first layer reads: the tokens, or the media in their places, and their positions."""
        c = self.config
        x_BTD = shifted(token_vectors(c)(tokens_BT), shift_BTD)
        if before_BTN is not None:
            x_BTD += ngram_vectors(c, tokens_BT, before_BTN)
        if media is not None and media.attended is None:
            x_BTD = media.instead_of(x_BTD)
        x_BTD = place(c, x_BTD, positions_BT)
        return constrain(dropped(c, x_BTD.astype(compute_dtype(c)), keys_B), "batch", "length", "residual")


def knows_branches(config: ModelConfig) -> bool:
    """Whether a decoder of this config can read several continuations behind one text: what it knows of places must come from positions_BT
    alone. Windows, n-grams and what depends on distances count places in the row."""
    return config.positions in ("learned", "rotary", "sinusoidal") and not config.window and not config.ngrams


def _with_tokens(cache, tokens_BT):
    """A cache that also holds tokens, with these in their places."""
    (*layers, (ids_BS1,)), index = cache
    return (*layers, (written(ids_BS1, tokens_BT[..., None], index),)), index


def _mask(queries_BT, offset, keys_BS, groups_BT) -> Mask:
    """Who sees whom. queries_BT: segments of the tokens at hand, or None; keys_BS: those of all keys, where some stand before them or are
    held free behind them; offset: index of the first token among these; groups_BT: as of Decoder."""
    if offset is None:
        mask = Mask(causal=True, query_segments_BT=queries_BT)
    else:
        mask = Mask(causal=True, query_segments_BT=queries_BT, key_segments_BS=keys_BS, offset=offset)
    if groups_BT is None or (offset is not None and queries_BT.shape[1] == 1):  # a token that is drawn sees all before it
        return mask
    if offset is None:
        return dataclasses.replace(mask, query_groups_BT=groups_BT)
    before = offset if isinstance(offset, int) else 0
    behind = keys_BS.shape[1] - before - groups_BT.shape[1]
    key_groups_BS = jnp.pad(groups_BT, ((0, 0), (before, 0)), constant_values=-1)
    key_groups_BS = jnp.pad(key_groups_BS, ((0, 0), (0, behind)), constant_values=jnp.iinfo(jnp.int32).max)
    return dataclasses.replace(mask, query_groups_BT=groups_BT, key_groups_BS=key_groups_BS)


def abstract_parameters(config: ModelConfig):
    """Shapes, types and logical axis names of all parameters, without allocating any (boxed as Flax's LogicallyPartitioned)."""
    module, _, name = config.home.partition(":")
    return jax.eval_shape(getattr(importlib.import_module(module), name)(config).start, jax.random.key(0))


def count_parameters(config: ModelConfig) -> int:
    """Number of trained parameters, tied tables counted once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_parameters(config)))
