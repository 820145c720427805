"""Tree search over a perfect simulator: mctx's policies and our own backups behind one call.

A task is what train/rl/games/games.py calls a game: `actions`, `step(state, action)`, `legal(state)` on one state, which has `reward` and
`terminal`. Two players who take turns are one discount away from one player who collects rewards: -1, because what is good for one is bad
for the other (Silver et al. 2017). `evaluate(params, key, states) -> logits_BA, values_B` is a network, or whatever else judges a batch of
states: values are what the player who moves next will still get.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from train.rl.search.tree import ILLEGAL, Backup, Tree, tree_search

Policy = Literal["gumbel", "muzero", "mean", "max"]
"""gumbel: sequential halving at the root, better than its prior at any number of simulations (Danihelka et al. 2022). muzero: upper
confidence bounds, and noise at the root (Schrittwieser et al. 2020). mean, max: train/rl/search/tree.py with that backup, no noise."""


class Plan(NamedTuple):
    """What a search found at each root.

    action_B: int32, to be taken. weights_BA: what a policy should learn, sums to 1. visits_BA: int32, sums to the simulations.
    q_BA: value of each action, 0 where never taken. value_B: of the root. embeddings: of the tree's nodes, leaves [B, N, ...], zeros where
    none was reached.
    """

    action_B: Any
    weights_BA: Any
    visits_BA: Any
    q_BA: Any
    value_B: Any
    embeddings: Any


def search(
    root, recurrent_fn, params, key, *, simulations: int, legal_BA=None, policy: Policy = "gumbel", max_depth: int | None = None, **options
) -> Plan:
    """Search from mctx's RootFnOutput with an mctx recurrent_fn. legal_BA: bool, at the root; None: everything is.

    options: of mctx.gumbel_muzero_policy, of mctx.muzero_policy, or of tree_search; for the last also `temperature`: actions are sampled in
    proportion to visits ** (1 / temperature); 0, the default, takes the one visited most.
    """
    if legal_BA is not None:
        root = root.replace(prior_logits=jnp.where(legal_BA, root.prior_logits, ILLEGAL))
    if policy in ("gumbel", "muzero"):
        search = mctx.gumbel_muzero_policy if policy == "gumbel" else mctx.muzero_policy
        invalid_BA = None if legal_BA is None else (~legal_BA).astype(jnp.int32)
        output = search(params, key, root, recurrent_fn, simulations, invalid_BA, max_depth, **options)
        found = output.search_tree.summary()
        return Plan(output.action, output.action_weights, found.visit_counts, found.qvalues, found.value, output.search_tree.embeddings)
    assert policy in ("mean", "max"), policy
    temperature = options.pop("temperature", 0.0)
    search_key, action_key = jax.random.split(key)
    tree = tree_search(
        params, search_key, root, recurrent_fn, simulations=simulations, backup=policy, legal_BA=legal_BA, max_depth=max_depth, **options
    )
    visits_BA, q_BA = tree.visits_BNA[:, 0], tree.q_BNA[:, 0]
    weights_BA = visits_BA / visits_BA.sum(-1, keepdims=True)
    if policy == "max":
        value_B = tree.node_values(jnp.arange(len(visits_BA)), 0)
    else:
        value_B = (tree.values_BN[:, 0] + (visits_BA * q_BA).sum(-1)) / (1 + simulations)
    action_B = jax.random.categorical(action_key, jnp.log(weights_BA) / temperature) if temperature else jnp.argmax(visits_BA, -1)
    return Plan(action_B.astype(jnp.int32), weights_BA, visits_BA, q_BA, value_B, tree.embeddings)


def plan(task, evaluate: Callable, params, key, states, *, discount: float, **options) -> Plan:
    """Search from a batch of states of a task; `options` are those of `search`.

    discount: -1 for two players who take turns, else of the rewards to come, 0 to 1. States that are terminal get a plan of no meaning.
    """
    root_key, search_key = jax.random.split(key)
    root = _root(evaluate, params, root_key, states)
    return search(root, simulator(task, evaluate, discount), params, search_key, legal_BA=jax.vmap(task.legal)(states), **options)


def grow_tree(
    task, evaluate: Callable, params, key, states, *, discount: float, simulations: int, backup: Backup = "mean", exploration: float = 1.25
) -> Tree:
    """The trees of such a search, to be looked at; what it would play is the action with the most visits in node 0. See `tree_search`."""
    root_key, search_key = jax.random.split(key)
    root, legal_BA = _root(evaluate, params, root_key, states), jax.vmap(task.legal)(states)
    simulate, how = simulator(task, evaluate, discount), {"legal_BA": legal_BA, "exploration": exploration}
    return tree_search(params, search_key, root, simulate, simulations=simulations, backup=backup, **how)


def _root(evaluate: Callable, params, key, states) -> mctx.RootFnOutput:
    logits_BA, values_B = evaluate(params, key, states)
    return mctx.RootFnOutput(prior_logits=logits_BA, value=values_B, embedding=states)


def simulator(task, evaluate: Callable, discount: float):
    """The recurrent_fn of mctx for a task: (params, key, action_B, states) -> RecurrentFnOutput, states.

    Nothing follows a terminal state: its discount and value are 0. Illegal actions have the prior logit ILLEGAL, since mctx itself masks
    them at the root alone.
    """

    def simulate(params, key, action_B, states):
        states = jax.vmap(task.step)(states, action_B)
        logits_BA, values_B = evaluate(params, key, states)
        return mctx.RecurrentFnOutput(
            reward=states.reward,
            discount=jnp.where(states.terminal, 0.0, discount),
            prior_logits=jnp.where(jax.vmap(task.legal)(states), logits_BA, ILLEGAL),
            value=jnp.where(states.terminal, 0.0, values_B),
        ), states

    return simulate


def random_play(task, discount: float, *, longest: int):
    """The `evaluate` of plain Monte Carlo tree search: a uniform prior, and the outcome of one game of random legal moves.

    longest: moves after which every game is over. Discounts alternate as in `plan`.
    """

    def evaluate(params, key, states):
        legal_BA = jax.vmap(task.legal)(states)

        def move(carry):
            states, legal_BA, found_B, weight_B, key, number = carry
            key, now = jax.random.split(key)
            action_B = random_action(now, legal_BA)
            states = jax.vmap(task.step)(states, action_B)
            return states, jax.vmap(task.legal)(states), found_B + weight_B * states.reward, weight_B * discount, key, number + 1

        zero_B = jnp.zeros(len(legal_BA))
        start = states, legal_BA, zero_B, zero_B + 1.0, key, 0
        _, _, found_B, _, _, _ = jax.lax.while_loop(lambda carry: (carry[-1] < longest) & carry[1].any(), move, start)
        return jnp.zeros(legal_BA.shape), found_B

    return evaluate


def random_action(key, legal_BA):
    """A legal action of each row, all equally likely; 0 where there is none."""
    return jnp.argmax(jnp.where(legal_BA, jax.random.uniform(key, legal_BA.shape), -1.0), -1)
