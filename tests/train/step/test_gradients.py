"""One gradient, however it is taken: at once, in micro-batches, on one device or on any mesh of eight."""

import dataclasses

import jax
import numpy as np
import pytest

from data.errors import UserError
from data.text.rows import TextBatch
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.mixture_of_experts import Router
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Decoder
from train import experiment as options
from train.devices.mesh import check_batch, inference_mesh, make_mesh, put_batch
from train.experiment import MeshShape
from train.objectives.bind import bind, update_of
from train.objectives.terms import Mean, Term
from train.objectives.text.causal_lm import router_terms
from train.objectives.text.options import MaskedLM, RecurrentLM, SpanDenoising
from train.optimizers.build import make_optimizer
from train.step.state import initial_state
from train.step.update import jit_update

ROWS, LENGTH, VOCABULARY = 8, 16, 32
MODEL = ModelConfig(
    vocab_size=VOCABULARY,
    context_length=LENGTH,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    dropout=0.1,
    tied_embeddings=False,
    init_std=0.1,
    ngrams=3,
    ngram_rows=40,
)
EXPERIMENT = options.Experiment(model=MODEL, objective=options.CausalLM(z_loss=1e-2))


def make(first, count):
    """Packed rows of two documents each, with very unequal amounts of padding."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)
    lengths = np.array([16, 3, 1, 16, 9, 2, 12, 5])
    weights = (np.arange(LENGTH) < lengths[:, None]).astype(np.float32)
    segments = (1 + (np.arange(LENGTH) >= lengths[:, None] // 2)) * weights.astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    batch = TextBatch(tokens[:, :-1], tokens[:, 1:], weights, segments.astype(np.int32), positions, np.arange(ROWS, dtype=np.int32))
    return jax.tree.map(lambda x: x[first : first + count], batch)


def one_step(mesh_shape: MeshShape, devices: int, micro_batches: int, experiment=EXPERIMENT):
    """The gradient of a step, read off plain gradient descent with a rate of one; and the step's metrics."""
    mesh = make_mesh(mesh_shape, jax.devices()[:devices])
    optimizer = make_optimizer(options.SGD(learning_rate=1.0, clip_norm=0.0), options.Schedule(0, "constant"), 10)
    bound = bind(experiment, mesh)
    state = initial_state(bound.start, optimizer, mesh, 0, ema=False, carry=bound.carry)
    before = jax.tree.map(np.array, state.params)
    update = jit_update(update_of(dataclasses.replace(experiment, micro_batches=micro_batches), bound, optimizer), mesh)
    state, metrics = update(state, None, put_batch(mesh, make, ROWS))
    assert int(state.step) == 1 and int(state.cursor) == ROWS
    return jax.tree.map(lambda a, b: b - np.array(a), state.params, before), {k: float(m.total / m.weight) for k, m in metrics.items()}


@pytest.fixture(scope="module")
def expected():
    return one_step(MeshShape(data=1), 1, 1)


def relative_l2(a, b):
    difference = sum(float(((x - y) ** 2).sum()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return (difference / sum(float((y**2).sum()) for y in jax.tree.leaves(b))) ** 0.5


@pytest.mark.parametrize(
    "shape, devices, micro_batches",
    [
        (MeshShape(data=1), 1, 4),
        (MeshShape(data=8), 8, 1),
        (MeshShape(data=1, fsdp=8), 8, 1),
        (MeshShape(data=1, tensor=4), 4, 1),
        (MeshShape(data=1, context=8), 8, 1),
        (MeshShape(data=1, expert=8), 8, 1),
        (MeshShape(data=2, fsdp=2, tensor=2), 8, 2),
        (MeshShape(data=1, fsdp=2, tensor=2, context=2), 8, 1),
    ],
    ids=lambda value: "-".join(f"{k}{v}" for k, v in dataclasses.asdict(value).items() if v != 1) if isinstance(value, MeshShape) else None,
)
def test_gradient_is_the_same_on_every_mesh_and_in_any_micro_batches(expected, shape, devices, micro_batches):
    """Unequal padding makes a mean of means wrong; dropout makes masks that follow the device wrong. Both would show here."""
    gradient, metrics = one_step(shape, devices, micro_batches)
    assert relative_l2(gradient, expected[0]) < 1e-5
    for name, value in expected[1].items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name


EXPERTS = dataclasses.replace(
    EXPERIMENT,
    model=dataclasses.replace(MODEL, num_layers=1, mlp_dim=48, experts=4, gated=True),
    objective=options.CausalLM(load_balance=0.5, router_z=0.2),
)
CAPACITY = dataclasses.replace(EXPERTS, model=dataclasses.replace(EXPERTS.model, expert_capacity=0.4))


@pytest.mark.parametrize("experiment", [EXPERTS, CAPACITY], ids=["dropless", "capacity"])
def test_experts_are_the_same_on_every_mesh_and_in_any_micro_batches(experiment):
    """Routing, queues for the experts' room and balance are of the global batch, wherever tokens and experts live."""
    gradient, metrics = one_step(MeshShape(data=1), 1, 1, experiment)
    assert (metrics["busiest_expert"] > 0.3) and metrics["load_balance"] > 1.0
    assert ("dropped" in metrics) == (experiment is CAPACITY) and metrics.get("dropped", 1.0) > 0.01
    parts, shapes = 1, [MeshShape(data=1, fsdp=2, tensor=2, expert=2)]
    if experiment is EXPERTS:
        parts, shapes = 2, [MeshShape(data=2, expert=4), *shapes]
    for shape in shapes:
        found, more_metrics = one_step(shape, 8, parts, experiment)
        assert relative_l2(found, gradient) < 1e-5
        for name, value in metrics.items():
            assert more_metrics[name] == pytest.approx(value, rel=1e-5), name


SHAPE = {
    field: getattr(MODEL, field)
    for field in ("vocab_size", "context_length", "num_layers", "embed_dim", "num_heads", "dropout", "init_std")
}
FAMILIES = {
    "encoder": (TextEncoderConfig(**SHAPE, norm_position="post", layer_groups=1), MaskedLM(mask=31, ordinary=30)),
    "translator": (
        EncoderDecoderConfig(**SHAPE, positions="relative"),
        SpanDenoising(first_sentinel=24, sentinel_step=1, sentinels=6, end=31),
    ),
    "memory": (ModelConfig(**SHAPE, positions="distance", ngrams=3, ngram_rows=40), RecurrentLM(memory=LENGTH)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_the_same_on_a_mesh(family):
    """Corruption, dropout and memory belong to rows, wherever these are."""
    model, objective = FAMILIES[family]
    experiment = options.Experiment(model=model, objective=objective, batch_size=ROWS)
    gradient, metrics = one_step(MeshShape(data=1), 1, 1, experiment)
    found, more_metrics = one_step(MeshShape(data=2, fsdp=2, tensor=2), 8, 1 if family == "memory" else 2, experiment)
    assert relative_l2(found, gradient) < 1e-5
    for name, value in metrics.items():
        assert more_metrics[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name


def test_a_capacity_is_refused_in_micro_batches():
    with pytest.raises(ValueError, match="cannot be kept in micro_batches 2"):
        dataclasses.replace(CAPACITY, micro_batches=2)


def test_router_losses_in_closed_form():
    """Even routing has a balance of 1, one expert for all tokens has the number of experts; padding and dead rows count for nothing."""
    config = dataclasses.replace(MODEL, experts=4, experts_per_token=1, num_layers=2)
    tokens = np.array([4, 8, 8, 0])
    batch = TextBatch(*[None] * 6)._replace(
        segments=(np.arange(8) < tokens[:, None]).astype(np.int32), weights=np.ones((4, 8), np.float32) * [[1], [1], [0], [1]]
    )
    even, one = np.full(4, 0.25), np.eye(4)[2]
    share = np.array([[even, one, one, even], [one, one, one, even]])  # of two layers
    router = Router(share * tokens[:, None], share * tokens[:, None], np.ones((2, 4)) * 3.0 * tokens, np.zeros((2, 4)))
    terms, metrics = router_terms(config, options.CausalLM(load_balance=0.1, router_z=0.01), router, batch)
    weight = 4 + 8
    balance, z = terms["load_balance"], terms["router_z"]
    assert (balance.coefficient, float(balance.weight)) == (0.2, weight)
    np.testing.assert_allclose(balance.total / weight, ((4 * 1 + 8 * 4) + (4 * 4 + 8 * 4)) / 2 / weight, rtol=1e-6)
    np.testing.assert_allclose([z.coefficient, z.total / weight], [0.02, 3.0], rtol=1e-6)
    np.testing.assert_allclose(metrics["busiest_expert"].total / weight, (4 * 0.25 + 8 + 4 + 8) / 2 / weight, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class TwoTerms:
    """A loss whose parts have denominators of their own, as text and images have."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        x = params * batch.weights.sum(-1)
        heavy = batch.rows % 3 == 0
        terms = {"loss": Term(1.0, (x**2).sum(), batch.weights.sum()), "rare": Term(0.5, (x**3 * heavy).sum(), heavy.sum())}
        return terms, {"mean": Mean(x.sum(), x.shape[0])}, carry


def test_terms_keep_their_own_denominators_under_accumulation():
    from train.step.gradients import accumulated, plain

    batch, params = make(0, ROWS), np.float32(0.7)
    at_once, metrics, _ = plain(TwoTerms(), params, batch, None)
    in_parts, more_metrics, _ = accumulated(TwoTerms(), params, batch, None, micro_batches=4)
    count = batch.weights.sum(-1)
    heavy = batch.rows % 3 == 0
    by_hand = (2 * params * count**2).sum() / count.sum() + 0.5 * (3 * params**2 * count**3 * heavy).sum() / heavy.sum()
    np.testing.assert_allclose(at_once, by_hand, rtol=1e-5)
    np.testing.assert_allclose(in_parts, by_hand, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, more_metrics)


def test_a_mesh_that_does_not_fit_is_refused_by_name():
    with pytest.raises(UserError, match="tensor 3 does not make 8 devices"):
        make_mesh(MeshShape(data=1, tensor=3))
    with pytest.raises(UserError, match="multiple of 8"):
        check_batch(make_mesh(MeshShape(data=8)), 12, 1, LENGTH)
    with pytest.raises(UserError, match="context length 15"):
        check_batch(make_mesh(MeshShape(data=1, context=8)), 8, 1, 15)
    assert inference_mesh(MeshShape(data=16, tensor=2)).shape["fsdp"] == 8


def test_nothing_is_kept_whole_where_it_will_be_split():
    """The state is born sharded: with fsdp 8 every matrix, its average and its moments hold an eighth a device."""
    mesh = make_mesh(MeshShape(data=1, fsdp=8))
    optimizer = make_optimizer(options.AdamW(), options.Schedule(), 1000)
    state = initial_state(Decoder(MODEL).start, optimizer, mesh, 0, ema=True)
    for tree in (state.params, state.ema, state.opt_state):
        split = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim >= 2 and leaf.shape[-1] * leaf.shape[-2] >= 32 * 32]
        assert split and all(leaf.addressable_shards[0].data.size * 8 == leaf.size for leaf in split)
