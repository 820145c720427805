"""Who plays a game, and matches between them. A player is a function (key, states) -> actions, int32 [B], one for each of B games."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train.rl.games.games import Game, LineGame
from train.rl.search.search import plan, random_action, random_play

Player = Callable


def random_player(game: Game) -> Player:
    """Any legal move."""
    return lambda key, states: random_action(key, jax.vmap(game.legal)(states))


def search_player(game: Game, evaluate, params, *, simulations: int, **options) -> Player:
    """The move of a search with a network, without noise. options: of train.rl.search.search.search."""
    quiet = {"gumbel_scale": 0.0} if options.get("policy", "gumbel") == "gumbel" else {}
    return lambda key, states: (
        plan(game, evaluate, params, key, states, discount=-1.0, simulations=simulations, **quiet, **options).action_B
    )


def plain_search_player(game: Game, *, simulations: int, exploration: float = 4.0) -> Player:
    """Monte Carlo tree search without a network: a uniform prior, one random game at each leaf, the mean of returns.

    Random games are noisy: it plays best when it explores more than a search with a network does.
    """
    evaluate = random_play(game, -1.0, longest=game.longest)
    return search_player(game, evaluate, None, simulations=simulations, policy="mean", exploration=exploration)


def perfect_player(game: LineGame) -> Player:
    """Any of the best moves, by the values of all positions: for boards as small as tic-tac-toe's."""
    values = jnp.asarray(solve(game.rows, game.columns, game.line))

    def play(key, states):
        after = jax.vmap(lambda state: jax.vmap(lambda action: game.step(state, action))(jnp.arange(game.actions)))(states)
        code_BA = ((after.cells_RC.reshape(*after.cells_RC.shape[:2], -1) + 1) * 3 ** jnp.arange(game.longest)).sum(-1)
        worth_BA = jnp.where(jax.vmap(game.legal)(states), -values[code_BA], -2)
        return random_action(key, worth_BA == worth_BA.max(-1, keepdims=True))

    return play


def solve(rows: int, columns: int, line: int) -> np.ndarray:
    """The value of every position of a game without `drop`: int8 [3 ** cells], 1 when who moves next wins, -1 when the other does.

    By enumeration. A position's index is the sum of (1 + cell) * 3 ** place, cells as in Board; positions that cannot be reached have 0.
    """
    cells = rows * columns
    ways = ((0, 1), (1, 0), (1, 1), (1, -1))
    runs = [[(r + i * down, c + i * right) for i in range(line)] for r in range(rows) for c in range(columns) for down, right in ways]
    lines = [[r * columns + c for r, c in run] for run in runs if all(r < rows and 0 <= c < columns for r, c in run)]
    values = np.zeros(3**cells, np.int8)

    @functools.cache
    def value(board: tuple[int, ...]) -> int:
        if any(all(board[cell] == -1 for cell in run) for run in lines):
            found = -1
        else:
            moves = [cell for cell in range(cells) if board[cell] == 0]
            found = max((-value(tuple(-(1 if cell == move else board[cell]) for cell in range(cells))) for move in moves), default=0)
        values[sum((1 + stone) * 3**place for place, stone in enumerate(board))] = found
        return found

    value((0,) * cells)
    return values


def play_matches(game: Game, player: Player, opponents: Sequence[Player], key, games: int):
    """Matches of a player against each opponent, `games` in which the player begins and as many in which the opponent does, all at once.

    Returns what each game earned the player, float32 [opponents, 2, games]: 1 won, 0 drawn, -1 lost; and the moves, int32
    [plies, opponents, 2, games], -1 behind the end. The 2: the player began, the opponent did.
    """

    def ply(carry, key):
        """A move of the player in one half of the games and of the opponents in the other; then the halves change places."""
        (mine, mine_score), (theirs, their_score) = carry
        keys = jax.random.split(key, len(opponents) + 1)
        their_actions = [
            opponent(keys[1 + i], jax.tree.map(lambda x, i=i: x[i * games : (i + 1) * games], theirs))
            for i, opponent in enumerate(opponents)
        ]
        moves, after = [], []
        for states, actions in ((mine, player(keys[0], mine)), (theirs, jnp.concatenate(their_actions))):
            moves.append(jnp.where(states.terminal, -1, actions))
            after.append(jax.vmap(game.step)(states, actions))
        return ((after[1], their_score - after[1].reward), (after[0], mine_score + after[0].reward)), jnp.stack(moves)

    count = len(opponents) * games
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), game.initial())
    half = states, jnp.zeros(count)
    ((_, first), (_, second)), moves = jax.lax.scan(ply, (half, half), jax.random.split(key, game.longest))
    score = jnp.stack([second, first] if game.longest % 2 else [first, second])
    swapped = (jnp.arange(game.longest) % 2 == 1)[:, None, None]
    moves = jnp.where(swapped, moves[:, ::-1], moves)

    def by_opponent(x):
        return jnp.moveaxis(x.reshape(*x.shape[:-1], len(opponents), games), -3, -2)

    return by_opponent(score), by_opponent(moves)
