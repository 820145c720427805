"""Heads against their definitions, in NumPy, and rows that hold several texts against a row for each."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.text_encoder import TextEncoder
from model.text_encoder_config import TextEncoderConfig
from train.objectives.tasks.heads import Choice, Classes, Number, SeveralLabels, Span
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.retrieval import Retrieval, RetrievalLoss
from train.objectives.tasks.supervised import HeadLoss
from train.tasks.packing import Piece, lay, size
from train.tasks.rows import head_batch

CONFIG = TextEncoderConfig(vocab_size=40, context_length=24, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3)
LENGTH, TEXTS = 24, 6


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


class Batch:
    def __init__(self, **fields):
        self.__dict__.update({name: jnp.asarray(value) for name, value in fields.items()})


def test_smoothed_labels_are_a_mixture_with_the_uniform():
    logits, labels = np.random.default_rng(0).normal(size=(1, 3, 5)).astype(np.float32), np.array([[0, 4, 2]])
    log_p, shares = log_softmax(logits), 0.8 * np.eye(5)[labels] + 0.2 / 5
    losses, hits = Classes(5).losses(jnp.asarray(logits), Batch(labels=labels), 0.2)
    np.testing.assert_allclose(losses, -(shares * log_p).sum(-1), rtol=1e-5)
    assert (np.asarray(hits) == (logits.argmax(-1) == labels)).all()


def test_several_labels_are_as_many_binary_ones():
    logits = np.array([[[2.0, -1.0, 0.5]]])
    labels = np.array([[[1.0, 0.0, 0.0]]])
    p = 1 / (1 + np.exp(-logits))
    losses, hits = SeveralLabels(3).losses(jnp.asarray(logits), Batch(labels=labels))
    np.testing.assert_allclose(losses, -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(-1), rtol=1e-5)
    assert not np.asarray(hits).any()  # the third is above one half, and does not hold


def test_a_number_costs_its_squared_error():
    losses, hits = Number().losses(jnp.array([[[2.0], [0.5]]]), Batch(labels=[[1.0, 0.5]]))
    np.testing.assert_allclose(losses, [[1.0, 0.0]])
    assert hits is None


def test_a_choice_is_among_the_texts_of_its_own_example():
    """Two questions share a row: each one's softmax knows its own choices alone, padding none."""
    logits, items = np.array([[1.0, 3.0, -2.0, 0.0, 9.0]]), np.array([[0, 0, 1, 1, -1]])
    labels = np.array([[0, 1, 1, 0, 0]])
    losses, hits = Choice().losses(jnp.asarray(logits[..., None]), Batch(labels=labels, items=items))
    first, second = log_softmax(logits[0, :2]), log_softmax(logits[0, 2:4])
    np.testing.assert_allclose(np.asarray(losses)[0, [1, 2]], [-first[1], -second[0]], rtol=1e-5)
    assert np.asarray(hits)[0, [1, 2]].tolist() == [True, False]


def test_a_span_is_among_the_allowed_places_of_its_own_text():
    logits = np.random.default_rng(1).normal(size=(1, 7, 2)).astype(np.float32)
    segments, labels = np.array([[1, 1, 1, 2, 2, 2, 0]]), np.array([[1, 0, 1 + 2 + 4, 1, 1 + 2, 1 + 4, 0]])
    losses, _ = Span().losses(jnp.asarray(logits), Batch(labels=labels, segments=segments))
    start, end = (log_softmax(logits[0, [3, 4, 5], side]) for side in (0, 1))
    own = [log_softmax(logits[0, [0, 2], side])[1] for side in (0, 1)]
    np.testing.assert_allclose(np.asarray(losses)[0, 0], -0.5 * sum(own), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(losses)[0, 3], -0.5 * (start[1] + end[2]), rtol=1e-5)


def items_of(seed: int, texts: int = 1, by_token: bool = False):
    """Five examples of some texts each, with labels below 3."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(5):
        pieces = []
        for number in range(texts):
            ids = rng.integers(1, 40, rng.integers(3, 8)).astype(np.int32)
            label = rng.integers(0, 3, len(ids)) if by_token else np.int32(number if texts > 1 else rng.integers(0, 3))
            pieces.append(Piece(ids, np.zeros(len(ids), np.int32), label))
        found.append(tuple(pieces))
    return found


@pytest.mark.parametrize(("pool", "by_token"), [("pooler", False), ("first", False), ("mean", False), ("mean", True)])
def test_texts_that_share_a_row_are_judged_as_alone(pool, by_token):
    """Loss, gradient and answers of packed rows equal those of a row for each example."""
    loss = HeadLoss(TextEncoder(CONFIG), Classes(3, by_token), Supervised(), pool)
    params = nn.unbox(loss.start(jax.random.key(0)))
    items, label = items_of(0, by_token=by_token), np.zeros((), np.int32)
    packed = lay(np.stack([size(item) for item in items]), (LENGTH, 0, TEXTS))
    assert len(packed) < len(items)
    answers, found = [], []
    for laid in (packed, [[number] for number in range(len(items))]):
        batch = head_batch(items, laid, np.arange(len(laid)), LENGTH, TEXTS, label, by_token)

        def total(params, batch=batch):
            terms, _, _ = loss(params, batch, None)
            return terms["loss"].total / terms["loss"].weight

        found.append(jax.jit(jax.value_and_grad(total))(params))
        outputs, own = jax.jit(loss.outputs)(params, batch), {}
        for row, text in zip(*np.nonzero(batch.items >= 0), strict=True):
            there = batch.segments[row] == text + 1
            own[int(batch.items[row, text])] = outputs["values"][row, there] if by_token else outputs["values"][row, text]
        answers.append(own)
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    scale = optax.tree.norm(found[1][1])
    assert optax.tree.norm(jax.tree.map(jnp.subtract, found[0][1], found[1][1])) < 1e-5 * scale
    for number in range(len(items)):
        np.testing.assert_allclose(answers[0][number], answers[1][number], rtol=1e-4, atol=1e-6)


def test_balanced_weights_make_classes_equal():
    """Of labels a a a b, b's only example weighs as much as the three of a."""
    loss = HeadLoss(TextEncoder(CONFIG), Classes(2), Supervised(), "mean", class_weights=(4 / 6, 4 / 2))
    batch = Batch(labels=[[0, 0, 0, 1]], weights=[[1.0] * 4])
    weights = np.asarray(loss.weights(batch))[0]
    np.testing.assert_allclose(weights[:3].sum(), weights[3], rtol=1e-6)


def test_a_pair_finds_its_own_text_in_the_batch():
    """Nats of the right text among the texts of all pairs, both ways, by NumPy."""
    options = Retrieval(temperature=0.1)
    loss = RetrievalLoss(TextEncoder(dataclasses.replace(CONFIG, pooler=False)), None, options, "mean")
    params = nn.unbox(loss.start(jax.random.key(0)))
    items = items_of(3, texts=2)
    laid = lay(np.stack([size(item) for item in items]), (LENGTH, 0, TEXTS))
    batch = head_batch(items, laid, np.arange(len(laid)), LENGTH, TEXTS, np.zeros((), np.int32), False)
    vectors = np.asarray(loss.outputs(params, batch)["values"])
    there = batch.items >= 0
    side = {0: {}, 1: {}}
    for row, text in zip(*np.nonzero(there), strict=True):
        side[int(batch.labels[row, text])][int(batch.items[row, text])] = vectors[row, text]
    left, right = (np.stack([side[k][i] for i in range(len(items))]) for k in (0, 1))
    scores = left @ right.T / 0.1
    expected = -(np.diag(log_softmax(scores)) + np.diag(log_softmax(scores.T))).sum()
    terms, _, _ = loss(params, batch, None)
    np.testing.assert_allclose(terms["loss"].total, expected, rtol=1e-4)
    assert terms["loss"].weight == 2 * len(items)
