"""From rollouts and scores to a batch to learn from: values, reference log-probabilities, token rewards, advantages."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from model.critic import Critic
from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import Decoder
from train.objectives.terms import Mean
from train.rl.options import PolicyGradient
from train.rl.policy import advantages as estimators
from train.rl.policy.policy_gradient import Experience
from train.rl.policy.rollout import Rollout


class TokenEstimates(NamedTuple):
    """Of every response token, float32 [B, R]: the critic's value before it, its log-probability under the reference, and the KL to that.

    policy: its log-probability under the policy, computed anew; None where it was not asked for.
    """

    values: Any
    reference: Any
    kl: Any
    policy: Any = None


def inputs_of(rollout: Rollout):
    """tokens, segments, positions int32 [B, T = S - 1] of a rollout, and its targets [B, R]."""
    tokens_BT, valid_BT = rollout.tokens_BS[:, :-1], rollout.valid_BS[:, :-1]
    positions_BT = jnp.maximum(jnp.cumsum(valid_BT, 1) - 1, 0)
    return tokens_BT, valid_BT, positions_BT, rollout.responses_BR


def evaluate_rollout(
    model: Decoder, critic: Critic, o: PolicyGradient, params, reference, rollout: Rollout, *, again: bool, shards: int
) -> TokenEstimates:
    """A forward pass of the policy where one is needed (for a critic, the exact KL, or `again`), and one of the reference policy.

    reference: parameters of the reference policy, or None. again: also compute the policy's log-probabilities, which the sampler's
    should equal.
    """
    tokens_BT, segments_BT, positions_BT, targets_BR = inputs_of(rollout)
    where = {"segments_BT": segments_BT, "positions_BT": positions_BT}
    how: dict[str, Any] = {"softcap": model.config.logit_softcap, "temperature": o.temperature, "shards": shards}
    length = targets_BR.shape[1]
    nothing = jnp.zeros(targets_BR.shape, jnp.float32)
    exact = reference is not None and o.kl_estimator == "exact" and o.kl_in == "reward"
    values, own, policy = nothing, None, None
    if critic.layout != "none" or exact or again:
        output = model.apply({"params": params}, tokens_BT, **where, branch=critic.branch_at)
        own = Head(output.hidden_BTD[:, -length:], vocabulary_table(params))
        if critic.layout != "none":
            values = critic(params, output, tokens_BT, segments_BT, positions_BT)[:, -length:] * rollout.mask_BR
        if again:
            policy = score_tokens(own, targets_BR, **how).log_probs * rollout.mask_BR
    if reference is None:
        return TokenEstimates(values, nothing, nothing, policy)
    hidden_BTD = model.apply({"params": reference}, tokens_BT, **where).hidden_BTD
    other = Head(hidden_BTD[:, -length:], vocabulary_table(reference))
    log_probs = score_tokens(other, targets_BR, **how).log_probs * rollout.mask_BR
    if exact:
        assert own is not None
        kl = score_tokens(own, targets_BR, want=("kl",), other=other, **how).kl * rollout.mask_BR
    else:
        kl = (
            estimators.kl_estimate(rollout.log_probs_BR - log_probs, "k1" if o.kl_estimator == "exact" else o.kl_estimator)
            * rollout.mask_BR
        )
    return TokenEstimates(values, log_probs, kl, policy)


def scores_by_token(scores, stopped_B, mask_BR, o: PolicyGradient):
    """Token rewards [B, R] from scores [B], which go to the last token, or [B, R]; `missing_stop` changes those without a stop."""
    last_BR = estimators.last_tokens(mask_BR)
    scores_BR = scores[:, None] * last_BR if scores.ndim == 1 else scores * mask_BR
    unended_B1 = 1.0 - stopped_B.astype(jnp.float32)[:, None]
    match o.missing_stop:
        case "replace":
            return jnp.where(unended_B1 > 0, -o.missing_stop_score * last_BR, scores_BR)
        case "subtract":
            return scores_BR - o.missing_stop_score * unended_B1 * last_BR
    return scores_BR


def make_experience(rollout: Rollout, estimates: TokenEstimates, scores, kept_B, o: PolicyGradient, kl_coefficient, scale=1.0):
    """The batch to learn from, and metrics of the rollout as Means.

    scores: float32 [B], or [B, R] with a reward for each token, to be divided by `scale` where that counts: metrics have them as they are.
    kept_B: 1 for rows to learn from; others are masked out everywhere.
    All statistics are of the whole batch.
    """
    tokens_BT, segments_BT, positions_BT, targets_BR = inputs_of(rollout)
    mask_BR = rollout.mask_BR * kept_B[:, None]
    scores_BR = scores_by_token(scores, rollout.stopped_B, mask_BR, o)
    penalty = kl_coefficient if o.kl_in == "reward" else 0.0
    rewards_BR = (scores_BR / scale - penalty * estimates.kl * mask_BR).astype(jnp.float32)
    scores_B, totals_B = scores_BR.sum(1), rewards_BR.sum(1)
    if o.whiten_rewards:
        rewards_BR = estimators.whiten(rewards_BR, mask_BR, shift_mean=False)
    values_BR = estimates.values * mask_BR
    match o.advantage:
        case "gae":
            advantages_BR, returns_BR = estimators.generalized_advantages(
                rewards_BR, values_BR, mask_BR, discount=o.discount, gae_lambda=o.gae_lambda, turn_discount=o.turn_discount
            )
        case "returns":
            advantages_BR = returns_BR = estimators.discounted_returns(
                rewards_BR, mask_BR, discount=o.discount, turn_discount=o.turn_discount
            )
        case "group":
            each_B = estimators.group_advantages(totals_B, o.group_size, divide_by_std=o.divide_by_std)
            advantages_BR, returns_BR = each_B[:, None] * mask_BR, totals_B[:, None] * mask_BR
        case "leave_one_out":
            each_B = estimators.leave_one_out_advantages(totals_B, o.group_size)
            advantages_BR, returns_BR = each_B[:, None] * mask_BR, totals_B[:, None] * mask_BR
        case "none":
            advantages_BR = returns_BR = jnp.zeros_like(mask_BR)
        case "best":
            each_B = estimators.best_of_group(totals_B, o.group_size)
            advantages_BR, returns_BR = each_B[:, None] * mask_BR, totals_B[:, None] * mask_BR
    if o.whiten:
        advantages_BR = estimators.whiten(advantages_BR, mask_BR)
    lengths_B = mask_BR.sum(1)
    experience = Experience(
        *(tokens_BT, segments_BT, positions_BT, targets_BR, mask_BR, rollout.log_probs_BR),
        *(advantages_BR, returns_BR, values_BR, estimates.reference),
        jnp.broadcast_to(1.0 / jnp.maximum(lengths_B, 1.0)[:, None], mask_BR.shape),
    )
    return experience, _metrics(experience, rollout, estimates, scores_B, totals_B, kept_B, o, scale)


def _metrics(
    e: Experience, rollout: Rollout, estimates: TokenEstimates, scores_B, totals_B, kept_B, o: PolicyGradient, scale
) -> dict[str, Mean]:
    """Of the rows that are learned from; sums over the tokens of a response are means over responses."""
    rows, tokens = kept_B.sum(), e.mask.sum()

    def by_row(x_B):
        return Mean((x_B * kept_B).sum(), rows)

    mean = estimators.masked_mean(e.returns, e.mask)
    variance = estimators.masked_mean(jnp.square(e.returns - mean), e.mask)
    found = {
        "objective/score": by_row(scores_B),
        "objective/score_total": by_row(totals_B),
        "objective/non_score_reward": by_row(totals_B - scores_B / scale),
        "objective/kl": by_row((estimates.kl * e.mask).sum(1)),
        "objective/entropy": by_row((-rollout.log_probs_BR * e.mask).sum(1)),
        "ppo/returns/mean": Mean(mean, jnp.float32(1)),
        "ppo/returns/var": Mean(variance, jnp.float32(1)),
        "response/length": by_row(e.mask.sum(1)),
        "response/stopped": by_row(rollout.stopped_B.astype(jnp.float32)),
    }
    if o.advantage == "gae":
        unexplained = estimators.masked_mean(jnp.square(e.returns - e.values), e.mask)
        found["ppo/val/var_explained"] = Mean(1.0 - unexplained / jnp.maximum(variance, 1e-8), jnp.float32(1))
    if o.group_size > 1:
        equal = 1.0 - estimators.informative_groups(scores_B, o.group_size)
        found["response/equal_groups"] = Mean((equal * kept_B[:: o.group_size]).sum(), kept_B[:: o.group_size].sum())
    return found | {"tokens": Mean(tokens, tokens)}
