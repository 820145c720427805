"""Rounds of federated learning: what a round without local steps is, what corrects drift, and what bears clients that lie."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.objectives.terms import Mean, Term
from train.step.federated import robust
from train.step.federated.gradient import CLIP_RATE, FromClients, Round, deviation_of, federated
from train.step.federated.options import Federated
from train.step.private.gradient import SECRET

WIDTH = 3


class Rows(NamedTuple):
    """Regression. inputs [B, WIDTH], targets and weights [B]."""

    inputs: Any
    targets: Any
    weights: Any


def regression(params, batch, key, *, frozen=None, carry=None):
    """Mean squared error of a linear model, halved."""
    error = batch.inputs @ params["w"] - batch.targets
    total = (error**2 * batch.weights).sum() / 2
    return {"loss": Term(1.0, total, batch.weights.sum())}, {"loss": Mean(total, batch.weights.sum())}, carry


def experiment(clients: int, seed: int = 0):
    return SimpleNamespace(batch_size=clients, seed=seed, expected_batch=0)


def clients_of(sizes, seed: int = 0, rows: int = 4):
    """A batch with clients of so many rows each, and what stays of it without padding."""
    rng = np.random.default_rng(seed)
    count = len(sizes)
    weights = (np.arange(rows)[None] < np.asarray(sizes)[:, None]).astype(np.float32)
    made = Rows(rng.normal(size=(count, rows, WIDTH)), rng.normal(size=(count, rows)), weights)
    flat = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32).reshape(-1, *x.shape[2:]), made)
    kept = jax.tree.map(lambda x: x[np.flatnonzero(flat.weights)], flat)
    numbers = np.repeat(np.where(np.asarray(sizes) > 0, np.arange(count), -1), rows).astype(np.int32)
    return FromClients(flat, jnp.asarray(numbers)), kept


PARAMS = {"w": jnp.asarray([0.5, -1.0, 2.0])}


@functools.cache
def compiled(options: Federated, count: int):
    gradient = Round(options, experiment(count))  # type: ignore[arg-type]
    return gradient, jax.jit(lambda *args: gradient(regression, *args[:3], frozen=args[3], carry=args[4]))


def a_round(options: Federated, batch, carry=None, key: int = 0, frozen=None, params=None):
    count = len(batch.clients) // options.unit_rows
    gradient, call = compiled(dataclasses.replace(options, clients=options.clients or count), count)
    params = params or PARAMS
    return call(params, batch, jax.random.key(key), frozen, gradient.carry(params) if carry is None else carry)


def option(**changed) -> Federated:
    return Federated(**({"user": "who", "user_rows": 4, "local_batch": 4, "local_learning_rate": 1.0} | changed))


def test_one_local_step_of_all_clients_is_the_central_step():
    """Whatever the clients' sizes, also with some clients at a time: weights are those of the loss."""
    batch, kept = clients_of([4, 1, 0, 3, 2, 4])
    central = jax.grad(lambda p: (lambda terms: terms["loss"].total / terms["loss"].weight)(regression(p, kept, None)[0]))(PARAMS)
    for at_once in (1, 2, 6):
        found, metrics, carry = a_round(option(at_once=at_once), batch)
        np.testing.assert_allclose(found["w"], central["w"], atol=1e-6)
        assert carry is None and metrics["clients"].total == 5 and metrics["rejected"].total == 0


def test_local_steps_are_those_of_a_loop():
    """Two epochs of batches of two rows, by NumPy; a proximal term pulls back; the order of clients does not matter."""
    batch, _ = clients_of([2, 2, 2])
    options = option(local_batch=2, local_epochs=2, local_learning_rate=0.1, proximal=0.5)
    found, _, _ = a_round(options, batch)
    inputs, targets = (np.asarray(x, np.float64).reshape(3, 4, -1)[:, :2] for x in batch.rows[:2])
    moved = []
    for x, y in zip(inputs, targets[..., 0], strict=True):
        start = own = np.asarray(PARAMS["w"], np.float64)
        for _ in range(2):
            own = own - 0.1 * (x.T @ (x @ own - y) / 2 + 0.5 * (own - start))
        moved.append(own - start)
    np.testing.assert_allclose(found["w"], -np.mean(moved, 0), rtol=1e-5)
    order = np.array([2, 0, 1])
    turned = jax.tree.map(lambda x: x.reshape(3, 4, *x.shape[1:])[order].reshape(x.shape), batch)
    np.testing.assert_allclose(a_round(options, turned)[0]["w"], found["w"], rtol=1e-5)


def test_scaffold_goes_where_all_clients_agree_though_each_pulls_its_own_way():
    """Clients whose optima differ: with many local steps FedAvg ends elsewhere than at the optimum of all, SCAFFOLD ends there."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(4, 4, WIDTH)) * np.array([0.3, 1.0, 2.0, 0.6])[:, None, None]
    targets = np.einsum("crd,cd->cr", inputs, rng.normal(size=(4, WIDTH)) * 3)
    rows = Rows(*(jnp.asarray(x, jnp.float32) for x in (inputs.reshape(16, WIDTH), targets.reshape(16), np.ones(16))))
    batch = FromClients(rows, jnp.repeat(jnp.arange(4, dtype=jnp.int32), 4))
    best = np.linalg.lstsq(inputs.reshape(16, WIDTH), targets.reshape(16), rcond=None)[0]

    def ends(**changed):
        options = option(clients=4, local_epochs=10, local_learning_rate=0.05, **changed)
        gradient = Round(options, experiment(4))  # type: ignore[arg-type]

        def step(state, _):
            params, carry = state
            change, _, carry = gradient(regression, params, batch, jax.random.key(0), carry=carry)
            return (jax.tree.map(jnp.subtract, params, change), carry), None

        (params, _), _ = jax.lax.scan(step, (PARAMS, gradient.carry(PARAMS)), length=200)
        return float(np.linalg.norm(np.asarray(params["w"]) - best))

    assert ends(scaffold=True) < 1e-2 < 0.1 < ends()


def test_late_updates_begin_with_old_parameters_and_count_less():
    """In the first round nothing is old. Later an update begins with one of the last parameters, whichever they were."""
    batch, _ = clients_of([4] * 8)
    options = option(staleness=2)
    fresh, _, carry = a_round(options, batch)
    np.testing.assert_allclose(fresh["w"], a_round(option(), batch)[0]["w"], rtol=1e-6)
    elsewhere = {"w": PARAMS["w"] + 5}
    rows = jax.tree.map(lambda x: jnp.tile(x[:4], (8, *(1,) * (x.ndim - 1))), batch.rows)  # of all clients the same ones
    batch = batch._replace(rows=rows)
    second, _, carry = a_round(options, batch, carry, key=1, params=elsewhere)
    assert int(carry["round"]) == 2
    old, new = (np.asarray(a_round(option(), batch, params=params)[0]["w"]) for params in (PARAMS, elsewhere))
    late = np.arange(1, 8) / np.sqrt(2)
    expected = (late[:, None] * old + (8 - np.arange(1, 8))[:, None] * new) / (late + 8 - np.arange(1, 8))[:, None]
    assert np.abs(expected - second["w"]).max(1).min() < 1e-4, "some of the eight were late, and those count 1 / sqrt(2)"


@pytest.mark.parametrize("attack", ["sign_flip", "noise"])
def test_rules_bear_a_fifth_of_liars_and_the_mean_does_not(attack):
    """Clients agree up to noise; what a fifth of them sends moves the mean away by far, and no rule as far."""
    batch, _ = clients_of([4] * 15, seed=1)
    truth = a_round(option(), batch)[0]["w"]

    def off(rule):
        options = option(aggregate=rule, poisoned=0.2, attack=attack)
        found = [a_round(options, batch, key=key)[0]["w"] for key in range(2 if attack == "noise" else 1)]
        return float(np.mean([jnp.linalg.norm(one - truth) for one in found]))

    mean = off("mean")
    assert mean > 0.5 * float(jnp.linalg.norm(truth))
    for rule in ("median", "trimmed_mean", "krum", "geometric_median"):
        assert off(rule) < 0.7 * mean, rule


def test_rules_are_what_their_papers_say():
    """Against NumPy on updates of which some are absent."""
    rng = np.random.default_rng(0)
    updates, here = rng.normal(size=(11, 5)).astype(np.float32), np.ones(11, np.float32)
    here[[2, 7]] = 0
    there = updates[here > 0]
    tree = {"a": jnp.asarray(updates[:, :2]), "b": jnp.asarray(updates[:, 2:])}

    def of(rule):
        found = jax.jit(rule)(tree, jnp.asarray(here))
        return np.concatenate([found["a"], found["b"]])

    np.testing.assert_allclose(of(robust.median), np.median(there, 0), rtol=1e-6)
    np.testing.assert_allclose(of(robust.rule("trimmed_mean", 0.2)), np.sort(there, 0)[2:-2].mean(0), rtol=1e-5)
    krum = jax.jit(robust.rule("krum", 0.2))
    for _ in range(6):
        others = rng.normal(size=(11, 5)).astype(np.float32)
        squares = ((others[here > 0][:, None] - others[here > 0][None]) ** 2).sum(-1)
        scores = np.sort(squares, 1)[:, 1 : 1 + 9 - 2 - 2].sum(1)
        found = krum({"a": jnp.asarray(others)}, jnp.asarray(here))["a"]
        np.testing.assert_allclose(found, others[here > 0][np.argsort(scores)[:7]].mean(0), rtol=1e-3, atol=1e-6)
    point = of(robust.geometric_median)
    least = min(np.linalg.norm(there - (point + 1e-2 * d), axis=1).sum() for d in rng.normal(size=(50, 5)))
    assert np.linalg.norm(there - point, axis=1).sum() <= least
    for name in ("mean", "median", "trimmed_mean", "krum", "geometric_median"):
        none = jax.jit(robust.rule(name, 0.2))(tree, jnp.zeros(11))
        assert all(np.all(np.asarray(leaf) == 0) for leaf in none.values()), name


def together(rule: str, updates) -> np.ndarray:
    updates = jnp.asarray(updates, jnp.float32)
    found = jax.jit(robust.rule(rule, 0.2))({"a": updates[:, :1], "b": updates[:, 1:]}, jnp.ones(len(updates)))
    return np.concatenate([found["a"], found["b"]])


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "geometric_median"])
@pytest.mark.parametrize("others", [(1e20,), (np.inf,), (np.nan,), (-1e20, np.inf, np.nan), (3e38, 3e38), (1e10,), (1e14, -1e6)])
def test_rules_bear_what_no_square_can_hold(rule, others):
    """Nine clients near 0.1, and some whose squares overflow, or who would take all precision from the others' distances."""
    near = 0.1 + 0.01 * np.random.default_rng(0).normal(size=(9, 4))
    updates = np.concatenate([np.tile(np.reshape(others, (-1, 1)), 4), near])
    np.testing.assert_allclose(together(rule, updates), 0.1, atol=0.02)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "geometric_median"])
def test_rules_bear_it_where_most_clients_changed_nothing(rule):
    """Then no length is far longer than that of most."""
    others = np.tile([[1e20], [np.inf], [np.nan]], 4)
    np.testing.assert_array_equal(together(rule, np.concatenate([others, np.zeros((9, 4))])), np.zeros(4))


def test_the_mean_goes_where_one_update_pulls_it_and_absent_clients_pull_nothing():
    updates = jnp.asarray([[0.1], [0.1], [1e20], [jnp.nan]])
    assert float(robust.mean({"a": updates}, jnp.asarray([1.0, 1, 1, 0]))["a"][0]) > 1e19
    np.testing.assert_allclose(robust.mean({"a": updates}, jnp.asarray([1.0, 1, 0, 0]))["a"], 0.1, rtol=1e-6)


def test_lengths_are_right_where_their_squares_are_not():
    rows = np.array([[3, 4], [3e30, 4e30], [3e-30, 4e-30], [0, 0], [1, np.inf], [np.nan, 1]], np.float32)
    found = np.asarray(robust.lengths({"a": jnp.asarray(rows[:, :1]), "b": jnp.asarray(rows[:, 1:])}))
    np.testing.assert_allclose(found[:4], [5, 5e30, 5e-30, 0], rtol=1e-6)
    assert not np.isfinite(found[4:]).any()


def test_exchanges_put_any_numbers_in_order():
    """All rows of zeros and ones, which decide it for any numbers (Knuth, vol. 3, theorem 5.3.4Z); and many clients, which are sorted."""
    for count in range(1, 11):
        x_BN = (np.arange(2**count)[None] >> np.arange(count)[:, None] & 1).astype(np.float32)
        ranked, _ = robust._ranked(jnp.asarray(x_BN), jnp.ones(count, bool))
        np.testing.assert_array_equal(ranked, np.sort(x_BN, 0))
    x_BN, here_B = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) % 3 > 0
    x_BN[1, 0] = np.nan
    ranked, count = robust._ranked(jnp.asarray(x_BN), jnp.asarray(here_B))
    np.testing.assert_array_equal(ranked[: count - 1], np.sort(x_BN[here_B], 0)[: count - 1])
    assert count == here_B.sum() and np.isinf(ranked[count - 1, 0])


def test_an_update_that_is_not_finite_is_left_out_and_counted():
    batch, _ = clients_of([4, 4, 4])
    broken = batch._replace(rows=batch.rows._replace(targets=batch.rows.targets.at[5].set(jnp.inf)))
    found, metrics, _ = a_round(option(), broken)
    rest, _ = clients_of([4, 0, 4])
    np.testing.assert_allclose(found["w"], a_round(option(), rest)[0]["w"], rtol=1e-6)
    assert metrics["rejected"].total == 1 and np.isfinite(metrics["loss"].total)


def test_with_privacy_one_user_moves_the_sum_by_at_most_the_clipping_norm():
    """Whatever the user's rows are; the denominator is fixed; noise is as wide as it is said to be."""
    frozen = {SECRET: np.array([1, 2], np.uint32)}
    quiet = option(clip=0.3, noise_multiplier=1e-9, expected_batch=2)
    whole, _ = clients_of([4] * 6)
    huge = whole._replace(rows=whole.rows._replace(targets=whole.rows.targets.at[:4].mul(1e4)))
    without = whole._replace(rows=whole.rows._replace(weights=whole.rows.weights.at[:4].set(0)))
    a, b, c = (np.asarray(a_round(quiet, batch, frozen=frozen)[0]["w"]) * 2 for batch in (whole, huge, without))
    assert np.linalg.norm(a - c) <= 0.3 + 1e-6 and 0.29 < np.linalg.norm(b - c) <= 0.3 + 1e-6
    nobody, _ = clients_of([0] * 6)
    loud = dataclasses.replace(quiet, noise_multiplier=2.0)
    drawn = np.concatenate([a_round(loud, nobody, key=key, frozen=frozen)[0]["w"] for key in range(60)]) * 2 / (2.0 * 0.3)
    assert 0.85 < drawn.std() < 1.15 and abs(drawn.mean()) < 0.25


def test_the_clipping_norm_finds_its_quantile():
    """Andrew et al. (2021): after some rounds as many updates are longer as shall be; the noise of the sum makes room for that of the
    count."""
    batch, _ = clients_of([4] * 15, seed=5)
    alone = [batch._replace(rows=batch.rows._replace(weights=jnp.zeros(60).at[4 * n : 4 * n + 4].set(1))) for n in range(15)]
    lengths = np.sort([float(jnp.linalg.norm(a_round(option(), one)[0]["w"])) for one in alone])
    options, carry = option(clip=lengths[-1] * 3, quantile=0.6), None
    for _ in range(60):
        _, metrics, carry = a_round(options, batch, carry)
    assert lengths[6] <= float(carry["clip"]) <= lengths[10]
    noisy = option(clip=1.0, quantile=0.5, noise_multiplier=1.0, expected_batch=100)
    assert deviation_of(noisy, experiment(1)) == pytest.approx((1.0 - 1 / 10**2) ** -0.5)  # type: ignore[arg-type]


def test_one_user_moves_the_count_of_short_updates_by_a_half():
    """What Andrew et al. take the noise of the count for: a client more or less, whether its update is short or long."""
    frozen, whole = {SECRET: np.array([1, 2], np.uint32)}, clients_of([4] * 6)[0]
    without = whole._replace(rows=whole.rows._replace(weights=whole.rows.weights.at[:4].set(0)))
    moved = []
    for clip in (1e-3, 1e3):
        options = option(clip=clip, quantile=0.5, noise_multiplier=0.1, expected_batch=2)
        after = [float(a_round(options, batch, frozen=frozen)[2]["clip"]) for batch in (whole, without)]
        moved.append(np.log(after[0] / after[1]) / CLIP_RATE * 2)
    np.testing.assert_allclose(moved, [0.5, -0.5], atol=1e-3)


def test_a_round_is_planned_before_it_is_known_how_many_clients_there_are():
    """`omnia plan` and the doctor compile a step without data."""
    gradient = Round(option(scaffold=True, poisoned=0.2), experiment(2))  # type: ignore[arg-type]
    batch, _ = clients_of([4, 4])
    found = jax.eval_shape(lambda p: gradient(regression, p, batch, jax.random.key(0), carry=gradient.carry(p)), PARAMS)
    assert found[0]["w"].shape == (WIDTH,)


def test_what_clients_could_not_do_is_refused(tiny):
    fine = dataclasses.replace(tiny, gradient=option(), micro_batches=1)
    assert isinstance(federated(fine.gradient, fine, "token"), Round)
    for changed, match in (
        ({"gradient": option(local_batch=3)}, "does not divide user_rows"),
        ({"gradient": option(at_once=5)}, "does not divide batch_size"),
        ({"micro_batches": 2}, "at-once"),
    ):
        other = dataclasses.replace(fine, **changed)
        with pytest.raises(UserError, match=match):
            federated(other.gradient, other, "token")
    with pytest.raises(UserError, match="compares rows"):
        federated(option(local_batch=1), fine, "batch")
    with pytest.raises(ValueError, match="gradient.clip is 0"):
        option(noise_multiplier=1.0)
    with pytest.raises(ValueError, match="mean of updates in time"):
        option(noise_multiplier=1.0, clip=1.0, aggregate="median")
