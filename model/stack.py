"""The one block and the stack of them: every family of models is made of these.

What differs between families is a setting of the config (norms, positions, sharing) or given with the `Context` (who sees whom, biases of
scores, another text to attend to, a memory). So an encoder, the two sides of a translator and a decoder run the same code.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.adapters import bottleneck
from model.attention.dispatch import Mask, attend, attention_weights
from model.config import ModelConfig
from model.layers import ACTIVATIONS, LAYERS, Dense, FeedForward, Norm, compute_dtype, constrain, dropout
from model.mixture_of_experts import MixtureOfExperts
from model.ngrams import NOTHING
from model.positions import Distances, distance_scores, rotary_angles, rotate


@flax.struct.dataclass
class Source:
    """Another text that every layer attends to. hidden_BSD: what an encoder made of it, or None where a cache holds keys and values;
    mask: which of its places a token sees."""

    hidden_BSD: Any
    mask: Mask


@flax.struct.dataclass
class Context:
    """What every layer of one forward pass shares: the mask, and (or None) rotary angles, those of layers with a window, a bias of scores
    [1, H, T, S], distances to keys, another text, per-row dropout keys, what is no padding, and a list to which each layer that is not
    scanned appends its attention weights [B, H, T, S]."""

    mask: Mask
    angles: Any = None
    local_angles: Any = None
    bias_1HTS: Any = None
    distances: Distances | None = None
    source: Source | None = None
    keys_B: Any = None
    counted_BT: Any = None
    watch: list | None = None


def angles_of(config: ModelConfig, positions_BT) -> dict[str, Any]:
    """The rotary angles of a Context; {} for other positions."""
    if config.positions != "rotary":
        return {}
    found = {"angles": rotary_angles(positions_BT, config)}
    if config.local_rotary_base:
        local = dataclasses.replace(
            config, rotary_base=config.local_rotary_base, rotary_scaling="none", rotary_factor=1.0, rotary_original_context=0
        )
        found["local_angles"] = rotary_angles(positions_BT, local)
    return found


def _rows_and_heads(x_BSGK):
    """[B * G, S, K]: how a cache is kept. With rows and heads as one axis XLA updates it in place for a single row too."""
    return jnp.swapaxes(x_BSGK, 1, 2).reshape(-1, x_BSGK.shape[1], x_BSGK.shape[3])


def written(held, new, index):
    """A cache with new places from `index` on. held: [B * G, S, ...]; new: [B * G, T, ...]; index: one for all rows, or [B]."""
    if jnp.ndim(index) == 0:
        return jax.lax.dynamic_update_slice_in_dim(held, new.astype(held.dtype), index, axis=1)
    rows, parts = (x.reshape(len(index), -1, *x.shape[1:]) for x in (held, new.astype(held.dtype)))
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1))(rows, parts, index).reshape(held.shape)


def _positions_first(held, groups: int):
    """The inverse: [B, S, G, K]."""
    return jnp.swapaxes(held.reshape(-1, groups, *held.shape[1:]), 1, 2)


def _after_prefix(prefix: dict, k_BSGK, v_BSGK, mask: Mask, bias_BHTS):
    """Keys, values, mask and bias behind a prefix that every query sees (Li & Liang 2021, arXiv:2101.00190, sec. 4).

    prefix: key and value [P, G, K], which have no position: keys stand as they are, behind any rotation. Their scores get no bias.
    """

    def behind(name, x_BSGK):
        first_PGK = prefix[name].astype(x_BSGK.dtype)
        return jnp.concatenate([jnp.broadcast_to(first_PGK, (x_BSGK.shape[0], *first_PGK.shape)), x_BSGK], 1)

    count = prefix["key"].shape[0]
    bias_BHTS = None if bias_BHTS is None else jnp.pad(bias_BHTS, ((0, 0),) * 3 + ((count, 0),))
    return behind("key", k_BSGK), behind("value", v_BSGK), dataclasses.replace(mask, prefix=count), bias_BHTS


class Attention(nn.Module):
    """Multi-head attention with grouped keys (Ainslie et al. 2023). Maps x_BTD to y_BTD.

    seen_BSD: what is attended to, if not x_BTD. cache: None, or this layer's (keys, values, index), laid as by
    `_rows_and_heads`: the new keys are written from `index` on, as by `written`, and all of it is attended to.
    Returns y_BTD and the layer's new keys and values, or None. Where `prefix` stands among the parameters, it is seen too.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, context: Context, cache=None, seen_BSD=None):
        c, seen_BSD = self.config, x_BTD if seen_BSD is None else seen_BSD
        q_BTHK = _project(c, "query")(x_BTD)
        k_BSGK, v_BSGK = _project(c, "key")(seen_BSD), _project(c, "value")(seen_BSD)
        if c.qk_norm:
            q_BTHK = Norm("rmsnorm", c.norm_epsilon, axes=("head",), name="query_norm")(q_BTHK)
            k_BSGK = Norm("rmsnorm", c.norm_epsilon, axes=("head",), name="key_norm")(k_BSGK)
        if context.angles is not None:
            q_BTHK, k_BSGK = rotate(q_BTHK, context.angles), rotate(k_BSGK, context.angles)
        if cache is not None:
            *cached, index = cache
            cache = tuple(written(held, _rows_and_heads(new), index) for held, new in zip(cached, (k_BSGK, v_BSGK), strict=True))
            k_BSGK, v_BSGK = (_positions_first(held, c.kv_heads) for held in cache)
        bias_BHTS = context.bias_1HTS
        if context.distances is not None:
            q_BTHK, bias_BHTS = self._by_distance(q_BTHK, context.distances)
        mask = context.mask
        if self.has_variable("params", "prefix"):
            k_BSGK, v_BSGK, mask, bias_BHTS = _after_prefix(self.get_variable("params", "prefix"), k_BSGK, v_BSGK, mask, bias_BHTS)
        q_BTHK = constrain(q_BTHK, "batch", "length", "heads", "head")
        k_BSGK = constrain(k_BSGK, "batch", None, "kv_heads", "head")
        v_BSGK = constrain(v_BSGK, "batch", None, "kv_heads", "head")
        if context.watch is not None:
            context.watch.append(attention_weights(q_BTHK, k_BSGK, mask, c.attention_softcap, bias_BHTS))
        kernel = c.attention
        if kernel != "reference" and (cache is not None or self.is_initializing()):
            kernel = "xla"  # the others are made for whole rows
        y_BTHK = attend(q_BTHK, k_BSGK, v_BSGK, mask, kernel, c.attention_softcap, bias_BHTS)
        return _out(c)(y_BTHK), cache

    def _by_distance(self, q_BTHK, distances: Distances):
        """Queries and a bias by which scores depend on the distance of keys (Dai et al. 2019, sec. 3.3).

        The score (q + u) k + (q + v) r, r being a projection of the distance's sinusoid: the first product is that of the queries that are
        returned. Parameters: distance, content_bias u and distance_bias v [heads, head].
        """
        c, dtype = self.config, q_BTHK.dtype
        r_RHK = _project(c, "distance")(distances.sinusoids_RD.astype(dtype))

        def bias(name):
            init = nn.with_logical_partitioning(nn.initializers.zeros, ("heads", "head"))
            return self.param(name, init, (c.num_heads, c.head_width), jnp.float32).astype(dtype)

        u_HK, v_HK = bias("content_bias"), bias("distance_bias")
        return q_BTHK + u_HK, distance_scores(q_BTHK + v_HK, r_RHK, distances)


def _project(config: ModelConfig, name: str) -> Dense:
    """A projection to the heads of queries, keys or values; called in the compact method of its module."""
    c, of_keys = config, name in ("key", "value")
    bias = name != "distance" and (c.bias or c.qkv_bias)
    axes = ("embed", "kv_heads" if of_keys else "heads", "head")
    heads = c.kv_heads if of_keys else c.num_heads
    return Dense((heads, c.head_width), axes, c.init_std, compute_dtype(c), bias=bias, name=name)


def _out(config: ModelConfig) -> Dense:
    """The projection of all heads' results back to the stream."""
    c, std = config, config.init_std / math.sqrt(2 * config.num_layers)
    return Dense((c.embed_dim,), ("heads", "head", "embed"), std, compute_dtype(c), inputs=2, bias=c.bias, name="out")


class CrossAttention(nn.Module):
    """Multi-head attention whose queries come from x_BTD and whose keys and values come from source_BSX, of any width. Maps to y_BTD.

    mask: with key_segments_BS, those of the source; a query that sees none of it gets zeros. cache: where there is no source_BSX, its keys
    and values (`source_cache`).
    Parameters: query, key, value and out, as of self-attention.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, source_BSX, mask: Mask, cache=None):
        c = self.config
        q_BTHK = constrain(_project(c, "query")(x_BTD), "batch", "length", "heads", "head")
        if source_BSX is None:
            k_BSGK, v_BSGK = (_positions_first(held, c.kv_heads) for held in cache)
        else:
            k_BSGK, v_BSGK = (constrain(_project(c, name)(source_BSX), "batch", None, "kv_heads", "head") for name in ("key", "value"))
        # The kernels for accelerators want as many queries as keys; here their numbers differ.
        y_BTD = _out(c)(attend(q_BTHK, k_BSGK, v_BSGK, mask, "xla", c.attention_softcap))
        allowed_B1TS = mask.allowed(q_BTHK.shape[1], k_BSGK.shape[1])
        # Scores that are all masked are equal: the softmax would take the mean of everything, other texts included.
        return y_BTD if allowed_B1TS is None else jnp.where(allowed_B1TS.any(-1)[:, 0, :, None], y_BTD, 0)


def source_cache(config: ModelConfig, params, source_BSD):
    """The keys and values that each layer's CrossAttention makes of a source, laid as those of a cache. params: of the whole stack."""
    layers = unstack_layers(params) if "layers" in params else params
    groups = (layers[f"layer_{config.layer_group(layer)}"] for layer in range(config.num_layers))
    return tuple(keys_and_values(config, own["cross_attention"], source_BSD) for own in groups)


def keys_and_values(config: ModelConfig, params, source_BSX):
    """Those that a CrossAttention with these parameters makes of a source, laid as those of a cache."""
    made = (_project(config, name).apply({"params": params[name]}, source_BSX) for name in ("key", "value"))
    return tuple(map(_rows_and_heads, made))


class Block(nn.Module):
    """A Transformer block: attention, attention to another text where the context has one, feed-forward. `layer` counts from 0.

    Each of them is added to the stream: x + f(norm(x)) before normed (Radford et al. 2019); norm(x + f(x)) where norm_position is post
    (Vaswani et al. 2017); x + norm(f(norm(x))) where it is both (Gemma 2). When parallel, x + attention(norm(x)) + feed_forward(norm(x)).
    Returns x_BTD, what the layer keeps for later, and what its router did (None without experts).

    window: keys that a query sees, None for all. cache: the layer's keys and values with the index of the first new token, those of the
    source behind them where there is one; or a Memory. Where `attention_bottleneck` and the like stand among the parameters, what a
    sub-layer gives goes through a bottleneck adapter.
    """

    config: ModelConfig
    window: int | None = None

    @nn.compact
    def __call__(self, x_BTD, layer, context: Context, cache=None):
        c = self.config
        keys_B = None
        if context.keys_B is not None and (c.dropout or c.layer_dropout):
            keys_B = jax.vmap(lambda key: jax.random.fold_in(key, layer + 1))(context.keys_B)

        def norm(name, x_BTD):
            return Norm(c.norm, c.norm_epsilon, c.bias, name=name)(x_BTD)

        def before(name, x_BTD):
            """What a sub-layer reads."""
            return x_BTD if c.norm_position == "post" else norm(f"{name}_norm", x_BTD)

        def add(name, x_BTD, y_BTD, site):
            """The stream with what a sub-layer adds to it."""
            y_BTD = checkpoint_name(y_BTD, "sublayer")
            if self.has_variable("params", f"{name}_bottleneck"):
                y_BTD = bottleneck(y_BTD, self.get_variable("params", f"{name}_bottleneck"), ACTIVATIONS[c.activation])
            if c.norm_position == "both":
                y_BTD = norm(f"{name}_post_norm", y_BTD)
            y_BTD = dropout(y_BTD, c.dropout, keys_B, site)
            x_BTD = x_BTD + dropout(y_BTD, c.layer_dropout, keys_B, LAYERS + site, together=2)
            return norm(f"{name}_norm", x_BTD) if c.norm_position == "post" else x_BTD

        if self.window is not None:
            angles = context.angles if context.local_angles is None else context.local_angles
            context = dataclasses.replace(context, mask=dataclasses.replace(context.mask, window=self.window), angles=angles)
        memory = cache if isinstance(cache, Memory) else None
        decoding = cache is not None and memory is None
        own, of_source = (cache[:2] + cache[-1:], cache[2:-1] or None) if decoding else (None, None)

        stream_BTD = x_BTD
        whole_BSD = x_BTD if memory is None else jnp.concatenate([memory.hidden_BMD.astype(x_BTD.dtype), x_BTD], 1)
        seen_BSD = before("attention", whole_BSD)
        h_BTD = seen_BSD[:, -x_BTD.shape[1] :]
        y_BTD, own = Attention(c, name="attention")(h_BTD, context, own, seen_BSD)
        x_BTD = add("attention", x_BTD, y_BTD, 0)
        if context.source is not None:
            source = context.source
            read_BTD = before("cross_attention", x_BTD)
            y_BTD = CrossAttention(c, name="cross_attention")(read_BTD, source.hidden_BSD, source.mask, of_source)
            x_BTD = add("cross_attention", x_BTD, y_BTD, 2)
        if not c.parallel:
            h_BTD = before("feed_forward", x_BTD)
        elif c.parallel_norms == 2:
            h_BTD = before("feed_forward", stream_BTD)
        router = None
        if c.experts:
            # While decoding a batch is what happens to stand together: there, no token may push out another.
            experts = MixtureOfExperts(c, name="feed_forward")
            y_BTD, router = experts(h_BTD, context.counted_BT, dropless=decoding)
        else:
            y_BTD = FeedForward(c, name="feed_forward")(h_BTD)
        x_BTD = constrain(add("feed_forward", x_BTD, y_BTD, 1), "batch", "length", "residual")
        kept = memory.after(stream_BTD) if memory is not None else own if own is None else own + (of_source or ())
        return x_BTD, kept, router


@flax.struct.dataclass
class Memory:
    """What a layer read in the rows before: hidden_BMD, without gradient (Dai et al. 2019, sec. 3.2)."""

    hidden_BMD: Any

    def after(self, x_BTD) -> "Memory":
        """The memory once x_BTD was read too: the last places of both."""
        both_BSD = jnp.concatenate([self.hidden_BMD, x_BTD.astype(self.hidden_BMD.dtype)], 1)
        return Memory(jax.lax.stop_gradient(both_BSD[:, x_BTD.shape[1] :]))


@flax.struct.dataclass
class Remembered:
    """What rows leave to those that go on where they end: a Memory for each layer, and open_BM, int32: 1 for places of a text that had not
    ended, 0 for those of others, which nobody sees any more. before_BN: with ngrams, the last tokens of each row."""

    layers: tuple[Memory, ...]
    open_BM: Any
    before_BN: Any = None

    def segments(self, segments_BT, positions_BT):
        """The segments of all keys, [B, M + T]: those remembered belong to the first text of a row where that begins above position 0."""
        goes_on_BM = (self.open_BM > 0) & (positions_BT[:, :1] > 0)
        return jnp.concatenate([jnp.where(goes_on_BM, segments_BT[:, :1], -1), segments_BT], 1)

    def after(self, layers: tuple[Memory, ...], keys_BS, tokens_BT) -> "Remembered":
        """What is remembered once a row was read. keys_BS: `segments` of the row."""
        open_BS = (keys_BS == keys_BS[:, -1:]) & (keys_BS > 0)
        before_BN = self.before_BN
        if before_BN is not None:
            before_BN = jnp.concatenate([before_BN, tokens_BT], 1)[:, tokens_BT.shape[1] :]
        return Remembered(layers, open_BS[:, keys_BS.shape[1] - self.open_BM.shape[1] :].astype(jnp.int32), before_BN)


def no_memory(config: ModelConfig, rows: int, length: int) -> Remembered:
    """The memory of `rows` rows that begin, `length` places in each layer."""
    empty = Memory(jnp.zeros((rows, length, config.embed_dim), compute_dtype(config)))
    before_BN = jnp.full((rows, config.ngrams - 1), NOTHING, jnp.int32) if config.ngrams else None
    return Remembered((empty,) * config.num_layers, jnp.zeros((rows, length), jnp.int32), before_BN)


REMAT_POLICIES = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "sublayers": jax.checkpoint_policies.save_only_these_names("sublayer"),
}


def create_layers(config: ModelConfig, x_BTD, context: Context):
    """Create the stacked parameters of all layers, as `layers` of the module whose compact method calls this; returns the last output."""

    def body(module, x_BTD, layer):
        return module(x_BTD, layer, context)[0], None

    scan = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=config.own_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scan(Block(config, name="layers"), x_BTD, jnp.arange(config.own_layers))[0]


def run_layers(
    config: ModelConfig,
    params,
    x_BTD,
    contexts: tuple[Context, ...],
    *,
    cache=None,
    branch: int | None = None,
    between=None,
    streams: list | None = None,
):
    """Run a stack of blocks: scanned when asked, else unrolled, which a cache needs.

    params: those with `layers` [L, ...], or already apart (`unstack_layers`). contexts: layer n takes number n % len(contexts) of them.
    cache: as of Decoder, or a Memory for each layer. branch: as of Decoder. between: called as between(layer, x_BTD) before each. streams:
    takes the stream behind each layer. With a cache or `between`, the stack is unrolled. Returns x_BTD, the new
    cache, a Router of all layers and the stream before layer `branch`; each of the last three is None where there is none.
    """
    c = config
    block = Block
    if c.remat != "none" and (cache is None or isinstance(cache[0], Memory)):
        block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan)

    def run(params, x_BTD, layer, place, cache=None):
        """One layer; `place` is its number, or its place in a group when `layer` is traced, since a window must be static."""
        context = contexts[place % len(contexts)]
        return block(c, c.layer_window(place), parent=None).apply({"params": params}, x_BTD, layer, context, cache)

    if c.scan and cache is None and between is None and (streams is None or not c.layer_groups and branch is None):
        return _scan_layers(c, params["layers"], x_BTD, run, math.lcm(c.global_every or 1, len(contexts)), branch, streams)

    layers = unstack_layers(params) if "layers" in params else params
    caches, routers, stream_BTD = [], [], None
    for layer in range(c.num_layers):
        stream_BTD = x_BTD if layer == branch else stream_BTD
        x_BTD = x_BTD if between is None else between(layer, x_BTD)
        kept = None if cache is None else cache[layer] if isinstance(cache[0], Memory) else (*cache[0][layer], cache[1])
        x_BTD, kept, router = run(layers[f"layer_{c.layer_group(layer)}"], x_BTD, layer, layer, kept)
        caches.append(kept)
        if streams is not None:
            streams.append(x_BTD)
        routers.append(router)
    return x_BTD, None if cache is None else tuple(caches), _stack(routers), stream_BTD


def _scan_layers(c: ModelConfig, layers, x_BTD, run, size: int, branch: int | None, streams: list | None):
    """`run_layers`, compiled once for each group of `size` layers, which may differ in what they see."""
    if c.layer_groups:
        shared = c.num_layers // c.layer_groups

        def repeat(x_BTD, step):
            params, group = step
            numbers = group * shared + jnp.arange(shared)
            return jax.lax.scan(lambda x_BTD, layer: run(params, x_BTD, layer, 0)[::2], x_BTD, numbers)

        x_BTD, router = jax.lax.scan(repeat, x_BTD, (layers, jnp.arange(c.layer_groups)))
        return x_BTD, None, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), router), None

    def group(x_BTD, step):
        params, first = step
        routers, behind = [], []
        for place in range(size):
            own = params if size == 1 else jax.tree.map(lambda leaf, place=place: leaf[place], params)
            x_BTD, _, router = run(own, x_BTD, first + place, place)
            routers.append(router)
            behind.append(x_BTD)
        return x_BTD, (_stack(routers), None if streams is None else jnp.stack(behind))

    # What a step of a scan reads as it is, is not copied for the backward pass: a single layer is not made a group of one.
    groups = layers if size == 1 else jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), layers)
    steps = (groups, jnp.arange(0, c.num_layers, size))
    if branch is None:
        x_BTD, (router, behind) = jax.lax.scan(group, x_BTD, steps)
        if streams is not None:
            streams.extend(behind.reshape(-1, *x_BTD.shape))
        return x_BTD, None, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), router), None
    if branch % size:
        raise ValueError(f"a scan takes {size} layers at once, and layer {branch} is in their midst")
    stream_BTD, _ = jax.lax.scan(group, x_BTD, jax.tree.map(lambda leaf: leaf[: branch // size], steps))
    x_BTD, _ = jax.lax.scan(group, stream_BTD, jax.tree.map(lambda leaf: leaf[branch // size :], steps))
    return x_BTD, None, None, stream_BTD


def _stack(routers):
    """One Router of all layers, or None where they have none."""
    return None if routers[0] is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *routers)


def unstack_layers(params):
    """The same parameters with `layers` [L, ...] split into layer_0 ... layer_{L-1}, for unrolled execution.

    One split per leaf, whose gradient is one concatenation. Layers that share parameters are one of these.
    """
    rest = {name: value for name, value in params.items() if name != "layers"}
    leaves, treedef = jax.tree.flatten(params["layers"])
    pieces = [[jnp.squeeze(piece, 0) for piece in jax.lax.split(leaf, (1,) * leaf.shape[0], axis=0)] for leaf in leaves]
    return rest | {f"layer_{i}": treedef.unflatten(layer) for i, layer in enumerate(zip(*pieces, strict=True))}
