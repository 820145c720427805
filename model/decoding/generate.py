"""Sampling text: prefill the cache once, then one jitted loop that decodes until every row has stopped.

Stop ids end a row inside the loop; stop strings are the caller's business, between calls of `decode`. Prompts are padded on the left;
how much, and in which order the rows stand, changes no row's tokens: randomness is keyed by row and by distance from its start.
"""

import dataclasses
import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from model.decoding.filters import temper
from model.decoding.sampling import RowSampling, Sampling, by_row, next_tokens
from model.heads import Head, logits, vocabulary_table
from model.stack import unstack_layers
from model.transformer import Media, Output, made_once


class Causal(Protocol):
    """What continues texts: a Decoder, or an encoder-decoder that has read its sources."""

    @property
    def config(self) -> Any:
        """A ModelConfig."""

    def empty_cache(self, rows: int, size: int) -> tuple:
        """Of each layer, for `size` tokens of so many rows, that hold nothing yet."""

    def apply(self, variables, tokens_BT, *, positions_BT, cache, valid_BS, media=None) -> Output:
        """As of Decoder."""


class Generation(flax.struct.PyTreeNode):
    """Rows being generated. The buffers are as long as the cache: S = prompt + max_new_tokens.

    tokens_BS: ids, the prompt right-aligned before `prompt`; log_probs_BS: of each new token (see `decode`), 0 elsewhere;
    valid_BS: 1 from a row's first prompt token on, but for gaps (see `extend`); start_B: where that is; origin_B: where it would be, were
    there no gaps: what an index is a position from; begin_B: index after a row's prompt; ends_B: after its last token so far; done_B: rows
    that sampled a stop id; logits_BV: for the next token; index: where that goes; keys_B: one random key a row.
    """

    tokens_BS: Any
    log_probs_BS: Any
    valid_BS: Any
    start_B: Any
    origin_B: Any
    begin_B: Any
    ends_B: Any
    done_B: Any
    logits_BV: Any
    cache: Any
    index: Any
    keys_B: Any


def prefill(
    model: Causal, params, prompts_BT, lengths_B, keys_B, *, max_new_tokens: int, samples: int = 1, media: Media | None = None
) -> Generation:
    """Read each prompt once, and return the state that continues each `samples` times.

    prompts_BT: int32, right-aligned (padded on the left with any id); lengths_B: tokens of each prompt, at least 1.
    keys_B: one random key a row of the result, [B * samples]; the samples of a prompt are neighbours.
    max_new_tokens: capacity of the buffers behind the prompt. media: hidden states that replace some of the prompts' tokens, right-aligned
    like them.
    """
    c = model.config
    batch, prompt = prompts_BT.shape
    size = prompt + max_new_tokens
    start_B = prompt - lengths_B
    index_S = jnp.arange(size)
    valid_BS = (index_S >= start_B[:, None]).astype(jnp.int32)
    cache = (model.empty_cache(batch, size), 0)
    positions_BT = jnp.maximum(index_S[:prompt] - start_B[:, None], 0)
    output = model.apply({"params": params}, prompts_BT, positions_BT=positions_BT, cache=cache, valid_BS=valid_BS, media=media)
    state = Generation(
        tokens_BS=jnp.pad(prompts_BT, ((0, 0), (0, max_new_tokens))),
        log_probs_BS=jnp.zeros((batch, size), jnp.float32),
        valid_BS=valid_BS,
        start_B=start_B,
        origin_B=start_B,
        begin_B=jnp.full(batch, prompt),
        ends_B=jnp.full(batch, prompt),
        done_B=jnp.zeros(batch, bool),
        logits_BV=logits(Head(output.hidden_BTD[:, -1], vocabulary_table(params)), softcap=c.logit_softcap),
        cache=output.cache,
        index=jnp.int32(prompt),
        keys_B=None,
    )
    kept = {"index": state.index, "keys_B": keys_B, "cache": cache_rows(output.cache, batch, jnp.repeat(jnp.arange(batch), samples))}
    return jax.tree.map(lambda x: jnp.repeat(x, samples, axis=0), state.replace(index=None, cache=None)).replace(**kept)


def extend(model: Causal, params, state: Generation, tokens_BT, lengths_B) -> Generation:
    """Append to each row tokens that it did not sample, such as the next turn of a conversation, and stand ready to go on.

    tokens_BT: int32, right-aligned; lengths_B: how many are meant; a row with none is over from here on. Rows end at different places, and
    what lies between a row's end and its new tokens is a gap: it is not attended to, and takes up no positions.
    """
    index_S, width = jnp.arange(state.tokens_BS.shape[1]), tokens_BT.shape[1]
    first_B = state.index + width - lengths_B
    origin_B = state.origin_B + first_B - state.ends_B
    held_BS = (index_S < state.ends_B[:, None]) | (index_S >= first_B[:, None])
    valid_BS = state.valid_BS * held_BS
    output = model.apply(
        {"params": params},
        tokens_BT,
        positions_BT=jnp.maximum(state.index + jnp.arange(width) - origin_B[:, None], 0),
        cache=(state.cache, state.index),
        valid_BS=valid_BS,
    )
    over_B = lengths_B == 0
    return state.replace(
        tokens_BS=jax.lax.dynamic_update_slice_in_dim(state.tokens_BS, tokens_BT, state.index, axis=1),
        valid_BS=valid_BS,
        origin_B=origin_B,
        ends_B=jnp.where(over_B, state.ends_B, state.index + width),
        done_B=over_B,
        logits_BV=logits(Head(output.hidden_BTD[:, -1], vocabulary_table(params)), softcap=model.config.logit_softcap),
        cache=output.cache,
        index=state.index + width,
    )


def refill(model: Causal, params, state: Generation, rows_K, prompts_KT, lengths_K, keys_K) -> Generation:
    """Give some rows, whose texts are finished, new prompts to go on from, while the others stay where they are.

    rows_K: int32, distinct; a number beyond the last row is nothing. prompts_KT: int32, right-aligned; T may not be more than state.index.
    """
    width = prompts_KT.shape[1]
    new = prefill(model, params, prompts_KT, lengths_K, keys_K, max_new_tokens=0)
    index_S, first = jnp.arange(state.tokens_BS.shape[1]), state.index - width
    start_K = state.index - lengths_K

    def put(old, fresh):
        return old.at[rows_K].set(fresh, mode="drop")

    def put_window(old_BS, fresh_KT, axis: int):
        window = jax.lax.dynamic_slice_in_dim(old_BS, first, width, axis)
        return jax.lax.dynamic_update_slice_in_dim(old_BS, put(window, fresh_KT), first, axis)

    def put_cache(old, fresh):
        by_row = (len(state.start_B), -1)
        whole = put_window(old.reshape(*by_row, *old.shape[1:]), fresh.reshape(len(rows_K), -1, *fresh.shape[1:]), 2)
        return whole.reshape(old.shape)

    return state.replace(
        tokens_BS=put_window(state.tokens_BS, prompts_KT, 1),
        valid_BS=put(state.valid_BS, (index_S >= start_K[:, None]).astype(jnp.int32)),
        start_B=put(state.start_B, start_K),
        origin_B=put(state.origin_B, start_K),
        begin_B=put(state.begin_B, state.index),
        ends_B=put(state.ends_B, state.index),
        done_B=put(state.done_B, False),
        logits_BV=put(state.logits_BV, new.logits_BV),
        cache=jax.tree.map(put_cache, state.cache, new.cache),
        keys_B=put(state.keys_B, keys_K),
    )


def forget(state: Generation, count) -> Generation:
    """Make room for `count` more tokens in the buffers, by dropping what is in their first places."""
    index_S = jnp.arange(state.tokens_BS.shape[1])

    def roll(x, axis: int = 1):
        return jnp.roll(x, -count, axis)

    return state.replace(
        tokens_BS=roll(state.tokens_BS),
        log_probs_BS=roll(state.log_probs_BS),
        valid_BS=jnp.where(index_S >= index_S.size - count, 1, roll(state.valid_BS)),
        start_B=state.start_B - count,
        origin_B=state.origin_B - count,
        begin_B=state.begin_B - count,
        ends_B=state.ends_B - count,
        cache=jax.tree.map(roll, state.cache),
        index=state.index - count,
    )


def cache_rows(cache, batch: int, rows):
    """The caches of some rows of a batch, in their order: int [R]. A cache has a row's heads next to each other on its first axis."""
    return jax.tree.map(lambda x: x.reshape(batch, -1, *x.shape[1:])[rows].reshape(-1, *x.shape[1:]), cache)


def decode(
    model: Causal,
    params,
    state: Generation,
    sampling: Sampling | RowSampling,
    steps: int | jax.Array,
    media: Media | None = None,
) -> Generation:
    """Sample up to `steps` more tokens for each row; stops early when all rows are done or the buffers are full.

    sampling: of each row, or a constant of the program for all. log_probs_BS holds log softmax(logits / temperature) of each sampled token
    (temperature 1 when greedy), before any filter or penalty: what `score_tokens` gives for the same text and temperature. media: for
    cross-attention, where media are not in the row.
    """
    if "layers" in params:
        params = unstack_layers(params)  # once, outside the loop
    if media is not None:  # what is sampled comes after all of them
        media = dataclasses.replace(made_once(model.config, media), slots_BT=None, groups_BT=None)
    by: RowSampling = sampling if isinstance(sampling, RowSampling) else by_row([sampling] * len(state.done_B), state.logits_BV.shape[-1])
    last = jnp.minimum(state.index + steps, state.tokens_BS.shape[1])
    index_S = jnp.arange(state.tokens_BS.shape[1])

    def sample(state: Generation):
        """One more token a row, from the logits in hand."""
        held_BS = (state.valid_BS == 1) & (index_S < state.index)
        answered_BS = held_BS & (index_S >= state.begin_B[:, None])
        keys = functools.partial(jax.vmap(jax.random.fold_in), state.keys_B, state.index - state.origin_B)
        token_B = next_tokens(keys, state.logits_BV, by, state.tokens_BS, held_BS, answered_BS)
        log_p_BV = jax.nn.log_softmax(temper(state.logits_BV, jnp.where(by.temperature_B > 0, by.temperature_B, 1.0)[:, None]), axis=-1)
        log_prob_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=-1)[:, 0]
        token_B = jnp.where(state.done_B, 0, token_B).astype(state.tokens_BS.dtype)
        stopped_B = (token_B[:, None] == by.stops_BE).any(-1)
        return state.replace(
            tokens_BS=jax.lax.dynamic_update_slice_in_dim(state.tokens_BS, token_B[:, None], state.index, axis=1),
            log_probs_BS=jax.lax.dynamic_update_slice_in_dim(
                state.log_probs_BS, jnp.where(state.done_B, 0.0, log_prob_B)[:, None], state.index, axis=1
            ),
            ends_B=jnp.where(state.done_B, state.ends_B, state.index + 1),
            done_B=state.done_B | stopped_B,
        ), token_B

    def step(state: Generation):
        state, token_B = sample(state)
        output = model.apply(
            {"params": params},
            token_B[:, None],
            positions_BT=(state.index - state.origin_B)[:, None],
            cache=(state.cache, state.index),
            valid_BS=state.valid_BS,
            media=media,
        )
        logits_BV = logits(Head(output.hidden_BTD[:, 0], vocabulary_table(params)), softcap=model.config.logit_softcap)
        return state.replace(cache=output.cache, logits_BV=logits_BV, index=state.index + 1)

    return jax.lax.while_loop(lambda state: (state.index < last) & ~state.done_B.all(), step, state)


def generate(
    model: Causal, params, prompts_BT, lengths_B, keys_B, sampling: Sampling, *, max_new_tokens: int, samples: int = 1
) -> Generation:
    """Prefill, then decode up to `max_new_tokens` tokens: one pure function to jit, all but the arrays static."""
    state = prefill(model, params, prompts_BT, lengths_B, keys_B, max_new_tokens=max_new_tokens, samples=samples)
    return decode(model, params, state, sampling, max_new_tokens)
