"""The mixture against a loop over tokens and experts in NumPy, and what routing must not let through."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.mixture_of_experts import MixtureOfExperts, megablox
from tests.model.conftest import EXPERTS, GPT2

PLAIN = dataclasses.replace(GPT2, experts=5, experts_per_token=2, mlp_dim=12, init_std=0.5, activation="relu_squared")
GATED = dataclasses.replace(EXPERTS, experts_per_token=3, mlp_dim=12, init_std=0.5)
SINGLE = dataclasses.replace(PLAIN, experts_per_token=1)
TIGHT = dataclasses.replace(GATED, expert_capacity=0.6)
COUNTED = np.arange(7) < np.array([[7], [4], [6]])


def make(config):
    layer = MixtureOfExperts(config)
    x = np.random.default_rng(0).normal(size=(3, 7, config.embed_dim)).astype(np.float32)
    params = jax.tree.map(np.asarray, jax.jit(layer.init)(jax.random.key(1), x))["params"]
    params = jax.tree.map(lambda box: np.asarray(box.value), params, is_leaf=lambda leaf: hasattr(leaf, "names"))
    for weight in params["experts"].values():
        if "bias" in weight:
            weight["bias"] = np.random.default_rng(2).normal(size=weight["bias"].shape).astype(np.float32)
    return layer, params, x


def oracle(config, params, x):
    """Output of every counted token and which of its choices were served, one token, one choice, one expert at a time."""
    y, served = np.zeros(x.shape), np.zeros((*x.shape[:2], config.experts_per_token), bool)
    room = math.ceil(config.expert_capacity * served.size / config.experts) if config.expert_capacity else 10**9
    taken = np.zeros(config.experts, int)
    for row, t in np.argwhere(COUNTED):
        token = x[row, t].astype(np.float64)
        logits = token @ params["router"]["kernel"].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        chosen = np.argsort(-p)[: config.experts_per_token]
        for place, expert in enumerate(chosen):
            if taken[expert] == room:
                continue
            taken[expert] += 1
            served[row, t, place] = True

            def project(h, name, expert=expert):
                weight = params["experts"][name]
                return h @ weight["kernel"][expert].astype(np.float64) + (weight["bias"][expert] if "bias" in weight else 0)

            h = project(token, "up")
            gate = project(token, "gate") if config.gated else None
            h = gate / (1 + np.exp(-gate)) * h if config.gated else np.maximum(h, 0) ** 2
            y[row, t] += p[expert] / (p[chosen].sum() if len(chosen) > 1 else 1) * project(h, "down")
    return y, served


def run(layer, params, x, counted=COUNTED):
    return jax.jit(lambda params, x: layer.apply({"params": params}, x, counted))(params, x)


@pytest.mark.parametrize("config", [PLAIN, GATED, SINGLE, TIGHT], ids=["plain", "gated", "single", "capacity"])
def test_mixture_equals_a_loop_over_tokens_and_experts(config):
    layer, params, x = make(config)
    y, router = run(layer, params, x)
    expected, served = oracle(config, params, x)
    np.testing.assert_allclose(np.asarray(y)[COUNTED], expected[COUNTED], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(router.dropped_B, COUNTED.sum(1) * config.experts_per_token - served.sum((1, 2)))
    assert (router.dropped_B.sum() > 3) == bool(config.expert_capacity)


@pytest.mark.parametrize("config", [GATED, TIGHT], ids=["dropless", "capacity"])
def test_gradients_equal_those_of_all_experts_weighed_by_their_gates(config):
    layer, params, x = make(config)
    _, served = oracle(config, params, x)
    probe = np.random.default_rng(3).normal(size=x.shape).astype(np.float32) * COUNTED[..., None]

    def everywhere(params, x):
        """Every token through every expert; a gate of zero where it was not chosen or not served."""
        p = jax.nn.softmax(x @ params["router"]["kernel"], axis=-1)
        top, chosen = jax.lax.top_k(p, config.experts_per_token)
        gate = jnp.einsum("BTC,BTCE->BTE", top / top.sum(-1, keepdims=True) * served, jax.nn.one_hot(chosen, config.experts))
        kernel = {name: weight["kernel"] for name, weight in params["experts"].items()}
        h = jax.nn.silu(jnp.einsum("BTD,EDF->BTEF", x, kernel["gate"])) * jnp.einsum("BTD,EDF->BTEF", x, kernel["up"])
        return jnp.einsum("BTEF,EFD,BTE->BTD", h, kernel["down"], gate)

    def gradient(function):
        return jax.jit(jax.grad(lambda params, x: (function(params, x) * probe).sum(), argnums=(0, 1)))(params, x)

    found = gradient(lambda params, x: layer.apply({"params": params}, x, COUNTED)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max()), found, gradient(everywhere))


def test_padding_and_later_tokens_change_nothing():
    """With little room, so that they would if they could: neither an output nor a statistic of other tokens."""
    layer, params, x = make(TIGHT)
    y, router = run(layer, params, x)
    other = np.where(COUNTED[..., None], x, 9.0).astype(np.float32)
    y_padded, router_padded = run(layer, params, other)
    np.testing.assert_allclose(np.asarray(y_padded)[COUNTED], np.asarray(y)[COUNTED], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), router_padded, router)
    later = x.copy()
    later[2, 3:] = -x[2, 3:]
    y_later, _ = run(layer, params, later)
    np.testing.assert_allclose(y_later[:2], y[:2], rtol=1e-6)
    np.testing.assert_allclose(y_later[2, :3], y[2, :3], rtol=1e-6)


def test_statistics_are_those_of_the_softmax_and_its_largest():
    layer, params, x = make(GATED)
    _, router = run(layer, params, x)
    logits = x.astype(np.float64) @ params["router"]["kernel"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counts = (p >= np.sort(p, axis=-1)[..., -3:-2]) * COUNTED[..., None]
    np.testing.assert_array_equal(router.counts_BE, counts.sum(1))
    np.testing.assert_allclose(router.probabilities_BE, (p * COUNTED[..., None]).sum(1), rtol=1e-5)
    np.testing.assert_allclose(router.z_B, (np.log(np.exp(logits).sum(-1)) ** 2 * COUNTED).sum(1), rtol=1e-5)


def test_the_grouped_product_for_a_tpu_equals_a_loop_over_experts():
    """In Pallas' interpreter, with an expert that gets nothing and rows that are no whole tiles; values and gradients."""
    rng = np.random.default_rng(0)
    x, kernel, sizes = rng.normal(size=(200, 24)), rng.normal(size=(4, 24, 40)), np.array([130, 0, 7, 63])
    probe = rng.normal(size=(200, 40))
    ends = np.cumsum(sizes)

    def loss(x, kernel):
        y = megablox(x, kernel, jnp.asarray(sizes, jnp.int32), interpret=True)
        return (y * probe.astype(np.float32)).sum(), y

    (_, y), (dx, dkernel) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(x.astype(np.float32), kernel.astype(np.float32))
    for expert, (first, last) in enumerate(zip(ends - sizes, ends, strict=True)):
        rows = slice(first, last)
        np.testing.assert_allclose(y[rows], x[rows] @ kernel[expert], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(dx[rows], probe[rows] @ kernel[expert].T, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(dkernel[expert], x[rows].T @ probe[rows], rtol=1e-3, atol=1e-3)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="with model.experts 4, give 1 to that many"):
        dataclasses.replace(EXPERTS, experts_per_token=5)
    with pytest.raises(ValueError, match="no model.experts"):
        dataclasses.replace(GPT2, expert_capacity=1.0)
