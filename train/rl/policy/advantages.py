"""From rewards to advantages: generalised advantage estimation, group baselines, whitening. Pure functions on arrays.

B rows (responses), T tokens of a response. A mask is 1 on tokens that the policy chose (its stop token included) and 0 on padding and on
tokens that came from elsewhere (a tool, another speaker). All arrays are float32, and all statistics are of the whole batch, whatever the
mesh.
"""

import jax
import jax.numpy as jnp

from train.rl.options import KL_COEFFICIENTS


def generalized_advantages(rewards_BT, values_BT, mask_BT, *, discount: float, gae_lambda: float, turn_discount: float = 1.0):
    """GAE (Schulman et al. 2016, eq. 16) that steps over masked tokens.

    rewards_BT: of each token. values_BT: of the state before it. Where the mask is 0, the accumulator passes through. A gap of masked
    tokens ends a turn: across it the next value and advantage are multiplied by `turn_discount` too. Nothing follows the last token:
    episodes end.
    Returns advantages_BT (0 where masked) and returns_BT = advantages + values, both before any whitening.
    """

    def step(after, now):
        next_value_B, next_advantage_B, apart_B = after
        reward_B, value_B, mask_B = now
        discount_B = discount * jnp.where(apart_B, turn_discount, 1.0)
        delta_B = reward_B + discount_B * next_value_B - value_B
        advantage_B = delta_B + discount_B * gae_lambda * next_advantage_B
        chosen_B = mask_B > 0
        kept = jnp.where(chosen_B, value_B, next_value_B), jnp.where(chosen_B, advantage_B, next_advantage_B), ~chosen_B
        return kept, advantage_B

    nothing_B = jnp.zeros_like(rewards_BT[:, 0])
    _, advantages_TB = jax.lax.scan(step, (nothing_B, nothing_B, nothing_B > 0), (rewards_BT.T, values_BT.T, mask_BT.T), reverse=True)
    advantages_BT = advantages_TB.T * mask_BT
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def discounted_returns(rewards_BT, mask_BT, *, discount: float, turn_discount: float = 1.0):
    """The discounted sum of a token's reward and those after it, 0 where masked: GAE with gae_lambda 1 and no values."""
    how = {"discount": discount, "gae_lambda": 1.0, "turn_discount": turn_discount}
    return generalized_advantages(rewards_BT, jnp.zeros_like(rewards_BT), mask_BT, **how)[0]


def group_advantages(scores_B, samples: int, *, divide_by_std: bool, epsilon: float = 1e-4):
    """GRPO's advantage (Shao et al. 2024, sec. 4.1.2): a score less the mean of its group, over the group's standard deviation.

    scores_B: the `samples` responses to a prompt are neighbours. divide_by_std: False is Dr. GRPO (Liu et al. 2025). A group of equal
    scores gives 0. Returns advantages_B, which sum to 0 in each group.
    """
    scores_GN = scores_B.reshape(-1, samples)
    centred_GN = scores_GN - scores_GN.mean(-1, keepdims=True)
    if divide_by_std:
        centred_GN /= jnp.sqrt(jnp.square(centred_GN).sum(-1, keepdims=True) / max(1, samples - 1)) + epsilon
    return jnp.where(informative_groups(scores_B, samples)[:, None], centred_GN, 0.0).reshape(-1)


def leave_one_out_advantages(scores_B, samples: int):
    """RLOO's advantage (Ahmadian et al. 2024, eq. 8): a score less the mean of the others of its group. samples: at least 2."""
    scores_GN = scores_B.reshape(-1, samples)
    return ((scores_GN - scores_GN.mean(-1, keepdims=True)) * (samples / (samples - 1))).reshape(-1)


def best_of_group(scores_B, samples: int):
    """1 for the response of each group with the highest score, the first of equals, else 0; 0 for all of a group that says nothing."""
    best_GN = jax.nn.one_hot(scores_B.reshape(-1, samples).argmax(-1), samples)
    return (best_GN * informative_groups(scores_B, samples)[:, None]).reshape(-1)


SAME = 1e-6
"""Scores of a group that lie no further apart are equal: the group says nothing about what is better."""


def informative_groups(scores_B, samples: int):
    """Whether the scores of each group differ at all: bool [B / samples]. By their range: rounding gives equal ones a deviation."""
    scores_GN = scores_B.reshape(-1, samples)
    return scores_GN.max(-1) - scores_GN.min(-1) > SAME


def masked_mean(x, mask):
    """The mean of x where the mask is 1; 0 where it is nowhere."""
    return (x * mask).sum() / jnp.maximum(mask.sum(), 1.0)


def whiten(x, mask, *, shift_mean: bool = True):
    """x with variance 1 and mean 0 (or, without shift_mean, its own mean) over the masked entries of the whole batch; 0 elsewhere."""
    mean = masked_mean(x, mask)
    variance = masked_mean(jnp.square(x - mean), mask)
    white = (x - mean) * jax.lax.rsqrt(variance + 1e-8)
    return (white if shift_mean else white + mean) * mask


def last_tokens(mask_BT):
    """1 at the last masked position of each row, float32 [B, T]; a row without any is 0 everywhere."""
    after_BT = jnp.flip(jnp.cumsum(jnp.flip(mask_BT, 1), 1), 1)
    return ((mask_BT > 0) & (after_BT == 1)).astype(jnp.float32)


def kl_estimate(log_ratio_BT, estimator: str):
    """Estimators of KL(policy || reference) from sampled tokens (Schulman 2020): log_ratio = log policy - log reference.

    k1: the log ratio, unbiased. k2: half its square. k3: exp(-r) - 1 + r, unbiased and never negative.
    """
    match estimator:
        case "k1":
            return log_ratio_BT
        case "k2":
            return 0.5 * jnp.square(log_ratio_BT)
        case "k3":
            return jnp.expm1(-log_ratio_BT) + log_ratio_BT
    raise ValueError(f"kl estimator {estimator!r}; choose k1, k2 or k3")


def adapted_kl_coefficient(coefficient, kl, *, target: float, horizon: float, episodes: int):
    """The adaptive coefficient (Ziegler et al. 2019, sec. 2.2): raised where a response's KL, over all its tokens, is above target.

    A batch of more episodes than the horizon counts as one horizon, so that no step changes it by more than a fifth: it stays positive,
    and within KL_COEFFICIENTS, from where it finds back. A KL that is no number changes nothing.
    """
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    changed = coefficient * (1.0 + error * min(episodes / horizon, 1.0))
    return jnp.where(jnp.isnan(error), coefficient, jnp.clip(changed, *KL_COEFFICIENTS))


def running_scale(moments, scores_B, kept_B):
    """The standard deviation of all scores so far, and the moments to go on from (Chan et al. 1979): float32 [3], number, mean, and sum of
    squared deviations. 1 while there are fewer than two scores, or all are equal up to rounding. Scores whose squares are no finite number
    are left out."""
    count, mean, squares = moments
    new = kept_B.sum()
    new_mean = (scores_B * kept_B).sum() / jnp.maximum(new, 1.0)
    total = count + new
    shift = new_mean - mean
    squares += (jnp.square(scores_B - new_mean) * kept_B).sum() + jnp.square(shift) * count * new / jnp.maximum(total, 1.0)
    mean += shift * new / jnp.maximum(total, 1.0)
    after = jnp.stack([total, mean, squares])
    total, mean, squares = after = jnp.where(jnp.isfinite(after).all(), after, moments)
    deviation = jnp.sqrt(squares / jnp.maximum(total - 1.0, 1.0))
    differ = deviation > SAME * jnp.abs(mean)  # a mean is rounded: equal scores lie a little beside it
    return jnp.where((total > 1) & differ, deviation, 1.0), after
