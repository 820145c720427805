"""Two-player board games as pure functions: tic-tac-toe, connect-four, and those of pgx through the same face.

A game is a frozen dataclass. `initial()` gives a state, `step(state, action)` the next one, `legal(state)` the moves, `observe(state)`
what a network sees. All work on one state and are meant for `jax.vmap`. Every state has

    player    int32    who moves next: 0 began, 1 is the other
    terminal  bool     the game is over: nothing is legal, and a step changes nothing but the reward, to 0
    reward    float32  what the last move earned the player who made it: 1 won, -1 lost, 0 a draw or no end yet

Players take turns, and what one wins the other loses. An illegal action is like a step after the end.
"""

import dataclasses
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from data.errors import UserError
from train.rl.games.options import OWN, BoardGame


class Game(Protocol):
    """The face of every game here."""

    @property
    def actions(self) -> int:
        """Moves that are numbered, legal or not."""

    @property
    def longest(self) -> int:
        """Moves after which every game is over."""

    def initial(self) -> Any:
        """The state before the first move."""

    def step(self, state, action) -> Any:
        """The state after a move, int32 []."""

    def legal(self, state) -> Any:
        """bool [actions]: moves that may be made; none after the end."""

    def observe(self, state) -> Any:
        """float32 [rows, columns, planes]: the board as the player sees it who moves next."""


class Board(flax.struct.PyTreeNode):
    """A state of LineGame. cells_RC: int8 [rows, columns], 1 the stones of the player who moves next, -1 the other's, 0 empty."""

    cells_RC: Any
    player: Any
    terminal: Any
    reward: Any


@dataclasses.dataclass(frozen=True)
class LineGame:
    """Who first has `line` stones in a row, straight or diagonal, has won; a full board without is a draw.

    Without `drop` an action is a cell, counted along the rows from the top. With it, an action is a column, whose lowest empty cell is
    filled.
    """

    rows: int
    columns: int
    line: int
    drop: bool = False

    @property
    def actions(self) -> int:
        return self.columns if self.drop else self.rows * self.columns

    @property
    def longest(self) -> int:
        return self.rows * self.columns

    def initial(self) -> Board:
        return Board(jnp.zeros((self.rows, self.columns), jnp.int8), jnp.int32(0), jnp.bool_(False), jnp.float32(0))

    def step(self, state: Board, action) -> Board:
        mine_RC = (state.cells_RC == 1) | self._places(state.cells_RC)[action]
        won = has_line(mine_RC, self.line)
        full = (mine_RC | (state.cells_RC == -1)).all()
        cells_RC = -jnp.where(mine_RC, jnp.int8(1), state.cells_RC)  # the other player's view
        after = Board(cells_RC, 1 - state.player, won | full, won.astype(jnp.float32))
        stays = state.replace(reward=jnp.float32(0))
        return jax.tree.map(lambda new, old: jnp.where(self.legal(state)[action], new, old), after, stays)

    def legal(self, state: Board):
        return self._places(state.cells_RC).any((1, 2)) & ~state.terminal

    def observe(self, state: Board):
        return jnp.stack([state.cells_RC == 1, state.cells_RC == -1], -1).astype(jnp.float32)

    def _places(self, cells_RC):
        """Where the stone of each action would lie: bool [actions, rows, columns], empty for an action that may not be taken."""
        empty_RC = cells_RC == 0
        if not self.drop:
            return empty_RC & jnp.eye(self.rows * self.columns, dtype=bool).reshape(-1, self.rows, self.columns)
        lowest_RC = empty_RC & (jnp.arange(self.rows)[:, None] == empty_RC.sum(0) - 1)
        return lowest_RC & jnp.eye(self.columns, dtype=bool)[:, None, :]


TIC_TAC_TOE = LineGame(3, 3, 3)
CONNECT_FOUR = LineGame(6, 7, 4, drop=True)


def has_line(mine_RC, length: int):
    """Whether a bool board [rows, columns] holds `length` neighbours in a row, a column or a diagonal."""

    def along(board_RC, down: int, right: int):
        rows, columns = (size - step * (length - 1) for size, step in zip(board_RC.shape, (down, right), strict=True))
        if rows < 1 or columns < 1:
            return jnp.bool_(False)
        run = jnp.ones((rows, columns), bool)
        for i in range(length):
            run &= board_RC[i * down : i * down + rows, i * right : i * right + columns]
        return run.any()

    return along(mine_RC, 0, 1) | along(mine_RC, 1, 0) | along(mine_RC, 1, 1) | along(mine_RC[:, ::-1], 1, 1)


class PgxState(flax.struct.PyTreeNode):
    """A state of PgxGame: pgx's own, and what every state here has."""

    inner: Any
    player: Any
    terminal: Any
    reward: Any


@dataclasses.dataclass(frozen=True)
class PgxGame:
    """A game of two players and no chance from pgx (extra: games), by its name there, such as connect_four, othello or go_9x9."""

    name: str
    longest: int
    """Moves after which every game is over; those of pgx do not say."""

    @property
    def actions(self) -> int:
        return self._make().num_actions

    def initial(self) -> PgxState:
        inner = self._make().init(jax.random.key(0))
        return PgxState(inner, jnp.int32(0), inner.terminated | inner.truncated, jnp.float32(0))

    def step(self, state: PgxState, action) -> PgxState:
        inner = self._make().step(state.inner, action)
        over = inner.terminated | inner.truncated
        after = PgxState(inner, 1 - state.player, over, inner.rewards[state.inner.current_player].astype(jnp.float32))
        stays = state.replace(reward=jnp.float32(0))
        return jax.tree.map(lambda new, old: jnp.where(self.legal(state)[action], new, old), after, stays)

    def legal(self, state: PgxState):
        return state.inner.legal_action_mask & ~state.terminal  # pgx allows everything once a game is over

    def observe(self, state: PgxState):
        return state.inner.observation.astype(jnp.float32)

    def _make(self):
        import pgx

        return pgx.make(self.name)


def make_game(data: BoardGame) -> Game:
    """The game that a run learns; UserError when pgx is needed and not there, or has none of that name."""
    if data.game in OWN:
        return {"tic_tac_toe": TIC_TAC_TOE, "connect_four": CONNECT_FOUR}[data.game]
    game = PgxGame(data.game, data.longest)
    try:
        game.actions  # noqa: B018 (makes the game)
    except ImportError:
        raise UserError(f"data.game: {data.game} needs pgx", "Install it: pip install -e '.[games]'.") from None
    except ValueError as error:
        raise UserError(f"data.game: {error}", f"Choose {', '.join(OWN)} or one of pgx.") from None
    return game
