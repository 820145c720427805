"""What a model does with a text, against its own forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.heads import Head, logits, vocabulary_table
from tests.model.conftest import GEMMA2, GPT2, LLAMA, make
from train.explain.inside import logit_lens, look_inside

TOKENS = [5, 9, 2, 9, 40, 7, 5, 9]


def log_probs(model, params):
    output = model.apply({"params": params}, jnp.array([TOKENS]))
    return np.asarray(jax.nn.log_softmax(logits(Head(output.hidden_BTD, vocabulary_table(params)), softcap=model.config.logit_softcap)))[0]


def without_layers(params, first: int):
    """The model whose layers from `first` on add nothing to the stream."""

    def silent(path, leaf):
        names = [key.key for key in path]
        return leaf.at[first:].set(0) if names[-2] in ("out", "down") or names[-2].endswith("post_norm") else leaf

    return params | {"layers": jax.tree_util.tree_map_with_path(silent, params["layers"])}


@pytest.mark.parametrize("config", [LLAMA, GEMMA2], ids=["llama", "gemma2"])
def test_it_tells_what_the_model_does(config):
    model, params = make(config)
    inside = look_inside(config, params, TOKENS)
    assert inside.depths == tuple(range(1, config.num_layers + 1))
    assert inside.attention_LHTT.shape == (config.num_layers, config.num_heads, len(TOKENS), len(TOKENS))
    np.testing.assert_allclose(inside.attention_LHTT.sum(-1), 1, rtol=1e-5)
    assert not np.triu(inside.attention_LHTT, 1).any()
    for place, depth in enumerate(inside.depths):
        expected_TV = log_probs(model, without_layers(params, depth))
        np.testing.assert_array_equal(inside.likeliest_NT[place], expected_TV.argmax(-1))
        np.testing.assert_allclose(inside.confidence_NT[place], np.exp(expected_TV.max(-1)), rtol=1e-4)
    expected_T = -expected_TV[np.arange(len(TOKENS) - 1), TOKENS[1:]]
    np.testing.assert_allclose(inside.nats_T, [0, *expected_T], rtol=1e-4)


@pytest.mark.parametrize("config", [LLAMA, GEMMA2, GPT2], ids=["llama", "gemma2", "gpt2"])
def test_the_last_layer_of_the_lens_is_the_model_and_others_that_of_fewer_layers(config):
    model, params = make(config)
    lens = logit_lens(config, params, TOKENS, answer=3, top=4)
    for layer in range(1, config.num_layers + 1):
        expected_V = np.exp(log_probs(model, without_layers(params, layer))[-1])
        np.testing.assert_allclose(lens.answer_L[layer - 1], expected_V[3], rtol=1e-4)
        np.testing.assert_allclose(lens.probability_LK[layer - 1], np.sort(expected_V)[::-1][:4], rtol=1e-4)
        np.testing.assert_array_equal(lens.likeliest_LK[layer - 1], np.argsort(-expected_V)[:4])
    whole_V = np.exp(log_probs(model, params)[-1])
    np.testing.assert_allclose(lens.answer_L[-1], whole_V[3], rtol=1e-4)


def test_a_scan_hands_out_the_streams_of_an_unrolled_stack():
    for config in (LLAMA, GEMMA2):
        model, params = make(config)
        streams: list[list] = [[], []]
        for found, scan in zip(streams, (False, True), strict=True):
            type(model)(dataclasses.replace(config, scan=scan)).apply({"params": params}, jnp.array([TOKENS]), streams=found)
        assert len(streams[0]) == len(streams[1]) == config.num_layers
        for unrolled, scanned in zip(*streams, strict=True):
            np.testing.assert_allclose(scanned, unrolled, rtol=1e-4, atol=1e-5)


def test_it_asks_where_it_is_told_to():
    model, params = make(LLAMA)
    assert look_inside(LLAMA, params, TOKENS, depths=(1,)).depths == (1, LLAMA.num_layers)


@pytest.mark.parametrize(
    ("tokens", "depths", "allowed"),
    [
        ([], (), "1 to 24"),
        (25 * [1], (), "1 to 24"),
        ([1, 61], (), "0 to 60"),
        ([-1], (), "0 to 60"),
        ([1], (3,), "1 to 2"),
        ([1], (0,), "1 to 2"),
    ],
)
def test_what_is_out_of_range_is_named_with_the_range(tokens, depths, allowed):
    """JAX reports no index that is out of range: the arrays would be those of another text."""
    with pytest.raises(ValueError, match=f"allowed: {allowed}"):
        look_inside(GPT2, {}, tokens, depths)


def test_only_learned_positions_limit_a_text():
    _, params = make(LLAMA)
    assert len(look_inside(LLAMA, params, [1] * (LLAMA.context_length + 1), depths=(2,)).nats_T) == LLAMA.context_length + 1


def test_shared_layers_have_no_first_ones():
    with pytest.raises(ValueError, match="share"):
        look_inside(dataclasses.replace(LLAMA, layer_groups=1), {}, TOKENS)
