"""The objective of policies, invariant by invariant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.rl.conftest import CARRY, ROOM, SAMPLES, change, drawn, experience, gradient, log_probs, moved, parameters
from train.rl.options import GRPO, GSPO, PPO, DrGRPO, ExpertIteration
from train.rl.policy.policy_gradient import Experience, clipped_loss, token_weights, value_loss

KINDS = {
    "ppo": PPO(group_size=SAMPLES, response_tokens=ROOM, critic="separate", kl_coefficient=0.1, entropy_coefficient=0.01),
    "ppo_branch": PPO(group_size=SAMPLES, response_tokens=ROOM, critic="branch", kl_coefficient=0.1),
    "grpo": GRPO(group_size=SAMPLES, response_tokens=ROOM),
    "dr_grpo": DrGRPO(group_size=SAMPLES, response_tokens=ROOM),
    "gspo": GSPO(group_size=SAMPLES, response_tokens=ROOM),
}


def distance(a, b) -> float:
    """Relative L2 distance of two trees."""
    a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def test_nothing_has_moved_on_the_first_minibatch(ppo):
    """The sampler's log-probabilities are the policy's: ratio 1, nothing clipped, KL 0, values as they were, V = 0 from a fresh critic."""
    batch, found, estimates = experience(ppo, reference=parameters())
    np.testing.assert_allclose(estimates.policy, drawn().log_probs_BR * drawn().mask_BR, atol=1e-5)
    np.testing.assert_allclose(estimates.kl, 0, atol=1e-5)
    _, metrics = gradient(ppo, parameters("shared"), batch)
    mean = {name: float(value.total / value.weight) for name, value in metrics.items() if name != "unsound"}
    assert abs(mean["ppo/val/ratio"] - 1) < 1e-5 and mean["ppo/policy/clipfrac"] == 0 and mean["ppo/policy/approxkl"] < 1e-10
    assert mean["ppo/val/clipfrac"] == 0 and float(metrics["unsound"].total) == 0
    fresh = parameters("shared") | {"value": jax.tree.map(jnp.zeros_like, parameters("shared")["value"])}
    assert not np.asarray(experience(ppo, params=fresh)[0].values).any()


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_the_kl_of_a_policy_to_itself_is_zero_at_any_temperature(temperature):
    """Sampler, old, new and reference log-probabilities are all of that temperature."""
    options = PPO(group_size=SAMPLES, response_tokens=ROOM, critic="shared", temperature=temperature, kl_estimator="exact")
    _, _, estimates = experience(options, reference=parameters())
    np.testing.assert_allclose(estimates.reference, estimates.policy, atol=1e-5)
    assert float(jnp.abs(estimates.kl).max()) < 1e-5
    np.testing.assert_allclose(estimates.policy, drawn(temperature).log_probs_BR, atol=1e-4)


def test_the_exact_kl_is_what_estimators_estimate():
    """Mean over responses of the sum of k1 over tokens, against the exact one: equal in expectation, so near over many rows."""
    options = PPO(group_size=SAMPLES, response_tokens=ROOM, critic="shared")
    other = moved(parameters())
    exact = experience(change(options, kl_estimator="exact"), reference=other)[2].kl
    k3 = experience(change(options, kl_estimator="k3"), reference=other)[2].kl
    assert 0.3 < float(exact.sum() / k3.sum()) < 3 and (np.asarray(exact) >= -1e-6).all()


@pytest.mark.parametrize("kind", ["ppo", "grpo", "dr_grpo", "gspo"])
def test_the_gradient_does_not_depend_on_how_it_is_accumulated(kind):
    """All at once, or in 4 parts of rows of unequal lengths: every denominator is of the whole minibatch, the critic's too."""
    options = KINDS[kind]
    params, frozen = parameters(options.critic), {"reference": moved(parameters())}
    batch, _, _ = experience(options, reference=frozen["reference"] if options.kl_coefficient else None)
    assert len(set(np.asarray(batch.mask.sum(1)).tolist())) > 1
    near = moved(params)
    whole, _ = gradient(options, near, batch, frozen=frozen)
    assert distance(gradient(options, near, batch, frozen=frozen, parts=4)[0], whole) < 1e-5


def pack(batch: Experience, length: int) -> Experience:
    """The responses with their prompts as segments of few rows, one after the other, R = T."""
    rows: list[list[dict]] = [[]]
    for i in range(batch.tokens.shape[0]):
        inside = np.flatnonzero(np.asarray(batch.segments[i]))
        if sum(len(one["tokens"]) for one in rows[-1]) + len(inside) > length:
            rows.append([])
        shift = batch.tokens.shape[1] - batch.targets.shape[1]
        of_response = [name for name in Experience._fields if name not in ("tokens", "segments", "positions")]
        wide = {name: np.pad(np.asarray(getattr(batch, name)[i]), (shift, 0)) for name in of_response}
        one = {name: wide[name][inside] for name in of_response}
        rows[-1].append(one | {"tokens": np.asarray(batch.tokens[i])[inside], "positions": np.asarray(batch.positions[i])[inside]})
    packed = {}
    for name in Experience._fields:
        filled = []
        for row in rows:
            parts = [np.full(len(one["tokens"]), number + 1) if name == "segments" else one[name] for number, one in enumerate(row)]
            joined = np.concatenate(parts)
            filled.append(np.pad(joined, (0, length - len(joined))))
        packed[name] = jnp.asarray(np.stack(filled))
    return Experience(**packed)


@pytest.mark.parametrize("kind", ["ppo", "gspo"])
def test_packed_responses_give_the_gradient_of_padded_ones(kind):
    options = KINDS[kind]
    params, frozen = moved(parameters(options.critic)), {"reference": moved(parameters())}
    batch, _, _ = experience(options, reference=frozen["reference"])
    packed = pack(batch, 30)
    assert packed.tokens.shape[0] < 4
    expected, metrics = gradient(options, params, batch, frozen=frozen)
    found, packed_metrics = gradient(options, params, packed, frozen=frozen)
    assert distance(found, expected) < 1e-5
    np.testing.assert_allclose(packed_metrics["loss"].weight, metrics["loss"].weight)


def test_the_gradient_at_the_start_is_that_of_reinforce(ppo):
    """At ratio 1 the clipped loss has the gradient of -advantage * log p."""
    ppo = change(ppo, value_coefficient=0.0)
    batch, _, _ = experience(ppo)
    params = parameters("shared")

    def reinforce(params):
        return -(log_probs(params, batch) * batch.advantages * batch.mask).sum() / batch.mask.sum()

    found, expected = gradient(ppo, params, batch)[0], jax.jit(jax.grad(reinforce))(params)
    assert distance(*({name: tree[name] for name in parameters()} for tree in (found, expected))) < 1e-4


def test_expert_iteration_has_the_gradient_of_imitating_the_best():
    options = ExpertIteration(group_size=SAMPLES, response_tokens=ROOM)
    batch, _, _ = experience(options)
    params = parameters()
    best = batch.advantages.max(1) > 0
    assert best.reshape(-1, SAMPLES).sum(1).tolist() == [1] * 4

    def imitation(params):
        return -(log_probs(params, batch) * batch.mask * best[:, None]).sum() / batch.mask.sum()

    assert distance(gradient(options, params, batch)[0], jax.jit(jax.grad(imitation))(params)) < 1e-4


def test_the_clip_stops_what_has_moved_far_enough_and_nothing_else():
    slope = jax.vmap(jax.grad(lambda x, a, dual: clipped_loss(x, a, low=0.2, high=0.3, dual=dual)), (0, 0, None))
    ratios = np.log(np.array([1.0, 1.29, 1.31, 0.79, 1.31, 0.79, 0.81, 5.0], np.float32))
    advantages = np.array([1, 1, 1, 1, -1, -1, -1, -1], np.float32)
    found = np.asarray(slope(ratios, advantages, 0.0))
    assert (found == 0).tolist() == [False, False, True, False, False, True, False, False]
    np.testing.assert_allclose(found[[0, 1, 3]], -np.exp(ratios[[0, 1, 3]]), rtol=1e-5)
    assert np.asarray(slope(ratios, advantages, 3.0))[-1] == 0 and clipped_loss(ratios[-1], -1.0, low=0.2, high=0.3, dual=3.0) == 3.0


def test_the_value_loss_takes_the_worse_of_the_value_and_the_clipped_one():
    assert value_loss(1.0, 0.0, 1.0, clip=0.0) == 0
    np.testing.assert_allclose(value_loss(jnp.float32(1.0), 0.0, 1.0, clip=0.2), 0.5 * 0.8**2, rtol=1e-6)
    np.testing.assert_allclose(value_loss(jnp.float32(0.1), 0.0, 1.0, clip=0.2), 0.5 * 0.9**2, rtol=1e-6)


def test_weights_of_tokens_by_their_definitions():
    batch, _, _ = experience(KINDS["grpo"])
    losses, mask = np.random.default_rng(3).normal(size=batch.mask.shape), np.asarray(batch.mask)
    lengths = mask.sum(1)
    means = (losses * mask).sum(1) / lengths
    expected = {
        "token": (losses * mask).sum() / mask.sum(),
        "sequence_mean": means.mean(),
        "sequence_sum": (losses * mask).sum(1).mean(),
        "constant": (losses * mask).sum() / (8 * ROOM),
    }
    for aggregate, value in expected.items():
        weights, denominator = token_weights(batch, aggregate, ROOM)
        np.testing.assert_allclose((losses * weights).sum() / denominator, value, rtol=1e-5)


def test_one_ratio_for_a_response_is_the_geometric_mean_of_its_tokens():
    """GSPO's loss (Zheng et al. 2025, eq. 5) computed row by row."""
    options = change(KINDS["gspo"], clip_low=0.01, clip_high=0.02)
    batch, _, _ = experience(options)
    params = moved(parameters())
    terms = gradient(options, params, batch)[1]
    ratio = np.asarray((log_probs(params, batch) - batch.log_probs) * batch.mask)
    ratio = np.exp(ratio.sum(1) / np.asarray(batch.mask.sum(1)))
    advantage = np.asarray((batch.advantages * batch.mask).sum(1) / batch.mask.sum(1))
    losses = np.maximum(-advantage * ratio, -advantage * np.clip(ratio, 0.99, 1.02))
    np.testing.assert_allclose(terms["loss"].total / terms["loss"].weight, losses.mean(), rtol=1e-4, atol=1e-6)


def test_scores_keep_their_fractions_and_rows_add_up():
    """The sum of a row's rewards is its score less the coefficient times its KL, in float32."""
    options = PPO(
        group_size=SAMPLES,
        response_tokens=ROOM,
        critic="shared",
        kl_coefficient=0.25,
        advantage="gae",
        discount=1.0,
        gae_lambda=1.0,
        whiten=False,
    )
    scores = jnp.asarray([0.37, 0.5, 1.7, -0.2, 0.0, 0.1, 0.01, 3.3], jnp.float32)
    batch, found, estimates = experience(options, scores=scores, reference=moved(parameters()))
    first = np.asarray(batch.returns)[:, 0]  # without discount or values bootstrapped: all that is to come
    np.testing.assert_allclose(first, scores - 0.25 * (estimates.kl * batch.mask).sum(1), atol=1e-5)
    assert batch.returns.dtype == jnp.float32
    np.testing.assert_allclose(found["objective/score"].total, scores.sum(), rtol=1e-6)


def test_what_a_response_that_does_not_end_is_worth(ppo):
    stopped = np.asarray(drawn().stopped_B)
    assert 0 < stopped.sum() < 8
    scores = jnp.full(8, 0.37, jnp.float32)
    for kind, expected in (("keep", 0.37), ("replace", -1.5), ("subtract", 0.37 - 1.5)):
        options = change(ppo, missing_stop=kind, missing_stop_score=1.5, kl_coefficient=0.0, whiten=False, gae_lambda=1.0)
        batch, _, _ = experience(options, scores=scores)
        first = np.asarray(batch.returns)[:, 0]
        np.testing.assert_allclose(first[~stopped], expected, atol=1e-5)
        np.testing.assert_allclose(first[stopped], 0.37, atol=1e-5)


def test_the_stop_token_is_learned_and_nothing_after_it(ppo):
    """The mask ends with it, whatever its id; the gradient of its log-probability is not zero."""
    rows = drawn()
    lengths = np.asarray(rows.mask_BR.sum(1)).astype(int)
    ids = np.asarray(rows.responses_BR)
    for row, stopped in enumerate(np.asarray(rows.stopped_B)):
        assert (ids[row, lengths[row] - 1] in (3, 5, 7)) == stopped
        assert not ids[row, lengths[row] :].any() and lengths[row] == (ROOM if not stopped else lengths[row])
    batch, _, _ = experience(change(ppo, whiten=False))
    row = int(np.flatnonzero(np.asarray(rows.stopped_B))[0])
    alone = batch._replace(mask=jnp.zeros_like(batch.mask).at[row, lengths[row] - 1].set(1.0))
    found, _ = gradient(change(ppo, whiten=False), parameters("shared"), alone)
    assert float(jnp.abs(found["embedding"]["table"]).max()) > 0


def test_the_critic_learns_alone_while_it_warms_up(ppo):
    options = change(ppo, critic="separate", critic_warmup=2)
    batch, _, _ = experience(options)
    params = moved(parameters("separate"))
    early, _ = gradient(options, params, batch)
    late, _ = gradient(options, params, batch, carry=CARRY | {"steps": jnp.int32(2)})
    assert float(jnp.abs(early["embedding"]["table"]).max()) == 0 and float(jnp.abs(early["critic"]["embedding"]["table"]).max()) > 0
    assert float(jnp.abs(late["embedding"]["table"]).max()) > 0


def test_a_branch_that_copies_the_last_layers_sees_what_the_policy_sees():
    """Its hidden states are the policy's, so its values are those of a shared trunk; and its gradient stops where it branches off."""
    policy = parameters()
    branch = {
        "critic": {"layers": jax.tree.map(lambda leaf: leaf[1:], policy["layers"]), "final_norm": policy["final_norm"]},
        "value": parameters("shared")["value"],
    }
    options = change(KINDS["ppo_branch"], value_coefficient=1.0)
    batch, _, estimates = experience(options, params=policy | branch)
    shared = experience(change(options, critic="shared"), params=policy | {"value": branch["value"]})[2]
    np.testing.assert_allclose(estimates.values, shared.values, atol=1e-5)
    nothing = batch._replace(advantages=jnp.zeros_like(batch.advantages))
    found, _ = gradient(options, policy | branch, nothing)
    assert float(jnp.abs(found["embedding"]["table"]).max()) == 0 and float(jnp.abs(found["critic"]["final_norm"]["scale"]).max()) > 0


def test_a_bad_token_whose_ratio_explodes_is_unsound(ppo):
    batch, _, _ = experience(ppo)
    exploded = batch._replace(log_probs=batch.log_probs - 3.0, advantages=-jnp.ones_like(batch.advantages))
    _, metrics = gradient(ppo, parameters("shared"), exploded)
    assert float(metrics["unsound"].total) == float(batch.mask.sum())
    _, metrics = gradient(ppo, parameters("shared"), exploded._replace(advantages=jnp.ones_like(batch.advantages)))
    assert float(metrics["unsound"].total) == 0


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"temperature": 0.0}, "temperature"),
        ({"advantage": "group"}, "critic"),
        ({"dual_clip": 0.5}, "dual_clip"),
        ({"kl_target": 6.0, "kl_in": "loss"}, "kl_target"),
        ({"missing_stop": "replace", "stop": False}, "missing_stop"),
        ({"drop_equal_groups": True}, "drop_equal_groups"),
        ({"discount": 1.5}, "discount"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields, what):
    with pytest.raises(ValueError, match=what):
        PPO(**fields)
