"""R-Drop, mixup and divergences of heads: zero where nothing differs, symmetric, and of single texts however they are packed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.kinds import realise
from train.objectives.bind import bind
from train.objectives.tasks.heads import Choice, Classes, Number, SeveralLabels, Span
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss, by_number, mixing
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.rows import HeadBatch

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 2, 2]], np.int32)
LABELS = np.array([[0, 2], [1, 1]], np.int32)
ENCODER = TextEncoderConfig(
    vocab_size=16, context_length=6, num_layers=1, embed_dim=8, num_heads=2, init_std=0.5, pooler=False, prediction_head=False
)


def head_batch(labels=LABELS) -> HeadBatch:
    tokens = np.random.default_rng(0).integers(1, 16, SEGMENTS.shape).astype(np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]], np.int32)
    items = np.array([[0, 0], [1, 1]], np.int32)
    return HeadBatch(tokens, SEGMENTS, positions, 0 * tokens, labels, np.ones((2, 2), np.float32), items, np.arange(2, dtype=np.int32))


@pytest.mark.parametrize(
    "head, shape", [(Classes(3), (2, 2, 3)), (SeveralLabels(3), (2, 2, 3)), (Number(), (2, 2, 1)), (Choice(), (2, 2, 1))]
)
def test_divergence_is_none_of_equal_answers_and_the_same_both_ways(head, shape):
    batch, rng = head_batch(), np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(head.divergence(a, a, batch, True), 0, atol=1e-6)
    there, back = head.divergence(a, b, batch, True), head.divergence(b, a, batch, True)
    np.testing.assert_allclose(there, back, rtol=1e-5)
    assert np.all(np.asarray(there) > 0) and there.shape == (2, 2)
    if not isinstance(head, Number):  # whose squared difference has no sides
        one_way = head.divergence(a, b, batch, False) + head.divergence(b, a, batch, False)
        np.testing.assert_allclose(one_way, there, rtol=1e-4)


def test_divergence_of_classes_is_that_of_its_definition():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    found = Classes(3).divergence(jnp.log(p)[None, None], jnp.log(q)[None, None], None, False)
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(), rtol=1e-5)


def test_divergence_of_spans_stands_at_every_token_of_its_text():
    batch = head_batch(np.ones_like(SEGMENTS))
    a, b = (np.random.default_rng(seed).normal(size=(2, 6, 2)).astype(np.float32) for seed in (0, 1))
    found = np.asarray(Span().divergence(a, b, batch, True))
    for text in (1, 2):
        places = SEGMENTS[0] == text
        log_p, log_q = (np.asarray(jax.nn.log_softmax(x[0, places], axis=0)) for x in (a, b))
        np.testing.assert_allclose(found[0, places], ((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q)).sum() / 2, rtol=1e-4)


def loss_of(dropout: float = 0.0, **options):
    config = TextEncoderConfig(**{**vars(ENCODER), "dropout": dropout})
    loss = HeadLoss(realise(config), Classes(3), Supervised(head_dropout=0.0, **options), "mean")
    params = jax.tree.map(lambda box: box.unbox(), loss.start(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "unbox"))
    return {name: float(t.total / t.weight) for name, t in jax.jit(loss)(params, head_batch(), jax.random.key(1))[0].items()}


def test_r_drop_counts_what_dropout_changes():
    """Without dropout both passes agree: the divergence is 0, and the loss that of one pass. With it they differ."""
    plain, still, dropped = loss_of(), loss_of(r_drop=4.0), loss_of(dropout=0.3, r_drop=4.0)
    assert still["dropout_divergence"] == pytest.approx(0, abs=1e-6) and still["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert dropped["dropout_divergence"] > 1e-3


def test_mixing_pairs_each_text_with_another_and_leaves_empty_places_alone():
    weights = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], np.float32)
    share, other = (np.asarray(x) for x in mixing(jax.random.key(0), weights, 0.5))
    there = np.flatnonzero(weights.reshape(-1))
    partners = other.reshape(-1)[there]
    assert sorted(partners) == there.tolist() and not np.any(partners == there)
    assert np.all(share[weights == 0] == 1) and np.all((share >= 0) & (share <= 1))
    np.testing.assert_array_equal(by_number(np.arange(9).reshape(3, 3), other), other)


def test_a_mixture_of_all_of_one_text_is_no_mixture():
    """Beta(alpha, alpha) of a tiny alpha draws 0 or 1: the loss is then a mean of losses of unmixed texts, each counted once or twice."""
    assert loss_of(mixup=0.5)["loss"] != loss_of()["loss"]
    share, _ = mixing(jax.random.key(2), np.ones((2, 2), np.float32), 1e-3)
    np.testing.assert_allclose(np.minimum(share, 1 - share), 0, atol=1e-3)


def test_what_has_no_head_or_no_labels_of_its_own_is_refused():
    decoder = ModelConfig(vocab_size=16, context_length=8, num_layers=1, embed_dim=8, num_heads=2)
    with pytest.raises(UserError, match="r_drop"):
        bind(Experiment(model=decoder, data=Classification(), objective=Supervised(labels=("a", "b"), r_drop=1.0)))
    with pytest.raises(UserError, match="mixup"):
        bind(Experiment(model=ENCODER, data=MultipleChoice(), objective=Supervised(mixup=0.4)))
    with pytest.raises(ValueError, match="mixup"):
        Supervised(r_drop=1.0, mixup=0.4)
    assert Supervised(mixup=0.4).unit == "batch"
