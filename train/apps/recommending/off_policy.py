"""Off-policy evaluation: what another way of ranking would have earned, from a log of what was shown by chance and what came of it."""

from typing import Any, NamedTuple

import numpy as np

from train.tasks.metrics.bootstrap import bootstrap_sums


class Estimate(NamedTuple):
    """The mean reward of a showing, and its interval of confidence."""

    value: float
    low: float
    high: float


class OffPolicy(NamedTuple):
    """plain: inverse propensity scoring, right on average where propensities are right, and of large variance where they are small (Horvitz
    and Thompson 1952). normalised: by the sum of weights (Swaminathan and Joachims 2015): a little wrong for small logs, of less variance,
    and never outside the rewards. clipped: no weight counts more than `clip`: too low for rewards that are not negative, of the least
    variance (Ionides 2008). effective: showings that an experiment with the other policy would have needed to know as much (Kish 1965)."""

    plain: Estimate
    normalised: Estimate
    clipped: Estimate
    effective: float


def off_policy(rewards: Any, shown: Any, wanted: Any, *, clip: float = 10.0, level: float = 0.95) -> OffPolicy:
    """The mean reward of a policy, from the log of another one, by inverse propensity scoring.

    rewards: [N] of single items, such as clicks; or [N, K] of slates, of each place. A slate's reward is then the sum over its places, and
    each place's is taken to depend on the item there and on the place alone (the item-position model of Li et al. 2018, sec. 4.2).
    shown: of the same shape, the probabilities with which the logging policy put there what it did put there. wanted: those with which the
    policy in question would have; 0 or 1 for one that leaves nothing to chance. clip: the largest weight. level: of the intervals, by
    bootstrap over showings.

    ValueError for shapes that differ, an empty log, numbers that are none, probabilities outside [0, 1], or of 0 for what was shown. Of
    what the logging policy never shows, no log tells anything: its probabilities must be above 0 wherever those of the other policy are.
    """
    rewards_NK, shown_NK, wanted_NK = (np.asarray(one, np.float64) for one in (rewards, shown, wanted))
    if not rewards_NK.shape == shown_NK.shape == wanted_NK.shape or rewards_NK.ndim not in (1, 2) or not rewards_NK.size:
        raise ValueError(f"shapes {rewards_NK.shape}, {shown_NK.shape} and {wanted_NK.shape} are no log of [N] or [N, K]")
    if not np.isfinite(rewards_NK).all():
        raise ValueError("a reward is no number")
    if not ((shown_NK > 0) & (shown_NK <= 1)).all() or not ((wanted_NK >= 0) & (wanted_NK <= 1)).all():
        raise ValueError("a probability is not between 0 and 1, or what was shown has none")
    if not clip > 0:
        raise ValueError(f"clip is {clip}; it must be above 0")
    if rewards_NK.ndim == 1:
        rewards_NK, shown_NK, wanted_NK = rewards_NK[:, None], shown_NK[:, None], wanted_NK[:, None]
    weights_NK = wanted_NK / shown_NK
    places, ones = rewards_NK.shape[1], np.ones((len(rewards_NK), 1))

    def estimate(parts_NP: np.ndarray, of: Any) -> Estimate:
        low, high = bootstrap_sums(parts_NP, of, level=level)
        return Estimate(float(of(parts_NP.sum(0)[None])[0]), float(low), float(high))

    def mean(sums_RP: np.ndarray) -> np.ndarray:
        return sums_RP[:, 0] / sums_RP[:, 1]

    def ratios(sums_RP: np.ndarray) -> np.ndarray:
        above_RK, below_RK = sums_RP[:, :places], sums_RP[:, places:]
        return np.where(below_RK > 0, above_RK / np.where(below_RK > 0, below_RK, 1), 0).sum(1)

    def weighted(weights_NK: np.ndarray) -> np.ndarray:
        return np.concatenate([(weights_NK * rewards_NK).sum(1, keepdims=True), ones], 1)

    squares = float((weights_NK**2).sum())
    return OffPolicy(
        estimate(weighted(weights_NK), mean),
        estimate(np.concatenate([weights_NK * rewards_NK, weights_NK], 1), ratios),
        estimate(weighted(np.minimum(weights_NK, clip)), mean),
        float(weights_NK.sum()) ** 2 / squares / places if squares else 0.0,
    )
