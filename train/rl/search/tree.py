"""Monte Carlo tree search with a choice of backup, as one pure function on arrays.

It takes mctx's RootFnOutput and recurrent_fn, and stands beside mctx's own policies because those always back up the mean of returns.

B roots, N = simulations + 1 nodes of each tree, A actions. Node 0 is the root; node i is what simulation i reached first.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

Backup = Literal["mean", "max"]
ILLEGAL = jnp.finfo(jnp.float32).min
"""Prior logits of actions that may not be taken. Finite, so that a softmax of nothing else is no NaN."""


class Tree(flax.struct.PyTreeNode):
    """Trees of a batch.

    children_BNA: int32, the node that an action leads to, 0 when it was never taken. visits_BNA: int32, times that it was.
    q_BNA: the action's value. rewards_BNA, discounts_BNA: of taking it, known once it was. priors_BNA: its probability, 0 when illegal.
    values_BN: what the network said of a node. embeddings: leaves [B, N, ...].
    """

    children_BNA: Any
    visits_BNA: Any
    q_BNA: Any
    rewards_BNA: Any
    discounts_BNA: Any
    priors_BNA: Any
    values_BN: Any
    embeddings: Any

    def node_values(self, rows, node):
        """The best value of any action that was taken in a node, or what the network said of it when none was; `node` is an index [B]."""
        visited_BA = self.visits_BNA[rows, node] > 0
        best_B = jnp.where(visited_BA, self.q_BNA[rows, node], -jnp.inf).max(-1)
        return jnp.where(visited_BA.any(-1), best_B, self.values_BN[rows, node])


def tree_search(
    params,
    key,
    root,
    recurrent_fn: Callable,
    *,
    simulations: int,
    backup: Backup,
    legal_BA=None,
    max_depth: int | None = None,
    exploration: float = 1.25,
) -> Tree:
    """Grow a tree of `simulations` expansions from each root.

    root, recurrent_fn: as mctx has them; recurrent_fn gives illegal actions the prior logit ILLEGAL. legal_BA: bool, at the root.
    exploration: c of the upper confidence bound by which a simulation descends (Silver et al. 2017, methods): value, scaled to [0, 1] over
    the actions of the node, + c * prior * sqrt(visits of the node) / (1 + visits of the action). Ties go to the lower action.

    backup: what an action's value Q(s, a) is the mean of, over the simulations that took it, s' being where it leads:
    `mean`: the reward + discount * what the simulation found from s' on (Kocsis & Szepesvari 2006);
    `max`: the reward + discount * max_a' Q(s', a') as it stood then, the network's value where no a' had been taken yet. One good
    continuation is believed at once, instead of being averaged with those that were tried and found worse.
    """
    depth_limit = min(max_depth or simulations, simulations)
    rows = jnp.arange(len(root.value))

    def simulate(number, carry):
        tree, key = carry
        key, now = jax.random.split(key)
        path = jax.vmap(lambda tree: _descend(tree, depth_limit, exploration))(tree)
        parent_B, action_B = path.nodes_BD[rows, path.depth_B - 1], path.actions_BD[rows, path.depth_B - 1]
        step, embedding = recurrent_fn(params, now, action_B, jax.tree.map(lambda x: x[rows, parent_B], tree.embeddings))
        tree = _grow(tree, rows, parent_B, action_B, number, step, embedding)
        return _back_up(tree, rows, path, step.value, backup), key

    return jax.lax.fori_loop(0, simulations, simulate, (_roots(root, legal_BA, simulations + 1), key))[0]


class _Path(NamedTuple):
    """What a simulation did in each tree: the nodes and actions on its way, of which the first `depth` count, D at most."""

    nodes_BD: Any
    actions_BD: Any
    depth_B: Any


def _roots(root, legal_BA, nodes: int) -> Tree:
    """Trees of nothing but their roots, with room for `nodes`."""
    batch, actions = root.prior_logits.shape

    def zeros(dtype, *shape):
        return jnp.zeros((batch, nodes, *shape), dtype)

    legal_BA = jnp.ones((batch, actions), bool) if legal_BA is None else legal_BA
    return Tree(
        children_BNA=zeros(jnp.int32, actions),
        visits_BNA=zeros(jnp.int32, actions),
        q_BNA=zeros(jnp.float32, actions),
        rewards_BNA=zeros(jnp.float32, actions),
        discounts_BNA=zeros(jnp.float32, actions),
        priors_BNA=zeros(jnp.float32, actions).at[:, 0].set(probabilities(jnp.where(legal_BA, root.prior_logits, ILLEGAL))),
        values_BN=zeros(jnp.float32).at[:, 0].set(root.value),
        embeddings=jax.tree.map(lambda x: zeros(x.dtype, *x.shape[1:]).at[:, 0].set(x), root.embedding),
    )


def _descend(tree: Tree, depth_limit: int, exploration: float) -> _Path:
    """From the root of one tree to an action never taken, or as deep as is allowed."""

    def step(at):
        node, depth, path_D, taken_D, _ = at
        action = jnp.argmax(upper_bound(tree, node, exploration))
        child = tree.children_BNA[node, action]
        path_D, taken_D = path_D.at[depth].set(node), taken_D.at[depth].set(action)
        return child, depth + 1, path_D, taken_D, (child == 0) | (depth + 1 >= depth_limit)

    nothing_D = jnp.zeros(depth_limit, jnp.int32)
    start = jnp.int32(0), jnp.int32(0), nothing_D, nothing_D, jnp.bool_(False)
    _, depth, path_D, taken_D, _ = jax.lax.while_loop(lambda at: ~at[-1], step, start)
    return _Path(path_D, taken_D, depth)


def _grow(tree: Tree, rows, parent_B, action_B, number, step, embedding) -> Tree:
    """Write what the network said (`step`) of where an action led: a node that simulation `number` adds, or the one it led to before."""
    known_B = tree.children_BNA[rows, parent_B, action_B]
    leaf_B = jnp.where(known_B == 0, number + 1, known_B)  # at the depth limit a node is looked at again
    return tree.replace(
        children_BNA=tree.children_BNA.at[rows, parent_B, action_B].set(leaf_B),
        rewards_BNA=tree.rewards_BNA.at[rows, parent_B, action_B].set(step.reward),
        discounts_BNA=tree.discounts_BNA.at[rows, parent_B, action_B].set(step.discount),
        priors_BNA=tree.priors_BNA.at[rows, leaf_B].set(probabilities(step.prior_logits)),
        values_BN=tree.values_BN.at[rows, leaf_B].set(step.value),
        embeddings=jax.tree.map(lambda x, new: x.at[rows, leaf_B].set(new), tree.embeddings, embedding),
    )


def _back_up(tree: Tree, rows, path: _Path, value_B, backup: Backup) -> Tree:
    """Count the actions of a path, and tell each what was found behind it: value_B at its end."""

    def back(at):
        """One step towards the root, in the rows whose path is as long: the action at `depth` learns of what came after it."""
        tree, depth, found_B = at
        node_B, action_B = path.nodes_BD[:, depth], path.actions_BD[:, depth]
        edge = rows, node_B, action_B
        if backup == "max":
            found_B = tree.node_values(rows, tree.children_BNA[edge])
        found_B = jnp.where(depth < path.depth_B, tree.rewards_BNA[edge] + tree.discounts_BNA[edge] * found_B, found_B)
        visits_B = tree.visits_BNA[edge] + (depth < path.depth_B)
        gain_B = jnp.where(depth < path.depth_B, (found_B - tree.q_BNA[edge]) / jnp.maximum(visits_B, 1), 0.0)
        tree = tree.replace(visits_BNA=tree.visits_BNA.at[edge].set(visits_B), q_BNA=tree.q_BNA.at[edge].add(gain_B))
        return tree, depth - 1, found_B

    return jax.lax.while_loop(lambda at: at[1] >= 0, back, (tree, path.depth_B.max() - 1, value_B))[0]


def probabilities(logits_BA):
    """softmax over the actions that are not ILLEGAL, whose probability is exactly 0; 0 everywhere where all are."""
    return jnp.where(logits_BA > ILLEGAL, jax.nn.softmax(logits_BA), 0.0)


def upper_bound(tree: Tree, node, exploration: float):
    """The bound by which one tree's simulation chooses in a node, float32 [A]; -inf for an illegal action, unless all are."""
    visits_A, q_A, prior_A = tree.visits_BNA[node], tree.q_BNA[node], tree.priors_BNA[node]
    value = tree.values_BN[node]
    known_A = jnp.where(visits_A > 0, q_A, value)
    low, high = known_A.min(), known_A.max()
    scaled_A = (known_A - low) / jnp.maximum(high - low, 1e-8)
    bound_A = scaled_A + exploration * prior_A * jnp.sqrt(visits_A.sum() + 1.0) / (1.0 + visits_A)
    return jnp.where((prior_A > 0) | ~(prior_A > 0).any(), bound_A, -jnp.inf)
