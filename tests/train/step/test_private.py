"""Private gradients: no unit moves the sum by more than the clipping norm, however it is taken, and the noise is what was promised."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from data.errors import UserError
from data.text.rows import TextBatch
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.adapters.options import LoRA
from train.adapters.training import AdaptedLoss, fresh_leaves, method_of
from train.devices.mesh import make_mesh
from train.experiment import CausalLM, Experiment, Faults, MeshShape
from train.kinds import realise
from train.objectives.bind import bind
from train.objectives.tasks.heads import Classes
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss
from train.objectives.terms import Mean, Term
from train.objectives.text.options import MaskedLM, PrefixLM, SimCSE
from train.step.gradients import loss_of, plain, weights_of, with_terms
from train.step.private.gradient import SECRET, clipped_sum, normal_like
from train.step.private.norms import norms_of
from train.step.private.options import Private
from train.step.update import on_mesh
from train.tasks.rows import HeadBatch

ROWS, LENGTH, WORDS = 4, 8, 24
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "context_length": LENGTH,
    "num_layers": 1,
    "embed_dim": 16,
    "num_heads": 2,
    "init_std": 0.3,
}
KEY, NOISE_KEY = jax.random.key(3), np.array([1, 2], np.uint32)
LLAMA = {"norm": "rmsnorm", "positions": "rotary", "gated": True, "bias": False, "num_kv_heads": 1}


def text_batch() -> TextBatch:
    """Four texts of several lengths, one a row."""
    rng = np.random.default_rng(0)
    segments = (np.arange(LENGTH) < np.array([[8], [3], [5], [7]])).astype(np.int32)
    tokens = rng.integers(1, 12, segments.shape).astype(np.int32) * segments  # few words, so that some come again
    positions = np.arange(LENGTH, dtype=np.int32) * segments
    rows = np.arange(ROWS, dtype=np.int32)
    return TextBatch(tokens, np.roll(tokens, -1, 1) * segments, segments.astype(np.float32), segments, positions, rows)


def head_batch() -> HeadBatch:
    """The same with a label each."""
    text, there = text_batch(), np.ones((ROWS, 1), np.float32)
    labels = np.arange(ROWS, dtype=np.int32)[:, None] % 3
    rows = text.rows
    return HeadBatch(text.tokens, text.segments, text.positions, 0 * text.tokens, labels, there, rows[:, None], rows)


def bound_of(model, objective):
    """(loss, parameters)."""
    bound = bind(Experiment(model=model, objective=objective, batch_size=ROWS))
    return bound.loss, nn.unbox(bound.start(jax.random.key(0)))


def adapted():
    """A decoder by LoRA: (loss of the trained leaves, these; the base goes in as frozen)."""
    experiment = Experiment(model=ModelConfig(**SHAPE), adapters=LoRA(rank=2), start="somewhere", batch_size=ROWS)
    bound, method = bind(experiment), method_of(experiment)
    assert method is not None
    base = nn.unbox(bound.start(jax.random.key(0)))
    loss = AdaptedLoss(bound.loss, method, ())
    trained = nn.unbox(fresh_leaves(bound, method, jax.random.key(1)))
    trained = jax.tree.map(lambda leaf: leaf + 0.1, trained)  # b begins at zero, where a has no gradient

    def call(params, batch, key, *, frozen=None, carry=None):
        return loss(params, batch, key, frozen={"base": base}, carry=carry)

    return call, trained


def head_loss(**options):
    loss = HeadLoss(
        realise(TextEncoderConfig(**SHAPE, dropout=0.1, pooler=True, prediction_head=False)), Classes(3), Supervised(**options), "pooler"
    )
    return loss, nn.unbox(loss.start(jax.random.key(0)))


FAMILIES = {
    "tied": lambda: bound_of(ModelConfig(**SHAPE, dropout=0.1), CausalLM()),
    "scanned": lambda: bound_of(ModelConfig(**SHAPE | {"num_layers": 2}, scan=True), CausalLM()),
    "untied": lambda: bound_of(ModelConfig(**SHAPE, **LLAMA, tied_embeddings=False), CausalLM()),
    "encoder": lambda: bound_of(TextEncoderConfig(**SHAPE), MaskedLM()),
    "encoder-decoder": lambda: bound_of(EncoderDecoderConfig(**SHAPE, positions="relative"), PrefixLM()),
    "lora": adapted,
}


def unit_loss(objective, batch=None):
    """loss(params, unit) as private gradients take it; the batch in units of a row."""

    def loss(params, unit):
        terms, metrics, _ = objective(params, unit, KEY)
        return loss_of(terms, weights_of(terms)), with_terms(metrics, terms)

    return loss, jax.tree.map(lambda x: jnp.asarray(x)[:, None], text_batch() if batch is None else batch)


def per_unit(loss, params, units):
    """The gradient of each unit, by itself: the slow reference."""
    one = jax.jit(lambda unit: jax.grad(lambda params: loss(params, unit)[0])(params))
    return [one(jax.tree.map(lambda x, row=row: x[row], units)) for row in range(len(units.rows))]


def norm(tree) -> float:
    return float(jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))))


def minus(one, other):
    return jax.tree.map(jnp.subtract, one, other)


@pytest.mark.parametrize("family", [*FAMILIES, "head"])
def test_all_ways_equal_clipping_each_unit_by_itself(family):
    """Ghost norms with tied tables, repeated tokens, scanned layers and adapters; parts of a batch; one after the other."""
    objective, params = head_loss() if family == "head" else FAMILIES[family]()
    loss, units = unit_loss(objective, head_batch() if family == "head" else None)
    own = per_unit(loss, params, units)
    norms = np.array([norm(g) for g in own])
    clip = float(np.median(norms))
    expected = jax.tree.map(lambda *leaves: sum(min(1.0, clip / n) * leaf for n, leaf in zip(norms, leaves, strict=True)), *own)
    sizes = {"vmap": 2 if family == "tied" else ROWS, "two_pass": ROWS}
    ways = [Private(clip=clip, way=way, micro_batch=size) for way, size in sizes.items()]
    sums = jax.jit(lambda params: [clipped_sum(loss, params, units, options) for options in ways])(params)
    for options, (found, metrics) in zip(ways, sums, strict=True):
        assert norm(minus(found, expected)) < 1e-5 * norm(expected), options
        assert float(metrics["clipped"].total) == (norms > clip).sum() and float(metrics["clipped"].weight) == ROWS


@pytest.mark.parametrize("family", ["shared layers", "two passes of dropout"])
def test_a_kernel_used_several_times_is_never_taken_for_shorter(family):
    """The products of its uses are not known: norms may come out too long, which costs signal, and never too short, which costs privacy."""
    if family == "shared layers":
        objective, params = bound_of(TextEncoderConfig(**SHAPE | {"num_layers": 3}, layer_groups=1), MaskedLM())
        loss, units = unit_loss(objective)
    else:
        objective, params = head_loss(r_drop=1.0)
        loss, units = unit_loss(objective, head_batch())
    norms = np.array([norm(g) for g in per_unit(loss, params, units)])
    found = np.asarray(jax.jit(lambda params: norms_of(loss, params, units))(params)[0])
    assert (found >= norms * (1 - 1e-5)).all() and (found <= 3 * norms).all()


@dataclasses.dataclass(frozen=True)
class Given:
    """A loss whose gradient of a row is a vector that the batch holds, at most with something that is no number."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        total = (batch.targets.astype(jnp.float32) * params["w"].astype(jnp.float32)).sum()
        return {"loss": Term(1.0, total, jnp.float32(1))}, {"tokens": Mean(jnp.float32(1), jnp.float32(1))}, carry


def given(gradients, there=None):
    """A batch of which each row's gradient is given."""
    gradients = np.asarray(gradients, np.float32)
    there = np.ones(len(gradients)) if there is None else np.asarray(there)
    weights = np.broadcast_to(there[:, None], gradients.shape).astype(np.float32)
    zeros = np.zeros(gradients.shape, np.int32)
    return TextBatch(zeros, gradients, weights, zeros, zeros, np.arange(len(gradients), dtype=np.int32))


def private_gradient(batch, params=None, options=None, **experiment):
    """(gradient, metrics) of the whole method."""
    params = {"w": jnp.zeros(batch.targets.shape[1])} if params is None else params
    options = options or Private(epsilon=0.0, clip=1.0)
    method = realise(options, Experiment(gradient=options, batch_size=len(batch.rows), **experiment), "example")
    found = jax.jit(lambda batch: method(Given(), params, batch, KEY, frozen={SECRET: NOISE_KEY})[:2])(batch)
    return found


@pytest.mark.parametrize("way", ["vmap", "two_pass"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_unit_counts_more_than_the_clipping_norm(way, dtype):
    """Huge, tiny, no and infinite gradients: what is no number counts as none, and spoils nothing of the others."""
    params = {"w": jnp.zeros(3, dtype)}
    for row in ([1e20, -1e20, 3.0], [1e-30, 0.0, 0.0], [0.0, 0.0, 0.0], [np.inf, 0.0, 1.0], [np.nan, 1.0, 2.0], [0.6, 0.8, 0.0]):
        found, metrics = private_gradient(given([row, [0.3, 0.0, 0.0]]), params, Private(epsilon=0.0, clip=0.5, way=way))
        moved = 2 * np.asarray(found["w"]) - [0.3, 0, 0]
        assert np.linalg.norm(moved) <= 0.5 * (1 + 1e-6) + (2e-3 if dtype == jnp.bfloat16 else 0)
        assert np.isfinite(metrics["loss"].total)
        if not np.isfinite(row).all():
            np.testing.assert_allclose(moved, 0, atol=1e-3)


def test_neighbours_differ_by_at_most_the_norm_and_padding_by_nothing():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 5)) * np.array([[0.1], [1], [3], [10], [0.5], [100]])
    whole = private_gradient(given(rows))[0]["w"]
    for left_out in range(6):
        there = np.arange(6) != left_out
        without, metrics = private_gradient(given(rows, there))
        assert 6 * np.linalg.norm(whole - without["w"]) <= 1 + 1e-5
        assert float(metrics["drawn"].total) == 5
        kept = rows.copy()
        kept[left_out] = 1e6  # what stands in a place without a unit
        np.testing.assert_array_equal(private_gradient(given(kept, there))[0]["w"], without["w"])


def test_micro_batches_without_units_are_passed_over():
    rows = np.random.default_rng(1).normal(size=(8, 3))
    there = np.arange(8) < 3
    whole = private_gradient(given(rows, there))[0]["w"]
    for micro_batch in (1, 2, 4):
        found = private_gradient(given(rows, there), options=Private(epsilon=0.0, micro_batch=micro_batch))[0]["w"]
        np.testing.assert_allclose(found, whole, atol=1e-6)


def test_without_clipping_and_noise_it_is_the_plain_gradient():
    objective, params = head_loss()
    batch = jax.tree.map(jnp.asarray, head_batch())
    options = Private(epsilon=0.0, clip=1e9, expected_batch=ROWS)
    method = realise(
        options, Experiment(gradient=options, batch_size=ROWS, objective=Supervised(), model=objective.model.config), "example"
    )
    found, metrics, _ = jax.jit(lambda params: method(objective, params, batch, KEY, frozen={SECRET: NOISE_KEY}))(params)
    wanted, plain_metrics, _ = jax.jit(lambda params: plain(objective, params, batch, KEY))(params)
    assert norm(minus(found, wanted)) < 1e-5 * norm(wanted)
    assert float(metrics["loss"].total) == pytest.approx(float(plain_metrics["loss"].total), rel=1e-5)


def test_the_noise_has_the_promised_size_and_no_two_numbers_share_it():
    """Standard deviation within the chi-squared interval of 99.9 %; leaves, and steps, uncorrelated."""
    tree = {"a": jnp.zeros((50, 80)), "b": jnp.zeros(4000)}
    drawn = [normal_like(tree, jax.random.fold_in(KEY, step), 0.7) for step in range(2)]
    numbers = [np.asarray(leaf).ravel() for one in drawn for leaf in jax.tree.leaves(one)]
    for found in numbers:
        low, high = stats.chi2.interval(0.999, len(found))
        assert low < (found**2).sum() / 0.49 < high
    together = np.corrcoef(numbers)
    assert np.abs(together - np.eye(4)).max() < 4.5 / np.sqrt(4000)


def test_noise_is_added_once_on_any_mesh_and_differs_by_secret_and_step():
    """Eight devices that each held a part of the sum must not each add noise of their own; an empty step is one too."""
    empty = given(np.ones((8, 40)), np.zeros(8))
    options = Private(noise_multiplier=1.0, clip=2.0, expected_batch=4)
    method = realise(options, Experiment(gradient=options, batch_size=8), "example")

    def on(devices, key=KEY, secret=NOISE_KEY):
        mesh = make_mesh(MeshShape(data=devices // 2 if devices > 1 else 1, fsdp=2 if devices > 1 else 1), jax.devices()[:devices])
        step = on_mesh(jax.jit(lambda batch: method(Given(), {"w": jnp.zeros(40)}, batch, key, frozen={SECRET: secret})[0]["w"]), mesh)
        return np.asarray(step(jax.tree.map(jnp.asarray, empty)))

    alone = on(1)
    np.testing.assert_array_equal(on(8), alone)
    low, high = stats.chi2.interval(0.9999, 40)
    assert low < ((alone * 4 / 2) ** 2).sum() < high
    assert not np.array_equal(alone, on(1, key=jax.random.key(4)))
    assert not np.array_equal(alone, on(1, secret=np.array([1, 3], np.uint32)))


def test_a_user_is_the_mean_of_its_rows():
    """With two rows a unit, the mean gradient is clipped, and not each row's."""
    rows = np.array([[3.0, 0.0], [-3.0, 0.4], [0.2, 0.0], [0.0, 0.0]])
    batch = given(rows, [1, 1, 1, 0])
    options = Private(epsilon=0.0, user="who", user_rows=2)

    @dataclasses.dataclass(frozen=True)
    class Averaged:
        def __call__(self, params, batch, key, *, frozen=None, carry=None):
            weights = batch.weights[:, 0]
            total = (batch.targets @ params["w"] * weights).sum()
            return {"loss": Term(1.0, total, weights.sum())}, {"tokens": Mean(jnp.float32(1), jnp.float32(1))}, carry

    method = realise(options, Experiment(gradient=options, batch_size=2), "example")
    found = method(Averaged(), {"w": jnp.zeros(2)}, jax.tree.map(jnp.asarray, batch), KEY, frozen={SECRET: NOISE_KEY})[0]["w"]
    np.testing.assert_allclose(2 * found, [0.0 + 0.2, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"objective": SimCSE()}, "compares rows with one another"),
        ({"micro_batches": 2}, "gradient.micro-batch"),
        ({"faults": Faults(spike=6.0)}, "faults.spike"),
        ({"gradient": Private(micro_batch=3)}, "does not divide batch_size"),
        ({"gradient": Private(expected_batch=9)}, "is above batch_size"),
    ],
)
def test_what_cannot_be_private_is_refused_by_name(change, said):
    experiment = dataclasses.replace(Experiment(batch_size=8, gradient=Private()), **change)
    with pytest.raises(UserError, match=said):
        realise(experiment.gradient, experiment, experiment.objective.unit)


def test_what_is_frozen_has_neither_a_gradient_for_each_unit_nor_noise():
    """Frozen parameters may be many: no array of the program has them for every unit. What is trained is clipped by itself."""
    objective, params = head_loss()
    options = Private(noise_multiplier=1.0, clip=0.1, expected_batch=ROWS)
    batch = head_batch()

    def gradient(*frozen):
        method = realise(options, Experiment(gradient=options, batch_size=ROWS, frozen=frozen), "example")
        return lambda params: method(objective, params, batch, KEY, frozen={SECRET: NOISE_KEY})[0]

    frozen = ("embedding", "layers")
    found = jax.jit(gradient(*frozen))(params)
    assert all((leaf == 0).all() for name in frozen for leaf in jax.tree.leaves(found[name]))
    head = {name: leaf for name, leaf in params.items() if name not in frozen}
    assert head and all((leaf != 0).any() for leaf in jax.tree.leaves({name: found[name] for name in head}))
    table = params["embedding"]["table"].shape
    for_each = f"f32[{ROWS},{table[0]},{table[1]}]"
    assert for_each in str(jax.make_jaxpr(gradient())(params)) and for_each not in str(jax.make_jaxpr(gradient(*frozen))(params))
    alone = Private(noise_multiplier=0.0, epsilon=0.0, clip=0.1, expected_batch=ROWS)

    def of_head(head, batch, key, **given):
        return objective(params | head, batch, key, **given)

    quiet = {}
    for name, loss, where, frozen_names in (("whole", objective, params, frozen), ("head", of_head, head, ())):
        method = realise(alone, Experiment(gradient=alone, batch_size=ROWS, frozen=frozen_names), "example")
        quiet[name] = jax.jit(lambda p, m=method, loss=loss: m(loss, p, batch, KEY, frozen={SECRET: NOISE_KEY})[0])(where)
    for name in head:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), quiet["whole"][name], quiet["head"][name])


@pytest.mark.parametrize("way", ["vmap", "two_pass"])
def test_units_are_computed_by_all_devices(way):
    """A slice of units that follow one another lies on few devices, and would be computed on these or on each: on eight devices, each does
    an eighth of the work of one, and the sum is the same."""
    model, batch = bound_of(ModelConfig(**SHAPE | {"embed_dim": 64}), CausalLM())
    units = jax.tree.map(lambda x: np.tile(x, (8, *[1] * (x.ndim - 1)))[:, None], text_batch())
    options = Private(noise_multiplier=1.0, micro_batch=16, clip=0.1, way=way)

    def loss(params, unit):
        terms, metrics, _ = model(params, unit, KEY, frozen=None, carry=None)
        return loss_of(terms, weights_of(terms)), with_terms(metrics, terms)

    found, work = [], []
    for count in (1, 8):
        mesh = make_mesh(MeshShape(data=count), jax.devices()[:count])
        with jax.set_mesh(mesh), nn.logical_axis_rules(()):
            placed = jax.device_put(units, NamedSharding(mesh, PartitionSpec("data")))
            step = jax.jit(lambda params, units: clipped_sum(loss, params, units, options)[0]).lower(batch, placed).compile()
            found.append(jax.tree.map(np.asarray, step(batch, placed)))
            work.append(step.cost_analysis()["flops"])
    jax.tree.map(lambda one, eight: np.testing.assert_allclose(one, eight, atol=1e-5), *found)
    assert work[1] < work[0] / 4, work
