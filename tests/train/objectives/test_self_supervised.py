"""What holds of every objective on text: it learns, micro-batches and the order of rows change nothing, evaluation draws nothing."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import CausalLM, Experiment, TextData
from train.objectives.bind import bind
from train.objectives.text.options import AutoEncoding, MaskedLM, PrefixLM, ReplacedTokens, SentencePairs, SimCSE, SpanDenoising, Sum
from train.runs.directory import open_corpora
from train.runs.resolve import resolve
from train.sources.dataset import check_reads, dataset_of
from train.sources.pairs import SentencePairData
from train.step.gradients import accumulated, plain

SHAPE = {"context_length": 48, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "dropout": 0.1}
ENCODER, DECODER, BOTH = TextEncoderConfig(**SHAPE), ModelConfig(**SHAPE, positions="rotary"), EncoderDecoderConfig(**SHAPE)
ROWS = 8
CASES = {
    "bert": (MaskedLM(rate=0.3, spans=True, sentence_pairs=1.0), ENCODER, "pairs"),
    "sentence_order": (SentencePairs(), ENCODER, "pairs"),
    "electra": (ReplacedTokens(generator_size=0.5), dataclasses.replace(ENCODER, embedding_dim=8), "tokens"),
    "simcse": (SimCSE(texts=4), ENCODER, "tokens"),
    "t5": (SpanDenoising(), BOTH, "tokens"),
    "prefix_both": (PrefixLM(), BOTH, "tokens"),
    "prefix_decoder": (PrefixLM(), DECODER, "tokens"),
    "bart": (AutoEncoding(shuffling="sentences", deletion=0.1), BOTH, "tokens"),
    "gpt_auto": (Sum(objectives=(CausalLM(), AutoEncoding(shuffling="windows")), coefficients=(1.0, 0.5)), DECODER, "tokens"),
}

APART = ("bert", "electra", "t5", "gpt_auto")
"""Those whose gradient is taken in parts too: they have a term more, rows of other lengths, or both."""


@pytest.fixture(scope="module")
def case(corpora):
    """case(name): the experiment, resolved; its bound objective; a batch, some of whose rows are past the end of an evaluation."""

    @functools.cache
    def make(name: str):
        objective, model, rows = CASES[name]
        data = SentencePairData(shards=corpora[:1], negatives="swapped") if rows == "pairs" else TextData(shards=corpora[:1])
        experiment = Experiment(model=model, data=data, objective=objective, batch_size=ROWS)
        sources = open_corpora(experiment)
        experiment = resolve(experiment, sources)
        check_reads(experiment)
        batch = dataset_of(experiment).batches(sources).batch(0, ROWS)
        batch.weights[3] = 0
        return experiment, bind(experiment), batch

    return make


def program(bound, micro_batches: int):
    """Everything that is asked of an objective, compiled once."""
    optimizer = optax.adam(1e-2)

    def run(params, batch):
        def step(state, number):
            params, moments = state
            gradients, metrics, _ = plain(bound.loss, params, batch, jax.random.fold_in(jax.random.key(1), number % 2))
            updates, moments = optimizer.update(gradients, moments)
            return (optax.apply_updates(params, updates), moments), (metrics, gradients)

        _, (metrics, gradients) = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(30))
        losses = {name: mean.total / jnp.maximum(mean.weight, 1e-8) for name, mean in metrics.items()}
        parts = None
        if micro_batches > 1:
            key = jax.random.fold_in(jax.random.key(1), 0)
            parts = accumulated(bound.loss, params, batch, key, micro_batches=micro_batches)[:2]
        first = jax.tree.map(lambda x: x[0], (gradients, metrics))
        return losses, first, parts, bound.loss(params, batch, None)[:2]

    return jax.jit(run)


@pytest.mark.parametrize("name", CASES)
def test_an_objective_learns_and_parts_of_a_batch_add_up(name, case):
    experiment, bound, batch = case(name)
    params = nn.unbox(jax.jit(bound.start)(jax.random.key(0)))
    micro_batches = 4 if name in APART else 1
    run = program(bound, micro_batches)
    losses, (gradients, metrics), parts, evaluated = run(params, batch)
    for term in ("loss",) if name != "gpt_auto" else ("loss", "auto_encoding/loss"):
        assert np.isfinite(losses[term]).all()
        assert np.mean(losses[term][-4:]) < 0.93 * np.mean(losses[term][:2]), losses[term]
    if parts is not None:
        for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(parts[0]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * max(1e-3, float(np.abs(one).max())))
        for measured, mean in metrics.items():
            np.testing.assert_allclose(mean.weight, parts[1][measured].weight, rtol=1e-6)
            np.testing.assert_allclose(mean.total, parts[1][measured].total, rtol=1e-4, atol=1e-4)
    # The order of rows, and what stands in a row without weight, change nothing.
    order = np.random.default_rng(0).permutation(ROWS)
    other = jax.tree.map(lambda x: x[order], batch)
    other.tokens[order == 3] = other.targets[order == 3] = 1
    again = run(params, other)
    for one, two in zip(jax.tree.leaves(evaluated), jax.tree.leaves(again[3]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses["loss"][0], again[0]["loss"][0], rtol=1e-4)
