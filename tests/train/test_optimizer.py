"""Schedules in closed form; AdamW against its definition; decay where it belongs."""

import jax
import numpy as np
import pytest

from train.experiment import SGD, AdamW, Muon, Schedule
from train.optimizer import decayed, make_optimizer, make_schedule, muon


@pytest.mark.parametrize("decay, middle, last", [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)])
def test_schedule_warms_up_then_decays_to_its_fraction(decay, middle, last):
    rate = make_schedule(Schedule(warmup_steps=10, decay=decay, final_fraction=0.1), 2.0, 111)
    np.testing.assert_allclose([rate(0), rate(4)], [2.0 / 11, 2.0 * 5 / 11], rtol=1e-6)
    np.testing.assert_allclose([rate(10), rate(60), rate(110)], [2.0, 2.0 * middle, 2.0 * last], rtol=1e-6)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    rate = make_schedule(Schedule(warmup_steps=100), 1.0, 50)
    np.testing.assert_allclose(rate(49), 50 / 101, rtol=1e-6)


def test_adamw_follows_its_definition():
    """Three steps of Loshchilov & Hutter 2019, algorithm 2, in float64, with clipping and with decay of the kernel alone."""
    options = AdamW(learning_rate=0.1, weight_decay=0.3, beta1=0.8, beta2=0.9, epsilon=1e-6, clip_norm=1.0)
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
            step = mean[name] / (1 - 0.8**t) / (np.sqrt(square[name] / (1 - 0.9**t)) + 1e-6)
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
    update = muon(Muon())
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
            assert (lengths > 0.6).all() and (lengths < 1.3).all()  # five steps of the quintic iteration reach 1 only roughly
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


def test_muon_gives_tables_and_norms_to_adam_at_its_own_rate():
    options = Muon(learning_rate=0.5, adam_learning_rate=0.125, clip_norm=0.0)
    optimizer = make_optimizer(options, Schedule(0, "constant"), 10)
    params = {"layers": {"up": {"kernel": np.ones((1, 2, 2), np.float32)}}, "embedding": {"table": np.ones((3, 2), np.float32)}}
    gradients = jax.tree.map(lambda p: p * 7.0, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates["embedding"]["table"], -0.125, rtol=1e-4)
