"""Eight bits: each product is near the exact one, and a whole model's predictions barely move."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoding.generate import generate
from model.decoding.quantize import LEAST_ROWS, Quantized, product, quantize
from model.decoding.sampling import Sampling
from model.heads import Head, score_tokens, vocabulary_table
from model.stack import unstack_layers
from model.transformer import abstract_parameters
from tests.model.conftest import EXPERTS, GPT2, forward, make


@pytest.mark.parametrize("rows", [1, LEAST_ROWS + 1])
def test_products_err_by_no_more_than_rounding_can(rows):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(rows, 64)), rng.normal(size=(16, 64)) * np.logspace(-3, 3, 16)[:, None]
    found = np.asarray(product(jnp.asarray(x), Quantized.of(jnp.asarray(w))))
    # Half a step for each factor of each summand, at worst all of one sign.
    step_x, step_w = np.abs(x).max(1) / 254, np.abs(w).max(1) / 254
    bound = step_x[:, None] * np.abs(w).sum(1) + step_w * np.abs(x).sum(1)[:, None] + 64 * step_x[:, None] * step_w
    assert (np.abs(found - x @ w.T) <= bound).all()
    assert np.abs(found - x @ w.T).max() > 0  # it is not the exact product


def test_integers_are_exact():
    rng = np.random.default_rng(1)
    x, w = rng.integers(-127, 128, (3, 40)), rng.integers(-127, 128, (5, 40))
    x[:, 0] = w[:, 0] = 127  # so that each row's step is 1
    np.testing.assert_allclose(product(jnp.asarray(x, jnp.float32), Quantized.of(jnp.asarray(w, jnp.float32))), x @ w.T, rtol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_model_predicts_nearly_the_same(tied):
    model, params = make(dataclasses.replace(GPT2, tied_embeddings=tied))
    small = jax.jit(quantize)(params)
    kernels = [leaf for leaf in jax.tree.leaves(small, is_leaf=lambda x: isinstance(x, Quantized)) if isinstance(leaf, Quantized)]
    assert len(kernels) == 6 + 1 + (not tied)
    tokens = np.random.default_rng(0).integers(0, GPT2.vocab_size, (4, 17))

    @jax.jit
    def losses(params):
        return score_tokens(Head(forward(model)(params, tokens[:, :-1]), vocabulary_table(params)), tokens[:, 1:]).nll

    exact, rounded = np.asarray(losses(params)), np.asarray(losses(small))
    assert 0 < np.abs(exact - rounded).max() < 0.1 * exact.std() + 0.05
    # Unrolled or stacked, with a cache or without: the same parameters.
    prompts, keys = tokens[:, :4].astype(np.int32), jax.random.split(jax.random.key(0), 4)
    greedy = jax.jit(lambda params: generate(model, params, prompts, jnp.full(4, 4), keys, Sampling(temperature=0.0), max_new_tokens=3))
    one, other = (greedy(p) for p in (small, unstack_layers(small)))
    np.testing.assert_array_equal(one.tokens_BS, other.tokens_BS)


def test_the_other_leaves_are_left_alone_and_experts_refused():
    _, params = make(GPT2)
    small = quantize(params)
    for name in ("positions", "final_norm"):
        jax.tree.map(np.testing.assert_array_equal, small[name], params[name])
    with pytest.raises(ValueError, match="experts"):
        quantize(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), nn.unbox(abstract_parameters(EXPERTS))))
