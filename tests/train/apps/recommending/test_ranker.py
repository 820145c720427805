"""Measures of items beside their definitions, weights that are found again, and that nothing of what is asked is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize, sparse

from train.apps.recommending import ranker
from train.apps.recommending.ranker import (
    Asked,
    Ease,
    Known,
    Learned,
    Nearness,
    Neighbours,
    Ranker,
    histories,
    known_of,
    learn,
    ndcg,
    softmax_weights,
)
from train.tasks.metrics.ranking import ranking_scores
from train.tasks.recommending.item_words import word_vectors


def events(users: int, items: int, seed: int = 0):
    return sparse.csr_array((np.random.default_rng(seed).random((users, items)) < 0.3).astype(np.float32))


@pytest.mark.parametrize("users, items", [(12, 30), (30, 12)])
def test_ease_is_the_solution_of_its_equation(users, items):
    """Both ways, by users and by items: each column of the weights is a ridge regression on all other items."""
    x, history = events(users, items), histories([np.array([1, 4, 4]), np.array([2])], items)
    dense, expected = x.toarray(), np.zeros((items, items))
    for item in range(items):
        others = [other for other in range(items) if other != item]
        gram = dense[:, others].T @ dense[:, others] + 5.0 * np.eye(items - 1)
        expected[others, item] = np.linalg.solve(gram, dense[:, others].T @ dense[:, item])
    np.testing.assert_allclose(Ease(x, 5.0)(history), history.toarray() @ expected, atol=1e-4)


def test_ease_knows_the_items_that_most_had_where_there_are_too_many(monkeypatch):
    x = events(12, 30)
    monkeypatch.setattr(ranker, "LARGEST", 8)
    scores = Ease(x, 5.0)(histories([np.arange(30)], 30))[0]
    known = np.sort(np.argsort(-x.sum(0), kind="stable")[:8])
    assert set(np.flatnonzero(scores)) <= set(known.tolist()) and np.count_nonzero(scores)


@pytest.mark.parametrize("together", [10_000, 40])
def test_neighbours_are_shrunk_cosines(monkeypatch, together):
    monkeypatch.setattr(ranker, "TOGETHER", together)
    x = events(20, 15)
    dense = x.toarray()
    both = dense.T @ dense
    near = both / (np.outer(np.sqrt(both.diagonal()), np.sqrt(both.diagonal())) + 7)
    np.fill_diagonal(near, 0)
    history = histories([np.array([0, 3]), np.array([5])], 15)
    np.testing.assert_allclose(Neighbours(x, 7.0)(history), history.toarray() @ near, rtol=1e-5)
    monkeypatch.setattr(ranker, "NEIGHBOURS", 4)
    few = Neighbours(x, 7.0)(histories([np.array([item]) for item in range(15)], 15))
    assert ((few > 0).sum(0) <= 4).all() and ((few == 0) | np.isclose(few, near)).all()


def test_a_user_who_clicks_a_thousand_times_says_it_once(log):
    robot = np.full(1000, 0)
    once, often = ranker.known_of(log, [np.array([0, 1])]), ranker.known_of(log, [np.concatenate([robot, [1]])])
    np.testing.assert_array_equal(once.x_UI.toarray(), often.x_UI.toarray())
    np.testing.assert_array_equal(ranker.popularity(once), ranker.popularity(often))


@pytest.fixture
def log():
    """Two users, three items, a few events; only what `known_of` reads of a Log."""
    from types import SimpleNamespace

    return SimpleNamespace(
        users=["a", "b"], items=["x", "y", "z"], user_N=np.array([0, 0, 1]), item_N=np.array([0, 1, 2]), time_N=np.array([3.0, 1.0, 2.0])
    )


def test_what_is_had_lately_is_counted_before_the_moment(log, monkeypatch):
    monkeypatch.setattr(ranker, "WINDOW", 0.7)
    known = ranker.known_of(log, [np.array([0, 1]), np.array([2])])
    assert known.item_N.tolist() == [1, 2, 0]  # in order of time
    found = np.expm1(ranker.lately(known, np.array([0.5, 1.0, 2.5, np.inf])))
    np.testing.assert_allclose(found, [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]], atol=1e-6)


def test_words_that_are_rare_count_more_and_no_text_is_near_to_nothing():
    vectors = word_vectors(["red car", "red bus", "red car 车", ""])
    lengths = np.sqrt(vectors.multiply(vectors).sum(1))
    np.testing.assert_allclose(lengths, [1, 1, 1, 0], rtol=1e-6)
    near = Nearness(vectors)(histories([np.array([0]), np.array([3])], 4))
    assert near[0, 0] == pytest.approx(1) and near[0, 2] > near[0, 1] > 0 and not near[:, 3].any() and not near[1].any()
    np.testing.assert_allclose(near, Nearness(vectors.toarray())(histories([np.array([0]), np.array([3])], 4)), atol=1e-6)
    assert word_vectors(["", ""]).shape[0] == 2


def drawn(count: int, true: np.ndarray, seed: int = 0, items: int = 15):
    """Features, what is closed, and targets drawn from the softmax of the true weights over the rest."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(true), count, items)).astype(np.float32)
    closed = rng.random((count, items)) < 0.2
    logits = np.where(closed, -np.inf, np.tensordot(true, features, 1))
    chance = np.exp(logits - logits.max(1, keepdims=True))
    targets = np.array([rng.choice(items, p=row / row.sum()) for row in chance])
    return features, closed, targets


def test_weights_are_found_again():
    true = np.array([2.0, -1.0, 0.0])
    np.testing.assert_allclose(softmax_weights(*drawn(3000, true)), true, atol=0.12)


def test_weights_minimise_what_they_say():
    """Beside a search that knows no gradient."""
    features, closed, targets = drawn(60, np.array([1.0, 0.5]))

    def loss(weights):
        logits = np.where(closed, -np.inf, np.tensordot(weights, features, 1))
        total = np.log(np.exp(logits).sum(1))
        return (total - logits[np.arange(60), targets]).mean() + ranker.DECAY / 2 * weights @ weights

    free = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead").x
    np.testing.assert_allclose(softmax_weights(features, closed, targets), free, atol=2e-3)


def test_ndcg_is_that_of_ranked_lists():
    rng = np.random.default_rng(0)
    scores, closed, targets = rng.normal(size=(40, 25)), rng.random((40, 25)) < 0.3, rng.integers(25, size=40)
    closed[np.arange(40), targets] = False
    lists = [[item for item in np.argsort(-row).tolist() if not shut[item]] for row, shut in zip(scores, closed, strict=True)]
    expected = ranking_scores([{int(target)} for target in targets], lists, ks=(10,)).values["ndcg@10"]
    assert ndcg(scores, closed, targets) == pytest.approx(expected)
    assert ndcg(np.zeros((1, 3)), np.zeros((1, 3), bool), np.array([2])) == pytest.approx(1 / np.log2(3))  # the middle of three places


def test_moved_weights_make_no_worse_lists():
    features, closed, targets = drawn(80, np.array([1.0, 0.3]))
    begun = np.array([0.2, 1.0])
    moved = ranker.ascended(begun, features, closed, targets)
    before, after = (ndcg(ranker.combined(features, weights), closed, targets) for weights in (begun, moved))
    assert after > before and begun.tolist() == [0.2, 1.0]


def asked_of(x, rng, held: int):
    """Histories of all users but one item, which is the target; and what is known without those."""
    items, targets, rows, columns = [], [], [], []
    for user, had in enumerate(x.toarray()):
        mine = rng.permutation(np.flatnonzero(had))
        target, rest = (mine[-1], mine[:-1]) if user < held else (None, mine)
        rows += [user] * len(rest)
        columns += rest.tolist()
        if target is not None:
            items.append(rest)
            targets.append(target)
    known = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=x.shape)
    return Known(known, np.array(columns), np.arange(len(columns), dtype=float)), items, np.array(targets)


def test_a_measure_that_knows_the_answer_gets_the_weight_and_noise_gets_none():
    rng = np.random.default_rng(0)
    known, items, targets = asked_of(events(60, 20, 1), rng, 50)
    noise = rng.normal(size=(50, 20)).astype(np.float32)
    oracle = noise.copy()
    oracle[np.arange(50), targets] += 8
    asked = Asked(items, np.full(50, np.inf), oracle)
    found = learn(known, None, asked, targets)
    assert found.weights["model"] > 3 * max(abs(value) for name, value in found.weights.items() if name != "model")
    assert found.validation["ranker"] > 0.9 and set(found.weights) == set(found.validation) - {"ranker"}
    blind = learn(known, None, asked._replace(model_NI=noise), targets)
    assert abs(blind.weights["model"]) < 0.5
    scores = Ranker(known, None, found)
    np.testing.assert_allclose(
        ndcg(scores.scores(scores.features(asked)), histories(items, 20).toarray() > 0, targets), found.validation["ranker"], rtol=1e-5
    )


def test_towers_count_where_they_help_others_than_those_that_they_were_weighed_by():
    rng = np.random.default_rng(0)
    known, items, targets = asked_of(events(60, 20, 1), rng, 50)
    noise = rng.normal(size=(50, 20)).astype(np.float32)
    oracle = noise.copy()
    oracle[np.arange(50), targets] += 8
    asked = Asked(items, np.full(50, np.inf), np.zeros((50, 20), np.float32))
    found = learn(known, None, asked._replace(towers_NI=oracle), targets)
    assert found.weights["towers"] > 3 * abs(found.weights["model"]) and found.validation["ranker"] > 0.9
    without, blind = learn(known, None, asked, targets), learn(known, None, asked._replace(towers_NI=noise), targets)
    assert "towers" not in without.weights
    assert blind.weights == without.weights | {"towers": 0.0} and blind.validation["ranker"] == without.validation["ranker"]
    made = Ranker(known, None, found)
    part = made.features(asked._replace(towers_NI=oracle).part(slice(3, 4)))
    np.testing.assert_array_equal(part[made.names.index("towers"), 0], oracle[3])


def test_a_score_of_one_history_is_that_of_many():
    known, items, targets = asked_of(events(60, 20, 1), np.random.default_rng(0), 50)
    asked = Asked(items, np.full(50, np.inf), np.zeros((50, 20), np.float32))
    made = Ranker(known, None, learn(known, None, asked, targets))
    whole = made.scores(made.features(asked))
    for row in (0, 17):
        alone = made.scores(made.features(asked.part(slice(row, row + 1))))
        np.testing.assert_allclose(alone[0], whole[row], rtol=1e-5, atol=1e-6)


def test_of_too_few_histories_nothing_is_learned():
    known, items, targets = asked_of(events(60, 20, 1), np.random.default_rng(0), 5)
    found = learn(known, None, Asked(items, np.full(5, np.inf), np.zeros((5, 20), np.float32)), targets)
    assert isinstance(found, Learned) and {name for name, weight in found.weights.items() if weight} == {"model"}
    nobody = learn(known, None, Asked([], np.zeros(0), np.zeros((0, 20), np.float32)), np.zeros(0, np.int64))
    assert nobody.weights["model"] == 1


def test_who_clicks_a_thousand_times_says_it_once():
    """Also in what was had lately, where the last time counts."""
    user_N, item_N = np.array([0] * 1000 + [0, 1, 2]), np.array([0] * 1000 + [1, 1, 2])
    log = SimpleNamespace(users=["a", "b", "c"], items=["x", "y", "z"], user_N=user_N, item_N=item_N, time_N=np.arange(1003.0))
    known = known_of(log, [np.flatnonzero(user_N == user) for user in range(3)])
    assert known.item_N.tolist() == [0, 1, 1, 2] and known.time_N.tolist() == [999.0, 1000.0, 1001.0, 1002.0]
    assert known.x_UI.toarray().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
