"""Perturbed embeddings: bounded text by text, never on padding, against the loss; and exact however the gradient is taken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from data.text.rows import TextBatch
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.adapters.options import LoRA
from train.adapters.training import AdaptedLoss, method_of
from train.experiment import CausalLM, Exact, Experiment
from train.kinds import realise
from train.objectives.bind import PartlyFrozen, bind
from train.objectives.tasks.heads import Classes
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss
from train.objectives.tasks.written import ContinuedLoss, WrittenLoss
from train.objectives.terms import Mean, Term
from train.objectives.text.causal_lm import CausalLMLoss
from train.objectives.text.options import MaskedLM
from train.step.adversarial.options import FGM, SMART, FreeLB
from train.step.adversarial.perturbation import direction, lengths, noise, within
from train.tasks.rows import HeadBatch, SourceBatch
from train.verbs.config_files import with_kinds

ROWS, LENGTH, WIDTH, TEXTS = 4, 8, 16, 2
SHAPE = {"vocab_size": 24, "context_length": LENGTH, "num_layers": 1, "embed_dim": WIDTH, "num_heads": 2, "init_std": 0.3}
ENCODER = TextEncoderConfig(**SHAPE, dropout=0.2, pooler=False, prediction_head=False)
KEY = jax.random.key(3)


def head_batch() -> HeadBatch:
    """Four rows of one or two texts and some padding."""
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
    positions = np.array([[np.sum(row[:place] == row[place]) for place in range(LENGTH)] for row in segments], np.int32)
    there = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], np.float32)
    items = np.where(there > 0, np.cumsum(there).reshape(there.shape) - 1, -1).astype(np.int32)
    tokens = (rng.integers(1, 24, segments.shape) * (segments > 0)).astype(np.int32)
    labels = rng.integers(0, 3, there.shape).astype(np.int32)
    return HeadBatch(tokens, segments, positions, 0 * tokens, labels, there, items, np.arange(ROWS, dtype=np.int32))


def head_loss(**options) -> HeadLoss:
    return HeadLoss(realise(ENCODER), Classes(3), Supervised(**options), "mean")


def experiment(gradient, micro_batches: int = 1, model=ENCODER, objective=None) -> Experiment:
    return Experiment(
        model=model, objective=objective or Supervised(labels=tuple("abc")), gradient=gradient, batch_size=ROWS, micro_batches=micro_batches
    )


def gradient_of(gradient, loss=None, batch=None, micro_batches: int = 1, params=None, key=KEY, model=ENCODER):
    """(gradients, metrics)."""
    loss, batch = loss or head_loss(), batch or head_batch()
    method = realise(gradient, experiment(gradient, micro_batches, model), "example")
    params = fresh(loss) if params is None else params
    gradients, metrics, _ = jax.jit(lambda params, batch: method(loss, params, batch, key))(params, batch)
    return gradients, {name: float(m.total / m.weight) for name, m in metrics.items()}


def fresh(loss):
    return jax.tree.map(lambda box: box.unbox(), loss.start(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "unbox"))


def close(a, b, rtol=2e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


@pytest.mark.parametrize(
    "gradient", [FreeLB(steps=1, magnitude=0.0), FreeLB(steps=2, magnitude=0.0, step_size=0.0), FGM(weight=0.0), SMART(weight=0.0)]
)
def test_without_a_perturbation_it_is_the_plain_gradient(gradient):
    close(gradient_of(gradient)[0], gradient_of(Exact())[0])


@pytest.mark.parametrize("gradient", [FGM(), FreeLB(steps=2), SMART(), SMART(symmetric=False)])
def test_micro_batches_change_nothing(gradient):
    """Each text is perturbed by its own gradient and its row's own draw, so parts of a batch add up to the whole."""
    close(gradient_of(gradient, micro_batches=2)[0], gradient_of(gradient)[0], rtol=1e-3)


@dataclasses.dataclass(frozen=True)
class Linear:
    """sum over texts of w . (sum of a text's moved embeddings), w being the same for all tokens: its worst perturbation is known."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        weights = (batch.segments != 0)[..., None] * params["w"]
        loss = (weights * batch.shift).sum() if batch.shift is not None else jnp.float32(0)
        return {"loss": Term(1.0, loss, jnp.float32(1))}, {}, carry


def test_fgm_of_a_linear_loss_is_known_in_closed_form():
    """delta = epsilon w / |w|, spread over the n tokens of a text: the gradient of w . sum(delta) is epsilon w / |w| * sqrt(n) per text."""
    w = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)
    batch = head_batch()
    gradients, metrics = gradient_of(FGM(epsilon=0.5), Linear(), batch, params={"w": w})
    roots = sum(np.sqrt((row == text).sum()) for row in batch.segments for text in (1, 2))
    np.testing.assert_allclose(gradients["w"], 0.5 * roots * w / np.linalg.norm(w), rtol=1e-5)
    np.testing.assert_allclose(metrics["adversarial"], 0.5 * roots * np.linalg.norm(w), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A loss that also says how long the perturbation of each text was, at most, and on padding."""

    loss: HeadLoss

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        terms, metrics, carry = self.loss(params, batch, key, frozen=frozen, carry=carry)
        size = lengths(batch.shift, batch.segments).max() if batch.shift is not None else jnp.float32(0)
        padding = jnp.abs(jnp.where((batch.segments == 0)[..., None], batch.shift, 0)).max() if batch.shift is not None else jnp.float32(0)
        return terms, metrics | {"size": Mean(size, jnp.float32(1)), "padding": Mean(padding, jnp.float32(1))}, carry


def test_freelb_stays_within_its_bound_and_off_padding():
    """Were the projection one of rows, the two texts of a row would share its length."""
    batch = head_batch()
    found = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, LENGTH, WIDTH)), jnp.float32)
    unit = direction(found, batch.segments)
    square = np.square(unit).sum(-1)
    for row, segments in enumerate(batch.segments):
        for text in set(segments.tolist()) - {0}:
            np.testing.assert_allclose(square[row, segments == text].sum(), 1.0, rtol=1e-5)
        assert not square[row, segments == 0].any()
    assert float(lengths(within(5 * unit, batch.segments, 0.3), batch.segments).max()) == pytest.approx(0.3)
    drawn = noise(jax.random.normal, batch, KEY, WIDTH)
    assert not np.asarray(drawn)[batch.segments == 0].any()
    _, metrics = gradient_of(FreeLB(steps=3, magnitude=9.0, step_size=2.0, epsilon=0.3), Watched(head_loss()), params=fresh(head_loss()))
    assert metrics["padding"] == 0 and metrics["size"] == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("gradient", [FGM(epsilon=0.3), FreeLB(steps=3, magnitude=0.0, step_size=0.2)])
def test_the_perturbed_loss_is_higher(gradient):
    _, metrics = gradient_of(gradient)
    assert metrics["adversarial"] > metrics["loss"]


def test_smart_finds_a_worse_direction_than_chance():
    """Its divergence is above that at random perturbations of the same length."""
    loss, batch, params = head_loss(), head_batch(), fresh(head_loss())
    _, metrics = gradient_of(SMART(epsilon=0.1, steps=2), loss, batch, params=params)
    clean = jax.nn.log_softmax(loss.logits(params, loss.read(params, batch, None), batch))

    @jax.jit
    def at(seed):
        shift = 0.1 * direction(noise(jax.random.normal, batch, jax.random.key(seed), WIDTH), batch.segments)
        moved = batch._replace(shift=shift)
        logits = loss.logits(params, loss.read(params, moved, None), moved)
        return (Classes(3).divergence(clean, logits, batch, True) * batch.weights).sum() / batch.weights.sum()

    assert metrics["divergence"] > max(float(at(seed)) for seed in range(8))


def test_packed_texts_are_perturbed_as_in_rows_of_their_own():
    """FGM without dropout: two texts in one row give the gradient that they give in two."""
    packed = jax.tree.map(lambda x: x[:1], head_batch())
    first, second = packed.segments[0] == 1, packed.segments[0] == 2

    def alone(places, text):
        def moved(x):
            return np.pad(x[0, places], (0, LENGTH - places.sum()))[None]

        return packed._replace(
            tokens=moved(packed.tokens), segments=moved(np.ones_like(packed.segments)), positions=moved(packed.positions),
            types=moved(packed.types), labels=np.array([[packed.labels[0, text], 0]], np.int32),
            weights=np.array([[1, 0]], np.float32), items=np.array([[0, -1]], np.int32),
        )  # fmt: skip

    separate = jax.tree.map(lambda *x: np.concatenate(x), alone(first, 0), alone(second, 1))
    close(gradient_of(FGM(), batch=packed, key=None)[0], gradient_of(FGM(), batch=separate, key=None)[0])


def test_frozen_parameters_get_no_gradient_and_do_not_stop_the_perturbation():
    """The perturbation is of embeddings, not of parameters: it goes through frozen layers to a head that is trained."""
    loss = PartlyFrozen(head_loss(), ("embedding", "layers"))
    gradients, metrics = gradient_of(FGM(), loss, params=fresh(head_loss()))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradients["embedding"], gradients["layers"])))
    assert np.any(gradients["task_head"]["kernel"]) and metrics["adversarial"] > metrics["loss"]


def test_decoders_and_encoder_decoders_take_perturbations_too():
    """Causal language modelling on packed rows; and the source of what an encoder-decoder writes, which its target's loss depends on."""
    head = head_batch()
    where = {"segments": head.segments, "positions": head.positions, "rows": head.rows}
    text = TextBatch(head.tokens, np.roll(head.tokens, -1, 1), (head.segments > 0).astype(np.float32), **where)
    decoder = ModelConfig(**SHAPE)
    bound = bind(Experiment(model=decoder))
    params = jax.tree.map(lambda box: box.unbox(), bound.start(KEY), is_leaf=lambda x: hasattr(x, "unbox"))
    method = realise(FGM(epsilon=0.1), Experiment(model=decoder, gradient=FGM()), "token")
    _, metrics, _ = jax.jit(lambda params, batch: method(bound.loss, params, batch, None))(params, text)
    assert metrics["adversarial"].total > metrics["loss"].total

    both = EncoderDecoderConfig(**SHAPE)
    source = SourceBatch(*text[:6], sources=head.tokens, source_segments=head.segments, source_positions=head.positions)
    loss = WrittenLoss(realise(both), Supervised())
    start = jax.tree.map(lambda box: box.unbox(), loss.model.start(KEY), is_leaf=lambda x: hasattr(x, "unbox"))
    _, metrics = gradient_of(FGM(epsilon=0.1), loss, source, params=start, key=None, model=both)
    assert metrics["adversarial"] > metrics["loss"]


def test_what_models_write_is_compared_too():
    """SMART of a decoder: what it writes moves at second order, as near the least divergence it should."""
    head, decoder = head_batch(), ModelConfig(**SHAPE)
    where = {"segments": head.segments, "positions": head.positions, "rows": head.rows}
    text = TextBatch(head.tokens, np.roll(head.tokens, -1, 1), (head.segments > 0).astype(np.float32), **where)
    loss = ContinuedLoss(CausalLMLoss(realise(decoder), CausalLM()), Supervised())
    params = jax.tree.map(lambda box: box.unbox(), loss.model.start(KEY), is_leaf=lambda x: hasattr(x, "unbox"))
    one, double = (
        gradient_of(SMART(epsilon=epsilon, symmetric=False), loss, text, params=params, model=decoder)[1]["divergence"]
        for epsilon in (0.005, 0.01)
    )
    assert double == pytest.approx(4 * one, rel=0.1)


def test_what_reads_no_perturbation_is_refused_by_name():
    with pytest.raises(UserError, match="FGM: MaskedLM"):
        realise(FGM(), experiment(FGM(), objective=MaskedLM()), "token")
    with pytest.raises(UserError, match="text by text"):
        realise(SMART(), experiment(SMART(), model=ModelConfig(**SHAPE), objective=CausalLM()), "token")
    with pytest.raises(UserError, match="text by text"):
        realise(SMART(), experiment(SMART()), "batch")
    with pytest.raises(UserError, match="r_drop"):
        realise(SMART(), experiment(SMART(), objective=Supervised(labels=("a", "b"), r_drop=1.0)), "example")
    with pytest.raises(UserError, match="micro"):
        realise(FGM(), experiment(FGM(), micro_batches=2), "batch")


def test_the_command_line_chooses_a_method_by_name():
    found = with_kinds(Experiment(), ["--gradient", "freelb", "--gradient.steps", "2"])
    assert found.gradient == FreeLB()
    kept = with_kinds(Experiment(gradient=FreeLB(steps=5)), ["--gradient=freelb"])
    assert kept.gradient.steps == 5  # what a config says of the same method stays
    with pytest.raises(UserError, match="freelp"):
        with_kinds(Experiment(), ["--gradient", "freelp"])


def test_adapters_are_trained_at_embeddings_of_the_frozen_model():
    """The perturbed pass goes through the frozen base, and the gradient is of the adapters alone."""
    tuned = dataclasses.replace(experiment(FGM()), start="a run", adapters=LoRA(rank=2))
    method, whole = method_of(tuned), fresh(head_loss())
    loss = AdaptedLoss(head_loss(), method, ())
    leaves = method.fresh(KEY, flatten_dict(head_loss().start(jax.random.key(0))))
    leaves = jax.tree.map(lambda box: box.unbox(), unflatten_dict(leaves), is_leaf=lambda x: hasattr(x, "unbox"))
    adversarial = realise(FGM(), tuned, "example")
    found, metrics, _ = jax.jit(lambda leaves, base: adversarial(loss, leaves, head_batch(), KEY, frozen={"base": base}))(leaves, whole)
    assert jax.tree.structure(found) == jax.tree.structure(leaves)
    assert float(metrics["adversarial"].total) > float(metrics["loss"].total)
