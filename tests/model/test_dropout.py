"""What is dropped in training: elements, whole tokens, whole sub-layers; a row's draw is its own, and nothing is dropped without keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from model.config import ModelConfig
from model.encoder_decoder import SourceText
from model.encoder_decoder_config import EncoderDecoderConfig
from model.layers import dropout
from model.text_encoder_config import TextEncoderConfig
from train.kinds import realise

SHAPE = {"vocab_size": 16, "context_length": 6, "num_layers": 2, "embed_dim": 8, "num_heads": 2, "init_std": 0.5}
TOKENS = np.random.default_rng(0).integers(0, 16, (4, 6)).astype(np.int32)
KEYS = jax.random.split(jax.random.key(1), 4)


@pytest.mark.parametrize("together", [0, 1, 2])
def test_elements_stay_or_go_with_those_beside_them_and_the_mean_stays(together):
    keys = jax.random.split(jax.random.key(0), 400)
    found = np.asarray(dropout(jnp.ones((400, 5, 6)), 0.25, keys, 3, together))
    assert set(np.unique(found.round(4))) == {0.0, np.float32(1 / 0.75).round(4)}
    groups = found.reshape(400, -1) if together == 2 else found.reshape(2000, -1)
    if together:
        assert np.all(groups == groups[:, :1])
    assert abs(found.mean() - 1) < 0.1
    np.testing.assert_array_equal(dropout(jnp.ones((4, 5, 6)), 0.25, keys[:4], 3, together), found[:4])
    assert np.all(np.asarray(dropout(jnp.ones((2, 5, 6)), 0.25, None, 3, together)) == 1)


def outputs(config, params=None, keys=KEYS):
    model = realise(config)
    more = (
        {"source": SourceText(TOKENS, np.ones_like(TOKENS), np.tile(np.arange(6, dtype=np.int32), (4, 1)))}
        if config.kind == "encoder-decoder"
        else {}
    )
    params = nn.unbox(model.start(jax.random.key(0))) if params is None else params
    ones = np.ones_like(TOKENS)
    return params, lambda params: model.apply({"params": params}, TOKENS, segments_BT=ones, keys_B=keys, **more).hidden_BTD


@pytest.mark.parametrize("kind", [ModelConfig, TextEncoderConfig, EncoderDecoderConfig])
def test_without_sub_layers_a_row_is_its_embedding(kind):
    """Nearly all are dropped: what is left is what a model gives whose sub-layers write zeros."""
    config = kind(**SHAPE, layer_dropout=1 - 1e-7)
    params, run = outputs(config)
    silent = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if {"out", "down"} & {part.key for part in path} else leaf, params
    )
    np.testing.assert_allclose(run(params), outputs(config, silent, None)[1](silent), rtol=1e-5, atol=1e-5)
    plain = dataclasses.replace(config, layer_dropout=0.0)
    np.testing.assert_array_equal(outputs(config, params, None)[1](params), outputs(plain, params, None)[1](params))


@pytest.mark.parametrize("kind", [ModelConfig, TextEncoderConfig])
def test_a_dropped_token_teaches_its_vector_nothing(kind):
    """Its vector has no gradient where it stands alone; others' have."""
    config = (
        kind(**SHAPE | {"context_length": 16}, token_dropout=0.5, positions="rotary", tied_embeddings=False)
        if kind is ModelConfig
        else kind(**SHAPE, token_dropout=0.5)
    )
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6)
    model = realise(config)
    params = nn.unbox(model.start(jax.random.key(0)))

    def total(params):
        return model.apply({"params": params}, tokens, segments_BT=np.ones_like(tokens), keys_B=KEYS[:2]).hidden_BTD.sum(-1).std()

    gradient = np.abs(np.asarray(jax.grad(total)(params)["embedding"]["table"])[:12]).sum(-1)
    assert 2 <= (gradient == 0).sum() <= 10


@pytest.mark.parametrize("name", ["dropout", "token_dropout", "layer_dropout"])
def test_shares_are_below_one(name):
    with pytest.raises(ValueError, match=rf"model.{name} is 1.0"):
        ModelConfig(**SHAPE, **{name: 1.0})
    assert ModelConfig(**SHAPE, **{name: 0.1}).drops and not ModelConfig(**SHAPE).drops
