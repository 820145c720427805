"""AlphaZeroLoss's loop: games that are games, targets that follow from them, and an update that learns them."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.rl.games.alphazero import AlphaZeroLoss, BoardNetwork, Positions, judge_with, neighbours, self_play
from train.rl.games.games import TIC_TAC_TOE
from train.rl.games.players import perfect_player, plain_search_player, play_matches, random_player, search_player, solve
from train.step.anomalies import no_history
from train.step.gradients import accumulated, plain
from train.step.state import State
from train.step.update import make_update

GAMES = 32
NETWORK = BoardNetwork(TIC_TAC_TOE.actions, width=16, blocks=1)
OBJECTIVE = AlphaZeroLoss(NETWORK)


@functools.cache
def parameters():
    return jax.jit(lambda key: nn.unbox(NETWORK.init(key, jnp.zeros((1, 3, 3, 2))))["params"])(jax.random.key(0))


@functools.cache
def playing():
    """One jitted call of self-play, and what it gave."""
    options = {"games": GAMES, "simulations": 4, "opening_plies": 3, "exploring_plies": 2}
    play = jax.jit(lambda params, key: self_play(TIC_TAC_TOE, judge_with(TIC_TAC_TOE, NETWORK), params, key, **options))
    return play, jax.device_get(play(parameters(), jax.random.key(1)))


def by_game(x):
    return x.reshape(GAMES, 9, *x.shape[1:])


def test_self_play_is_a_legal_game_from_ply_to_ply():
    """Each position has one stone more than the one before, seen from the other side, until the end; the search's policy adds up to 1."""
    positions, metrics = playing()[1]
    planes, weights = by_game(positions.planes), by_game(positions.weights)
    stones = planes.sum((2, 3, 4))
    lengths = []
    for game in range(GAMES):
        last = max(np.flatnonzero(np.diff(stones[game]) == 1), default=-1) + 1
        np.testing.assert_array_equal(stones[game, : last + 1], np.arange(last + 1))
        for t in range(last):
            mine, other = np.moveaxis(planes[game, t + 1], -1, 0)
            before_mine, before_other = np.moveaxis(planes[game, t], -1, 0)
            assert (mine == before_other).all() and (other - before_mine).sum() == 1
        taught = np.flatnonzero(weights[game])
        opening, end = taught[0], taught[-1] + 1
        assert opening <= 3 and len(taught) == end - opening
        assert end == last or (end, last) == (9, 8)  # the last position of nine plies is there, what became of it is not
        lengths.append(end)
    np.testing.assert_allclose(positions.policy.sum(1), 1.0, rtol=1e-5)
    assert metrics["length"].total == sum(lengths)


def test_nothing_taken_is_in_the_policy():
    positions = playing()[1][0]
    taken = positions.planes.sum(-1).reshape(-1, 9) > 0
    assert (positions.policy[taken & (positions.weights > 0)[:, None]] < 1e-6).all()


def test_outcomes_are_those_of_the_last_move_with_changing_signs():
    """The player who completed a line has 1 at that position, -1 one ply before, and so on back; draws have 0."""
    positions = playing()[1][0]
    planes, weights, outcomes = by_game(positions.planes), by_game(positions.weights), by_game(positions.outcome)
    decided = 0
    for game in range(GAMES):
        length = int(np.flatnonzero(weights[game])[-1]) + 1
        if length < 9:  # only a line ends a game early
            np.testing.assert_array_equal(outcomes[game, :length], [(-1.0) ** (length - 1 - t) for t in range(length)])
            decided += 1
        assert not outcomes[game, length:].any() and len(planes[game]) == 9
    assert decided > GAMES / 4


def test_self_play_depends_on_the_key_alone():
    play, first = playing()
    jax.tree.map(np.testing.assert_array_equal, first, jax.device_get(play(parameters(), jax.random.key(1))))
    other = play(parameters(), jax.random.key(2))[0]
    assert not np.array_equal(first[0].planes, other.planes)


def test_micro_batches_give_the_same_gradient():
    """Games of unequal length: weights are totalled over the batch before they divide."""
    positions = jax.tree.map(lambda x: jnp.asarray(x[:96]), playing()[1][0])

    @jax.jit
    def both(params):
        whole, _, _ = plain(OBJECTIVE, params, positions, None)
        parts, _, _ = accumulated(OBJECTIVE, params, positions, None, micro_batches=4)
        return whole, parts, jax.tree.map(jnp.subtract, whole, parts)

    whole, _, difference = both(parameters())
    assert optax.tree.norm(difference) < 1e-5 * optax.tree.norm(whole)


def test_terms_by_hand():
    """Cross-entropy and squared error of the network's own outputs, over the positions that count."""
    rng = np.random.default_rng(0)
    policy = rng.dirichlet(np.ones(9), 6).astype(np.float32)
    batch = Positions(
        rng.random((6, 3, 3, 2), np.float32), policy, rng.uniform(-1, 1, 6).astype(np.float32), np.float32([1, 1, 0, 1, 0, 1])
    )
    (logits, values), (terms, metrics, _) = jax.jit(
        lambda params: (NETWORK.apply({"params": params}, batch.planes), OBJECTIVE(params, batch, None))
    )(parameters())
    log_p = np.asarray(logits) - np.log(np.exp(logits).sum(1, keepdims=True))
    kept = batch.weights > 0
    np.testing.assert_allclose(terms["loss"].total, -(policy * log_p).sum(1)[kept].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["value"].total, ((values - batch.outcome) ** 2)[kept].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_kl"].total, (policy * (np.log(policy) - log_p)).sum(1)[kept].sum(), rtol=1e-4)
    assert terms["loss"].weight == terms["value"].weight == 4


def test_updates_learn_what_was_played():
    """On one batch of games, a hundred updates halve what there is to learn of the policy, and bring the value below its variance."""
    positions = jax.tree.map(jnp.asarray, playing()[1][0])
    optimizer = optax.adam(1e-2)
    update = make_update(OBJECTIVE, optimizer, seed=0)
    params = parameters()
    state = State(jnp.int32(0), jnp.int32(0), params, optimizer.init(params), no_history())
    _, metrics = jax.jit(lambda state: jax.lax.scan(lambda state, _: update(state, None, positions), state, None, length=100))(state)
    kl, value = (metrics[name].total / metrics[name].weight for name in ("policy_kl", "value"))
    assert kl[-1] < 0.5 * kl[0] and value[-1] < 0.7 * (metrics["value_variance"].total / metrics["value_variance"].weight)[-1]


def test_neighbours_make_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 6))
    want = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(neighbours(x) @ kernel.reshape(27, 6), want, atol=1e-4)


def test_a_convolutional_network_has_the_same_face_and_named_axes():
    network = BoardNetwork(7, width=8, blocks=1, kind="conv")
    boxed = jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, 6, 7, 2))), jax.random.key(0))
    assert all(leaf.names for leaf in jax.tree.leaves(boxed, is_leaf=lambda leaf: hasattr(leaf, "names")))
    logits, values = jax.eval_shape(network.apply, nn.unbox(boxed), jnp.zeros((5, 6, 7, 2)))
    assert (logits.shape, values.shape) == ((5, 7), (5,))


def test_matches_of_perfect_play_chance_and_search():
    """By its own table the beginning is a draw. Against itself perfect play draws; it never loses to random moves and mostly beats them;
    plain search by random games does better than those. The moves are those of games, and the scores belong to them."""
    assert solve(3, 3, 3)[sum(3**place for place in range(9))] == 0
    perfect, chance, plain = (
        perfect_player(TIC_TAC_TOE),
        random_player(TIC_TAC_TOE),
        plain_search_player(TIC_TAC_TOE, simulations=16),
    )
    scores, moves = jax.device_get(
        jax.jit(lambda key: play_matches(TIC_TAC_TOE, perfect, [perfect, chance, plain], key, 30))(jax.random.key(0))
    )
    assert not scores[0].any() and (scores >= 0).all()
    assert scores[1, 0].mean() > 0.9 and scores[1, 1].mean() > 0.6
    assert scores[2].mean() < scores[1].mean()
    for opponent, side, game in itertools.product(range(3), range(2), range(30)):
        played = [int(move) for move in moves[:, opponent, side, game] if move >= 0]
        assert len(set(played)) == len(played) and (moves[len(played) :, opponent, side, game] == -1).all()
        lines = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]]
        won = [any(set(line) <= set(played[player::2]) for line in lines) for player in range(2)]
        assert scores[opponent, side, game] == won[side] - won[1 - side]


def test_search_with_an_untrained_network_beats_chance():
    """It sees what ends a game within reach."""
    judge = judge_with(TIC_TAC_TOE, NETWORK)

    @jax.jit
    def play(params, key):
        return play_matches(TIC_TAC_TOE, search_player(TIC_TAC_TOE, judge, params, simulations=32), [random_player(TIC_TAC_TOE)], key, 48)

    scores, _ = play(parameters(), jax.random.key(0))
    assert scores[0, 0].mean() > 0.6 and scores[0, 1].mean() > 0.2
