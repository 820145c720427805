"""Beam search: the most likely continuations rather than sampled ones."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from model.attention.dispatch import MASKED
from model.decoding.generate import Causal, Generation, cache_rows, prefill
from model.heads import Head, logits, vocabulary_table
from model.stack import unstack_layers


class Beams(flax.struct.PyTreeNode):
    """What `beam_search` returns, best first. W hypotheses a row.

    tokens_BWS: ids, the prompt right-aligned before `prompt` as in `Generation`, 0 after an end; lengths_BW: new tokens of each, the
    stop id included; log_probs_BW: their summed log-probability; scores_BW: what they are ranked by.
    """

    tokens_BWS: Any
    lengths_BW: Any
    log_probs_BW: Any
    scores_BW: Any


def beam_search(
    model: Causal,
    params,
    prompts_BT,
    lengths_B,
    *,
    beams: int,
    max_new_tokens: int,
    stop_ids: tuple[int, ...] = (),
    length_penalty: float = 0.0,
) -> Beams:
    """The `beams` best continuations found, of up to `max_new_tokens` tokens (Sutskever et al. 2014, sec. 3.2).

    Hypotheses that ended are ranked by log-probability / ((5 + length) / 6) ** length_penalty (Wu et al. 2016, eq. 14); 0 ranks by
    probability alone. A hypothesis that ended keeps its place among the best and costs the others none: each step extends every
    live beam by every token. The search stops when no live beam can still beat the worst of a full set of ended ones.
    Prompts as in `prefill`. With beams = 1 it is greedy decoding. ValueError for a width that is not positive or a penalty below 0.
    """
    if beams < 1:
        raise ValueError(f"beam search with {beams} beams; give at least 1")
    if not length_penalty >= 0.0:
        raise ValueError(f"length_penalty is {length_penalty}; it must be 0 or more")
    if "layers" in params:
        params = unstack_layers(params)
    batch, prompt = prompts_BT.shape
    keys = jax.random.split(jax.random.key(0), batch * beams)  # nothing is sampled
    state = prefill(model, params, prompts_BT, lengths_B, keys, max_new_tokens=max_new_tokens, samples=beams)
    vocabulary = state.logits_BV.shape[-1]
    first = jnp.where(jnp.arange(beams) == 0, 0.0, MASKED)  # all beams are alike at first: one of them counts
    stops_V = jnp.isin(jnp.arange(vocabulary), jnp.asarray(stop_ids, jnp.int32))
    # Each beam can end in as many ways as there are stop ids: with so many more candidates, enough live ones remain.
    width = min(beams * (1 + len(stop_ids)), beams * vocabulary)

    rank = functools.partial(_rank, length_penalty=length_penalty)

    def go_on(carry):
        state, log_prob_BW, ended = carry
        # Scores fall as a hypothesis grows, but a penalty can raise them again: the longest length gives the bound.
        bound_B = jnp.maximum(rank(log_prob_BW[:, 0], state.index - prompt + 1.0), rank(log_prob_BW[:, 0], float(max_new_tokens)))
        return (state.index < prompt + max_new_tokens) & (bound_B > ended.scores_BW[:, -1]).any()

    def step(carry):
        state, log_prob_BW, ended = carry
        length = state.index - prompt + 1
        tokens_BNS, total_BN, parent_BN, token_BN = _extend(state, log_prob_BW, width)
        stopped_BN = stops_V[token_BN]
        scores_BN = jnp.where(stopped_BN & (total_BN > MASKED / 2), rank(total_BN, length.astype(jnp.float32)), MASKED)
        ended = _best(ended, Beams(tokens_BNS, jnp.full_like(token_BN, length), total_BN, scores_BN), beams)

        log_prob_BW, live_BW = jax.lax.top_k(jnp.where(stopped_BN, MASKED, total_BN), beams)
        parent_BW, token_BW = _pick((parent_BN, token_BN), live_BW)
        parent_R = (jnp.arange(batch)[:, None] * beams + parent_BW).reshape(-1)
        state = state.replace(tokens_BS=_pick(tokens_BNS, live_BW).reshape(batch * beams, -1))
        return _advance(model, params, state, token_BW.reshape(-1, 1), parent_R), log_prob_BW, ended

    ended = _no_hypotheses(batch, beams, prompt + max_new_tokens, state.tokens_BS.dtype)
    state, log_prob_BW, ended = jax.lax.while_loop(go_on, step, (state, jnp.broadcast_to(first, (batch, beams)), ended))
    # What still lives competes as it stands.
    length = state.index - prompt
    scores_BW = jnp.where(log_prob_BW > MASKED / 2, rank(log_prob_BW, length.astype(jnp.float32)), MASKED)
    alive = Beams(state.tokens_BS.reshape(batch, beams, -1), jnp.full((batch, beams), length), log_prob_BW, scores_BW)
    return _best(ended, alive, beams)


def _rank(log_prob, length, length_penalty: float):
    return log_prob / ((5.0 + length) / 6.0) ** length_penalty


def _no_hypotheses(batch: int, beams: int, width: int, dtype) -> Beams:
    return Beams(
        tokens_BWS=jnp.zeros((batch, beams, width), dtype),
        lengths_BW=jnp.zeros((batch, beams), jnp.int32),
        log_probs_BW=jnp.full((batch, beams), MASKED),
        scores_BW=jnp.full((batch, beams), MASKED),
    )


def _pick(tree_BW, chosen_BW):
    """Of each row, the entries that are chosen."""
    return jax.tree.map(lambda x: jax.vmap(lambda row, chosen: row[chosen])(x, chosen_BW), tree_BW)


def _best(ended: Beams, more: Beams, beams: int) -> Beams:
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), ended, more)
    return _pick(both, jax.lax.top_k(both.scores_BW, beams)[1])


def _extend(state: Generation, log_prob_BW, width: int):
    """The N = `width` likeliest ways to extend a live beam by a token: tokens [B, N, S] with it; its summed log-probability, the number of
    the beam, and the token, each [B, N]."""
    batch, beams = log_prob_BW.shape
    vocabulary = state.logits_BV.shape[-1]
    log_p_BWV = jax.nn.log_softmax(state.logits_BV, axis=-1).reshape(batch, beams, vocabulary)
    total_BN = (log_prob_BW[..., None] + log_p_BWV).reshape(batch, -1)
    total_BN, flat_BN = jax.lax.top_k(total_BN, width)
    parent_BN, token_BN = flat_BN // vocabulary, flat_BN % vocabulary
    tokens_BNS = _pick(state.tokens_BS.reshape(batch, beams, -1), parent_BN)
    tokens_BNS = jax.lax.dynamic_update_slice_in_dim(tokens_BNS, token_BN[..., None].astype(tokens_BNS.dtype), state.index, axis=2)
    return tokens_BNS, total_BN, parent_BN, token_BN


def _advance(model: Causal, params, state: Generation, tokens_R1, parent_R) -> Generation:
    """The state after the model has read a token for each of R rows, each on the cache of the row that it goes on from, parent_R."""
    output = model.apply(
        {"params": params},
        tokens_R1,
        positions_BT=(state.index - state.start_B)[:, None],
        cache=(cache_rows(state.cache, len(parent_R), parent_R), state.index),
        valid_BS=state.valid_BS,
    )
    table = vocabulary_table(params)
    next_RV = logits(Head(output.hidden_BTD[:, 0], table), softcap=model.config.logit_softcap)
    return state.replace(cache=output.cache, logits_BV=next_RV, index=state.index + 1)
