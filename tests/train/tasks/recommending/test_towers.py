"""Two towers: what they begin as, that a sampled softmax is the whole one, that places look back alone, and items that nobody had."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from data.errors import UserError
from model.config import ModelConfig
from tests.train import tiny_runs
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.kinds import realise
from train.objectives.tasks.towers import SCALE, TwoTowers, sampled_softmax
from train.runs.directory import open_corpora, open_run
from train.runs.resolve import resolve
from train.tasks.recommending.interactions import Recommendation
from train.tasks.recommending.item_words import SHARED, latent_words, word_vectors
from train.tasks.recommending.recommendation import CaseBatches, EventBatches, RecommendationDataset

USERS, ITEMS = 16, 24
COLD = ITEMS - 2
"""From this item on, nobody had any: one red thing, one blue one."""


@pytest.fixture
def events(tmp_path):
    """Users of red things, and of blue ones."""
    draw, lines = np.random.default_rng(0), ["user,item,time"]
    for user in range(USERS):
        items = draw.permutation(np.arange(user % 2, COLD, 2))[:8]
        lines += [f"u{user},i{item},{step}" for step, item in enumerate(items)]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    items = [{"item": f"i{item}", "title": f"{'blue' if item % 2 else 'red'} shape{item // 6} number{item}"} for item in range(ITEMS)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(tmp_path / "events.csv"), str(tmp_path / "items.jsonl")


def experiment_of(events, objective=TwoTowers(hidden=8), **options) -> Experiment:
    return Experiment(
        steps=4,
        batch_size=4,
        model=ModelConfig(context_length=6),
        data=Recommendation(files=(events[0],), **{"items": events[1]} | options),
        objective=objective,
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=1),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=2, best="ndcg@10"),
        checkpoints=Checkpoints(every=4),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )


def begun(events, **fields):
    """The dataset, the bound objective, and parameters to begin with."""
    experiment = experiment_of(events, TwoTowers(hidden=8, **fields))
    experiment = resolve(experiment, open_corpora(experiment))
    bound = realise(experiment.objective, experiment, 1)
    params = jax.jit(lambda key: nn.unbox(bound.start(key)))(jax.random.key(0))
    return RecommendationDataset(experiment.data, experiment), bound, params


def moved(params, seed=0):
    """The same, each trained one moved a little."""
    keys = iter(jax.random.split(jax.random.key(seed), 20))
    own = {name: part for name, part in params.items() if name != "item_facts"}
    return params | jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), own)


def test_directions_are_those_of_the_singular_values():
    """Beside a dense decomposition: the cosines of the whole, with directions weighed by s / sqrt(s² + what all share)."""
    vectors = word_vectors(["red car", "red bus", "blue bus", "", "blue boat 车", "red red car"])
    left, singular, _ = np.linalg.svd(vectors.toarray(), full_matrices=False)
    expected = left * singular / np.sqrt(singular**2 + SHARED * vectors.shape[0])
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-9)
    expected[3] = 0
    found = latent_words(vectors, 100)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)
    assert not found[3].any() and latent_words(vectors, 2).shape == (6, 2)


def test_at_the_start_it_is_the_nearness_of_texts(events):
    dataset, bound, params = begun(events, popularity=False)
    batch = CaseBatches(dataset, dataset.log.cases["test"]).batch(0, 5)
    facts = np.asarray(params["item_facts"])[:, :-1]
    for row, scores in enumerate(np.asarray(bound.outputs(params, batch)["scores"])):
        profile = facts[batch.tokens[row, : batch.segments[row].sum()]].mean(0)
        np.testing.assert_allclose(scores, SCALE * facts @ profile / np.linalg.norm(profile), rtol=1e-4, atol=1e-4)


def test_a_sampled_softmax_is_the_whole_one_where_the_batch_has_every_item_as_often_as_expected():
    """Rows of one place each; without the correction by their shares it is not."""
    draw = np.random.default_rng(0)
    count_I = np.array([1, 4, 2, 3])
    targets = draw.permutation(np.repeat(np.arange(4), count_I))
    x_ID, bias_I, user_ND = draw.normal(size=(4, 5)), draw.normal(size=4), draw.normal(size=(10, 5))
    scores = user_ND @ x_ID.T + bias_I
    expected = np.log(np.exp(scores).sum(1)) - scores[np.arange(10), targets]
    arrays = user_ND[:, None], x_ID[targets][:, None], bias_I[targets][:, None]
    there = np.ones((10, 1), bool)
    found = sampled_softmax(*map(jnp.asarray, arrays), (count_I / 10)[targets][:, None], there, np.arange(10))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    uncorrected = sampled_softmax(*map(jnp.asarray, arrays), jnp.full((10, 1), 0.25), there, np.arange(10))
    assert np.abs(uncorrected[:, 0] - expected).max() > 0.05
    padded = [jnp.concatenate([jnp.asarray(x), jnp.asarray(x[:3])]) for x in (*arrays, (count_I / 10)[targets][:, None])]
    again = sampled_softmax(*padded, np.arange(13)[:, None] < 10, np.arange(13))
    np.testing.assert_allclose(again[:10], found, rtol=1e-5)


def test_what_a_user_had_otherwise_is_no_wrong_item():
    """The places of a user's rows are no candidates of one another: an item of one may change without the others."""
    draw = np.random.default_rng(0)
    user, following = draw.normal(size=(3, 3, 4)), draw.normal(size=(3, 3, 4))
    rest = np.zeros((3, 3)), np.full((3, 3), 0.2), np.ones((3, 3), bool), np.array([5, 1, 5])
    changed = following.copy()
    changed[0, 2] += 1
    before, after = (np.asarray(sampled_softmax(jnp.asarray(user), jnp.asarray(x), *rest)) for x in (following, changed))
    np.testing.assert_allclose(after[0, :2], before[0, :2], rtol=1e-6)
    np.testing.assert_allclose(after[2], before[2], rtol=1e-6)
    assert (np.abs(after - before)[1] > 1e-3).all() and abs(after[0, 2] - before[0, 2]) > 1e-3


def test_users_are_made_of_what_came_before_alone(events):
    dataset, bound, params = begun(events)
    loss, params = bound.loss, moved(params)
    batch = EventBatches(dataset).batch(0, 2)
    had = loss.item_vectors(params, params["item_facts"][:, :-1])[batch.tokens]
    changed = had.at[:, 3].set(had[:, 0] + had[:, 1])
    one, other = (np.asarray(loss.user_vectors(params, x, batch.segments)) for x in (had, changed))
    np.testing.assert_allclose(one[:, :3], other[:, :3], atol=1e-6)
    assert np.abs(one - other)[:, 3:].max() > 1e-3
    still = params | {"attention": params["attention"] | {"recency": jnp.zeros(())}}
    turned = had[:, jnp.array([2, 1, 0, 3, 4, 5])]
    whole = np.ones_like(batch.segments)
    for tree, same in ((still, True), (params, False)):  # without recency, the order says nothing
        a, b = (np.asarray(loss.user_vectors(tree, x, whole))[:, 3] for x in (had, turned))
        assert np.allclose(a, b, atol=1e-5) == same


def test_a_step_of_all_items_and_one_of_the_batch_both_learn(events):
    for in_batch in (False, True):
        dataset, bound, params = begun(events, in_batch=in_batch, dropout=0.2)
        batch = EventBatches(dataset).batch(0, 8)

        def loss(tree, bound=bound, batch=batch):
            return bound.loss(tree, batch, jax.random.key(1))[0]["loss"].total

        gradient = jax.jit(jax.grad(loss))(moved(params))
        assert not np.asarray(gradient["item_facts"]).any()
        parts = {name: part for name, part in gradient.items() if name != "item_facts"}
        assert all(np.isfinite(x).all() and np.asarray(x).any() for x in jax.tree.leaves(parts))


def test_a_step_of_the_batch_is_corrected_by_how_often_items_come(events):
    """Beside an oracle made of the vectors and of the counts of events; an evaluation is of all items."""
    dataset, bound, params = begun(events, in_batch=True, dropout=0.0)
    params, batch = moved(params), EventBatches(dataset).batch(0, 8)
    vectors = np.asarray(bound.loss.item_vectors(params, params["item_facts"][:, :-1]))
    users = np.asarray(bound.loss.user_vectors(params, jnp.asarray(vectors[batch.tokens]), batch.segments))
    count_I = np.expm1(np.asarray(params["item_facts"])[:, -1])
    bias_I = float(params["popularity"]) * np.log1p(count_I)
    scale, there = float(np.exp(params["scale"])), batch.weights > 0
    places = [(row, place) for row, place in np.argwhere(there)]
    expected = 0.0
    for row, place in places:
        others = [one for one in places if batch.users[one[0]] != batch.users[row] or one == (row, place)]
        targets = np.array([batch.targets[one] for one in others])
        scores = scale * vectors[targets] @ users[row, place] + bias_I[targets]
        own = scale * vectors[batch.targets[row, place]] @ users[row, place] + bias_I[batch.targets[row, place]]
        expected += np.log(np.exp(scores - np.log(count_I[targets] / count_I.sum())).mean()) - own
    term = bound.loss(params, batch, jax.random.key(1))[0]["loss"]
    assert float(term.total) == pytest.approx(expected, rel=1e-4) and float(term.weight) == len(places)
    scores = scale * users[there] @ vectors.T + bias_I
    whole = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(scores)), batch.targets[there]]
    assert float(bound.loss(params, batch, None)[0]["loss"].total) == pytest.approx(whole.sum(), rel=1e-4)


def test_dropout_is_drawn_by_the_key_in_both_towers(events):
    dataset, bound, params = begun(events, dropout=0.5)
    params, batch = moved(params), EventBatches(dataset).batch(0, 4)

    def users(key):
        had = jnp.ones((4, 6, params["item_facts"].shape[1] - 1))
        return bound.loss.user_vectors(params, had, batch.segments, None if key is None else jax.random.split(jax.random.key(key), 4))

    def items(key):
        return bound.loss.item_vectors(params, params["item_facts"][:, :-1], None if key is None else jax.random.key(key))

    for vectors in (users, items):
        assert np.abs(vectors(0) - vectors(1)).max() > 1e-3 and (np.asarray(vectors(None)) == np.asarray(vectors(None))).all()
        assert np.abs(vectors(0) - vectors(None)).max() > 1e-3


def test_items_that_nobody_had_are_ranked_by_their_texts(events, tmp_path, monkeypatch):
    """Also after a run that was stopped and went on, which is what it would have been."""
    whole = tiny_runs.start(tmp_path / "whole", experiment_of(events))
    tiny_runs.train(whole)
    tiny_runs.start(tmp_path / "stopped", experiment_of(events))
    tiny_runs.train_and_stop(tmp_path / "stopped", 2, monkeypatch)
    tiny_runs.train(open_run(tmp_path / "stopped"))
    assert tiny_runs.outcome(open_run(tmp_path / "stopped"))[1] == tiny_runs.outcome(whole)[1]
    assert 0 <= evaluate_run(whole, split="test")["recall@10"] <= 1
    from train.apps.recommending.recommender import Scoring
    from train.sources.dataset import dataset_of

    dataset = dataset_of(whole.experiment)
    dataset.place = whole.path
    scoring, number = Scoring(whole, dataset), {name: place for place, name in enumerate(dataset.log.items)}
    assert dataset.log.count_I[[number[f"i{item}"] for item in (COLD, COLD + 1)]].tolist() == [0, 0]
    histories = [np.array([number[f"i{item}"] for item in range(colour, 12, 2)]) for colour in (0, 1)]
    red, blue = (scores[[number[f"i{item}"] for item in (COLD, COLD + 1)]] for scores in scoring.scores(histories, [None, None]))
    assert red[0] > red[1] and blue[1] > blue[0]


def test_towers_without_texts_are_refused(events):
    experiment = experiment_of(events, items="")
    with pytest.raises(UserError, match="by their texts"):
        resolve(experiment, open_corpora(experiment))
    with pytest.raises(ValueError, match="dropout"):
        TwoTowers(dropout=1.0)
