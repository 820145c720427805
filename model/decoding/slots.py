"""Texts that begin and end at different times, side by side: each has a slot with a cache and an index of its own.

A text lies in its slot from place 0 on, so what it becomes depends on no other slot: not on who sits beside it, nor on when it came.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from model.decoding.generate import Causal
from model.decoding.sampling import RowSampling, Sampling, by_row
from model.heads import Head, logits, vocabulary_table
from model.positions import indices

LIKELIEST = 20
"""Tokens whose log-probabilities are given beside the one that was drawn."""


class Slots(flax.struct.PyTreeNode):
    """B slots of S places.

    cache: keys and values, each leaf [B, G, S, ...]; tokens_BS: ids of each text; index_B: how many tokens it has, all of them read;
    begin_B: how many of those are its prompt; limit_B: how many it may have; done_B: nothing more is drawn; logits_BV: for the next token;
    keys_B: random keys, folded with the place that a token is drawn for; sampling: RowSampling with a bias for each slot; asks_B: whether
    the likeliest tokens are wanted too.
    """

    cache: Any
    tokens_BS: Any
    index_B: Any
    begin_B: Any
    limit_B: Any
    done_B: Any
    logits_BV: Any
    keys_B: Any
    sampling: RowSampling
    asks_B: Any


class Texts(NamedTuple):
    """N texts that were read into rows. place_N, row_N: the slots that they take, and the rows; tokens_NS: ids, the first count_N of which
    are the prompt; limit_N: how many each may have in all; keys_N, sampling, asks_N: as of Slots."""

    place_N: Any
    row_N: Any
    tokens_NS: Any
    count_N: Any
    limit_N: Any
    keys_N: Any
    sampling: RowSampling
    asks_N: Any


class Scores(NamedTuple):
    """What a model thinks of C tokens, each given those before it: log_probs_C; likeliest_CL, their_log_probs_CL: the most likely ones."""

    log_probs_C: Any
    likeliest_CL: Any
    their_log_probs_CL: Any


def empty_slots(model: Causal, slots: int, size: int, stops: int = 0) -> Slots:
    """Slots without texts, all done. stops: places for stop ids."""
    vocabulary = model.config.vocab_size
    sampling = jax.tree.map(jnp.asarray, by_row([Sampling()] * slots, vocabulary, stops=stops))
    zeros_B = jnp.zeros(slots, jnp.int32)
    return Slots(
        cache=empty_rows(model, slots, size),
        tokens_BS=jnp.zeros((slots, size), jnp.int32),
        index_B=zeros_B,
        begin_B=zeros_B,
        limit_B=zeros_B,
        done_B=jnp.ones(slots, bool),
        logits_BV=jnp.zeros((slots, vocabulary), jnp.float32),
        keys_B=jax.random.split(jax.random.key(0), slots),
        sampling=sampling.replace(bias_BV=jnp.broadcast_to(sampling.bias_BV, (slots, vocabulary))),
        asks_B=jnp.zeros(slots, bool),
    )


def empty_rows(model: Causal, rows: int, size: int):
    """Caches for texts that are being read, each leaf [R, G, S, ...]. What a text before has left in a row, no later one sees."""
    return _by_row(model.empty_cache(rows, size), rows)


def read_chunks(model: Causal, params, rows, tokens_RC, index_R, count_R, *, places: int):
    """Read a part of each of R texts into its row: (rows, float32 [R, V], the logits behind the last token of each part).

    tokens_RC: ids, of which the first count_R of each are meant, at least one; index_R: place of the first. The places behind them are
    overwritten by what comes next, and no token sees them before. places: so many of a row are looked at; there must be room for all C.
    """
    first = jax.tree.map(lambda x: x[:, :, :places], rows)
    hidden_RCD, first = apply_to_rows(model, params, first, tokens_RC, index_R)
    last_RD = jnp.take_along_axis(hidden_RCD, (count_R - 1)[:, None, None], axis=1)[:, 0]
    rows = first if places == size_of(rows) else _put_back(rows, first, index_R, tokens_RC.shape[1])
    return rows, logits(Head(last_RD, vocabulary_table(params)), softcap=model.config.logit_softcap)


def read_chunk(model: Causal, params, rows, row, tokens_C, index, count, *, places: int):
    """`read_chunks` for one of the rows: (rows, float32 [V])."""
    rows, hidden_CD = _read_row(model, params, rows, row, tokens_C, index, places)
    last_D = jax.lax.dynamic_index_in_dim(hidden_CD, count - 1, keepdims=False)
    return rows, logits(Head(last_D, vocabulary_table(params)), softcap=model.config.logit_softcap)


def score_chunk(model: Causal, params, rows, row, tokens_C, next_C, index, count):
    """`read_chunk`, and what the model thinks of the token behind each: (rows, float32 [V], Scores). next_C: those tokens."""
    rows, hidden_CD = _read_row(model, params, rows, row, tokens_C, index, size_of(rows))
    logits_CV = logits(Head(hidden_CD, vocabulary_table(params)), softcap=model.config.logit_softcap)
    log_p_CV = jax.nn.log_softmax(logits_CV)
    their_log_probs_CL, likeliest_CL = jax.lax.top_k(log_p_CV, LIKELIEST)
    log_probs_C = jnp.take_along_axis(log_p_CV, next_C[:, None], axis=-1)[:, 0]
    last_V = jax.lax.dynamic_index_in_dim(logits_CV, count - 1, keepdims=False)
    return rows, last_V, Scores(log_probs_C, likeliest_CL, their_log_probs_CL)


def _read_row(model: Causal, params, rows, row, tokens_C, index, places: int):
    """(rows, hidden states [C, D]) of some tokens in one of the rows."""
    only = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x[:, :, :places], row, 1), rows)
    hidden_1CD, only = apply_to_rows(model, params, only, tokens_C[None], index)
    return paste_chunk(rows, row, cut_chunk(only, 0, index, len(tokens_C)), index), hidden_1CD[0]


def size_of(rows) -> int:
    """Places of each row or slot of a cache."""
    return jax.tree.leaves(rows)[0].shape[2]


def _put_back(rows, first, index_B, count: int):
    """The rows, with `count` places of each from index_B on as they are in `first`, which holds their first places."""

    def put(held, new, index):
        return jax.lax.dynamic_update_slice_in_dim(held, jax.lax.dynamic_slice_in_dim(new, index, count, 1), index, 1)

    start_B = jnp.minimum(index_B, size_of(first) - count)
    return jax.tree.map(lambda x, new: jax.vmap(put)(x, new, start_B), rows, first)


def _by_row(cache, rows: int):
    """A model's cache, whose leaves have rows and heads as one axis, with an axis for each."""
    return jax.tree.map(lambda x: x.reshape(rows, -1, *x.shape[1:]), cache)


def apply_to_rows(model: Causal, params, cache, tokens_BT, index):
    """(hidden states [B, T, D], cache) of tokens that stand from `index` on, one for all rows or [B]. cache: as of `empty_rows`."""
    batch = len(tokens_BT)
    output = model.apply(
        {"params": params},
        tokens_BT,
        positions_BT=jnp.broadcast_to(indices(index, tokens_BT.shape[1]), tokens_BT.shape),
        cache=(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), cache), index),
        valid_BS=jnp.ones((batch, size_of(cache)), jnp.int32),
    )
    return output.hidden_BTD, _by_row(output.cache, batch)


def cut_chunk(rows, row, index, count: int):
    """What `count` tokens from `index` on have left in a row's cache."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice(x, (row, 0, index, 0), (1, x.shape[1], count, x.shape[3]))[0], rows)


def paste_chunk(rows, row, chunk, index):
    """The rows, with such a part in its places: as if its tokens had been read."""
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice(x, new[None].astype(x.dtype), (row, 0, index, 0)), rows, chunk)


def insert(slots: Slots, rows, logits_RV, texts: Texts, count) -> Slots:
    """The first `count` of some texts that were read into rows take slots. logits_RV: behind each row's text. The rows may have more places
    than the slots, if the texts have not."""
    size = slots.tokens_BS.shape[1]

    def one(n, slots: Slots) -> Slots:
        place, row = texts.place_N[n], texts.row_N[n]

        def put(held, read):
            return held.at[place].set(jax.lax.dynamic_index_in_dim(read[:, :, :size], row, keepdims=False).astype(held.dtype))

        return Slots(
            cache=jax.tree.map(put, slots.cache, rows),
            tokens_BS=slots.tokens_BS.at[place].set(texts.tokens_NS[n, :size]),
            index_B=slots.index_B.at[place].set(texts.count_N[n]),
            begin_B=slots.begin_B.at[place].set(texts.count_N[n]),
            limit_B=slots.limit_B.at[place].set(texts.limit_N[n]),
            done_B=slots.done_B.at[place].set(False),
            logits_BV=slots.logits_BV.at[place].set(logits_RV[row]),
            keys_B=slots.keys_B.at[place].set(texts.keys_N[n]),
            sampling=jax.tree.map(lambda held, new: held.at[place].set(new[n]), slots.sampling, texts.sampling),
            asks_B=slots.asks_B.at[place].set(texts.asks_N[n]),
        )

    return jax.lax.fori_loop(0, count, one, slots)


def move(slots: Slots, place, others: Slots, to) -> Slots:
    """`others`, with a slot of `slots` in the place `to`: between banks of more or fewer slots, or of more or fewer places."""

    def put(held, slot):
        both = tuple(slice(min(ours, theirs)) for ours, theirs in zip(held.shape[1:], slot.shape, strict=True))
        return held.at[(to, *both)].set(slot[both])

    return jax.tree.map(lambda held, new: put(held, new[place]), others, slots)
