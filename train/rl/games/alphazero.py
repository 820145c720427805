"""AlphaZero (Silver et al. 2017) with Gumbel's search: a network learns from games against itself, looking ahead at every move.

G games at once, T plies of the longest game, A actions, N = G * T positions. Everything here is a pure function; whole games are one scan.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.layers import Dense
from train.experiment import Experiment
from train.kinds import Bound
from train.objectives.terms import Mean, Term
from train.rl.games import options
from train.rl.games.games import Game, make_game
from train.rl.games.options import BoardGame
from train.rl.search.search import plan, random_action


class BoardNetwork(nn.Module):
    """Planes [B, rows, columns, planes] to move logits [B, actions] and values [B] in (-1, 1), of the player who moves next.

    A residual tower: of `dense` layers over the whole board at once, which is fast on a CPU and knows nothing of neighbours; or of 3x3
    convolutions (`conv`), whose `width` is that of each cell. Parameters are float32 with logical axes.
    """

    actions: int
    width: int = 128
    blocks: int = 3
    kind: Literal["dense", "conv"] = "dense"

    @nn.compact
    def __call__(self, planes_BRCP):
        x = planes_BRCP if self.kind == "conv" else planes_BRCP.reshape(len(planes_BRCP), -1)
        x = nn.relu(self._layer(x, "input"))
        for block in range(self.blocks):
            h = nn.relu(self._layer(x, f"block_{block}_up"))
            x = nn.relu(x + self._layer(h, f"block_{block}_down", scale=0.5))
        flat_BF = x.reshape(len(x), -1)
        logits_BA = self._dense(flat_BF, self.actions, "policy", scale=0.1)
        value_B1 = self._dense(nn.relu(self._dense(flat_BF, self.width, "value_hidden")), 1, "value", scale=0.1)
        return logits_BA, jnp.tanh(value_B1[:, 0])

    def _layer(self, x, name: str, scale: float = 1.0):
        return self._dense(neighbours(x) if self.kind == "conv" else x, self.width, name, scale)

    def _dense(self, x, width: int, name: str, scale: float = 1.0):
        std = scale * (2.0 / x.shape[-1]) ** 0.5
        return Dense((width,), ("embed", "mlp"), std, jnp.float32, bias=True, name=name)(x)


def neighbours(x_BRCF):
    """The nine cells around each, one behind the other, 0 beyond the board: what makes a dense layer a 3x3 convolution."""
    rows, columns = x_BRCF.shape[1:3]
    padded = jnp.pad(x_BRCF, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], -1)


def network_of(game: Game, options: options.AlphaZero) -> BoardNetwork:
    """The network that an experiment describes."""
    return BoardNetwork(game.actions, options.width, options.blocks, options.network)


def network_parameters(game: Game, options: options.AlphaZero):
    """Its fresh parameters from a random key, boxed with their logical axis names."""
    planes = jax.eval_shape(lambda: game.observe(game.initial()))
    return lambda key: network_of(game, options).init(key, jnp.zeros((1, *planes.shape)))["params"]


def judge_with(game: Game, network: BoardNetwork):
    """What train.rl.search.search asks of a network: (params, key, states) -> logits_BA, values_B."""

    def evaluate(params, key, states):
        return network.apply({"params": params}, jax.vmap(game.observe)(states))

    return evaluate


def initial_states(game: Game, count: int):
    """The beginning of `count` games."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), game.initial())


class Positions(NamedTuple):
    """What self-play teaches. planes: [N, rows, columns, planes]; policy: [N, A], what the search would play, sums to 1; outcome: [N], what
    the player who moves got in the end, or can hope for, -1 to 1; weights: [N], 1 for a position, 0 after the end of its game."""

    planes: Any
    policy: Any
    outcome: Any
    weights: Any


@dataclasses.dataclass(frozen=True)
class AlphaZeroLoss:
    """Move like the search, and foresee the outcome (Silver et al. 2017, eq. 1; the decay of weights is the optimizer's).

    batch: Positions. Terms: `loss`, nats of the cross-entropy to the search's policy; `value`, squared error of the outcome. Both per
    position. Metrics: policy_kl, nats from the search's policy to the network's; value_variance, of the outcomes, which a network that
    knows nothing has as its error.
    """

    network: BoardNetwork
    value_coefficient: float = 1.0

    def __call__(self, params, batch: Positions, key, *, frozen=None, carry=None):
        logits_NA, value_N = self.network.apply({"params": params}, batch.planes)
        weight = batch.weights.sum()

        def total(x_N):
            return (x_N * batch.weights).sum()

        cross_entropy_N = -(batch.policy * jax.nn.log_softmax(logits_NA)).sum(-1)
        entropy_N = -(batch.policy * jnp.log(jnp.maximum(batch.policy, 1e-30))).sum(-1)
        terms = {
            "loss": Term(1.0, total(cross_entropy_N), weight),
            "value": Term(self.value_coefficient, total(jnp.square(value_N - batch.outcome)), weight),
        }
        metrics = {
            "policy_kl": Mean(total(cross_entropy_N - entropy_N), weight),
            "value_variance": Mean(total(jnp.square(batch.outcome)), weight),
        }
        return terms, metrics, carry


def self_play(
    game: Game,
    evaluate,
    params,
    key,
    *,
    games: int,
    simulations: int,
    opening_plies: int,
    exploring_plies: int,
    bootstrap: float = 0.0,
    **options,
):
    """Whole games of a network against itself, with a search at every move.

    opening_plies: each game begins with 0 to that many random moves, so that the network learns to answer also what it would not play;
    only positions behind them are taught. exploring_plies: until that ply, moves are drawn from the search's policy; from it on they are
    what the search would play, which with Gumbel's noise is no fixed choice either. bootstrap: share of the search's value of a position in
    what the value is to learn; the rest is how the game ended, which is true but noisy. options: of train.rl.search.search.search.
    Returns Positions, those of a game next to each other, and metrics as Means: length (plies), first_wins and draws (shares of games).
    """
    opening_key, key = jax.random.split(key)
    opening_G = jax.random.randint(opening_key, games, 0, opening_plies + 1)

    def ply(states, at):
        key, number = at
        plan_key, draw_key, random_key = jax.random.split(key, 3)
        found = plan(game, evaluate, params, plan_key, states, discount=-1.0, simulations=simulations, **options)
        drawn_G = jax.random.categorical(draw_key, jnp.log(found.weights_BA))
        action_G = jnp.where(number < exploring_plies, drawn_G, found.action_B)
        action_G = jnp.where(number < opening_G, random_action(random_key, jax.vmap(game.legal)(states)), action_G)
        after = jax.vmap(game.step)(states, action_G)
        return after, (jax.vmap(game.observe)(states), found.weights_BA, found.value_B, after.reward, ~states.terminal, number >= opening_G)

    plies = jax.random.split(key, game.longest), jnp.arange(game.longest)
    _, (planes, policy, value_TG, reward_TG, playing_TG, taught_TG) = jax.lax.scan(ply, initial_states(game, games), plies)

    def back(outcome_G, reward_G):
        outcome_G = reward_G - outcome_G  # what the other player will get is lost
        return outcome_G, outcome_G

    outcome_G, outcome_TG = jax.lax.scan(back, jnp.zeros(games), reward_TG, reverse=True)

    def rows(x_TG):
        return x_TG.swapaxes(0, 1).reshape(-1, *x_TG.shape[2:])

    def mean(x_G):
        return Mean(x_G.astype(jnp.float32).sum(), jnp.float32(games))

    metrics = {
        "length": mean(playing_TG.sum(0)),
        "first_wins": mean(outcome_G > 0),
        "draws": mean(outcome_G == 0),
    }
    weights = rows(playing_TG & taught_TG).astype(jnp.float32)
    target_TG = (1.0 - bootstrap) * outcome_TG + bootstrap * jnp.where(playing_TG, value_TG, 0.0)
    return Positions(rows(planes), rows(policy), rows(target_TG), weights), metrics


def bind(options: options.AlphaZero, experiment: Experiment, shards: int) -> Bound:
    assert isinstance(experiment.data, BoardGame)
    game = make_game(experiment.data)
    return Bound(AlphaZeroLoss(network_of(game, options), options.value_coefficient), start=network_parameters(game, options))
