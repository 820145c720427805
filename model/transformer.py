"""One block, and the decoder made of it. GPT-2 and Llama are two settings of the same code."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.attention.dispatch import Mask, attend, attention_weights, layer_kernels
from model.config import ModelConfig
from model.flops import training_flops_per_token
from model.layers import Dense, FeedForward, Norm, Table, compute_dtype, constrain, dropout
from model.media.cross_attention import GatedCrossBlock
from model.mixture_of_experts import MixtureOfExperts, Router
from model.positions import rotary_angles, rotate


@flax.struct.dataclass
class Context:
    """What every layer of one forward pass shares: the mask, and (or None) rotary angles, per-row dropout keys, what is no padding, and a
    list to which each layer that is not scanned appends its attention weights [B, H, T, S]."""

    mask: Mask
    angles: Any = None
    keys_B: Any = None
    counted_BT: Any = None
    watch: list | None = None


class Output(NamedTuple):
    """What a decoder gives: hidden_BTD after the final norm; the cache, if it was given one; what its routers did, if it has any; the
    residual stream before the layer that was asked for, if one was."""

    hidden_BTD: jax.Array
    cache: Any = None
    router: Router | None = None
    stream_BTD: jax.Array | None = None


@flax.struct.dataclass
class Attended:
    """How text attends to media that do not stand in its row: before the first of `every` blocks by a GatedCrossBlock, with
    params["block_0"] and so on, to those of its own sample (samples_BM: segments of the row, 0 for padding), of its own group or one before
    it (groups_BM)."""

    params: Any
    every: int = flax.struct.field(pytree_node=False)
    samples_BM: Any
    groups_BM: Any


@flax.struct.dataclass
class Media:
    """What there is beside text in a row: hidden_BMD, the encoded places of all media, in the decoder's width.

    slots_BT: int32, 0 where the token counts, else 1 + the place that stands there instead. groups_BT: int32, ascending within a segment; a
    position sees its own group and those before it. Text is one group a token, a picture's places are one group (or see one another with
    all that is only read). attended: None where they stand in the row.
    """

    hidden_BMD: Any
    slots_BT: Any
    groups_BT: Any
    attended: Attended | None = None

    def instead_of(self, x_BTD):
        """x_BTD with the places that belong there."""
        slots_BT1 = self.slots_BT[..., None]
        places_BTD = jnp.take_along_axis(self.hidden_BMD, jnp.maximum(slots_BT1 - 1, 0), axis=1)
        return jnp.where(slots_BT1 > 0, places_BTD.astype(x_BTD.dtype), x_BTD)


def _cross_layers(config: ModelConfig, media: Media | None, segments_BT):
    """between(layer, x_BTD) -> x_BTD, for `run_layers`; None where no layer attends to media."""
    if media is None or media.attended is None:
        return None
    attended = media.attended
    segments = {"query_segments_BT": segments_BT, "key_segments_BS": attended.samples_BM}
    mask = Mask(causal=True, query_groups_BT=media.groups_BT, key_groups_BS=attended.groups_BM, **segments)

    def between(layer: int, x_BTD):
        if layer % attended.every:
            return x_BTD
        params = attended.params[f"block_{layer // attended.every}"]
        return GatedCrossBlock(config).apply({"params": params}, x_BTD, media.hidden_BMD.astype(x_BTD.dtype), mask)

    return between


def _rows_and_heads(x_BSGK):
    """[B * G, S, K]: how a cache is kept. With rows and heads as one axis XLA updates it in place for a single row too."""
    return jnp.swapaxes(x_BSGK, 1, 2).reshape(-1, x_BSGK.shape[1], x_BSGK.shape[3])


class Attention(nn.Module):
    """Multi-head attention with grouped keys (Ainslie et al. 2023). Maps x_BTD to y_BTD.

    cache: None, or this layer's (keys, values, index), laid as by `_rows_and_heads`: the new keys are written from `index` on and all of it
    is attended to.
    Returns y_BTD and the layer's new keys and values, or None.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, context: Context, cache=None):
        c, dtype = self.config, compute_dtype(self.config)

        def project(heads, name):
            axes = ("embed", "heads" if name == "query" else "kv_heads", "head")
            return Dense((heads, c.head_width), axes, c.init_std, dtype, bias=c.bias, name=name)(x_BTD)

        q_BTHK, k_BSGK, v_BSGK = project(c.num_heads, "query"), project(c.kv_heads, "key"), project(c.kv_heads, "value")
        if c.qk_norm:
            q_BTHK = Norm("rmsnorm", c.norm_epsilon, axes=("head",), name="query_norm")(q_BTHK)
            k_BSGK = Norm("rmsnorm", c.norm_epsilon, axes=("head",), name="key_norm")(k_BSGK)
        if context.angles is not None:
            q_BTHK, k_BSGK = rotate(q_BTHK, context.angles), rotate(k_BSGK, context.angles)
        if cache is not None:
            *cached, index = cache
            cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(held, _rows_and_heads(new).astype(held.dtype), index, axis=1)
                for held, new in zip(cached, (k_BSGK, v_BSGK), strict=True)
            )
            k_BSGK, v_BSGK = (jnp.swapaxes(held.reshape(-1, c.kv_heads, *held.shape[1:]), 1, 2) for held in cache)
        q_BTHK = constrain(q_BTHK, "batch", "length", "heads", "head")
        k_BSGK = constrain(k_BSGK, "batch", None, "kv_heads", "head")
        v_BSGK = constrain(v_BSGK, "batch", None, "kv_heads", "head")
        if context.watch is not None:
            context.watch.append(attention_weights(q_BTHK, k_BSGK, context.mask, c.attention_softcap))
        kernel = c.attention
        if kernel != "reference" and (cache is not None or self.is_initializing()):
            kernel = "xla"  # the others are made for whole rows
        y_BTHK = attend(q_BTHK, k_BSGK, v_BSGK, context.mask, kernel, c.attention_softcap)
        std = c.init_std / math.sqrt(2 * c.num_layers)
        y_BTD = Dense((c.embed_dim,), ("heads", "head", "embed"), std, dtype, inputs=2, bias=c.bias, name="out")(y_BTHK)
        return y_BTD, cache


class Block(nn.Module):
    """Pre-norm Transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)). `layer` counts from 0.

    Returns x_BTD, the layer's keys and values, and what its router did (None without experts).

    When parallel, x + attention(norm(x)) + feed_forward(norm(x)) with one norm. With post_norm the sub-layers' outputs are normed too.
    window: keys that a query sees, None for all.
    """

    config: ModelConfig
    window: int | None = None

    @nn.compact
    def __call__(self, x_BTD, layer, context: Context, cache=None):
        c = self.config
        keys_B = None
        if context.keys_B is not None and c.dropout:
            keys_B = jax.vmap(lambda key: jax.random.fold_in(key, layer + 1))(context.keys_B)

        def norm(name, x_BTD):
            return Norm(c.norm, c.norm_epsilon, c.bias, name=name)(x_BTD)

        def residual(name, y_BTD, site):
            """What a sub-layer adds to the stream."""
            y_BTD = checkpoint_name(y_BTD, "sublayer")
            if c.post_norm:
                y_BTD = norm(f"{name}_post_norm", y_BTD)
            return dropout(y_BTD, c.dropout, keys_B, site)

        if self.window is not None:
            context = dataclasses.replace(context, mask=dataclasses.replace(context.mask, window=self.window))
        decoding = cache is not None
        h_BTD = norm("attention_norm", x_BTD)
        y_BTD, cache = Attention(c, name="attention")(h_BTD, context, cache)
        x_BTD += residual("attention", y_BTD, 0)
        if not c.parallel:
            h_BTD = norm("feed_forward_norm", x_BTD)
        router = None
        if c.experts:
            # While decoding a batch is what happens to stand together: there, no token may push out another.
            experts = MixtureOfExperts(c, name="feed_forward")
            y_BTD, router = experts(h_BTD, context.counted_BT, dropless=decoding)
        else:
            y_BTD = FeedForward(c, name="feed_forward")(h_BTD)
        x_BTD += residual("feed_forward", y_BTD, 1)
        return constrain(x_BTD, "batch", "length", "residual"), cache, router


REMAT_POLICIES = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "sublayers": jax.checkpoint_policies.save_only_these_names("sublayer"),
}


DECODER = ("embedding", "positions", "layers", "final_norm", "head")
"""The names of a decoder's parameters; others may stand beside them."""


class Decoder(nn.Module):
    """Decoder-only Transformer: tokens to hidden states, which `heads.score_tokens` turns into predictions.

    Parameters: embedding/table [V, D], positions/table [context, D] when learned, layers/... each stacked over a leading axis
    `layers`, final_norm, and head/table [V, D] unless the embedding is tied. How the stack runs (`scan`, unrolled, with a cache)
    never changes them.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BT,
        *,
        segments_BT=None,
        positions_BT=None,
        keys_B=None,
        cache=None,
        valid_BS=None,
        stream_BTD=None,
        branch: int | None = None,
        media: Media | None = None,
        watch: list | None = None,
    ) -> Output:
        """tokens_BT: int32 ids. segments_BT: int32, tokens see their own segment only; 0 is padding, which no router counts.
        positions_BT: int32 within the document, default 0..T-1. keys_B: random keys, one a row, for dropout. cache: tuple over layers
        of (keys, values), both [B * G, S, K], with the index of the first new token as (caches, index); valid_BS marks, with 1, the
        cached positions that hold or will hold a token of the row. branch: number of the layer whose input is returned too, as stream_BTD;
        given one, from another decoder, these layers go on from it, and the tokens are not looked up. media: what stands in the places of
        some tokens; with a cache it belongs to its first tokens. watch: a list that takes the attention weights of every layer; the config
        must neither scan nor rematerialise.
        """
        c = self.config
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        x_BTD = stream_BTD
        if x_BTD is None:
            x_BTD = self._embed(tokens_BT, positions_BT, keys_B, media)

        angles = rotary_angles(positions_BT, c) if c.positions == "rotary" else None
        queries_BT = segments_BT
        if cache is not None:
            queries_BT = jax.lax.dynamic_slice_in_dim(valid_BS, cache[1], tokens_BT.shape[1], axis=1)
        mask = _mask(queries_BT, cache, valid_BS, media)
        counted_BT = segments_BT != 0 if c.experts and segments_BT is not None else None
        context = Context(mask, angles, keys_B, counted_BT, watch)
        router, stream_BTD = None, None
        if self.is_initializing():
            x_BTD, cache = create_layers(c, x_BTD, context), None
        else:
            between = _cross_layers(c, media, queries_BT)
            stack = {"cache": cache, "branch": branch, "between": between}
            x_BTD, cache, router, stream_BTD = run_layers(c, self.variables["params"], x_BTD, (context,), **stack)

        if not c.tied_embeddings and self.is_initializing():
            Table(c.vocab_size, c.embed_dim, ("vocab", "embed"), c.init_std, name="head")()
        hidden_BTD = Norm(c.norm, c.norm_epsilon, c.bias, name="final_norm")(x_BTD)
        return Output(hidden_BTD, cache, router, stream_BTD)

    @nn.nowrap
    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        return self.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    @nn.nowrap
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Where each part stands, by names that all decoders share."""
        return {name: (name,) for name in DECODER}

    @nn.nowrap
    def kernels(self, platform: str, *, split_positions: bool = False) -> list[str]:
        """Attention kernels in use on a platform. ValueError where the one asked for cannot serve."""
        return layer_kernels(self.config, platform, split_positions=split_positions)

    @nn.nowrap
    def training_flops_per_token(self, length: int) -> float:
        """FLOPs per token of one training step on a row of `length` tokens."""
        return training_flops_per_token(self.config, length)

    @nn.nowrap
    def _embed(self, tokens_BT, positions_BT, keys_B, media: Media | None):
        """What the first layer reads: the tokens, or the media in their places, and learned positions."""
        c = self.config
        # Gathered in float32 and rounded after: the gradient of a frequent token is a sum over thousands of rows.
        table_VD = Table(c.vocab_size, c.embed_dim, ("vocab", "embed"), c.init_std, name="embedding")()
        x_BTD = constrain(table_VD, "vocab", "residual")[tokens_BT]
        if c.embed_scale:
            x_BTD *= math.sqrt(c.embed_dim)
        if media is not None and media.attended is None:
            x_BTD = media.instead_of(x_BTD)
        if c.positions == "learned":
            table_PD = Table(c.context_length, c.embed_dim, ("positions", "embed"), c.init_std, name="positions")()
            x_BTD += constrain(table_PD, "positions", "residual")[positions_BT]
        return constrain(dropout(x_BTD.astype(compute_dtype(c)), c.dropout, keys_B, 0), "batch", "length", "residual")


def _mask(queries_BT, cache, valid_BS, media: Media | None) -> Mask:
    """Who sees whom. queries_BT: segments of the tokens at hand, or None; cache, valid_BS, media: as of Decoder."""
    if cache is None:
        mask = Mask(causal=True, query_segments_BT=queries_BT)
    else:
        mask = Mask(causal=True, query_segments_BT=queries_BT, key_segments_BS=valid_BS, offset=cache[1])
    if media is None or (cache is not None and queries_BT.shape[1] == 1):  # a token that is drawn sees all before it
        return mask
    behind = 0 if cache is None else valid_BS.shape[1] - queries_BT.shape[1]
    key_groups_BS = jnp.pad(media.groups_BT, ((0, 0), (0, behind)), constant_values=jnp.iinfo(jnp.int32).max)
    return dataclasses.replace(mask, query_groups_BT=media.groups_BT, key_groups_BS=key_groups_BS)


def create_layers(config: ModelConfig, x_BTD, context: Context):
    """Create the stacked parameters of all layers, as `layers` of the module whose compact method calls this; returns the last output."""

    def body(module, x_BTD, layer):
        return module(x_BTD, layer, context)[0], None

    scan = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=config.num_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scan(Block(config, name="layers"), x_BTD, jnp.arange(config.num_layers))[0]


def run_layers(config: ModelConfig, params, x_BTD, contexts: tuple[Context, ...], *, cache=None, branch: int | None = None, between=None):
    """Run a stack of blocks: scanned when asked, else unrolled, which a cache needs.

    params: those with `layers` [L, ...], or already apart (`unstack_layers`). contexts: layer n takes number n % len(contexts) of them.
    cache, branch: as of Decoder. between: called as between(layer, x_BTD) before each; the stack is then unrolled. Returns x_BTD, the new
    cache, a Router of all layers and the stream before layer `branch`; each of the last three is None where there is none.
    """
    c = config
    block = Block
    if c.remat != "none" and cache is None:
        block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=not c.scan)

    def run(params, x_BTD, layer, place, cache=None):
        """One layer; `place` is its number, or its place in a group when `layer` is traced, since a window must be static."""
        context = contexts[place % len(contexts)]
        return block(c, c.layer_window(place), parent=None).apply({"params": params}, x_BTD, layer, context, cache)

    if c.scan and cache is None and between is None:
        size = math.lcm(c.global_every or 1, len(contexts))

        def group(x_BTD, step):
            params, first = step
            routers = []
            for place in range(size):
                x_BTD, _, router = run(jax.tree.map(lambda leaf, place=place: leaf[place], params), x_BTD, first + place, place)
                routers.append(router)
            return x_BTD, _stack(routers)

        groups = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), params["layers"])
        steps = (groups, jnp.arange(0, c.num_layers, size))
        if branch is None:
            x_BTD, router = jax.lax.scan(group, x_BTD, steps)
            return x_BTD, None, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), router), None
        if branch % size:
            raise ValueError(f"a scan takes {size} layers at once, and layer {branch} is in their midst")
        stream_BTD, _ = jax.lax.scan(group, x_BTD, jax.tree.map(lambda leaf: leaf[: branch // size], steps))
        x_BTD, _ = jax.lax.scan(group, stream_BTD, jax.tree.map(lambda leaf: leaf[branch // size :], steps))
        return x_BTD, None, None, stream_BTD

    layers = unstack_layers(params) if "layers" in params else params
    caches, routers, stream_BTD = [], [], None
    for layer in range(c.num_layers):
        stream_BTD = x_BTD if layer == branch else stream_BTD
        x_BTD = x_BTD if between is None else between(layer, x_BTD)
        layer_cache = None if cache is None else (*cache[0][layer], cache[1])
        x_BTD, layer_cache, router = run(layers[f"layer_{layer}"], x_BTD, layer, layer, layer_cache)
        caches.append(layer_cache)
        routers.append(router)
    return x_BTD, None if cache is None else tuple(caches), _stack(routers), stream_BTD


def _stack(routers):
    """One Router of all layers, or None where they have none."""
    return None if routers[0] is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *routers)


def unstack_layers(params):
    """The same parameters with `layers` [L, ...] split into layer_0 ... layer_{L-1}, as a loop that runs unrolled wants them.

    One split per leaf, whose gradient is one concatenation.
    """
    rest = {name: value for name, value in params.items() if name != "layers"}
    leaves, treedef = jax.tree.flatten(params["layers"])
    pieces = [[jnp.squeeze(piece, 0) for piece in jax.lax.split(leaf, (1,) * leaf.shape[0], axis=0)] for leaf in leaves]
    return rest | {f"layer_{i}": treedef.unflatten(layer) for i, layer in enumerate(zip(*pieces, strict=True))}


def abstract_parameters(config: ModelConfig):
    """Shapes, types and logical axis names of all parameters, without allocating any (boxed as Flax's LogicallyPartitioned)."""
    tokens_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(Decoder(config).init, jax.random.key(0), tokens_BT)["params"]


def count_parameters(config: ModelConfig) -> int:
    """Number of trained parameters, tied tables counted once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_parameters(config)))
