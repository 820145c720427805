"""The tokenizer of patches: codes, gradients, dead codes, and that it learns."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.media.vq import VectorQuantiser, VQConfig, nearest, reseed
from train.objectives.media.codebook import CodebookLoss
from train.objectives.media.views import PatchRows
from train.step.gradients import plain

CONFIG = VQConfig(values=6, codes=16, code_dim=4, hidden_dim=32)
MODEL = VectorQuantiser(CONFIG)
OBJECTIVE = CodebookLoss(CONFIG)


@functools.cache
def parameters():
    return nn.unbox(jax.jit(OBJECTIVE.start)(jax.random.key(0)))


def patches_of(seed, rows=4, places=32):
    """Patches of eight kinds, with a little noise, and padding of rubbish at the end of each row."""
    kinds = np.random.default_rng(7).normal(size=(8, CONFIG.values))
    rng = np.random.default_rng(seed)
    patches = kinds[rng.integers(0, 8, (rows, places))] + 0.05 * rng.normal(size=(rows, places, CONFIG.values))
    weights = np.ones((rows, places), np.float32)
    patches[:, -3:], weights[:, -3:] = 100.0, 0.0
    return PatchRows(patches.astype(np.float32), weights)


def test_codes_are_the_nearest_and_decode_to_what_the_whole_reconstructs():
    patches = patches_of(0).patches[:, :9]
    found = MODEL.apply({"params": parameters()}, patches)
    codebook = np.asarray(parameters()["codebook"], float)
    distances = np.square(np.asarray(found.latents, float)[..., None, :] - codebook).sum(-1)
    np.testing.assert_array_equal(found.codes, distances.argmin(-1))
    np.testing.assert_array_equal(MODEL.apply({"params": parameters()}, patches, method="encode"), found.codes)
    decoded = MODEL.apply({"params": parameters()}, found.codes, method="decode")
    np.testing.assert_allclose(decoded, found.patches, atol=1e-5)
    assert nearest(jnp.zeros((1, 2)), jnp.ones((3, 2)))[0] == 0


def test_gradients_go_straight_through_and_each_term_moves_its_own_side():
    batch, params = patches_of(1), parameters()

    @jax.jit
    def gradients(params):
        return {
            name: jax.grad(lambda p, name=name: OBJECTIVE(p, batch, None)[0][name].total)(params)
            for name in ("loss", "codebook", "commitment")
        }

    found = gradients(params)
    size = {name: {part: optax.tree.norm(leaf) for part, leaf in tree.items()} for name, tree in found.items()}
    assert size["loss"]["encoder"] > 0 and size["loss"]["decoder"] > 0 and size["loss"]["codebook"] == 0
    assert size["codebook"]["codebook"] > 0 and size["codebook"]["encoder"] == size["codebook"]["decoder"] == 0
    assert size["commitment"]["encoder"] > 0 and size["commitment"]["codebook"] == size["commitment"]["decoder"] == 0


def test_padding_counts_for_nothing():
    batch = patches_of(2)
    other = batch._replace(patches=np.where(batch.weights[..., None] == 0, -50.0, batch.patches).astype(np.float32))
    params = parameters()
    run = jax.jit(lambda batch: OBJECTIVE(params, batch, None, carry=jnp.zeros(CONFIG.codes)))
    (terms, metrics, carry), (same, _, other_carry) = run(batch), run(other)
    jax.tree.map(np.testing.assert_array_equal, (terms, carry), (same, other_carry))
    assert float(carry.sum()) == pytest.approx(0.01 * batch.weights.sum(), rel=1e-5)
    assert 1.0 <= float(metrics["perplexity"].total) <= CONFIG.codes


def test_only_dead_codes_move():
    params = parameters()
    drawn = jnp.full((CONFIG.codes, CONFIG.code_dim), 9.0)
    uses = jnp.arange(CONFIG.codes, dtype=jnp.float32)
    changed = reseed(params, uses, drawn, 5.0)["codebook"]
    assert (changed[:5] == 9.0).all()
    np.testing.assert_array_equal(changed[5:], params["codebook"][5:])


def test_it_learns_to_reconstruct_what_it_has_not_seen_far_better_than_the_mean():
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, carry, batch):
        gradients, _, carry = plain(OBJECTIVE, params, batch, None, carry=carry)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, carry

    refresh = jax.jit(OBJECTIVE.refresh)
    params = parameters() | {"codebook": parameters()["codebook"] + 20.0}  # so far off that one code gets everything
    state, carry = optimizer.init(params), jnp.zeros(CONFIG.codes)
    evaluate, seen = jax.jit(lambda params: OBJECTIVE(params, patches_of(1000), None)), patches_of(1000)
    assert evaluate(params)[1]["perplexity"].total < 2
    for number in range(300):
        batch = patches_of(number)
        params, state, carry = step(params, state, carry, batch)
        if number % 20 == 19:
            params, carry = refresh(params, batch, jax.random.key(number), carry)
    terms, metrics, _ = evaluate(params)
    values = seen.patches[seen.weights > 0]
    assert terms["loss"].total / terms["loss"].weight < 0.1 * np.square(values - values.mean(0)).mean()
    assert metrics["perplexity"].total > 5
