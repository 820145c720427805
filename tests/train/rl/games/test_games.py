"""Games against rules written a second time, in plain Python, and against what is known of tic-tac-toe."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.rl.games.games import CONNECT_FOUR, TIC_TAC_TOE, PgxGame

BOTH = pytest.mark.parametrize("game", [TIC_TAC_TOE, CONNECT_FOUR], ids=["tic-tac-toe", "connect-four"])


class Referee:
    """The rules once more: a dictionary of stones, lines counted by walking from the last stone."""

    def __init__(self, game):
        self.game, self.stones, self.player, self.over, self.reward = game, {}, 0, False, 0.0

    def legal(self) -> list[int]:
        if self.over:
            return []
        if self.game.drop:
            return [column for column in range(self.game.columns) if (0, column) not in self.stones]
        return [cell for cell in range(self.game.longest) if divmod(cell, self.game.columns) not in self.stones]

    def play(self, action: int):
        row, column = (self.game.rows - 1, action) if self.game.drop else divmod(action, self.game.columns)
        while (row, column) in self.stones:
            row -= 1
        self.stones[row, column] = self.player

        def walk(down, right):
            length, at = 0, (row + down, column + right)
            while self.stones.get(at) == self.player:
                length, at = length + 1, (at[0] + down, at[1] + right)
            return length

        won = any(1 + walk(*way) + walk(-way[0], -way[1]) >= self.game.line for way in [(0, 1), (1, 0), (1, 1), (1, -1)])
        self.over, self.reward = won or len(self.stones) == self.game.longest, float(won)
        self.player = 1 - self.player


@BOTH
def test_random_games_follow_the_rules_move_by_move(game):
    """48 games at once: after every move, legal moves, the player, the end, the reward and both planes are the referee's."""
    games, rng = 48, np.random.default_rng(0)
    step = jax.jit(
        lambda state, action: (after := jax.vmap(game.step)(state, action), *jax.vmap(lambda s: (game.legal(s), game.observe(s)))(after))
    )
    state = jax.tree.map(lambda x: jnp.repeat(x[None], games, 0), game.initial())
    referees = [Referee(game) for _ in range(games)]
    ends = set()
    for _ in range(game.longest):
        actions = [int(rng.choice(referee.legal())) if not referee.over else 0 for referee in referees]
        state, legal, planes = jax.device_get(step(state, jnp.asarray(actions)))
        for i, (referee, action) in enumerate(zip(referees, actions, strict=True)):
            if referee.over:
                referee.reward = 0.0
            else:
                referee.play(action)
            assert np.flatnonzero(legal[i]).tolist() == referee.legal()
            assert (state.player[i], state.terminal[i], state.reward[i]) == (referee.player, referee.over, referee.reward)
            for plane, player in enumerate([referee.player, 1 - referee.player]):
                stones = {tuple(at) for at in np.argwhere(planes[i, ..., plane]).tolist()}
                assert stones == {at for at, owner in referee.stones.items() if owner == player}
            ends |= {referee.reward} if referee.over else set()
    assert all(referee.over for referee in referees) and 1.0 in ends


@BOTH
def test_an_illegal_move_changes_nothing(game):
    state = game.initial()
    for _ in range(game.rows if game.drop else 1):
        state = game.step(state, 0)
    assert not game.legal(state)[0] and not state.terminal
    jax.tree.map(np.testing.assert_array_equal, game.step(state, 0), state.replace(reward=0.0))


def test_the_whole_tree_of_tic_tac_toe():
    """255,168 games over 5,478 positions, and with best play a draw: all found by our step and legal alone."""
    game, room = TIC_TAC_TOE, 1600

    @jax.jit
    def expand(states):
        after = jax.vmap(lambda state: jax.vmap(lambda action: game.step(state, action))(jnp.arange(game.actions)))(states)
        return jax.vmap(game.legal)(states), after

    def key(cells):
        return (cells.reshape(*cells.shape[:-2], 9).astype(int) + 1) @ 3 ** np.arange(9)

    states = jax.tree.map(lambda x: np.asarray(x)[None], game.initial())
    paths, games, positions, levels = np.ones(1, int), 0, 0, []
    while len(paths):
        positions += len(paths)
        games += paths[states.terminal].sum()
        padded = jax.tree.map(lambda x: np.resize(x, (room, *x.shape[1:])), states)
        legal, after = jax.device_get(expand(padded))
        parent, _ = at = np.nonzero(legal[: len(paths)])
        children = jax.tree.map(operator.itemgetter(at), after)
        _, first, child = np.unique(key(children.cells_RC), return_index=True, return_inverse=True)
        levels.append((len(paths), parent, child, children.reward, children.terminal))
        paths = np.bincount(child, paths[parent], len(first)).astype(int)
        states = jax.tree.map(operator.itemgetter(first), children)
    assert (games, positions) == (255_168, 5_478)

    values = np.zeros(0)  # of the positions of the level below, for the player who moves there
    for count, parent, child, reward, terminal in reversed(levels):
        worth = np.where(terminal, reward, -values[child] if len(values) else reward)
        best = np.full(count, -np.inf)
        np.maximum.at(best, parent, worth)
        values = np.where(np.isfinite(best), best, 0.0)
    assert values.tolist() == [0.0]


def test_connect_four_of_pgx_is_ours():
    """The same random moves through both: legal moves, planes, rewards and the end agree."""
    pytest.importorskip("pgx")
    theirs, games = PgxGame("connect_four", longest=42), 16
    assert theirs.actions == CONNECT_FOUR.actions

    def play(game):
        def start(_):
            return game.initial()

        def move(states, scores):
            action = jnp.where(jax.vmap(game.legal)(states), scores, -1).argmax(-1)
            states = jax.vmap(game.step)(states, action)
            return states, (jax.vmap(game.legal)(states), jax.vmap(game.observe)(states), states.player, states.terminal, states.reward)

        scores = jax.random.uniform(jax.random.key(1), (42, games, game.actions))
        return jax.jit(lambda: jax.lax.scan(move, jax.vmap(start)(jnp.arange(games)), scores)[1])()

    for mine, other in zip(play(CONNECT_FOUR), play(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)
