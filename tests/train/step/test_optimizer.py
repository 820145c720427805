"""Schedules in closed form; AdamW against its definition; decay where it belongs."""

import dataclasses

import jax
import numpy as np
import pytest

from data.errors import UserError
from model.config import ModelConfig
from train.devices.mesh import make_mesh
from train.experiment import SGD, Adafactor, AdamW, Experiment, Lion, MeshShape, Muon, Optimizer, Schedule, ScheduleFree
from train.objectives.bind import check_frozen
from train.optimizers.build import (
    decayed,
    frozen_leaves,
    make_optimizer,
    make_schedule,
    optimizer_of,
    orthogonal_momentum,
    without_gradient,
)
from train.optimizers.muon import orthogonalize
from train.step.anomalies import no_history
from train.step.state import State, schedule_free


@pytest.mark.parametrize("decay, middle, last", [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)])
def test_schedule_warms_up_then_decays_to_its_fraction(decay, middle, last):
    rate = make_schedule(Schedule(warmup_steps=10, decay=decay, final_fraction=0.1), 2.0, 111)
    np.testing.assert_allclose([rate(0), rate(4)], [2.0 / 11, 2.0 * 5 / 11], rtol=1e-6)
    np.testing.assert_allclose([rate(10), rate(60), rate(110)], [2.0, 2.0 * middle, 2.0 * last], rtol=1e-6)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    rate = make_schedule(Schedule(warmup_steps=100), 1.0, 50)
    np.testing.assert_allclose(rate(49), 50 / 101, rtol=1e-6)


def test_wsd_stays_at_its_peak_and_decays_at_the_end():
    """Warm-up, stable, then 1 - sqrt over the last fifth of all steps; the last update has the final rate."""
    rate = make_schedule(Schedule(warmup_steps=10, decay="wsd", final_fraction=0.1, decay_fraction=0.2), 2.0, 101)
    np.testing.assert_allclose([rate(0), rate(10), rate(50), rate(80), rate(100)], [2.0 / 11, 2.0, 2.0, 2.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose([rate(85), rate(95)], [0.2 + 1.8 * (1 - 0.25**0.5), 0.2 + 1.8 * (1 - 0.75**0.5)], rtol=1e-5)
    all_of_it = make_schedule(Schedule(warmup_steps=10, decay="wsd", final_fraction=0.0, decay_fraction=1.0), 2.0, 101)
    np.testing.assert_allclose([all_of_it(10), all_of_it(100)], [2.0, 0.0], atol=1e-6)
    with pytest.raises(ValueError, match="decay_fraction"):
        Schedule(decay_fraction=0.0)


@pytest.mark.parametrize("hat", [False, True])
def test_adamw_follows_its_definition(hat):
    """Three steps of Loshchilov & Hutter 2019, algorithm 2, in float64, with clipping and with decay of the kernel alone; and with an
    epsilon that stands before the correction, as in the order of computation at the end of sec. 2 of Kingma & Ba 2015."""
    options = AdamW(learning_rate=0.1, weight_decay=0.3, beta1=0.8, beta2=0.9, epsilon=1e-2, epsilon_hat=hat, clip_norm=1.0)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    params = {"kernel": np.array([[1.0, -2.0]], np.float32), "bias": np.array([0.5, 0.1], np.float32)}
    expected = {name: value.astype(np.float64) for name, value in params.items()}
    state = optimizer.init(params)
    mean, square = ({name: np.zeros_like(value) for name, value in expected.items()} for _ in range(2))
    for t in range(1, 4):
        gradients = {"kernel": np.array([[3.0, -1.0]], np.float32) * t, "bias": np.array([0.2, -0.4], np.float32)}
        updates, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            g = gradient / max(norm, 1.0)
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.9 * square[name] + 0.1 * g**2
            if hat:
                step = np.sqrt(1 - 0.9**t) / (1 - 0.8**t) * mean[name] / (np.sqrt(square[name]) + 1e-2)
            else:
                step = mean[name] / (1 - 0.8**t) / (np.sqrt(square[name] / (1 - 0.9**t)) + 1e-2)
            expected[name] -= 0.1 * (step + (0.3 * expected[name] if name == "kernel" else 0.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def test_sgd_with_momentum_follows_its_definition():
    optimizer = make_optimizer(SGD(learning_rate=0.5, momentum=0.9, clip_norm=0.0), Schedule(0, "constant"), 10)
    params, velocity = {"kernel": np.float32(1.0)}, 0.0
    expected, state = 1.0, optimizer.init(params)
    for gradient in (1.0, -2.0, 0.5):
        updates, state = optimizer.update({"kernel": np.float32(gradient)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        velocity = 0.9 * velocity + gradient
        expected -= 0.5 * velocity
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-6)


def test_lion_takes_the_sign_of_a_mean_that_forgets_more_slowly():
    """Chen et al. 2023, algorithm 2: every element moves by the rate exactly, plus decay; the third gradient is too weak to turn it."""
    options = Lion(learning_rate=0.1, beta1=0.5, beta2=0.9, weight_decay=0.0, clip_norm=0.0)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    params = {"kernel": np.zeros((1, 2), np.float32)}
    state, mean = optimizer.init(params), np.zeros((1, 2))
    for gradient in ([[4.0, -1.0]], [[9.0, 2.0]], [[-1.0, -0.1]]):
        updates, state = optimizer.update({"kernel": np.array(gradient, np.float32)}, state, params)
        expected = -0.1 * np.sign(0.5 * mean + 0.5 * np.array(gradient))
        mean = 0.9 * mean + 0.1 * np.array(gradient)
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)
    assert expected[0, 0] == -0.1  # the gradient says up, its mean says down


def stack(rng, layers: int):
    """Parameters of `layers` layers with every shape of kernel there is, and what is no kernel."""
    shapes = {
        "attention": {"query": {"kernel": (layers, 8, 2, 5), "bias": (layers, 2, 5)}, "out": {"kernel": (layers, 2, 5, 8)}},
        "feed_forward": {"experts": {"up": {"kernel": (layers, 3, 8, 12)}}},
        "norm": {"scale": (layers, 8)},
    }
    tree = {"layers": shapes, "embedding": {"table": (20, 8)}, "final_norm": {"scale": (8,)}}
    return jax.tree.map(lambda shape: rng.normal(size=shape).astype(np.float32), tree, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.parametrize("options", [Adafactor(clip_norm=0.0), Muon(clip_norm=0.0)])
def test_a_stack_of_layers_is_updated_as_each_layer_alone(options):
    """More layers than a matrix has rows: nothing may be pooled over them. Two steps, so that the state is stacked rightly too."""
    rng = np.random.default_rng(0)
    params, gradients, more = (stack(rng, 9) for _ in range(3))
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)

    @jax.jit
    def last_update(params, gradients, more):
        _, state = optimizer.update(gradients, optimizer.init(params), params)
        return optimizer.update(more, state, params)[0]

    def layer(tree, number):
        return tree | {"layers": jax.tree.map(lambda leaf: leaf[number : number + 1], tree["layers"])}

    together = last_update(params, gradients, more)
    for number in (0, 7):
        alone = last_update(*(layer(tree, number) for tree in (params, gradients, more)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), layer(together, number), alone)


def test_adafactor_keeps_rows_and_columns_and_its_step_is_a_share_of_what_it_moves():
    """Shazeer & Stern 2018: for a gradient that is an outer product the factors are exact, so that each element moves alike."""
    rng = np.random.default_rng(1)
    params = {"layers": {"up": {"kernel": 3.0 * rng.choice([-1.0, 1.0], (2, 40, 60)).astype(np.float32)}}}
    optimizer = make_optimizer(Adafactor(learning_rate=0.1, clip_norm=0.0), Schedule(0, "constant"), 10)
    state = optimizer.init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 3 * 2 * (40 + 60)  # not 2 * 40 * 60
    signs = rng.choice([-1.0, 1.0], (2, 40, 60))
    gradient = signs * rng.uniform(0.1, 9.0, (2, 40, 1)) * rng.uniform(0.1, 9.0, (2, 1, 60))
    updates, _ = optimizer.update({"layers": {"up": {"kernel": gradient.astype(np.float32)}}}, state, params)
    np.testing.assert_allclose(updates["layers"]["up"]["kernel"], -0.1 * 3.0 * signs, rtol=1e-4)


def test_schedule_free_averages_the_points_that_adam_moves():
    """Defazio et al. 2024, algorithm 1, in float64 on a quadratic: with a constant rate x is the plain mean of all z so far."""
    options = ScheduleFree(learning_rate=0.05, weight_decay=0.2, beta1=0.8, beta2=0.9, epsilon=1e-6, clip_norm=0.0)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    centre, y = np.array([[1.0, -3.0]]), np.array([[2.0, 2.0]])
    params = {"kernel": y.astype(np.float32)}
    state, z, square, visited = optimizer.init(params), y, np.zeros_like(y), []
    for t in range(1, 6):
        updates, state = optimizer.update({"kernel": (params["kernel"] - centre).astype(np.float32)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        square = 0.9 * square + 0.1 * (y - centre) ** 2
        z = z - 0.05 * ((y - centre) / (np.sqrt(square / (1 - 0.9**t)) + 1e-6) + 0.2 * y)
        visited.append(z)
        x = np.mean(visited, axis=0)
        y = 0.2 * z + 0.8 * x
        np.testing.assert_allclose(params["kernel"], y, rtol=1e-5)
        average = State(t, 0, params, state, no_history()).averaged
        np.testing.assert_allclose(average["kernel"], x, rtol=1e-5)
    assert schedule_free(make_optimizer(AdamW(), Schedule(), 10).init(params)) is None


def test_schedule_free_weighs_the_warm_up_by_its_squared_rates():
    """The rates 1/3, 2/3, 1, 1 of the peak: the average weighs its points by their squares (algorithm 1, line 8)."""
    optimizer = make_optimizer(ScheduleFree(learning_rate=0.3, weight_decay=0.0, clip_norm=0.0), Schedule(2, "constant"), 10)
    params = {"kernel": np.zeros((1, 1), np.float32)}
    state, z, visited = optimizer.init(params), 0.0, []
    rates = np.array([0.1, 0.2, 0.3, 0.3])
    for rate in rates:  # Adam's step for a gradient that never changes is the rate itself
        updates, state = optimizer.update({"kernel": np.ones((1, 1), np.float32)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        visited.append(z := z - rate)
    np.testing.assert_allclose(
        State(4, 0, params, state, no_history()).averaged["kernel"], np.average(visited, weights=rates**2), rtol=1e-5
    )


def test_schedule_free_refuses_what_would_average_or_decay_twice():
    with pytest.raises(UserError, match="schedule.decay is cosine"):
        make_optimizer(ScheduleFree(), Schedule(decay="cosine"), 10)
    with pytest.raises(ValueError, match="ema_decay"):
        Experiment(optimizer=ScheduleFree(), ema_decay=0.9)
    with pytest.raises(ValueError, match="beta1"):
        ScheduleFree(beta1=0.0)


@pytest.mark.parametrize("kind", Optimizer.__subclasses__())
def test_weight_decay_moves_matrices_and_tables_alone(kind):
    """Without a gradient, decay is all that moves anything."""
    params = stack(np.random.default_rng(2), 2)
    options = kind(learning_rate=0.1, weight_decay=0.5)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(lambda zero, params: optimizer.update(zero, optimizer.init(params), params))(zero, params)
    expected = jax.tree.map(lambda p, matrix: -0.1 * 0.5 * p if matrix else np.zeros_like(p), params, decayed(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updates, expected)


def test_an_optimizer_that_nobody_knows_is_refused_with_the_names_of_all():
    with pytest.raises(UserError) as refused:
        make_optimizer(Optimizer(), Schedule(), 10)
    assert all(kind.__name__ in str(refused.value) for kind in Optimizer.__subclasses__())


def test_decay_spares_biases_and_norms():
    tree = {"layers": {"norm": {"scale": 1}, "up": {"kernel": 1, "bias": 1}}, "embedding": {"table": 1}}
    assert decayed(tree) == {"layers": {"norm": {"scale": False}, "up": {"kernel": True, "bias": False}}, "embedding": {"table": True}}


def test_muon_orthogonalises_each_layer_by_itself():
    """Against the singular value decomposition: the update of each layer's matrix keeps its directions and evens out its lengths."""
    rng = np.random.default_rng(0)
    gradients = {
        "layers": {
            "up": {"kernel": rng.normal(size=(3, 8, 20))},
            "feed_forward": {
                "experts": {"gate": {"kernel": rng.normal(size=(3, 2, 8, 20))}},
                "router": {"kernel": rng.normal(size=(3, 8, 4))},
            },
            "attention": {"query": {"kernel": rng.normal(size=(3, 8, 2, 5))}, "out": {"kernel": rng.normal(size=(3, 2, 5, 8))}},
        }
    }
    gradients = jax.tree.map(lambda g: g.astype(np.float32), gradients)
    update = orthogonal_momentum(Muon())
    updates, _ = update.update(gradients, update.init(gradients), gradients)
    for found, gradient, inputs in (
        (updates["layers"]["up"]["kernel"], gradients["layers"]["up"]["kernel"], 8),
        (updates["layers"]["attention"]["query"]["kernel"], gradients["layers"]["attention"]["query"]["kernel"], 8),
        (updates["layers"]["attention"]["out"]["kernel"], gradients["layers"]["attention"]["out"]["kernel"], 10),
    ):
        for layer in range(3):
            g, u = (np.asarray(x[layer], np.float64).reshape(inputs, -1) for x in (gradient, found))
            left, _, right = np.linalg.svd(g, full_matrices=False)
            lengths = np.diag(left.T @ u @ right.T) / max(1, u.shape[1] / u.shape[0]) ** 0.5
            assert (lengths > 0.9).all() and (lengths < 1.2).all()  # the iteration reaches 1 only roughly
            rest = left.T @ u @ right.T
            assert np.abs(rest - np.diag(np.diag(rest))).max() < 1e-3
    # Each expert's matrix is one more such matrix: the same update as that of a layer that holds it alone.
    gate = gradients["layers"]["feed_forward"]["experts"]["gate"]["kernel"]
    alone = {"layers": {"up": {"kernel": gate[:, 1]}}}
    np.testing.assert_allclose(
        updates["layers"]["feed_forward"]["experts"]["gate"]["kernel"][:, 1],
        update.update(alone, update.init(alone), alone)[0]["layers"]["up"]["kernel"],
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(8, 6, 6), (3, 40, 8), (8, 8, 40), (1, 16, 16)])
def test_orthogonalising_keeps_directions_and_evens_out_lengths(shape):
    """Square, tall and wide, split over eight devices (8 matrices) or not: U S V' becomes U V', singular values of 1 to 1/50 near 1."""
    rng = np.random.default_rng(3)
    left, _, right = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    lengths = rng.uniform(0.02, 1.0, (shape[0], 1, min(shape[1:])))
    given = np.asarray((left * lengths) @ right, np.float32) * 7e-5
    with jax.set_mesh(make_mesh(MeshShape())):
        found = np.asarray(jax.jit(orthogonalize)(given), np.float64)
    found = left.mT @ found @ right.mT
    diagonal = np.diagonal(found, axis1=1, axis2=2)
    assert diagonal.min() > 0.95 and diagonal.max() < 1.16
    assert np.abs(found - diagonal[:, None] * np.eye(found.shape[1])).max() < 1e-3


def test_muon_gives_tables_and_norms_to_adam_at_its_own_rate():
    options = Muon(learning_rate=0.5, adam_learning_rate=0.125, clip_norm=0.0)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    params = {"layers": {"up": {"kernel": np.ones((1, 2, 2), np.float32)}}, "embedding": {"table": np.ones((3, 2), np.float32)}}
    gradients = jax.tree.map(lambda p: p * 7.0, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["embedding"]["table"], -0.125, rtol=1e-4)


STACK = {
    "embedding": {"table": np.ones((5, 2))},
    "layers": {"up": {"kernel": np.ones((3, 2, 2))}},
    "task_head": {"kernel": np.ones((2, 2))},
}


def updates_of(experiment: Experiment):
    """One update of STACK for a gradient of ones, and the optimizer's state before it."""
    params = jax.tree.map(lambda x: x.astype(np.float32), STACK)
    optimizer = optimizer_of(experiment)
    state = optimizer.init(params)
    return optimizer.update(params, state, params)[0], state


@pytest.mark.parametrize("optimizer", [SGD(learning_rate=1.0, clip_norm=0.0), Lion(learning_rate=1.0, clip_norm=0.0, weight_decay=0.0)])
def test_layer_decay_lowers_the_rate_layer_by_layer(optimizer):
    """Three layers: the head moves by 1, the layers from the top by 1, 1/2, 1/4, the embedding by 1/8."""
    decayed = dataclasses.replace(optimizer, layer_decay=0.5)
    found, _ = updates_of(Experiment(optimizer=decayed, schedule=Schedule(0, "constant")))
    np.testing.assert_allclose(found["layers"]["up"]["kernel"][:, 0, 0], [-0.25, -0.5, -1.0])
    assert (found["task_head"]["kernel"][0, 0], found["embedding"]["table"][0, 0]) == (-1.0, -0.125)


def test_frozen_layers_do_not_move_and_have_no_state():
    """Two of three layers and the embedding: the moments of AdamW, and the norm that clips, are those of what is trained."""
    whole, _ = updates_of(Experiment(schedule=Schedule(0, "constant")))
    found, state = updates_of(Experiment(frozen=("embedding", "layers:2"), schedule=Schedule(0, "constant")))
    kernel = found["layers"]["up"]["kernel"]
    assert not np.any(found["embedding"]["table"]) and not np.any(kernel[:2]) and kernel.shape == (3, 2, 2)
    np.testing.assert_allclose(kernel[2], whole["layers"]["up"]["kernel"][2], rtol=1e-5)
    kept = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(kept) == [(1, 2, 2), (1, 2, 2), (2, 2), (2, 2)]


def test_a_pattern_freezes_what_it_matches():
    names = {"layers": {"up": {"kernel": 0, "bias": 0}, "up_norm": {"scale": 0}}, "final_norm": {"scale": 0}, "head": {"bias": 0}}

    def frozen(*patterns):
        found = jax.tree_util.tree_leaves_with_path(frozen_leaves(names, patterns))
        return ["/".join(key.key for key in path) for path, count in found if count]

    assert frozen("*norm") == ["final_norm/scale", "layers/up_norm/scale"]
    assert frozen("layers/*/bias", "head") == ["head/bias", "layers/up/bias"]
    assert frozen("layer") == frozen("up") == []


def test_frozen_layers_are_constants():
    def loss(params):
        return sum(leaf.sum() for leaf in jax.tree.leaves(without_gradient(params, ("layers:2",))))

    gradients = jax.grad(loss)(jax.tree.map(lambda x: x.astype(np.float32), STACK))
    np.testing.assert_array_equal(gradients["layers"]["up"]["kernel"][:, 0, 0], [0, 0, 1])
    assert np.all(gradients["embedding"]["table"] == 1)


@pytest.mark.parametrize(
    "name, what", [("layers:2", "below the 2 layers"), ("layers:x", "number"), ("layers:²", "number"), ("embedding:1", "number")]
)
def test_a_number_of_layers_that_is_none_is_refused(name, what):
    with pytest.raises(UserError, match=what):
        check_frozen(Experiment(model=ModelConfig(vocab_size=8, context_length=4, num_layers=2, embed_dim=4, num_heads=1), frozen=(name,)))


def test_layer_decay_is_refused_where_an_average_would_miss_it():
    with pytest.raises(ValueError, match="layer_decay"):
        ScheduleFree(layer_decay=0.9)
