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

from model.attention.dispatch import MASKED
from model.decoding.filters import keep_min_p, keep_top_k, keep_top_p, temper
from model.heads import Head, logits, vocabulary_table
from model.stack import unstack_layers
from model.transformer import Media, Output

LARGEST = 1e30
"""Of what divides or multiplies logits: more leaves the range of float32."""


class Causal(Protocol):
    """What continues texts: a Decoder, or an encoder-decoder that has read its sources."""

    @property
    def config(self) -> Any:
        """A ModelConfig."""

    def empty_cache(self, rows: int, size: int) -> tuple:
        """Of each layer, for `size` tokens of so many rows, that hold nothing yet."""

    def apply(self, variables, tokens_BT, *, positions_BT, cache, valid_BS, media=None) -> Output:
        """As of Decoder."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. Filters apply in the order of the fields, `among` first; the defaults sample from the model itself."""

    repetition_penalty: float = 1.0
    """Divides positive logits of tokens already in the row, and multiplies negative ones (Keskar et al. 2019). 1: off."""
    temperature: float = 1.0
    """Divides the logits. 0: greedy, the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens. 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p (Holtzman et al. 2020). 1: all."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as likely as the most likely one (Nguyen et al. 2024). 0: all."""
    stop_ids: tuple[int, ...] = ()
    """A row ends with the first of these it samples; that token is kept."""
    among: tuple[int, int] | None = None
    """Draw only ids from the first to before the second, such as the codes of pictures, and stop_ids. None: any."""

    def __post_init__(self):
        ranges = {
            "temperature": (0 <= self.temperature <= LARGEST, f"from 0 to {LARGEST:g}"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1]"),
            "repetition_penalty": (0 < self.repetition_penalty <= LARGEST, f"above 0 and at most {LARGEST:g}"),
        }
        for name, (fine, rule) in ranges.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}")


class Generation(flax.struct.PyTreeNode):
    """Rows being generated. The buffers are as long as the cache: S = prompt + max_new_tokens.

    tokens_BS: ids, the prompt right-aligned before `prompt`; log_probs_BS: of each new token (see `decode`), 0 elsewhere;
    valid_BS: 1 from a row's first prompt token on, but for gaps (see `extend`); start_B: where that is; origin_B: where it would be, were
    there no gaps: what an index is a position from; ends_B: index after a row's last token so far; done_B: rows that sampled a stop id;
    logits_BV: for the next token; index: where that goes; keys_B: one random key a row.
    """

    tokens_BS: Any
    log_probs_BS: Any
    valid_BS: Any
    start_B: Any
    origin_B: Any
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
        ends_B=state.ends_B - count,
        cache=jax.tree.map(roll, state.cache),
        index=state.index - count,
    )


def cache_rows(cache, batch: int, rows):
    """The caches of some rows of a batch, in their order: int [R]. A cache has a row's heads next to each other on its first axis."""
    return jax.tree.map(lambda x: x.reshape(batch, -1, *x.shape[1:])[rows].reshape(-1, *x.shape[1:]), cache)


def next_logits(state: Generation, sampling: Sampling):
    """The filtered, tempered float32 logits [B, V] that the next token is sampled from; what is filtered out is at MASKED."""
    x_BV = state.logits_BV
    batch, vocabulary = x_BV.shape
    ids_V, allowed_V = jnp.arange(vocabulary), None
    if sampling.among is not None:
        chosen_V = (ids_V >= sampling.among[0]) & (ids_V < sampling.among[1])
        allowed_V = functools.reduce(jnp.logical_or, (ids_V == stop for stop in sampling.stop_ids), chosen_V)
        x_BV = jnp.where(allowed_V, x_BV, MASKED)
    if sampling.repetition_penalty != 1.0:
        held_BS = (state.valid_BS == 1) & (jnp.arange(state.tokens_BS.shape[1]) < state.index)
        seen_BV = jnp.zeros((batch, vocabulary), bool).at[jnp.arange(batch)[:, None], state.tokens_BS].max(held_BS)
        penalised_BV = jnp.where(x_BV > 0, x_BV / sampling.repetition_penalty, x_BV * sampling.repetition_penalty)
        x_BV = jnp.where(seen_BV, penalised_BV, x_BV)
    x_BV = _at_temperature(x_BV, sampling)
    if allowed_V is not None:
        x_BV = jnp.where(allowed_V, x_BV, MASKED)  # again: a high temperature makes even that likely
    if sampling.top_k:
        x_BV = keep_top_k(x_BV, sampling.top_k)
    if sampling.top_p < 1.0:
        x_BV = keep_top_p(x_BV, sampling.top_p)
    if sampling.min_p:
        x_BV = keep_min_p(x_BV, sampling.min_p)
    return x_BV


def _at_temperature(x_BV, sampling: Sampling):
    return x_BV if sampling.temperature in (0.0, 1.0) else temper(x_BV, sampling.temperature)


def sample_token(keys_B, logits_BV):
    """One token a row in proportion to exp(logits): int [B]. keys_B: a random key a row.

    The cumulative distribution is inverted, which takes one random number a row; Gumbel noise, the other way, takes one a token of the
    vocabulary. What is at MASKED is never sampled, whatever is lost in the running sum.
    """
    p_BV = jnp.exp(logits_BV - logits_BV.max(-1, keepdims=True))
    sum_BV = jnp.cumsum(p_BV, axis=-1)
    point_B = jax.vmap(jax.random.uniform)(keys_B) * sum_BV[:, -1]
    beyond_BV = (sum_BV > point_B[:, None]) & (p_BV > 0)
    return jnp.where(beyond_BV.any(-1), beyond_BV.argmax(-1), p_BV.argmax(-1))


def decode(model: Causal, params, state: Generation, sampling: Sampling, steps: int | jax.Array, media: Media | None = None) -> Generation:
    """Sample up to `steps` more tokens for each row; stops early when all rows are done or the buffers are full.

    log_probs_BS holds log softmax(logits / temperature) of each sampled token (temperature 1 when greedy), before any filter or
    penalty: what `score_tokens` gives for the same text and temperature. media: for cross-attention, where media are not in the row.
    """
    if "layers" in params:
        params = unstack_layers(params)  # once, outside the loop
    if media is not None:  # what is sampled comes after all of them
        media = dataclasses.replace(media, groups_BT=jnp.full((len(state.done_B), 1), jnp.iinfo(jnp.int32).max - 1))
    last = jnp.minimum(state.index + steps, state.tokens_BS.shape[1])

    def sample(state: Generation):
        """One more token a row, from the logits in hand."""
        x_BV = next_logits(state, sampling)
        if sampling.temperature == 0.0:
            token_B = jnp.argmax(x_BV, axis=-1)
        else:
            keys_B = jax.vmap(jax.random.fold_in)(state.keys_B, state.index - state.origin_B)
            token_B = sample_token(keys_B, x_BV)
        log_p_BV = jax.nn.log_softmax(_at_temperature(state.logits_BV, sampling), axis=-1)
        log_prob_B = jnp.take_along_axis(log_p_BV, token_B[:, None], axis=-1)[:, 0]
        token_B = jnp.where(state.done_B, 0, token_B).astype(state.tokens_BS.dtype)
        stopped_B = functools.reduce(jnp.logical_or, (token_B == stop for stop in sampling.stop_ids), jnp.zeros_like(state.done_B))
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
