"""Distillation: nothing to learn from oneself, closed forms of the divergences, and a teacher that is no part of the student's state."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.text.rows import TextBatch
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.heads import Head, score_tokens
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.adapters.options import LoRA
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.objectives.bind import bind, bind_trained, frozen_shapes
from train.objectives.distillation import Distillation
from train.objectives.distilled_loss import hidden_cosine, hidden_mse, pairs_of
from train.objectives.tasks.heads import Choice, Classes, Number, SeveralLabels, Span
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.tasks.supervised import HeadLoss
from train.objectives.text.options import MaskedLM
from train.runs.directory import open_run
from train.runs.inherit import with_layers
from train.sources.dataset import dataset_of
from train.step.gradients import loss_of
from train.tasks.classification import Classification
from train.tasks.retrieval import TextPairs
from train.tasks.rows import HeadBatch

SHAPE = {"vocab_size": 16, "context_length": 8, "embed_dim": 8, "num_heads": 2, "init_std": 0.5}
DECODER = ModelConfig(num_layers=1, **SHAPE)
ENCODER = TextEncoderConfig(num_layers=2, pooler=False, token_types=0, **SHAPE)
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)


def text_batch(seed: int = 0, padding: int = 0) -> TextBatch:
    """padding: the ids that stand in it."""
    rng = np.random.default_rng(seed)
    tokens, targets = (np.where(SEGMENTS > 0, rng.integers(1, 16, SEGMENTS.shape), padding).astype(np.int32) for _ in range(2))
    positions = np.array([[0, 1, 2, 3, 0, 1, 0, 0], range(8)], np.int32)
    return TextBatch(tokens, targets, (SEGMENTS > 0).astype(np.float32), SEGMENTS, positions, np.arange(2, dtype=np.int32))


def head_batch(labels) -> HeadBatch:
    text, items = text_batch(), np.array([[0, 0], [1, -1]], np.int32)
    weights = (items >= 0).astype(np.float32)
    return HeadBatch(text.tokens, SEGMENTS, text.positions, 0 * text.tokens, labels, weights, items, text.rows)


def bound_of(of, model, **options):
    options = {"alpha": 1.0, "teacher_model": (model,)} | options
    return bind(Experiment(model=model, objective=Distillation(of=of, **options)))


def fresh(bound, seed: int = 0):
    return nn.unbox(bound.start(jax.random.key(seed)))


def learned(bound, params, teacher, batch):
    """(terms as means, gradient) of a step without dropout."""

    def loss(params):
        terms, _, _ = bound.loss(params, batch, jax.random.key(1), frozen={"teacher": teacher})
        return loss_of(terms, None or {name: term.weight for name, term in terms.items()}), terms

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(params)
    return {name: float(term.total / term.weight) for name, term in terms.items()}, gradient


@pytest.mark.parametrize("of, model", [(CausalLM(), DECODER), (MaskedLM(mask=3, ordinary=16, rate=0.5), ENCODER)])
def test_of_a_teacher_that_is_the_student_there_is_nothing_to_learn(of, model):
    """KL 0 and no gradient, hidden states included; another teacher has both."""
    bound = bound_of(of, model, hidden="mse")
    params, other = fresh(bound), fresh(bound, 1)
    found, gradient = learned(bound, params, params, text_batch())
    assert found["distillation"] == pytest.approx(0, abs=1e-6) and found["hidden"] == pytest.approx(0, abs=1e-9)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5
    found, gradient = learned(bound, params, other, text_batch())
    assert found["distillation"] > 0.1 and found["hidden"] > 0.1
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 1e-2


def test_the_divergence_is_that_of_its_definition_and_padding_does_not_count():
    bound = bound_of(CausalLM(), DECODER, temperature=3.0)
    params, teacher = fresh(bound), fresh(bound, 1)
    batch = text_batch()

    def log_p(params):
        passed = bound.loss.own.forward(params, batch, None)
        return np.asarray(jax.nn.log_softmax(passed.head.hidden_BTD @ passed.head.table_VD.T / 3.0), np.float64)[SEGMENTS > 0]

    p, q = log_p(params), log_p(teacher)
    found, _ = learned(bound, params, teacher, batch)
    assert found["distillation"] == pytest.approx((np.exp(q) * (q - p)).sum(-1).mean(), rel=1e-4)
    assert learned(bound, params, teacher, text_batch(padding=7))[0]["distillation"] == pytest.approx(found["distillation"], rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_alpha_shares_the_loss_between_the_data_and_the_teacher(alpha):
    bound = bound_of(CausalLM(), DECODER, alpha=alpha, temperature=2.0)
    params, batch = fresh(bound), text_batch()
    terms, _, _ = bound.loss(params, batch, jax.random.key(1), frozen={"teacher": fresh(bound, 1)})
    assert terms["loss"].coefficient == 1 - alpha and terms["distillation"].coefficient == alpha * 4
    evaluated, _, _ = bound.loss(params, batch, None)
    assert list(evaluated) == ["loss"] and evaluated["loss"].coefficient == 1.0  # a teacher is not asked


def test_at_a_high_temperature_the_gradient_is_that_of_the_squared_distance_of_logits():
    """T^2 KL tends to the variance of the difference of the logits, over twice their number (Hinton et al. 2015, eq. 4)."""
    rng = np.random.default_rng(0)
    hidden, other = (jnp.asarray(rng.normal(size=(2, 3, 16)), jnp.float32) for _ in range(2))
    table, targets, temperature = jnp.eye(16), jnp.zeros((2, 3), jnp.int32), 100.0

    def soft(hidden):
        how = {"want": ("reverse_kl",), "other": Head(other, table), "temperature": temperature}
        return temperature**2 * score_tokens(Head(hidden, table), targets, **how).reverse_kl.sum()

    difference = np.asarray(hidden - other)
    expected = (difference - difference.mean(-1, keepdims=True)) / 16
    np.testing.assert_allclose(jax.grad(soft)(hidden), expected, atol=2e-3)


def test_divergences_of_heads_hold_by_definition():
    """jensen_shannon is symmetric and at most log 2; reverse_kl is kl with the heads exchanged; chunks change nothing."""
    rng = np.random.default_rng(0)
    own, other = (Head(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 6, 4), (16, 4)))) for _ in range(2))
    want, targets = ("kl", "reverse_kl", "jensen_shannon"), jnp.zeros((2, 6), jnp.int32)
    there, back = (score_tokens(a, targets, want=want, other=b) for a, b in ((own, other), (other, own)))
    np.testing.assert_allclose(there.reverse_kl, back.kl, rtol=1e-4)
    np.testing.assert_allclose(there.jensen_shannon, back.jensen_shannon, rtol=1e-4)
    assert 0 < float(there.jensen_shannon.max()) <= np.log(2)
    chunked = score_tokens(own, targets, want=want, other=other, chunk=4)
    np.testing.assert_allclose(chunked.jensen_shannon, there.jensen_shannon, rtol=1e-4)


@pytest.mark.parametrize(
    "head, labels",
    [
        (Classes(3), np.array([[0, 2], [1, 0]], np.int32)),
        (SeveralLabels(3), np.ones((2, 2, 3), np.float32)),
        (Number(), np.ones((2, 2), np.float32)),
        (Choice(), np.array([[1, 0], [1, 0]], np.int32)),
        (Span(), np.where(SEGMENTS > 0, 1, 0).astype(np.int32)),
        (Classes(3, by_token=True), np.where(SEGMENTS > 0, 1, 0).astype(np.int32)),
    ],
)
def test_every_head_learns_from_its_teacher(head, labels):
    """Texts, tags, choices, spans and numbers: nothing of itself, something of another, and nothing of texts without weight."""
    batch = head_batch(labels)
    if head.by_token:
        batch = batch._replace(weights=(SEGMENTS > 0).astype(np.float32))
    loss = HeadLoss(None, head, Supervised(), "mean")
    shape = (*(SEGMENTS.shape if head.by_token else (2, 2)), head.width)
    own, other = (np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in (0, 1))
    assert float(loss.divergence(own, own, batch, 2.0)[0]) == pytest.approx(0, abs=1e-5)
    total, weight = loss.divergence(own, other, batch, 2.0)
    assert float(total) > 1e-3 and float(weight) == batch.weights.sum()
    changed = np.where(batch.weights[..., None] > 0, other, 9.0)
    if not isinstance(head, Span):  # whose masks are labels
        np.testing.assert_allclose(loss.divergence(own, changed, batch, 2.0)[0], total, rtol=1e-5)


def test_hidden_states_are_compared_behind_the_layers_that_belong_together():
    assert pairs_of((), 3, 6) == ((0, 1), (1, 3), (2, 5)) and pairs_of((), 2, 2) == ((0, 0), (1, 1))
    assert pairs_of((-1, 3), 2, 6) == ((1, 3),)
    for layers in ((0,), (0, 6)):
        with pytest.raises(UserError, match="layer"):
            pairs_of(layers, 2, 6)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(hidden_cosine(x, 2 * x), 0, atol=1e-6)
    np.testing.assert_allclose(hidden_cosine(x, -x), 2, rtol=1e-5)
    np.testing.assert_allclose(hidden_mse(x, x + 2), 4, rtol=1e-5)


def test_a_narrower_student_gets_a_projection_that_is_trained():
    wide = dataclasses.replace(DECODER, embed_dim=12, num_layers=2)
    bound = bind(Experiment(model=DECODER, objective=Distillation(hidden="mse", teacher_model=(wide,))))
    teacher = nn.unbox(bind(bound.teacher).start(jax.random.key(1)))
    params = fresh(bound)
    assert params["teacher_projection"]["kernel"].shape == (8, 12)
    _, gradient = learned(bound, params, teacher, text_batch())
    assert float(jnp.abs(gradient["teacher_projection"]["kernel"]).max()) > 0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"teacher_model": (dataclasses.replace(DECODER, vocab_size=32),)}, "vocab_size 32"),
        ({"teacher_model": (ENCODER,)}, "kind encoder, and the student decoder"),
        ({"teacher_model": (dataclasses.replace(DECODER, context_length=4),)}, "reads 4 tokens"),
        ({"hidden": "mse", "layers": (5,)}, "no layer 5"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        bind(Experiment(model=DECODER, objective=Distillation(**({"teacher_model": (DECODER,)} | change))))


def test_what_has_no_predictions_is_refused():
    for objective, data, words in (
        (Retrieval(), TextPairs(), "no predictions"),
        (Supervised(labels=("a", "b"), r_drop=1.0), Classification(), "r_drop"),
    ):
        with pytest.raises(UserError, match=words):
            bind(Experiment(model=ENCODER, data=data, objective=Distillation(of=objective, teacher_model=(ENCODER,))))


@pytest.mark.parametrize("model", [EncoderDecoderConfig(num_layers=1, start_token=0, **SHAPE), DECODER, ENCODER])
def test_a_task_is_taught_whichever_way_it_is_answered(model):
    """By a text of one's own, by going on with the prompt, and by a head; a teacher may be deeper."""
    deeper = dataclasses.replace(model, num_layers=3)
    data = Classification(length=8, written=4)
    whole = Experiment(model=model, data=data, objective=Distillation(of=Supervised(labels=("a", "b")), teacher_model=(deeper,)))
    bound, batch = bind(whole), dataset_of(whole).empty(2)
    params, teacher = (nn.unbox(jax.eval_shape(one.start, jax.random.key(0))) for one in (bound, bind(bound.teacher)))
    terms = jax.eval_shape(lambda p, t: bound.loss(p, batch, jax.random.key(1), frozen={"teacher": t})[0], params, teacher)
    assert set(terms) == {"loss", "distillation"}


def test_adapters_learn_from_a_teacher_that_stays_whole():
    """The trained leaves alone get a gradient; base and teacher are two further arguments."""
    whole = Experiment(model=DECODER, objective=Distillation(teacher_model=(DECODER,)), adapters=LoRA(rank=2), start="run")
    bound, frozen = bind_trained(whole), frozen_shapes(whole, make_mesh(whole.mesh, jax.devices()[:1]), reads_reference=False)
    assert set(frozen) == {"base", "teacher"}
    params = nn.unbox(jax.eval_shape(bound.start, jax.random.key(0)))
    terms = jax.eval_shape(lambda params, frozen: bound.loss(params, text_batch(), jax.random.key(1), frozen=frozen)[0], params, frozen)
    assert set(terms) == {"loss", "distillation"}


def test_some_layers_are_taken_of_every_stack_of_a_model():
    layers = {"query": np.arange(12).reshape(4, 3)}
    found = with_layers({"layers": layers, "norm": np.ones(4)}, (1, 3))
    np.testing.assert_array_equal(found["layers"]["query"], layers["query"][[1, 3]])
    np.testing.assert_array_equal(found["norm"], np.ones(4))
    assert EncoderDecoderConfig(num_layers=4).with_layers((0, 2)).encoder_blocks == 2
    local = ModelConfig(num_layers=4, window=2, global_every=2)
    assert local.with_layers((0, 3)).num_layers == 2
    for config, chosen in (
        (local, (0, 2)),
        (ModelConfig(num_layers=4, layer_groups=2), (0, 2)),
        (EncoderDecoderConfig(num_layers=4, encoder_layers=2), (0, 1)),
    ):
        with pytest.raises(ValueError, match="start_layers"):
            config.with_layers(chosen)


# ------------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher of four layers that tells words apart."""
    folder = tmp_path_factory.mktemp("distillation")
    rows = [(f"{a} {word}", label) for word, label in [("good", "yes"), ("fail", "no")] for a in ("aa", "ee", "oo", "uu", "ii")]
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    character_tokenizer("abcdefghijklmnopqrstuvwxyz ").save(str(folder / "tokenizer"))
    train(start(folder / "teacher", experiment(folder)))
    return folder


def experiment(folder, **changed) -> Experiment:
    model = TextEncoderConfig(context_length=16, num_layers=4, embed_dim=8, num_heads=2, pooler=False, prediction_head=False, token_types=0)
    base = Experiment(
        steps=2,
        batch_size=4,
        model=model,
        data=Classification(files=(str(folder / "train.csv"),), length=16, tokenizer=str(folder / "tokenizer")),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(0, "constant"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=1),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )
    return dataclasses.replace(base, **changed)


def student(folder, **options) -> Experiment:
    objective = Distillation(of=Supervised(), teacher=str(folder / "teacher"), hidden="cosine", **options)
    return experiment(folder, start=str(folder / "teacher"), start_layers=(1, 3), objective=objective)


def test_a_student_trains_resumes_and_is_evaluated_without_its_teacher_in_checkpoints(folder, monkeypatch):
    """It begins as every second layer of what it starts from, stores only its own parameters, and goes on when the teacher is gone."""
    one, two = (start(folder / name, student(folder)) for name in ("one", "two"))
    assert one.experiment.model.num_layers == 2 and one.experiment.objective.labels == ("no", "yes")
    train(one)
    train_and_stop(two.path, 1, monkeypatch)
    moved = (folder / "teacher").rename(folder / "gone")
    train(open_run(two.path))
    moved.rename(folder / "teacher")
    assert outcome(one) == outcome(two)
    found = evaluate_run(open_run(one.path))
    assert 0 <= found["accuracy"] <= 1 and "distillation" not in found


def test_a_start_by_some_layers_takes_those(folder):
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.loop.learner import fresh_state, learner_of

    run = start(folder / "layers", student(folder))
    mesh = inference_mesh(run.experiment.mesh)
    state = fresh_state(learner_of(run, run.corpora(), mesh), mesh, 0, ema=False)
    whole, _ = load_parameters(open_run(folder / "teacher"), mesh)
    for own, theirs in zip(jax.tree.leaves(state.params["layers"]), jax.tree.leaves(whole["layers"]), strict=True):
        np.testing.assert_array_equal(own, theirs[np.array([1, 3])])
    np.testing.assert_array_equal(state.params["embedding"]["table"], whole["embedding"]["table"])


def test_a_head_with_other_ngrams_is_no_teacher(folder):
    objective = student(folder).objective
    other = dataclasses.replace(objective, of=dataclasses.replace(objective.of, ngrams=2))
    with pytest.raises(UserError, match=r"has ngrams 0(.|\n)*--objective.of.ngrams 0"):
        start(folder / "bad", dataclasses.replace(student(folder), objective=other))


def test_layers_that_are_not_there_and_other_labels_are_refused(folder):
    with pytest.raises(UserError, match="no layer 4"):
        start(folder / "bad", dataclasses.replace(student(folder), start_layers=(1, 4)))
    with pytest.raises(ValueError, match="ascending"):
        experiment(folder, start_layers=(3, 1))
    with pytest.raises(UserError, match="`start` is empty"):
        start(folder / "bad", experiment(folder, start_layers=(0,)))
    with pytest.raises(UserError, match="other labels"):
        start(
            folder / "bad",
            dataclasses.replace(
                student(folder), objective=Distillation(of=Supervised(labels=("no", "yes", "so")), teacher=str(folder / "teacher"))
            ),
        )
    with pytest.raises(UserError, match="no teacher"):
        start(folder / "bad", experiment(folder, objective=Distillation(of=Supervised())))
