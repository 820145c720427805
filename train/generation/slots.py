"""Continuous batching: responses are sampled in fewer places than there are responses; a place that is free takes the next prompt.

Where lengths are skewed, all at once means that most rows wait for the longest. Here the work is that of the tokens sampled, and the cache
is as large as the places. The loop is on the host, between calls that sample a few tokens for every place.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from model.decoding.generate import Generation, decode, forget, prefill, refill
from model.decoding.sampling import Sampling
from model.transformer import Decoder
from train.rl.policy.rollout import Rollout

CHUNK = 16
"""Tokens sampled for every place between two checks of which have ended."""


def open_slots(
    model: Decoder, params, prompts_BP, lengths_B, keys_B, sampling: Sampling, *, max_new_tokens: int, samples: int
) -> Generation:
    """The first responses, begun: as `rollout`, in buffers that a row can be in anywhere."""
    state = prefill(model, params, prompts_BP, lengths_B, keys_B, max_new_tokens=max_new_tokens + CHUNK, samples=samples)
    return _sample(model, params, state, sampling)


def go_on_in_slots(
    model: Decoder, params, state: Generation, over_B, rows_K, prompts_KP, lengths_K, keys_K, sampling: Sampling
) -> Generation:
    """New prompts in the rows rows_K, as `refill` takes them, and some tokens more for all; over_B: bool, rows that are to stand still."""
    state = refill(model, params, state.replace(done_B=state.done_B | over_B), rows_K, prompts_KP, lengths_K, keys_K)
    return _sample(model, params, state, sampling)


def _sample(model: Decoder, params, state: Generation, sampling: Sampling) -> Generation:
    size = state.tokens_BS.shape[1]
    state = forget(state, jnp.maximum(state.index + CHUNK - size, 0))
    return decode(model, params, state, sampling, CHUNK)


def rollout_in_slots(
    begin: Callable[[], Generation],
    go_on: Callable[..., Generation],
    host: Callable,
    prompts_NP,
    lengths_N,
    *,
    slots: int,
    max_new_tokens: int,
) -> Rollout:
    """N responses, on the host, the first `slots` of which `begin` samples; the others follow in order as places become free.

    prompts_NP, lengths_N: NumPy arrays, a row for each response. go_on(state, over_B, rows_K, numbers_K): numbers_K are the responses to
    begin in rows_K, both int32 of one size, rows_K == slots where there is none. host: brings an array to the host.
    A row is what `rollout` gives, whatever the number of places.
    """
    total, prompt = prompts_NP.shape
    tokens_NS = np.zeros((total, prompt + max_new_tokens), np.int32)
    valid_NS, log_probs_NR = np.zeros_like(tokens_NS), np.zeros((total, max_new_tokens), np.float32)
    mask_NR, stopped_N = np.zeros((total, max_new_tokens), np.float32), np.zeros(total, bool)
    at_once = max(1, slots // 4)
    number_B = np.arange(slots)  # of the response in each place; -1: none
    first_B, index = np.full(slots, prompt), prompt  # where it begins, and where all places stand
    following, state = slots, begin()
    while True:
        size, now = state.tokens_BS.shape[1], int(state.index)
        forgotten = max(index + CHUNK - size, 0)
        first_B, index = first_B - forgotten, now
        tokens_BS, log_probs_BS, ends_B, done_B = (host(x) for x in (state.tokens_BS, state.log_probs_BS, state.ends_B, state.done_B))
        count_B = np.minimum(ends_B - first_B, max_new_tokens)
        over_B = (number_B >= 0) & (done_B | (ends_B - first_B >= max_new_tokens))
        for place in np.flatnonzero(over_B):
            number, count = number_B[place], count_B[place]
            span = slice(first_B[place], first_B[place] + count)
            prompt_length = lengths_N[number]
            tokens_NS[number, prompt - prompt_length : prompt] = prompts_NP[number, prompt - prompt_length :]
            tokens_NS[number, prompt : prompt + count] = tokens_BS[place, span]
            valid_NS[number, prompt - prompt_length : prompt + count] = 1
            log_probs_NR[number, :count], mask_NR[number, :count] = log_probs_BS[place, span], 1
            stopped_N[number] = done_B[place] and ends_B[place] - first_B[place] <= max_new_tokens
            number_B[place] = -1
        free = np.flatnonzero(number_B < 0)
        if following == total and len(free) == slots:
            return Rollout(tokens_NS, valid_NS, log_probs_NR, mask_NR, stopped_N)
        rows_K, numbers_K = np.full(at_once, slots, np.int32), np.zeros(at_once, np.int32)
        taken = min(at_once, len(free), total - following)
        if taken and (taken == at_once or taken == total - following or len(free) == slots):
            rows_K[:taken], numbers_K[:taken] = free[:taken], np.arange(following, following + taken)
            number_B[free[:taken]], first_B[free[:taken]] = numbers_K[:taken], index
            following += taken
        state = go_on(state, number_B < 0, rows_K, numbers_K)
