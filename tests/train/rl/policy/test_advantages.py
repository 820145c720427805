"""Advantages and rewards of tokens, against definitions written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.rl.options import PPO
from train.rl.policy.advantages import (
    adapted_kl_coefficient,
    best_of_group,
    discounted_returns,
    generalized_advantages,
    group_advantages,
    informative_groups,
    kl_estimate,
    last_tokens,
    leave_one_out_advantages,
    running_scale,
    whiten,
)

RNG = np.random.default_rng(0)
REWARDS, VALUES = RNG.normal(size=(2, 4, 7)).astype(np.float32)
MASK = np.array([[1] * 7, [1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0, 1]], np.float32)


def oracle(rewards, values, mask, discount, gae_lambda):
    """The sum over later deltas (Schulman et al. 2016, eq. 16), of the chosen tokens of each row alone."""
    advantages = np.zeros_like(rewards)
    for row in range(len(rewards)):
        places = np.flatnonzero(mask[row])
        r, v = rewards[row, places], values[row, places]
        deltas = [r[t] + discount * (v[t + 1] if t + 1 < len(r) else 0.0) - v[t] for t in range(len(r))]
        for t, place in enumerate(places):
            advantages[row, place] = sum((discount * gae_lambda) ** (k - t) * deltas[k] for k in range(t, len(r)))
    return advantages


@pytest.mark.parametrize("discount, gae_lambda", [(1.0, 0.95), (0.9, 0.5), (0.97, 0.0), (1.0, 1.0)])
def test_gae_is_the_sum_over_later_deltas_and_steps_over_masked_tokens(discount, gae_lambda):
    found, returns = generalized_advantages(REWARDS * MASK, VALUES * MASK, MASK, discount=discount, gae_lambda=gae_lambda)
    expected = oracle(REWARDS, VALUES, MASK, discount, gae_lambda)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(returns, expected + VALUES * MASK, atol=1e-5)


@pytest.mark.parametrize("turn_discount", [1.0, 0.5, 0.0])
def test_turns_are_discounted_where_others_spoke_between(turn_discount):
    """Beside the recursion on the chosen tokens of each row alone: 0 judges a turn by what it earned itself."""
    expected = np.zeros_like(REWARDS)
    for row, mask in enumerate(MASK):
        places, value, advantage = np.flatnonzero(mask), 0.0, 0.0
        for place, after in zip(places[::-1], [None, *places[:0:-1]], strict=True):
            share = 0.9 * (turn_discount if after is not None and after > place + 1 else 1.0)
            advantage = REWARDS[row, place] + share * value - VALUES[row, place] + share * 0.8 * advantage
            expected[row, place], value = advantage, VALUES[row, place]
    how = {"discount": 0.9, "turn_discount": turn_discount}
    found = generalized_advantages(REWARDS * MASK, VALUES * MASK, MASK, gae_lambda=0.8, **how)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if not turn_discount:  # of row 1, two turns: the first knows nothing of the second
        alone = discounted_returns(REWARDS[1:2, :2], np.ones((1, 2), np.float32), discount=0.9)
        np.testing.assert_allclose(discounted_returns(REWARDS * MASK, MASK, **how)[1, :2], alone[0], atol=1e-5)


def test_gae_in_closed_form():
    """Decay 1 without discount: what is still to come less the value. Decay 0: one delta."""
    ones = np.ones_like(REWARDS)
    to_come = np.cumsum(REWARDS[:, ::-1], 1)[:, ::-1]
    np.testing.assert_allclose(generalized_advantages(REWARDS, VALUES, ones, discount=1.0, gae_lambda=1.0)[0], to_come - VALUES, atol=1e-5)
    after = np.pad(VALUES[:, 1:], ((0, 0), (0, 1)))
    np.testing.assert_allclose(
        generalized_advantages(REWARDS, VALUES, ones, discount=0.9, gae_lambda=0.0)[0], REWARDS + 0.9 * after - VALUES, atol=1e-5
    )
    np.testing.assert_allclose(discounted_returns(REWARDS, ones, discount=1.0), to_come, atol=1e-5)


def test_padding_changes_no_advantage():
    def padded(x):
        return np.pad(x, ((0, 0), (0, 10)))

    options = {"discount": 0.99, "gae_lambda": 0.9}
    found, _ = generalized_advantages(padded(REWARDS * MASK), padded(VALUES * MASK), padded(MASK), **options)
    expected, _ = generalized_advantages(REWARDS * MASK, VALUES * MASK, MASK, **options)
    np.testing.assert_array_equal(found[:, :7], expected)
    assert not found[:, 7:].any()


def test_group_baselines():
    scores = np.array([1.0, 2.0, 3.0, 6.0, 0.3, 0.3, 0.3, 0.3], np.float32)
    plain = group_advantages(scores, 4, divide_by_std=False)
    np.testing.assert_allclose(plain, [-2, -1, 0, 3, 0, 0, 0, 0], atol=1e-6)
    divided = group_advantages(scores, 4, divide_by_std=True)
    np.testing.assert_allclose(divided[:4], np.array([-2, -1, 0, 3]) / np.std([1, 2, 3, 6], ddof=1), rtol=1e-3)
    assert not divided[4:].any() and np.isfinite(divided).all()
    np.testing.assert_allclose(divided.reshape(2, 4).sum(1), 0, atol=1e-5)
    others = [1 - 11 / 3, 2 - 10 / 3, 3 - 9 / 3, 6 - 6 / 3]
    np.testing.assert_allclose(leave_one_out_advantages(scores, 4)[:4], others, rtol=1e-5)
    np.testing.assert_allclose(leave_one_out_advantages(scores, 4), plain * 4 / 3, rtol=1e-5, atol=1e-6)
    assert informative_groups(scores, 4).tolist() == [True, False]
    assert best_of_group(scores, 4).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert best_of_group(np.array([1.0, 2.0, 2.0]), 3).tolist() == [0, 1, 0]


def test_the_running_scale_is_the_deviation_of_all_scores_so_far():
    scores = np.random.default_rng(4).normal(3.0, 7.0, (3, 8)).astype(np.float32)
    kept = np.array([[1, 1, 1, 0, 1, 1, 0, 1], [0] * 8, [1] * 8], np.float32)
    moments, seen = np.zeros(3, np.float32), []
    for row, mask in zip(scores, kept, strict=True):
        scale, moments = running_scale(moments, row, mask)
        seen += row[mask > 0].tolist()
        np.testing.assert_allclose(scale, np.std(seen, ddof=1), rtol=1e-5)
    assert running_scale(np.zeros(3, np.float32), np.full(4, 2.0, np.float32), np.ones(4, np.float32))[0] == 1


def test_whitening_is_over_the_masked_entries_alone():
    white = np.asarray(whiten(REWARDS, MASK))
    inside = white[MASK > 0]
    assert abs(inside.mean()) < 1e-6 and abs(inside.var() - 1) < 1e-4 and not white[MASK == 0].any()
    kept = np.asarray(whiten(REWARDS, MASK, shift_mean=False))[MASK > 0]
    assert abs(kept.mean() - REWARDS[MASK > 0].mean()) < 1e-6 and abs(kept.var() - 1) < 1e-4


def test_the_last_token_is_the_last_chosen_one():
    assert np.argmax(last_tokens(MASK), 1).tolist() == [6, 6, 4, 6]
    assert np.asarray(last_tokens(MASK)).sum(1).tolist() == [1, 1, 1, 1]
    assert not np.asarray(last_tokens(np.zeros((1, 3), np.float32))).any()


def test_estimators_have_the_mean_of_the_exact_kl():
    """A vocabulary of five: the expectation over it is the exact one, without sampling. k3 is never negative, k2's gradient is the KL's."""
    logits, other = jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)

    def ratio(logits):
        return jax.nn.log_softmax(logits) - jax.nn.log_softmax(other)

    def exact(logits):
        return (jax.nn.softmax(logits) * ratio(logits)).sum()

    p = jax.nn.softmax(logits)
    for estimator in ("k1", "k3"):
        np.testing.assert_allclose((p * kl_estimate(ratio(logits), estimator)).sum(), exact(logits), rtol=1e-5)
    assert (kl_estimate(ratio(logits), "k3") >= 0).all() and (kl_estimate(ratio(logits), "k2") >= 0).all()
    expected = jax.grad(exact)(logits)
    of_k2 = jax.grad(lambda logits: (p * kl_estimate(ratio(logits), "k2")).sum())(logits)
    of_k1 = jax.grad(lambda logits: (p * kl_estimate(ratio(logits), "k1")).sum())(logits)
    np.testing.assert_allclose(of_k2, expected, atol=1e-6)
    np.testing.assert_allclose(of_k1, 0, atol=1e-6)  # k1 in a loss teaches nothing


def test_the_adaptive_coefficient():
    """At the target it stays; at twice the target, with 512 episodes of 10,000, it grows by 0.2 * 0.0512."""
    options = {"target": 6.0, "horizon": 10_000.0, "episodes": 512}
    np.testing.assert_allclose(adapted_kl_coefficient(0.15, 6.0, **options), 0.15)
    np.testing.assert_allclose(adapted_kl_coefficient(1.0, 12.0, **options), 1.01024, rtol=1e-6)
    np.testing.assert_allclose(adapted_kl_coefficient(1.0, 0.0, **options), 1 - 0.01024, rtol=1e-6)


def test_the_adaptive_coefficient_stays_where_it_can_come_back_from():
    """Whatever the KLs, the horizon and the batch: positive, finite, and raised by a KL above target after any history."""
    rng = np.random.default_rng(0)
    change = jax.jit(adapted_kl_coefficient, static_argnames=("target", "horizon", "episodes"))
    for episodes, horizon in ((32, 5.0), (1, 1.0), (4096, 1.0), (64, 10_000.0)):
        options, coefficient = {"target": 0.5, "horizon": horizon, "episodes": episodes}, jnp.float32(0.2)
        for kl in [*rng.normal(0, 10, 60), np.inf, -np.inf, np.nan, *[-1.0] * 200, *[np.inf] * 300, *[-np.inf] * 300]:
            before, coefficient = coefficient, change(coefficient, jnp.float32(kl), **options)
            assert 0 < coefficient < np.inf and 0.799 < coefficient / before < 1.201
        assert change(coefficient, jnp.float32(9.0), **options) > coefficient
    assert adapted_kl_coefficient(0.3, jnp.float32(np.nan), target=1.0, horizon=9.0, episodes=3) == jnp.float32(0.3)
    with pytest.raises(ValueError, match="kl_coefficient"):
        PPO(kl_target=1.0, kl_coefficient=1e-7)


def test_scores_that_are_equal_or_beyond_all_measure_scale_nothing():
    """A mean is rounded, so equal scores lie a little beside it; in any unit, scores that differ have their own deviation."""
    kept = np.ones(7, np.float32)
    for value in (0.1, 0.3, -7.7, 1e-9, 123456.7):
        moments = np.zeros(3, np.float32)
        for _ in range(30):
            scale, moments = running_scale(moments, np.full(7, value, np.float32), kept)
            assert scale == 1
    for unit in (1e-12, 1.0, 1e12):
        scores = np.arange(7, dtype=np.float32) * np.float32(unit)
        scale, moments = running_scale(np.zeros(3, np.float32), scores, kept)
        np.testing.assert_allclose(scale, np.std(scores.astype(np.float64), ddof=1), rtol=1e-5)
    again, after = running_scale(moments, np.full(7, 1e30, np.float32) * [1, -1, 1, -1, 1, -1, 1], kept)
    assert again == scale and (np.asarray(after) == np.asarray(moments)).all()
