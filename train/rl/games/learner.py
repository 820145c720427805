"""AlphaZero as a learner of the loop: one step plays a batch of games and learns from them, in one jitted call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from train.experiment import Experiment
from train.kinds import Learner, Sample, Section
from train.objectives.bind import bind, state_of, update_of
from train.optimizers.build import make_schedule, optimizer_of
from train.rl.games import alphazero
from train.rl.games.games import TIC_TAC_TOE, make_game
from train.rl.games.options import AlphaZero, BoardGame
from train.rl.games.players import perfect_player, plain_search_player, play_matches, random_player, search_player
from train.runs.directory import Run
from train.step.epochs import learn_in_epochs
from train.step.state import Purpose, State, random_key
from train.step.update import compiler_options, on_mesh

MATCH_GAMES = 100
"""Against each opponent and from each side in an evaluation, unless evaluation.rows says otherwise."""


def options_of(experiment: Experiment) -> tuple[AlphaZero, BoardGame]:
    """The objective and the data of an experiment that learns a game."""
    o, data = experiment.objective, experiment.data
    assert isinstance(o, AlphaZero) and isinstance(data, BoardGame)
    return o, data


def check_game(experiment: Experiment, sources: list, mesh) -> None:
    """UserError for what would stop a run of an AlphaZero objective."""
    o, data = options_of(experiment)
    if experiment.start:
        raise UserError("start: a game is learned from nothing but its rules", "Leave --start out.")
    make_game(data)
    if experiment.batch_size % (o.minibatches * experiment.micro_batches):
        raise UserError(
            f"batch_size {experiment.batch_size} is no multiple of {o.minibatches} minibatches x {experiment.micro_batches} micro-batches",
            "Change --batch-size, --objective.minibatches or --micro-batches.",
        )


def step_of(experiment: Experiment, optimizer, mesh, *, lower: bool = False):
    """step(state) -> state, metrics, compiled for a mesh: games, then every epoch and minibatch of the update; `lower` only lowers it."""
    o, data = options_of(experiment)
    game, games = make_game(data), experiment.batch_size
    evaluate = alphazero.network_evaluator(game, alphazero.network_of(game, o))
    update = update_of(experiment, bind(experiment), optimizer, spike=experiment.faults.spike)

    def step(state: State):
        key = random_key(experiment.seed, state.step, Purpose.ROLLOUT)
        positions, found = alphazero.self_play(
            game,
            evaluate,
            state.params,
            key,
            games=games,
            simulations=o.simulations,
            opening_plies=data.opening_plies,
            exploring_plies=data.exploring_plies,
            bootstrap=o.bootstrap,
        )
        shuffle = random_key(experiment.seed, state.step, Purpose.SHUFFLE)
        after, metrics = learn_in_epochs(update, state, None, positions, shuffle, epochs=o.epochs, minibatches=o.minibatches)
        return dataclasses.replace(after, cursor=state.cursor + games), metrics | found

    jitted = jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh.devices.flat[0].platform))
    return on_mesh(jitted.lower if lower else jitted, mesh)


class AlphaZeroLearner(Learner):
    """See train.rl.games.options.AlphaZero. A row is a game, and a step depends on nothing but the state.

    Of several devices, each plays all games: they change nothing, and gain nothing yet.
    """

    carry = None
    padding_share = 0.0
    validates = True
    flops_per_token = None
    waited_s = 0.0

    check = staticmethod(check_game)

    def __init__(self, run: Run, sources: list, mesh):
        experiment = run.experiment
        o, data = options_of(experiment)
        check_game(experiment, sources, mesh)
        self._experiment = experiment
        self._game = make_game(data)
        network = alphazero.network_of(self._game, o)
        self._evaluate = alphazero.network_evaluator(self._game, network)
        self.parameters = bind(experiment).start
        updates = o.epochs * o.minibatches
        self.optimizer = optimizer_of(experiment, updates)
        rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps * updates)
        self.rate = lambda step: rate(step * updates)
        compiled = {"compiler_options": compiler_options(mesh.devices.flat[0].platform)}
        self._step = step_of(experiment, self.optimizer, mesh)
        self._matches = on_mesh(jax.jit(self._play_matches, **compiled), mesh)

    def remarks(self) -> list[str]:
        return []

    def adopt(self, params):
        return params

    def whole(self, params):
        return params

    def begin(self, cursor: int, between: Callable[[], None]) -> None:
        pass

    def __next__(self) -> None:
        return None

    def step(self, state: State, batch: None) -> tuple[State, dict, int]:
        state, metrics = self._step(state)
        return state, metrics, self._experiment.batch_size

    def shows(self) -> list[Section]:
        return []

    def close(self) -> None:
        pass

    @staticmethod
    def abstract_step(experiment: Experiment, mesh):
        o, _ = options_of(experiment)
        optimizer = optimizer_of(experiment, o.epochs * o.minibatches)
        return step_of(experiment, optimizer, mesh, lower=True), state_of(experiment, mesh), ()

    # ------------------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, params, between: Callable[[], None], split: str = "validation") -> dict:
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
        o, _ = options_of(self._experiment)
        players = {"random": random_player(self._game), "plain": plain_search_player(self._game, simulations=o.match_simulations)}
        return players | ({"perfect": perfect_player(self._game)} if self._game is TIC_TAC_TOE else {})

    def _play_matches(self, params, key):
        """What play_matches returns, of the network with a search."""
        o, _ = options_of(self._experiment)
        player = search_player(self._game, self._evaluate, params, simulations=o.match_simulations)
        games = self._experiment.evaluation.rows or MATCH_GAMES
        return play_matches(self._game, player, list(self._opponents().values()), key, games)
