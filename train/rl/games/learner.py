"""AlphaZero as a learner of the loop: one step plays a batch of games and learns from them, in one jitted call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from train.experiment import Experiment
from train.loop.learner import Sample
from train.objectives.terms import Mean
from train.optimizers.build import make_schedule, optimizer_of
from train.rl.games import alphazero
from train.rl.games.games import TIC_TAC_TOE, make_game
from train.rl.games.options import AlphaZero, BoardGame
from train.rl.games.players import perfect_player, plain_search_player, play_matches, random_player, search_player
from train.runs.runs import Run
from train.step.state import Purpose, State, random_key
from train.step.update import compiler_options, make_update, on_mesh

MATCH_GAMES = 100
"""Against each opponent and from each side in an evaluation, unless evaluation.rows says otherwise."""


def check_game(experiment: Experiment) -> None:
    """UserError for what would stop a run of an AlphaZero objective."""
    data, o = experiment.data, experiment.objective
    assert isinstance(o, AlphaZero)
    if not isinstance(data, BoardGame):
        raise UserError(f"objective: AlphaZero learns games, but data is {type(data).__name__}", "Choose BoardGame in the config file.")
    if experiment.start:
        raise UserError("start: a game is learned from nothing but its rules", "Leave --start out.")
    make_game(data)
    if experiment.batch_size % (o.minibatches * experiment.micro_batches):
        raise UserError(
            f"batch_size {experiment.batch_size} is no multiple of {o.minibatches} minibatches x {experiment.micro_batches} micro-batches",
            "Change --batch-size, --objective.minibatches or --micro-batches.",
        )


class AlphaZeroLearner:
    """See train.rl.games.options.AlphaZero. A row is a game, and a step depends on nothing but the state.

    Of several devices, each plays all games: they change nothing, and gain nothing yet.
    """

    carry = None
    padding_share = 0.0
    validates = True
    flops_per_token = None
    waited_s = 0.0

    def __init__(self, run: Run, mesh):
        experiment, data, o = run.experiment, run.experiment.data, run.experiment.objective
        assert isinstance(data, BoardGame) and isinstance(o, AlphaZero)
        check_game(experiment)
        self._experiment = experiment
        self._game = make_game(data)
        network = alphazero.network_of(self._game, o)
        self._evaluate = alphazero.judge_with(self._game, network)
        self.parameters = alphazero.network_parameters(self._game, o)
        updates = o.epochs * o.minibatches
        self.optimizer = optimizer_of(experiment, updates)
        rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps * updates)
        self.rate = lambda step: rate(step * updates)
        update = make_update(
            alphazero.AlphaZero(network, o.value_coefficient),
            self.optimizer,
            seed=experiment.seed,
            micro_batches=experiment.micro_batches,
            ema_decay=experiment.ema_decay,
            spike=experiment.faults.spike,
        )
        compiled = {"compiler_options": compiler_options(mesh.devices.flat[0].platform)}
        self._step = on_mesh(jax.jit(self._play_and_learn(update), donate_argnums=0, **compiled), mesh)
        self._matches = on_mesh(jax.jit(self._play_matches, **compiled), mesh)

    def remarks(self) -> list[str]:
        return []

    def adopt(self, params):
        return params

    def begin(self, cursor: int) -> None:
        pass

    def __next__(self) -> None:
        return None

    def step(self, state: State, batch: None) -> tuple[State, dict, int]:
        state, metrics = self._step(state)
        return state, metrics, self._experiment.batch_size

    def close(self) -> None:
        pass

    def _play_and_learn(self, update):
        """step(state) -> state, metrics: games, then every epoch and minibatch of `update`. state.step counts calls of this function."""
        experiment, data, o = self._experiment, self._experiment.data, self._experiment.objective
        assert isinstance(data, BoardGame) and isinstance(o, AlphaZero)
        games, updates = experiment.batch_size, o.epochs * o.minibatches

        def step(state: State):
            key = random_key(experiment.seed, state.step, Purpose.ROLLOUT)
            positions, found = alphazero.self_play(
                self._game,
                self._evaluate,
                state.params,
                key,
                games=games,
                simulations=o.simulations,
                opening_plies=data.opening_plies,
                exploring_plies=data.exploring_plies,
                bootstrap=o.bootstrap,
            )
            count = len(positions.weights)
            shuffle = random_key(experiment.seed, state.step, Purpose.SHUFFLE)

            def one(state: State, number):
                order_N = jax.random.permutation(jax.random.fold_in(shuffle, number // o.minibatches), count)
                chosen = jax.lax.dynamic_slice_in_dim(order_N, number % o.minibatches * (count // o.minibatches), count // o.minibatches)
                return update(state, None, jax.tree.map(lambda x: x[chosen], positions))

            inner, metrics = jax.lax.scan(one, dataclasses.replace(state, step=state.step * updates), jnp.arange(updates))
            skipped = metrics.pop("skipped")
            metrics = jax.tree.map(lambda x: x.sum(0), metrics) | found
            metrics["skipped"] = Mean(skipped.total[-1], jnp.float32(1))
            return dataclasses.replace(inner, step=state.step + 1, cursor=state.cursor + games), metrics

        return step

    # ----------------------------------------------------------------------------------------------------------------- looking

    def evaluate(self, params, between: Callable[[], None]) -> dict:
        """Matches of evaluation.rows games from each side: against random moves, plain Monte Carlo tree search with as many simulations,
        and, in tic-tac-toe, perfect play.

        {"loss": the negative score against plain search, "score": that score, a win being 1 and a draw a half; and for each opponent
        "score_NAME", "lost_NAME" (shares of games), "games"}.
        """
        scores, _ = self._matches(params, random_key(0, 0, Purpose.VALIDATION))
        found: dict[str, Any] = {}
        for name, score in zip(self._opponents(), np.asarray(scores), strict=True):
            found |= {f"score_{name}": float((score + 1).mean() / 2), f"lost_{name}": float((score < 0).mean())}
        return {"loss": -found["score_plain"], "score": found["score_plain"]} | found | {"games": scores[0].size}

    def samples(self, params) -> list[Sample]:
        """The moves of a game that the network begins against plain search, and what it earned."""
        scores, moves = self._matches(params, random_key(self._experiment.seed, 0, Purpose.SAMPLES))
        number = list(self._opponents()).index("plain")
        return [Sample("", " ".join(str(move) for move in np.asarray(moves)[:, number, 0, 0] if move >= 0), float(scores[number, 0, 0]))]

    def _opponents(self) -> dict:
        o = self._experiment.objective
        assert isinstance(o, AlphaZero)
        players = {"random": random_player(self._game), "plain": plain_search_player(self._game, simulations=o.match_simulations)}
        return players | ({"perfect": perfect_player(self._game)} if self._game is TIC_TAC_TOE else {})

    def _play_matches(self, params, key):
        """What play_matches returns, of the network with a search."""
        o = self._experiment.objective
        assert isinstance(o, AlphaZero)
        player = search_player(self._game, self._evaluate, params, simulations=o.match_simulations)
        games = self._experiment.evaluation.rows or MATCH_GAMES
        return play_matches(self._game, player, list(self._opponents().values()), key, games)
