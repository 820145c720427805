"""What every family of text models does around its stack; each is called in a compact method, whose module gets the parameters."""

import functools
import math
from typing import Any

import jax.numpy as jnp

from model.config import ModelConfig
from model.layers import Norm, Table, compute_dtype, constrain
from model.positions import Distances, behind, distance_buckets, indices, sinusoids


def token_vectors(config: ModelConfig, width: int = 0):
    """look_up(tokens) -> float32 [..., D]. Parameters: embedding/table [V, D]. width: of the table, 0 for that of the stream.

    Gathered in float32 and rounded after: the gradient of a frequent token is a sum over thousands of rows.
    """
    c, width = config, width or config.embed_dim
    table_VD = constrain(Table(c.vocab_size, width, ("vocab", "embed"), c.init_std, name="embedding")(), "vocab", "residual")
    return functools.partial(vectors_of, c, table_VD)


def vectors_of(config: ModelConfig, table_VD, tokens):
    """Rows of the table, float32 [..., D], scaled as the config says."""
    x = table_VD[tokens]
    return x * math.sqrt(x.shape[-1]) if config.embed_scale else x


def shifted(x_BTD, shift_BTD):
    """Vectors of tokens, moved by a perturbation if there is one."""
    return x_BTD if shift_BTD is None else x_BTD + shift_BTD


def place(config: ModelConfig, x_BTD, positions_BT):
    """x_BTD with what says where a token stands, if that is added to it. Parameters: positions/table [context, D] when learned."""
    c, width = config, x_BTD.shape[-1]
    if c.positions == "learned":
        table_PD = Table(c.context_length, width, ("positions", "embed"), c.init_std, name="positions")()
        return x_BTD + constrain(table_PD, "positions", "residual")[positions_BT]
    return x_BTD + sinusoids(positions_BT, width) if c.positions == "sinusoidal" else x_BTD


def relative_bias(config: ModelConfig, queries: int, keys: int, offset=None, *, both_ways: bool = False):
    """float32 [1 or B, H, T, S]: what the distance of a key adds to its score, the same in all layers; None for other positions.

    offset: index among the keys of the first query, as of `behind`. Parameters: relative_bias/table [buckets, H].
    """
    c = config
    if c.positions != "relative":
        return None
    table_RH = Table(c.relative_buckets, c.num_heads, ("positions", "heads"), c.init_std, name="relative_bias")()
    bucket_BTS = distance_buckets(behind(offset, queries, keys), c.relative_buckets, c.relative_distance, both_ways=both_ways)
    return jnp.moveaxis(table_RH[bucket_BTS], -1, 1)


def key_distances(config: ModelConfig, keys: int, offset=None) -> Distances | None:
    """The distances of `keys` keys, for positions that are distances; offset: as of Distances."""
    c = config
    if c.positions != "distance":
        return None
    distance_R = jnp.arange(keys - 1, -1, -1)
    return Distances(sinusoids(jnp.minimum(distance_R, c.distance_limit or keys), c.embed_dim), offset)


def final_norm(config: ModelConfig, x_BTD):
    """The norm after the last layer, where layers have none at their end."""
    c = config
    return x_BTD if c.norm_position == "post" else Norm(c.norm, c.norm_epsilon, c.bias, name="final_norm")(x_BTD)


def at_index(x_BS, index, count: int):
    """[B, T]: `count` places of each row from `index` on, one for all rows or [B]."""
    return jnp.take_along_axis(x_BS, jnp.broadcast_to(indices(index, count), (len(x_BS), count)), axis=1)


def empty_cache(config: ModelConfig, rows: int, size: int):
    """Keys and values, for each layer, of `rows` rows that hold nothing yet: [B * G, S, K], `size` places each."""
    empty = jnp.zeros((rows * config.kv_heads, size, config.head_width), compute_dtype(config))
    return ((empty, empty),) * config.num_layers


def before_text(config: ModelConfig, count: int):
    """int32 [1, P]: where the vectors of a prompt stand: before the first token where positions turn, else where the first tokens do."""
    return jnp.arange(-count, 0)[None] if config.positions == "rotary" else jnp.arange(count)[None]


def as_prefix(caches) -> dict[str, Any]:
    """What a cache of one row holds, as the `prefix` of a whole stack: key and value [L, P, G, K]."""
    return {name: jnp.stack([jnp.swapaxes(layer[i], 0, 1) for layer in caches]) for i, name in enumerate(("key", "value"))}
