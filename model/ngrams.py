"""Hashed n-grams: a vector for the last few tokens together, beside that of the token itself.

A small model spends its first layers on learning which words follow which; here that is a lookup in a table.
"""

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.layers import Table, constrain
from model.positions import indices

NOTHING = -1
"""In the place of tokens before a document's first."""


def ngram_vectors(config: ModelConfig, tokens_BT, before_BTN):
    """float32 [B, T, D]: the sum of the vectors of the n-grams, n from 2 to config.ngrams, that end with each token.

    before_BTN: int32, the tokens before each, the nearest first, as of `tokens_before`. Parameters: ngrams/table [rows, D], from zeros, so
    that an n-gram which was never seen adds nothing.
    """
    c = config
    table_RD = constrain(Table(c.hashed_rows, c.embed_dim, ("vocab", "embed"), 0.0, name="ngrams")(), "vocab", "residual")
    return table_RD[ngram_rows(tokens_BT, before_BTN, c.ngram_rows)].sum(2)


def ngram_rows(tokens_BT, before_BTN, rows: int, first: int = 2):
    """int32 [B, T, N]: the row, below `rows`, of each n-gram that ends with a token, n from `first`, 1 or 2, on to one more than there are
    tokens before it. It is the n-gram's hash: a sum of products with an odd number, mixed as at the end of MurmurHash3 (32 bits), modulo
    the rows. Several may share a row."""
    hash_BT = tokens_BT.astype(jnp.uint32) + 1
    hashes = [hash_BT]
    for n in range(before_BTN.shape[-1]):
        hash_BT = hash_BT * jnp.uint32(0x9E3779B1) + (before_BTN[..., n] + 1).astype(jnp.uint32)
        hashes.append(hash_BT)
    return (_mix(jnp.stack(hashes[first - 1 :], -1)) % rows).astype(jnp.int32)


def _mix(hash_BT):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hash_BT = (hash_BT ^ (hash_BT >> shift)) * jnp.uint32(factor)
    return hash_BT ^ (hash_BT >> 16)


def tokens_before(tokens_BS, positions_BT, count: int, segments_BS=None):
    """int32 [B, T, N]: the `count` tokens before each of the last T of tokens_BS; NOTHING where its document begins sooner.

    positions_BT: int32, of these T within their documents. segments_BS: int32; a token of another segment is never reached, wherever
    positions count from.
    """
    length = positions_BT.shape[1]

    def shifted(x_BS, back: int):
        return jnp.pad(x_BS, ((0, 0), (back, 0)), constant_values=NOTHING)[:, : x_BS.shape[1]][:, -length:]

    found = []
    for back in range(1, count + 1):
        reached_BT = positions_BT >= back
        if segments_BS is not None:
            reached_BT &= shifted(segments_BS, back) == segments_BS[:, -length:]
        found.append(jnp.where(reached_BT, shifted(tokens_BS, back), NOTHING))
    return jnp.stack(found, -1) if found else jnp.zeros((*positions_BT.shape, 0), jnp.int32)


def tokens_before_in_cache(tokens_BS, valid_BS, index, positions_BT, count: int):
    """`tokens_before` of T tokens that stand in tokens_BS from `index` on, one for all rows or [B].

    valid_BS: 0 for places that hold none of the row's text: these are passed over, as between the turns of a conversation.
    """
    places_S = jnp.arange(tokens_BS.shape[1])
    held_BS = jax.lax.cummax(jnp.where(valid_BS > 0, places_S, 0), axis=1)  # the last place with a token, up to each
    place_BT = jnp.broadcast_to(indices(index, positions_BT.shape[1]), positions_BT.shape)
    found = []
    for back in range(1, count + 1):
        place_BT = jnp.take_along_axis(held_BS, jnp.maximum(place_BT - 1, 0), axis=1)
        found.append(jnp.where(positions_BT >= back, jnp.take_along_axis(tokens_BS, place_BT, axis=1), NOTHING))
    return jnp.stack(found, -1)
