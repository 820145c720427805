"""Search against trees and decision processes whose values are known by enumeration."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from train.rl.games.games import TIC_TAC_TOE
from train.rl.search.search import grow_tree, plan, random_play, simulator
from train.rl.search.tree import ILLEGAL, tree_search, upper_bound

POLICIES = ["gumbel", "muzero", "mean", "max"]
QUIET = {"gumbel": {"gumbel_scale": 0.0}, "muzero": {"dirichlet_fraction": 0.0, "temperature": 0.0}, "mean": {}, "max": {}}


class Place(flax.struct.PyTreeNode):
    at: Any
    depth: Any
    reward: Any
    terminal: Any


@dataclasses.dataclass(frozen=True)
class Process:
    """A deterministic decision process: tables next_SA, rewards_SA, legal_SA, over after `horizon` actions."""

    tables: Any
    horizon: int

    def step(self, place, action):
        over = place.terminal | ~self.legal(place)[action]
        following, rewards, _ = self.tables
        depth = place.depth + ~over
        at = jnp.where(over, place.at, following[place.at, action])
        return Place(at, depth, jnp.where(over, 0.0, rewards[place.at, action]), place.terminal | (depth >= self.horizon))

    def legal(self, place):
        return self.tables[2][place.at] & ~place.terminal

    def start(self, states):
        nothing = jnp.zeros(len(states))
        return Place(jnp.asarray(states), nothing.astype(jnp.int32), nothing, nothing > 0)


def make_process(states=6, actions=3, seed=0):
    rng = np.random.default_rng(seed)
    legal = rng.random((states, actions)) < 0.7
    legal[np.arange(states), rng.integers(0, actions, states)] = True
    return rng.integers(0, states, (states, actions)), rng.normal(size=(states, actions)).astype(np.float32), legal


def value_iteration(tables, horizon: int, discount: float):
    """Q of every state and legal action with `horizon` actions to go: [S, A], -inf where illegal."""
    following, rewards, legal = tables
    values = np.zeros(len(following))
    for _ in range(horizon):
        q = np.where(legal, rewards + discount * values[following], -np.inf)
        values = q.max(1)
    return q


def ignorant(params, key, states):
    """All actions alike, all states worth nothing."""
    return jnp.zeros((len(states.at), 3)), jnp.zeros(len(states.at))


@functools.cache
def planned(policy, horizon=3, simulations=300, discount=0.8):
    process = Process(jax.tree.map(jnp.asarray, make_process()), horizon)
    states = process.start(jnp.arange(6))
    found = jax.jit(
        lambda key: plan(process, ignorant, None, key, states, discount=discount, simulations=simulations, policy=policy, **QUIET[policy])
    )
    return jax.device_get(found(jax.random.key(0))), found, value_iteration(make_process(), horizon, discount)


@pytest.mark.parametrize("policy", POLICIES)
def test_many_simulations_find_the_best_action_and_its_value(policy):
    """Three actions ahead of six states, by value iteration: all policies take the best action; each backup comes near its Q."""
    found, _, q = planned(policy)
    rows = np.arange(6)
    np.testing.assert_array_equal(found.action_B, q.argmax(1))
    near = {"max": 0.1, "mean": 0.3}.get(policy, 0.4)
    np.testing.assert_allclose(found.q_BA[rows, found.action_B], q.max(1), atol=near)


def test_the_averaged_backup_comes_nearer_than_the_mean_of_returns():
    """What exploration tries and finds worse stays in a mean of returns, and leaves a mean of maxima."""
    errors = {}
    for policy in ("mean", "max"):
        found, _, q = planned(policy)
        errors[policy] = np.abs(found.value_B - q.max(1)).mean()
    assert errors["max"] < 0.5 * errors["mean"]


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_and_visits_add_up_and_nothing_illegal_is_touched(policy):
    found, again, _ = planned(policy)
    legal = make_process()[2]
    np.testing.assert_allclose(found.weights_BA.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(found.visits_BA.sum(1), 300)
    assert not found.visits_BA[~legal].any() and (found.weights_BA[~legal] < 1e-6).all()
    assert legal[np.arange(6), found.action_B].all()
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(again(jax.random.key(0))))


@pytest.mark.parametrize("policy", POLICIES)
def test_one_step_ahead_the_best_reward_wins(policy):
    """A tree of one level is a bandit with known arms: Q is the reward itself, and the best arm is taken."""
    found, _, q = planned(policy, horizon=1, simulations=16)
    np.testing.assert_array_equal(found.action_B, q.argmax(1))
    seen = found.visits_BA > 0
    np.testing.assert_allclose(found.q_BA[seen], q[seen], rtol=1e-5)


def small_tree(backup, exploration=1.25):
    """Two actions, two levels; rewards known by hand: left then (0, 1), right then (0.4, 0.5)."""
    rewards = jnp.asarray([0.0, 0.0, 0.0, 1.0, 0.4, 0.5])  # of entering nodes 1 to 6, numbered by level

    def step(params, key, action_B, node_B):
        node_B = 2 * node_B + 1 + action_B
        over_B = node_B >= 3
        return mctx.RecurrentFnOutput(
            reward=rewards[node_B - 1], discount=1.0 - over_B, prior_logits=jnp.zeros((1, 2)), value=jnp.zeros(1)
        ), jnp.minimum(node_B, 2)

    root = mctx.RootFnOutput(prior_logits=jnp.zeros((1, 2)), value=jnp.zeros(1), embedding=jnp.zeros(1, jnp.int32))
    return jax.device_get(
        tree_search(None, jax.random.key(0), root, step, simulations=60, backup=backup, max_depth=2, exploration=exploration)
    )


def test_backups_by_their_definition():
    """Q is the mean of what the definition says, simulation by simulation: replayed here from the visits alone."""
    for backup in ("mean", "max"):
        tree = small_tree(backup)
        visits, children = tree.visits_BNA[0], tree.children_BNA[0]
        assert visits[0].sum() == 60
        for action, rewards in ((0, (0.0, 1.0)), (1, (0.4, 0.5))):
            node = children[0, action]
            n = visits[node]
            assert visits[0, action] == n.sum() + 1  # the first visit ended here, with value 0
            np.testing.assert_allclose(tree.q_BNA[0, node][n > 0], np.asarray(rewards)[n > 0], rtol=1e-5)
            if backup == "mean":
                want = (n * np.asarray(rewards)).sum() / (n.sum() + 1)
                np.testing.assert_allclose(tree.q_BNA[0, 0, action], want, rtol=1e-4)
            else:  # 0 once, the first child's reward until the other is tried, then the larger of both
                assert max(rewards) * (1 - 4 / n.sum()) <= tree.q_BNA[0, 0, action] <= max(rewards)


def test_more_simulations_choose_better_on_average():
    """On 24 random trees of three levels, what the chosen action is worth rises with the simulations, most of the way to the best."""
    tables = make_process(states=24, seed=3)
    process, q = Process(jax.tree.map(jnp.asarray, tables), 3), value_iteration(tables, 3, 1.0)
    states = process.start(jnp.arange(24))
    worth = []
    for simulations in (2, 12, 200):
        found = jax.jit(lambda key, n=simulations: plan(process, ignorant, None, key, states, discount=1.0, simulations=n, policy="max"))
        worth.append(q[np.arange(24), found(jax.random.key(0)).action_B].mean())
    short = q.max(1).mean() - np.asarray(worth)
    assert short[0] > short[1] > short[2] and short[2] < short[0] / 3, short


def test_a_simulated_game_changes_sides_and_ends():
    """Discount -1 from move to move, 0 at the end with value 0, and no prior on what is taken."""
    step = jax.jit(simulator(TIC_TAC_TOE, lambda params, key, states: (jnp.zeros((1, 9)), jnp.full(1, 0.7)), -1.0))
    state = jax.tree.map(lambda x: x[None], TIC_TAC_TOE.initial())
    for action, reward, discount, value in [(0, 0, -1, 0.7), (3, 0, -1, 0.7), (1, 0, -1, 0.7), (4, 0, -1, 0.7), (2, 1, 0, 0.0)]:
        output, state = step(None, None, jnp.asarray([action]), state)
        np.testing.assert_allclose([output.reward[0], output.discount[0], output.value[0]], [reward, discount, value], rtol=1e-6)
        assert output.prior_logits[0, action] == ILLEGAL


@pytest.mark.parametrize("policy", ["gumbel", "max"])
def test_search_with_random_rollouts_wins_and_defends(policy):
    """Crosses may complete the top row; otherwise noughts complete the middle one. Both players must play cell 2."""
    board = jnp.asarray([[1, 1, 0], [-1, -1, 0], [0, 0, 0]], jnp.int8)
    state = TIC_TAC_TOE.initial().replace(cells_RC=board)
    states = jax.tree.map(lambda x: jnp.repeat(x[None], 4, 0), state)
    evaluate = random_play(TIC_TAC_TOE, -1.0, longest=9)
    found = jax.jit(
        lambda key: plan(TIC_TAC_TOE, evaluate, None, key, states, discount=-1.0, simulations=60, policy=policy, **QUIET[policy])
    )(jax.random.key(0))
    assert (found.action_B == 2).all()
    assert (found.q_BA[:, 2] == 1.0).all()


def test_a_tree_that_is_looked_at():
    """Crosses may complete the top row: the tree finds it. Each simulation counts once, and each node is where one action led."""
    state = TIC_TAC_TOE.initial().replace(cells_RC=jnp.asarray([[1, 1, 0], [-1, -1, 0], [0, 0, 0]], jnp.int8))
    states = jax.tree.map(lambda leaf: leaf[None], state)
    evaluate = random_play(TIC_TAC_TOE, -1.0, longest=9)
    tree = jax.jit(lambda key: grow_tree(TIC_TAC_TOE, evaluate, None, key, states, discount=-1.0, simulations=40))(jax.random.key(0))
    assert tree.visits_BNA[0, 0].sum() == 40 and tree.visits_BNA[0, 0].argmax() == 2 and tree.q_BNA[0, 0, 2] == 1.0
    children = np.asarray(tree.children_BNA[0])
    assert sorted(children[children > 0]) == list(range(1, (children > 0).sum() + 1))


def test_the_upper_bound_is_that_of_its_definition():
    """The value, scaled over the actions, and the prior's share of the visits; an action that was never taken is worth what the node is."""
    visits, q, prior = np.array([3, 0, 1, 0]), np.array([0.2, 9.0, -0.6, 9.0]), np.array([0.5, 0.3, 0.2, 0.0])
    tree = SimpleNamespace(
        visits_BNA=jnp.asarray(visits)[None], q_BNA=jnp.asarray(q)[None], priors_BNA=jnp.asarray(prior)[None], values_BN=jnp.array([0.1])
    )
    known = np.array([0.2, 0.1, -0.6, 0.1])
    expected = (known + 0.6) / 0.8 + 1.25 * prior * np.sqrt(4 + 1) / (1 + visits)
    found = upper_bound(tree, 0, 1.25)
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-6)
    assert found[3] == -np.inf
