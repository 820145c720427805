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
    tokens_BT = jnp.asarray(tokens_T, jnp.int32)[None]
    said = [jax.device_get(_said_after(config, depth, params, tokens_BT)) for depth in depths]
    likeliest, confidence = (np.stack(each) for each in zip(*(one[:2] for one in said), strict=True))
    nats_T = np.concatenate([np.zeros(1, np.float32), said[-1][2]])
    return Inside(np.asarray(_attention(config, params, tokens_BT)), depths, likeliest, confidence, nats_T)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _said_after(config: ModelConfig, depth: int, params, tokens_BT):
    """Of the model's first `depth` layers: the likeliest tokens [T], their probabilities [T], the nats of the tokens that came [T - 1]."""
    first = params | {"layers": jax.tree.map(lambda leaf: leaf[:depth], params["layers"])}
    scan = not config.global_every  # which compiles in no time, but takes layers by groups
    model = Decoder(dataclasses.replace(config, num_layers=depth, scan=scan, remat="none"))
    hidden_BTD = model.apply({"params": first}, tokens_BT).hidden_BTD
    log_probs_TV = jax.nn.log_softmax(logits(Head(hidden_BTD, vocabulary_table(params)), softcap=config.logit_softcap))[0]
    came = jnp.take_along_axis(log_probs_TV[:-1], tokens_BT[0, 1:, None], axis=1)[:, 0]
    return log_probs_TV.argmax(-1), jnp.exp(log_probs_TV.max(-1)), -came


@functools.partial(jax.jit, static_argnums=0)
def _attention(config: ModelConfig, params, tokens_BT):
    weights = list[Any]()
    Decoder(dataclasses.replace(config, scan=False, remat="none")).apply({"params": params}, tokens_BT, watch=weights)
    return jnp.stack(weights)[:, 0]
