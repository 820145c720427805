"""Mixture of experts: a router sends each token to a few of many feed-forward layers (Shazeer et al. 2017; Fedus et al. 2021)."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from model.config import ModelConfig
from model.layers import ACTIVATIONS, Dense, compute_dtype, constrain
from model.partition import mesh_axes, on_each_device


class Router(NamedTuple):
    """What the routers did, per row, float32; a leading axis of layers when it comes from a whole model. Padding counts nowhere.

    counts_BE: slots (tokens times experts_per_token) sent to each expert, dropped ones included. probabilities_BE: sum of the
    router's softmax over the tokens. z_B: sum of the squared log partition function. dropped_B: slots that found their expert
    full.
    """

    counts_BE: jax.Array
    probabilities_BE: jax.Array
    z_B: jax.Array
    dropped_B: jax.Array


class Kernel(nn.Module):
    """The weights of all experts' same projection: kernel [E, inputs, outputs] and, if asked for, bias [E, outputs]; float32."""

    shape: tuple[int, int, int]
    axes: tuple[str, str, str]
    std: float
    bias: bool

    @nn.compact
    def __call__(self):
        kernel = self.param("kernel", nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes), self.shape, jnp.float32)
        if not self.bias:
            return {"kernel": kernel}
        init = nn.with_logical_partitioning(nn.initializers.zeros, (self.axes[0], self.axes[2]))
        return {"kernel": kernel, "bias": self.param("bias", init, (self.shape[0], self.shape[2]), jnp.float32)}


class Experts(nn.Module):
    """Parameters of the experts: up, down and, when gated, gate, each a `Kernel`."""

    config: ModelConfig

    @nn.compact
    def __call__(self):
        c = self.config
        shape, axes = (c.experts, c.embed_dim, c.mlp_width), ("experts", "embed", "mlp")
        inward = {name: Kernel(shape, axes, c.init_std, c.bias, name=name)() for name in (("gate", "up") if c.gated else ("up",))}
        shape, axes = (c.experts, c.mlp_width, c.embed_dim), ("experts", "mlp", "embed")
        return inward | {"down": Kernel(shape, axes, c.init_std / math.sqrt(2 * c.num_layers), c.bias, name="down")()}


class MixtureOfExperts(nn.Module):
    """In place of a feed-forward layer: y = sum over the chosen experts of gate * expert(x). Maps x_BTD to y_BTD and a `Router`.

    The router is linear, in float32. Its softmax over all experts is cut to the `experts_per_token` largest and divided by their
    sum (Mixtral, Jiang et al. 2024, sec. 2.1: the same as a softmax over the chosen logits). A single one keeps its probability (Fedus
    et al. 2021, eq. 2): divided by itself it would be 1, and the router would learn nothing. Each expert is the feed-forward layer of
    the config. Parameters: router/kernel [D, E]; experts/up, experts/gate, experts/down: kernel [E, in, out].

    Without a capacity every slot is served. With one, an expert takes at most capacity * slots / experts of the whole batch, earlier
    rows before later ones and in a row earlier tokens before later ones (so nothing depends on what comes later); a slot that is too
    late adds nothing, and the residual stream carries its token on.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD, counted_BT=None, *, dropless: bool = False):
        """counted_BT: false on padding, which takes no expert's capacity; None counts all. dropless: as if there were no capacity."""
        c, dtype = self.config, compute_dtype(self.config)
        with jax.default_matmul_precision("highest"):
            logit_BTE = Dense((c.experts,), ("embed", "experts"), c.init_std, jnp.float32, name="router")(x_BTD)
        probability_BTE = jax.nn.softmax(logit_BTE, axis=-1)
        gate_BTC, chosen_BTC = jax.lax.top_k(probability_BTE, c.experts_per_token)
        if c.experts_per_token > 1:
            gate_BTC /= gate_BTC.sum(-1, keepdims=True)

        weights = jax.tree.map(lambda leaf: leaf.astype(dtype), Experts(c, name="experts")())
        counted_BT = jnp.ones(x_BTD.shape[:2], bool) if counted_BT is None else counted_BT
        x_BTD = x_BTD.astype(dtype)
        if c.expert_capacity and not dropless:
            y_BTD, served_BTC = _with_capacity(c, weights, x_BTD, gate_BTC, chosen_BTC, counted_BT)
            dropped_B = (counted_BT[..., None] & ~served_BTC).sum((1, 2)).astype(jnp.float32)
            gate_BTC *= served_BTC
        else:
            y_BTD, dropped_B = _dropless(c, weights, x_BTD, gate_BTC, chosen_BTC), jnp.zeros(x_BTD.shape[0])
        if c.bias:
            y_BTD += jnp.einsum("BTCD,BTC->BTD", weights["down"]["bias"][chosen_BTC], gate_BTC.astype(dtype))
        count_BT = counted_BT.astype(jnp.float32)
        router = Router(
            counts_BE=jnp.einsum("BTCE,BT->BE", jax.nn.one_hot(chosen_BTC, c.experts), count_BT),
            probabilities_BE=jnp.einsum("BTE,BT->BE", probability_BTE, count_BT),
            z_B=(jnp.square(jax.nn.logsumexp(logit_BTE, axis=-1)) * count_BT).sum(-1),
            dropped_B=dropped_B,
        )
        return y_BTD, router


def _run_experts(c: ModelConfig, weights, x, project):
    """The feed-forward layer, but for the bias of its last projection; `project(x, weight)` is how rows meet their experts."""
    h = project(x, weights["up"])
    h = ACTIVATIONS[c.activation](project(x, weights["gate"])) * h if c.gated else ACTIVATIONS[c.activation](h)
    return project(h, {"kernel": weights["down"]["kernel"]})


def _combine(y_slots, gate_BTC):
    """Each token's sum of gate * output over its slots, which stand in order of tokens."""
    return jnp.einsum("BTCD,BTC->BTD", y_slots.reshape(*gate_BTC.shape, -1), gate_BTC.astype(y_slots.dtype))


def grouped_product(x_MI, kernel_EIO, sizes_E):
    """The first sizes_E[0] rows of x_MI times the first kernel, the next sizes_E[1] times the second, and so on; sizes sum to M.

    On a CPU and on a TPU the compiler's own ragged product multiplies every row with every kernel; so there by blocks of rows, and by
    the megablox kernel (Gale et al. 2022).
    """
    return jax.lax.platform_dependent(x_MI, kernel_EIO, sizes_E, cpu=by_blocks, tpu=megablox, default=jax.lax.ragged_dot)


def by_blocks(x_MI, kernel_EIO, sizes_E, *, block: int = 64):
    """`grouped_product` of blocks of rows, each with a copy of its kernel: each expert's rows are filled up to whole blocks.

    The copies are taken by a product, whose gradient is one too: a gather's would be a scatter, which is slow on a CPU.
    """
    experts, count = len(sizes_E), -(-x_MI.shape[0] // block) + len(sizes_E)
    blocks_E = -(-sizes_E // block)
    shift_E = (jnp.cumsum(blocks_E) - blocks_E) * block - (jnp.cumsum(sizes_E) - sizes_E)
    seat_M = jnp.arange(x_MI.shape[0]) + jnp.repeat(shift_E, sizes_E, total_repeat_length=x_MI.shape[0])
    expert = jnp.searchsorted(jnp.cumsum(blocks_E), jnp.arange(count), side="right")
    kernels = jnp.einsum("nE,EIO->nIO", jax.nn.one_hot(expert, experts, dtype=kernel_EIO.dtype), kernel_EIO)
    rows = jnp.zeros((count * block, x_MI.shape[1]), x_MI.dtype).at[seat_M].set(x_MI, unique_indices=True)
    y = jnp.einsum("nrI,nIO->nrO", rows.reshape(count, block, -1), kernels)
    return y.reshape(count * block, -1)[seat_M]


def megablox(x_MI, kernel_EIO, sizes_E, *, interpret: bool = False):
    """`grouped_product` in Pallas. interpret: run it slowly, anywhere."""
    from jax.experimental.pallas.ops.tpu.megablox.ops import gmm

    tile = 512 if min(*x_MI.shape, kernel_EIO.shape[2]) >= 512 else 128
    spare = -x_MI.shape[0] % tile  # the kernel wants whole tiles of rows: zeros, which the last expert takes along
    rows = jnp.pad(x_MI, ((0, spare), (0, 0)))
    sizes_E = sizes_E.at[-1].add(spare)
    return gmm(rows, kernel_EIO, sizes_E, x_MI.dtype, (tile,) * 3, None, None, False, interpret)[: x_MI.shape[0]]


def _dropless(c: ModelConfig, weights, x_BTD, gate_BTC, chosen_BTC):
    """Every slot is served: slots are sorted by expert, and one grouped product serves each expert's run of them.

    No token needs another, so every device serves its own tokens with the kernels of all experts, gathered for the layer (each device
    its part of the feed-forward width); the expert axis then only spreads where kernels and rows are kept.
    """
    mlp = mesh_axes("mlp", c.mlp_width)

    def serve(weights, x_BTD, gate_BTC, chosen_BTC):
        expert_M = chosen_BTC.reshape(-1)
        order_M = jnp.argsort(expert_M, stable=True)
        sizes_E = jnp.bincount(expert_M, length=c.experts).astype(jnp.int32)

        def project(x, weight):
            y = grouped_product(x, weight["kernel"], sizes_E)
            return y + weight["bias"][expert_M[order_M]] if "bias" in weight else y

        rows = x_BTD.reshape(-1, c.embed_dim)[order_M // c.experts_per_token]
        y_BTD = _combine(_run_experts(c, weights, rows, project)[jnp.argsort(order_M)], gate_BTC)
        return y_BTD if mlp is None else jax.lax.psum(y_BTD, mlp)

    tokens = PartitionSpec(mesh_axes("batch", x_BTD.shape[0]), mesh_axes("length", x_BTD.shape[1]))
    inward = {"kernel": PartitionSpec(None, None, mlp), "bias": PartitionSpec(None, mlp)}
    specs = {name: {part: inward[part] for part in weight} for name, weight in weights.items()}
    specs["down"] |= {"kernel": PartitionSpec(None, mlp)}
    if "bias" in specs["down"]:
        specs["down"]["bias"] = PartitionSpec()
    return on_each_device(serve, (specs, tokens, tokens, tokens), tokens)(weights, x_BTD, gate_BTC, chosen_BTC)


def _with_capacity(c: ModelConfig, weights, x_BTD, gate_BTC, chosen_BTC, counted_BT):
    """As many slots as each expert has room for; also which slots were served, bool [B, T, C].

    Slots move to the devices of their experts and back, as the compiler sees fit.
    """
    batch, length, _ = x_BTD.shape
    slots = chosen_BTC.size
    capacity = min(batch * length, max(1, math.ceil(c.expert_capacity * slots / c.experts)))
    expert_M = jnp.where(counted_BT[..., None], chosen_BTC, c.experts).reshape(-1)
    order_M = jnp.argsort(expert_M, stable=True)
    sizes_E = jnp.bincount(expert_M, length=c.experts + 1)
    place_M = jnp.arange(slots) - (jnp.cumsum(sizes_E) - sizes_E)[expert_M[order_M]]
    place_M = jnp.zeros(slots, jnp.int32).at[order_M].set(place_M)  # of each slot in the queue of its expert
    served_M = (place_M < capacity) & (expert_M < c.experts)
    seat_M = jnp.where(served_M, expert_M * capacity + place_M, c.experts * capacity)  # the last: nowhere
    token = jnp.full(c.experts * capacity, batch * length).at[seat_M].set(jnp.arange(slots) // c.experts_per_token, mode="drop")

    # Mesh axes that do not divide a dimension leave it whole.
    experts, seats = (name if mesh_axes(name, size) else None for name, size in (("experts", c.experts), ("slots", capacity)))

    def project(x, weight):
        y = jnp.einsum("ERi,Eio->ERo", x, weight["kernel"])
        return y + weight["bias"][:, None] if "bias" in weight else y

    x_ERD = x_BTD.reshape(-1, c.embed_dim).at[token].get(mode="fill", fill_value=0).reshape(c.experts, capacity, c.embed_dim)
    y_ERD = _run_experts(c, weights, constrain(x_ERD, experts, seats, None), project)
    y_MD = y_ERD.reshape(-1, c.embed_dim).at[seat_M].get(mode="fill", fill_value=0)
    served_BTC = served_M.reshape(chosen_BTC.shape)
    return _combine(y_MD, gate_BTC * served_BTC), served_BTC
