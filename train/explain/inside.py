"""What a decoder does with one text: what each token looks at, what the model would say after fewer layers, what surprised it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from model.heads import Head, logits, vocabulary_table
from model.layers import Norm
from model.transformer import Decoder


class Inside(NamedTuple):
    """Of a text of T tokens, in a model of L layers with H heads.

    attention_LHTT: float32, what the token of a row gives to each column's; a row adds up to one. depths: numbers of layers, the last is L.
    likeliest_NT: int32, at each of those N depths the token that the model finds likeliest behind each token, and its probability,
    confidence_NT float32. nats_T: float32, the surprise of each token but the first; that of the first is 0.
    """

    attention_LHTT: np.ndarray
    depths: tuple[int, ...]
    likeliest_NT: np.ndarray
    confidence_NT: np.ndarray
    nats_T: np.ndarray


def look_inside(config: ModelConfig, params: Any, tokens_T: Sequence[int], depths: tuple[int, ...] = ()) -> Inside:
    """Read a text with a decoder. depths: after how many layers it is asked, besides all of them; none: after each.

    The logit lens (nostalgebraist 2020): what the first n layers give goes to the final norm and the output table, as if the model had no
    more. ValueError where layers share parameters, since such a model has no first n; for no tokens, more tokens than learned positions,
    ids outside the vocabulary, and depths that the model does not have.
    """
    if config.layer_groups:
        raise ValueError("layers that share parameters cannot be left out")
    longest = config.context_length if config.positions == "learned" else math.inf
    if not 1 <= len(tokens_T) <= longest:
        raise ValueError(f"{len(tokens_T)} tokens; allowed: 1 {'or more' if longest == math.inf else f'to {longest}'}")
    if outside := sorted({int(token) for token in tokens_T} - set(range(config.vocab_size))):
        raise ValueError(f"token ids {outside}; allowed: 0 to {config.vocab_size - 1}")
    if outside := sorted(set(depths) - set(range(1, config.num_layers + 1))):
        raise ValueError(f"depths {outside}; allowed: 1 to {config.num_layers}")
    depths = tuple(sorted({*(depths or range(1, config.num_layers)), config.num_layers}))
    ids_T = np.asarray(tokens_T, np.int32)
    streams_LTD, attention_LHTT = _streams(config, params, ids_T, watched=True)
    said = [jax.device_get(_said(config, params, streams_LTD[depth - 1], ids_T)) for depth in depths]
    likeliest, confidence = (np.stack(each) for each in zip(*(one[:2] for one in said), strict=True))
    nats_T = np.concatenate([np.zeros(1, np.float32), said[-1][2]])
    return Inside(np.asarray(attention_LHTT), depths, likeliest, confidence, nats_T)


class Lens(NamedTuple):
    """What a decoder would answer behind a text after each of its L layers, the last of which is the model's answer.

    likeliest_LK: int32, the K likeliest tokens, the likeliest first; probability_LK: float32, theirs; answer_L: float32, the answer's.
    """

    likeliest_LK: np.ndarray
    probability_LK: np.ndarray
    answer_L: np.ndarray


def logit_lens(config: ModelConfig, params: Any, tokens_T: Any, answer: int, top: int = 5) -> Lens:
    """The logit lens (nostalgebraist 2020) at the last place of a text. It is not trained, and early layers may have a basis of their own
    (Belrose et al. 2023, sec. 2): that an answer does not show there does not say that it is not there."""
    streams_LTD, _ = _streams(config, params, np.asarray(tokens_T, np.int32), watched=False)
    log_probs_LV = np.asarray(_log_probs(config, params, streams_LTD[:, -1]))
    likeliest_LK = np.argsort(-log_probs_LV, -1, kind="stable")[:, :top].astype(np.int32)
    return Lens(likeliest_LK, np.exp(np.take_along_axis(log_probs_LV, likeliest_LK, 1)), np.exp(log_probs_LV[:, answer]))


@functools.partial(jax.jit, static_argnums=0, static_argnames="watched")
def _streams(config: ModelConfig, params, tokens_T, *, watched: bool):
    """The residual stream behind every layer, [L, T, D], and if watched the attention of each, [L, H, T, T]."""
    streams, watch = list[Any](), list[Any]()
    scan = not watched and not config.global_every  # which compiles in no time, but takes layers by groups
    model = Decoder(dataclasses.replace(config, scan=scan, remat="none"))
    model.apply({"params": params}, jnp.asarray(tokens_T)[None], streams=streams, watch=watch if watched else None)
    return jnp.stack(streams)[:, 0], jnp.stack(watch)[:, 0] if watched else None


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(config: ModelConfig, params, stream_XD):
    """What the model says, [X, V], where this comes out of its last layer."""
    normed = config.norm_position != "post"
    norm = Norm(config.norm, config.norm_epsilon, config.bias)
    hidden_XD = norm.apply({"params": params["final_norm"]}, stream_XD) if normed else stream_XD
    return jax.nn.log_softmax(logits(Head(hidden_XD, vocabulary_table(params)), softcap=config.logit_softcap))


@functools.partial(jax.jit, static_argnums=0)
def _said(config: ModelConfig, params, stream_TD, tokens_T):
    """The likeliest tokens [T], their probabilities [T], the nats of the tokens that came [T - 1]."""
    log_probs_TV = _log_probs(config, params, stream_TD)
    came = jnp.take_along_axis(log_probs_TV[:-1], tokens_T[1:, None], axis=1)[:, 0]
    return log_probs_TV.argmax(-1), jnp.exp(log_probs_TV.max(-1)), -came
