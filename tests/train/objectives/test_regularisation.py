"""R-Drop, mixup and divergences of heads: zero where nothing differs, symmetric, and of single texts however they are packed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.text.rows import TextBatch
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.kinds import realise
from train.objectives.bind import bind
from train.objectives.tasks.comparing import AGAIN
from train.objectives.tasks.heads import Choice, Classes, Number, SeveralLabels, Span
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss, by_number, mixing
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.rows import HeadBatch, SourceBatch
from train.tasks.sequence import SequenceToSequence
from train.tasks.similarity import Similarity

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


SHAPE = {"vocab_size": 16, "context_length": 6, "num_layers": 1, "embed_dim": 8, "num_heads": 2, "init_std": 0.5}


def writer(kind: str, dropout: float = 0.0, **options):
    """(loss, batch, parameters) of a model that writes; the second half of each text is the answer."""
    config = (ModelConfig if kind == "decoder" else EncoderDecoderConfig)(**SHAPE, dropout=dropout)
    task = Classification() if kind == "decoder" else SequenceToSequence()
    bound = bind(Experiment(model=config, data=task, objective=Supervised(labels=("a", "b"), **options)))
    head = head_batch()
    where = {"segments": head.segments, "positions": head.positions, "rows": head.rows}
    weights = ((head.segments > 0) & (head.positions > 0)).astype(np.float32)
    batch = TextBatch(head.tokens, np.roll(head.tokens, -1, 1), weights, **where)
    if kind != "decoder":
        batch = SourceBatch(*batch[:6], sources=head.tokens, source_segments=head.segments, source_positions=head.positions)
    params = jax.tree.map(lambda box: box.unbox(), bound.start(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "unbox"))
    return bound.loss, batch, params


def terms_of(made, key=None):
    loss, batch, params = made
    return {name: float(term.total / term.weight) for name, term in jax.jit(loss)(params, batch, key)[0].items()}


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_what_is_written_is_smoothed_over_the_vocabulary_in_training_alone(kind):
    """-sum_v q_v log p_v with q of the definition: 1 - s for the token, and s spread over all."""
    loss, batch, params = made = writer(kind, label_smoothing=0.3)
    predicted = loss.forward(params, batch, None)
    log_p = np.asarray(jax.nn.log_softmax(predicted.head.hidden_BTD @ predicted.head.table_VD.T), np.float64)
    wanted = 0.7 * np.eye(16)[batch.targets] + 0.3 / 16
    nats = -(wanted * log_p).sum(-1)
    key = jax.random.key(1)
    assert terms_of(made, key)["loss"] == pytest.approx((nats * batch.weights).sum() / batch.weights.sum(), rel=1e-5)
    assert terms_of(made) == pytest.approx(terms_of(writer(kind), key), rel=1e-6)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_r_drop_of_what_is_written_is_the_divergence_both_ways(kind):
    key, weight = jax.random.key(1), 4.0
    loss, batch, params = made = writer(kind, 0.3, r_drop=weight)
    passes = [loss.forward(params, batch, one).head for one in (key, jax.random.fold_in(key, AGAIN))]
    log_p, log_q = (np.asarray(jax.nn.log_softmax(head.hidden_BTD @ head.table_VD.T), np.float64) for head in passes)
    apart = ((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q)).sum(-1)
    found = terms_of(made, key)
    assert found["dropout_divergence"] == pytest.approx((apart * batch.weights).sum() / batch.weights.sum(), rel=1e-4)
    targets = batch.targets[..., None]
    both = -(np.take_along_axis(log_p, targets, -1) + np.take_along_axis(log_q, targets, -1))[..., 0] / 2
    assert found["loss"] == pytest.approx((both * batch.weights).sum() / batch.weights.sum(), rel=1e-5)
    assert loss(params, batch, key)[0]["dropout_divergence"].coefficient == weight / 2
    assert set(terms_of(made)) == {"loss"}


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
    with pytest.raises(UserError, match="r_drop.*has none"):
        bind(Experiment(model=decoder, data=Classification(), objective=Supervised(labels=("a", "b"), r_drop=1.0)))
    with pytest.raises(UserError, match="mixup"):
        bind(Experiment(model=ENCODER, data=MultipleChoice(), objective=Supervised(mixup=0.4)))
    with pytest.raises(UserError, match="mixup.*writes"):
        bind(Experiment(model=decoder, data=Classification(), objective=Supervised(labels=("a", "b"), mixup=1.0)))
    with pytest.raises(UserError, match="label_smoothing"):
        bind(Experiment(model=ENCODER, data=Similarity(), objective=Supervised(label_smoothing=0.1)))
    with pytest.raises(ValueError, match="mixup"):
        Supervised(r_drop=1.0, mixup=0.4)
    assert Supervised(mixup=0.4).unit == "batch"
