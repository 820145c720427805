"""What is packed and shared comes to what one request at a time comes to."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.encoder_decoder import EncoderDecoder
from model.encoder_decoder_config import EncoderDecoderConfig
from tests.model.conftest import EXPERTS, GEMMA2, GPT2, LLAMA, make
from train.devices.mesh import make_mesh
from train.evaluation import likelihood
from train.evaluation.likelihood import Likelihoods, Request
from train.experiment import MeshShape

T5 = EncoderDecoderConfig(
    vocab_size=61,
    context_length=24,
    num_layers=2,
    embed_dim=24,
    num_heads=4,
    init_std=0.3,
    positions="relative",
    relative_buckets=8,
    relative_distance=16,
    start_token=0,
)


@functools.cache
def model_of(config):
    if isinstance(config, EncoderDecoderConfig):
        model = EncoderDecoder(config)
        return model, nn.unbox(model.start(jax.random.key(0)))
    return make(config)


def engine(config, devices: int = 1, **options) -> Likelihoods:
    return Likelihoods(*model_of(config), make_mesh(MeshShape(data=devices), jax.devices()[:devices]), **options)


def requests(seed: int = 0, lengths=(1, 4, 4, 30)) -> list[Request]:
    """Contexts with one to three continuations each, shuffled; the last context is longer than the model's."""
    rng = np.random.default_rng(seed)
    found = []
    for number, length in enumerate(lengths):
        context = rng.integers(1, 61, length).tolist()
        found += [Request(context, rng.integers(1, 61, size).tolist()) for size in (5, 1, 5)[: 1 + number % 3]]
    return [found[i] for i in rng.permutation(len(found))]


def alone(config, asked) -> list:
    model, params = model_of(config)
    return [likelihood.likelihood(model, params, request) for request in asked]


def assert_equal(found, expected) -> None:
    np.testing.assert_allclose([one.log_prob for one in found], [one.log_prob for one in expected], rtol=1e-5, atol=1e-5)
    assert [one.greedy for one in found] == [one.greedy for one in expected]


@pytest.mark.parametrize(
    "config", [GPT2, GEMMA2, dataclasses.replace(EXPERTS, expert_capacity=1.0), T5], ids="gpt2 gemma2 experts t5".split()
)
def test_packed_requests_are_as_likely_as_one_at_a_time(config, monkeypatch):
    """Also where the model knows no branches, where its experts have a capacity, and where it reads the context apart."""
    monkeypatch.setattr(likelihood, "ROW", 32)
    asked = requests()
    apart = dataclasses.replace(config, expert_capacity=0.0)
    measure = engine(config, tokens=64)
    assert_equal(measure(asked), alone(apart, asked))
    context = [5, 4, 3]
    every = measure([Request(context, [token]) for token in range(61)])
    best = int(np.argmax([one.log_prob for one in every]))
    assert [token for token, one in enumerate(every) if one.greedy] == [best]
    assert np.isclose(sum(np.exp(one.log_prob) for one in every), 1.0, atol=1e-5)
    assert_equal([every[best]], alone(apart, [Request(context, [best])]))


def test_a_shared_context_is_read_once():
    """Three continuations of a context take its places and, but for their last tokens, their own."""
    rows = next(engine(LLAMA)._batches(engine(LLAMA)._texts([Request([1] * 10, [2] * size) for size in (1, 3, 5)])))
    assert (rows.segments > 0).sum() == 10 + 0 + 2 + 4
    assert (rows.owners >= 0).sum() == 1 + 3 + 5


def test_what_contexts_share_is_read_once(monkeypatch):
    """As solved examples before questions: with labels of one token a question costs its own tokens alone."""
    shared = [7] * 12
    asked = [Request([*shared, 1 + number, 2, 3], [label]) for number in range(3) for label in (4, 5)]
    rows = next(engine(LLAMA)._batches(engine(LLAMA)._texts(asked)))
    assert (rows.segments > 0).sum() == 12 + 3 * 3 and (rows.owners >= 0).sum() == 6
    apart = [Request([number, *shared], [label] * size) for number in range(3) for label, size in ((4, 2), (5, 1))]
    rows = next(engine(LLAMA)._batches(engine(LLAMA)._texts(apart)))
    assert (rows.segments > 0).sum() == 3 * (13 + 1), "nothing is shared where they begin in other ways"
    rng = np.random.default_rng(0)

    def some(count: int) -> list[int]:
        return rng.integers(1, 61, count).tolist()

    contexts = [*([*shared, *some(size)] for size in (0, 1, 1, 2, 3, 6)), some(9), some(5), shared[:7]]
    several = [Request(context, some(size)) for context in contexts for size in (1, 3, 1)]
    alike = [Request(context, some(1)) for context in contexts for _ in range(2)]
    several = [(several + alike)[i] for i in rng.permutation(len(several + alike))]
    monkeypatch.setattr(likelihood, "ROW", 32)
    for config in (GPT2, LLAMA):
        assert_equal(engine(config, tokens=64)(several), alone(config, several))
    count = sum((rows.segments > 0).sum() for rows in engine(LLAMA)._batches(engine(LLAMA)._texts(several)))
    assert count < sum(len(context) for context in contexts) + 3 * 2 * len(contexts)


def test_no_continuation_sees_another():
    """By gradients: what a branch predicts does not move with another branch's inputs, nor the trunk with any."""
    model, params = make(LLAMA)
    branches_T = jnp.array([0, 0, 0, 1, 1, 2, 2, 2])
    where = {
        "segments_BT": jnp.ones((1, 8), jnp.int32),
        "positions_BT": jnp.array([[0, 1, 2, 3, 4, 3, 4, 5]]),
        "branches_BT": branches_T[None],
    }

    def outputs(stream_BTD):
        return model.apply({"params": params}, jnp.zeros((1, 8), jnp.int32), stream_BTD=stream_BTD, branch=0, **where).hidden_BTD.sum(
            (0, 2)
        )

    stream_BTD = jax.random.normal(jax.random.key(0), (1, 8, LLAMA.embed_dim))
    moved_TS = np.abs(jax.jit(jax.jacrev(outputs))(stream_BTD)[:, 0]).sum(-1) > 0
    query_T1, key_1S = np.arange(8)[:, None], np.arange(8)[None]
    same = (branches_T[None] == 0) | (branches_T[:, None] == branches_T[None])
    np.testing.assert_array_equal(moved_TS, (query_T1 >= key_1S) & same)


def test_models_that_count_places_in_the_row_refuse_branches():
    model, params = make(GEMMA2)
    with pytest.raises(ValueError, match="branches need positions"):
        model.apply({"params": params}, jnp.zeros((1, 4), jnp.int32), branches_BT=jnp.zeros((1, 4), jnp.int32))


def test_devices_and_the_size_of_a_batch_change_nothing():
    asked = requests(seed=1)
    assert_equal(engine(LLAMA, devices=4, tokens=1024)(asked), engine(LLAMA)(asked))


def test_whole_texts_in_disjoint_windows():
    """Each token once: the first behind the start, whole windows behind one token, the last behind all that the context has room for."""
    text, length = np.random.default_rng(0).integers(1, 61, 21).tolist(), 8
    windows = [([0], text[:8]), (text[7:8], text[8:16]), (text[21 - 9 : 16], text[16:])]
    expected = sum(one.log_prob for one in alone(LLAMA, [Request(*window) for window in windows]))
    found = engine(LLAMA, context_length=length).rolling([text, [], text[:3]], 0)
    assert np.isclose(found[0], expected, atol=1e-4) and found[1] == 0
    assert np.isclose(found[2], alone(LLAMA, [Request([0], text[:3])])[0].log_prob, atol=1e-5)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UserError, match="25 tokens; the model reads 24"):
        engine(GPT2)([Request([1], [2] * 25)])
    for request in (Request([], [1]), Request([1], [])):
        with pytest.raises(UserError, match="without a context or without a continuation"):
            engine(GPT2)([request])
    with pytest.raises(UserError, match="a context of 25 tokens; the model has learned 24 positions"):
        engine(GPT2, context_length=25)
