"""The audit fires on each of the known mistakes, and not on right code; its bound stays below the truth."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from model.config import ModelConfig
from train.experiment import CausalLM, Experiment, TextData
from train.kinds import realise
from train.objectives.bind import bind
from train.privacy import audit as audits
from train.privacy.audit import Mechanism, audit
from train.privacy.bound import epsilon_bound
from train.step.private import gradient
from train.step.private.options import Private

SIZE, DELTA = 64, 1e-5
EXPERIMENT = Experiment(
    batch_size=SIZE,
    model=ModelConfig(vocab_size=16, context_length=4, num_layers=1, embed_dim=8, num_heads=1),
    data=TextData(),
    objective=CausalLM(),
    gradient=Private(noise_multiplier=1.0, clip=0.7, delta=DELTA),
)


def mechanism(**options) -> Mechanism:
    experiment = dataclasses.replace(EXPERIMENT, gradient=dataclasses.replace(EXPERIMENT.gradient, **options))
    bound = bind(experiment)
    return Mechanism(experiment, bound, nn.unbox(bound.start(jax.random.key(0))), realise(experiment.data, experiment))


def broken(checks, found: float, claimed: float) -> set[str]:
    return {check.name for check in checks if not check.passed} | ({"canaries"} if found > claimed else set())


@pytest.fixture(scope="module")
def right():
    return {way: mechanism(way=way) for way in ("vmap", "two_pass")}


@pytest.mark.parametrize("way", ["vmap", "two_pass"])
def test_right_code_passes_twenty_times(right, way, monkeypatch):
    """Each time with other canaries and other noise."""
    for seed in range(20 if way == "vmap" else 3):
        monkeypatch.setattr(audits, "FIRST", 1000 * (seed + 1))
        checks, found, claimed = audit(right[way], 500, seed)
        assert not broken(checks, found, claimed), (seed, checks, found, claimed)
        assert claimed > 0.5 * found > 0  # the canaries are not blind


def no_noise(monkeypatch):
    monkeypatch.setattr(gradient, "normal_like", lambda tree, key, deviation: jax.tree.map(jnp.zeros_like, tree))


def noise_divided_by_the_batch(monkeypatch):
    right = gradient.normal_like
    monkeypatch.setattr(gradient, "normal_like", lambda tree, key, deviation: right(tree, key, deviation / SIZE))


def key_reused(monkeypatch):
    monkeypatch.setattr(gradient, "noise_key", lambda secret, key: jax.random.key(0))


def mask_missing(monkeypatch):
    monkeypatch.setattr(gradient, "there", lambda batch: jnp.ones(len(batch.rows), bool))


def clipped_per_batch(monkeypatch):
    def total(loss, params, units, drawn_B, clip):
        gradients, metrics = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))(params, units)
        sums = jax.tree.map(lambda g: jnp.tensordot(drawn_B.astype(jnp.float32), g, 1), gradients)
        norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(sums)))
        scale = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-30))
        ones = drawn_B.astype(jnp.float32)
        return jax.tree.map(lambda g: g * scale, sums), gradient.totalled(metrics, drawn_B, ones, ones)

    monkeypatch.setattr(gradient, "by_vmap", total)


@pytest.mark.parametrize(
    "fault, by",
    [
        (no_noise, {"noise", "canaries"}),
        (noise_divided_by_the_batch, {"noise", "canaries"}),
        (key_reused, {"independence"}),
        (mask_missing, {"padding"}),
        (clipped_per_batch, {"clipping"}),
    ],
)
def test_the_audit_fires_on_each_planted_fault(fault, by, monkeypatch):
    fault(monkeypatch)
    assert by <= broken(*audit(mechanism(noise_multiplier=2.0), 500))


def test_the_bound_is_below_the_truth_of_randomised_response():
    """Each bit is told truly with probability e^epsilon / (1 + e^epsilon), which is exactly epsilon."""
    rng, epsilon, above, found = np.random.default_rng(0), 1.5, 0, []
    for _ in range(60):
        inside = rng.random(1000) < 0.5
        true = rng.random(1000) < 1 / (1 + math.exp(-epsilon))
        scores = np.where(true, inside, ~inside) + 1e-3 * rng.random(1000)
        found.append(epsilon_bound(scores, inside, 0.0))
        above += found[-1] > epsilon
    assert above <= 5 and np.median(found) > 0.8 * epsilon
    blind = [epsilon_bound(rng.random(1000), rng.random(1000) < 0.5, DELTA) for _ in range(40)]
    assert np.mean(np.array(blind) > 0) <= 0.1
    assert epsilon_bound(np.arange(1000.0), np.arange(1000) >= 500, DELTA) > 4
