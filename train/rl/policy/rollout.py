"""Responses of a policy to prompts, with the log-probability of every token as it was sampled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.decoding.generate import Generation, decode, extend, prefill
from model.decoding.sampling import Sampling
from model.transformer import Decoder


class Rollout(NamedTuple):
    """B rows of P prompt positions, right-aligned, and R response positions after them: S = P + R.

    tokens_BS int32; valid_BS int32, 1 on the tokens of prompt and response; log_probs_BR float32, of what was sampled, at the sampling's
    temperature, 0 elsewhere; mask_BR float32, 1 on tokens that the policy sampled, its stop token included; stopped_B, if there is one.
    """

    tokens_BS: Any
    valid_BS: Any
    log_probs_BR: Any
    mask_BR: Any
    stopped_B: Any

    @property
    def prompt_length(self) -> int:
        return self.tokens_BS.shape[1] - self.mask_BR.shape[1]

    @property
    def responses_BR(self):
        return self.tokens_BS[:, self.prompt_length :]


def rollout(model: Decoder, params, prompts_BP, lengths_B, keys_B, sampling: Sampling, *, max_new_tokens: int, samples: int) -> Rollout:
    """Sample `samples` responses to each prompt, which is read once; stops early when every row has ended.

    prompts_BP: int32, right-aligned; lengths_B: their tokens. keys_B: one random key for each of the B * samples rows, neighbours sharing a
    prompt. A row depends on its prompt and key alone, not on padding or on the other rows.
    """
    state = prefill(model, params, prompts_BP, lengths_B, keys_B, max_new_tokens=max_new_tokens, samples=samples)
    state = decode(model, params, state, sampling, max_new_tokens)
    return as_rollout(state, True, state.done_B, max_new_tokens)


def as_rollout(state: Generation, sampled_BS, stopped_B, response_length: int) -> Rollout:
    """What was generated, as B rows of a prompt and `response_length` tokens more. sampled_BS: bool, tokens of the policy."""
    size = state.tokens_BS.shape[1]
    index_S, first = jnp.arange(size), size - response_length
    inside_BS = (state.valid_BS > 0) & (index_S >= state.start_B[:, None]) & (index_S < state.ends_B[:, None])
    return Rollout(
        tokens_BS=jnp.where(inside_BS, state.tokens_BS, 0),
        valid_BS=inside_BS.astype(jnp.int32),
        log_probs_BR=state.log_probs_BS[:, first:],
        mask_BR=(inside_BS & sampled_BS)[:, first:].astype(jnp.float32),
        stopped_B=stopped_B,
    )


class Talk(NamedTuple):
    """Conversations under way, between two turns of the policy.

    sampled_BS: bool, tokens that it sampled; stopped_B, whether its newest turn in each row ended with a stop token; begin: index of
    those turns' first tokens.
    """

    state: Generation
    sampled_BS: Any
    stopped_B: Any
    begin: Any


def start_talk(
    model: Decoder, params, prompts_BP, lengths_B, keys_B, sampling: Sampling, *, turn: int, max_new_tokens: int, samples: int
) -> Talk:
    """The first turn, of at most `turn` tokens, in buffers that hold `max_new_tokens` after a prompt; else as `rollout`."""
    state = prefill(model, params, prompts_BP, lengths_B, keys_B, max_new_tokens=max_new_tokens, samples=samples)
    begin, state = state.index, decode(model, params, state, sampling, turn)
    return Talk(state, _since(begin, state), state.done_B, begin)


def go_on(model: Decoder, params, talk: Talk, replies_BE, lengths_B, sampling: Sampling, *, turn: int) -> Talk:
    """The next turn, after replies as `extend` takes them; a row without one is over."""
    state = extend(model, params, talk.state, replies_BE, lengths_B)
    begin, state = state.index, decode(model, params, state, sampling, turn)
    return Talk(state, talk.sampled_BS | _since(begin, state), jnp.where(lengths_B == 0, talk.stopped_B, state.done_B), begin)


def _since(begin, state: Generation):
    index_S = jnp.arange(state.tokens_BS.shape[1])
    return (index_S >= begin) & (index_S < state.ends_B[:, None])


def response_key(key, row, sample):
    """The random key of one response: row, the number of the prompt in the stream, and sample, its number in the group."""
    return jax.random.fold_in(jax.random.fold_in(key, row), sample)


def row_keys(key, rows, samples: int):
    """A random key for each response: rows int32 [B], the numbers of the prompts in the stream. Returns keys [B * samples]."""
    each = jax.vmap(lambda row: jax.vmap(lambda sample: response_key(key, row, sample))(jnp.arange(samples)))
    return each(rows).reshape(-1)
