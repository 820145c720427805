"""Next items: how events are split, what is learned from, how lists are ranked, and that a run goes on as it was."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from data.errors import UserError
from model.config import ModelConfig
from tests.train import tiny_runs
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.kinds import realise
from train.objectives.tasks.recommendation import NextItem
from train.runs.directory import open_corpora, open_run
from train.runs.resolve import resolve
from train.tasks.metrics.diversity import mmr
from train.tasks.recommending.interactions import Case, Recommendation, read_log
from train.tasks.recommending.recommendation import CaseBatches, EventBatches, Ranked, RecommendationDataset, best

USERS, ITEMS = 12, 20


@pytest.fixture
def events(tmp_path):
    """Users who go through the items in circles, from different places and for different times; and the items, one of which nobody had."""
    draw, lines = np.random.default_rng(0), ["user,item,time,what"]
    for user in range(USERS):
        begin = int(draw.integers(ITEMS - 1))
        lines += [f"u{user},i{(begin + step) % (ITEMS - 1)},{step},{'buy' if step % 3 else 'click'}" for step in range(4 + user)]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    items = [
        {"item": f"i{item}", "title": f"Item {item}", "colour": "red|blue" if item % 2 else "blue", "size": item} for item in range(ITEMS)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(tmp_path / "events.csv"), str(tmp_path / "items.jsonl")


def experiment_of(events, objective=NextItem(item_dropout=0.2), **options) -> Experiment:
    options = {"items": events[1], "features": ("colour", "size"), "action": "what", "actions": ("click=0.5",)} | options
    return Experiment(
        steps=4,
        batch_size=4,
        model=ModelConfig(context_length=6, num_layers=1, embed_dim=16, num_heads=2, dropout=0.1, positions="rotary"),
        data=Recommendation(files=(events[0],), **options),
        objective=objective,
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=1),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=2, best="ndcg@10"),
        checkpoints=Checkpoints(every=4),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )


def resolved(experiment: Experiment) -> Experiment:
    return resolve(experiment, open_corpora(experiment))


def test_mmr_between_its_ends():
    """Weight 0 is the order of scores; weight 1 takes what is least like what was taken; between, the sums of the equation decide."""
    scores, vectors = np.array([1.0, 0.9, 0.5, 0.0]), np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    assert mmr(scores, vectors, 4, 0.0) == [0, 1, 2, 3]
    assert mmr(scores, vectors, 2, 1.0) == [0, 3]
    # after 0, a half and a half: 0.45 - 0.5, 0.25 - 0, 0 + 0.5
    assert mmr(scores, vectors, 3, 0.5) == [0, 3, 2]
    # after 0, nine to one: 0.81 - 0.1, 0.45, 0.1
    assert mmr(scores, vectors, 2, 0.1) == [0, 1]


def test_events_are_split_by_time(events):
    """The last new item is the test, the one before validation; what is learned from lies before both, and events that come again are no
    targets."""
    with open(events[0], "a") as file:
        file.write("u0,i0,90,buy\n" + "".join(f"late,i{item},{time},buy\n" for item, time in ((3, 9), (1, 1), (2, 5), (1, 10), (4, 2))))
    log = read_log(Recommendation(files=(events[0],)))
    user = log.users.index("late")

    def names(numbers):
        return [log.items[log.item_N[number]] for number in numbers]

    assert names(log.train_U[user]) == ["i1", "i4"]
    validation, test = (next(case for case in log.cases[split] if case.user == user) for split in ("validation", "test"))
    assert (names(validation.history), names([validation.target])) == (["i1", "i4"], ["i2"])
    assert (names(test.history), names([test.target])) == (["i1", "i4", "i2"], ["i3"])
    assert names(next(case for case in log.cases["next"] if case.user == user).history) == ["i1", "i4", "i2", "i3", "i1"]


def test_nothing_of_an_evaluation_is_learned_from(events):
    """No row of training holds an event at or after a user's validation, nor one of an item that is held out."""
    dataset = RecommendationDataset(experiment_of(events, cold=0.3).data, experiment_of(events, cold=0.3))
    log = dataset.log
    assert log.held_I.any() and log.cases["cold"]
    learned = {number for events in log.train_U for number in events.tolist()}
    assert not learned & {case.target for split in ("validation", "test", "cold") for case in log.cases[split]}
    for split in ("validation", "test"):
        for case in log.cases[split]:
            assert log.train_U[case.user].max() < case.target and case.history.max() < case.target
    batch = EventBatches(dataset).batch(0, 64)
    seen = np.concatenate([batch.tokens[batch.segments > 0], batch.targets[batch.weights > 0]])
    assert not log.held_I[seen].any() and (log.count_I[seen] > 0).all()


def test_rows_are_a_function_of_seed_and_row(events):
    dataset = RecommendationDataset(experiment_of(events).data, experiment_of(events))
    together, apart = EventBatches(dataset).batch(3, 4), EventBatches(dataset).batch(5, 1)
    for name in together._fields:
        np.testing.assert_array_equal(getattr(together, name)[2:3], getattr(apart, name))
    np.testing.assert_array_equal(
        together.targets[:, :-1][together.weights[:, 1:] > 0], together.tokens[:, 1:][together.weights[:, 1:] > 0]
    )
    assert set(together.weights[together.weights > 0].tolist()) <= {0.5, 1.0}


def test_lists_hold_no_item_that_the_user_has_had(events):
    dataset = RecommendationDataset(experiment_of(events).data, experiment_of(events, NextItem(diversity=50)))
    cases = dataset.log.cases["test"]
    ranked = Ranked(dataset, cases, "test", dataset.log.features_IF)
    ranked.add({"rows": np.arange(len(cases)), "scores": np.tile(np.arange(ITEMS, dtype=np.float32), (len(cases), 1))})
    for case, plain, diverse in zip(cases, ranked.lists, ranked.diverse, strict=True):
        seen = set(dataset.log.item_N[case.history].tolist())
        assert plain == sorted(set(range(ITEMS)) - seen, reverse=True) and not set(diverse) & seen
    scores = ranked.scores().values
    assert {"recall@10", "mmr_recall@10", "diversity@10", "mmr_diversity@10", "coverage@10"} <= set(scores)


def test_equal_scores_do_not_favour_the_order_of_the_file():
    assert best(np.zeros(ITEMS), ITEMS) != list(range(ITEMS)) and sorted(best(np.zeros(ITEMS), ITEMS)) == list(range(ITEMS))
    assert best(np.array([1.0, -np.inf, 3.0]), 3) == [2, 0]


def test_items_that_nobody_had_have_the_vector_of_their_features_alone(events):
    """And a change of their own vector changes nothing, while it does of others."""
    experiment = resolved(experiment_of(events))
    loss = realise(experiment.objective, experiment, 1).loss
    params = jax.tree.map(np.asarray, jax.jit(lambda key: _unboxed(loss.start(key)))(jax.random.key(0)))
    changed = params | {"items": params["items"] | {"embedding": {"table": params["items"]["embedding"]["table"] + 1}}}
    log = read_log(experiment.data)
    cold = log.count_I == 0
    assert cold[ITEMS - 1]
    before, after = (np.asarray(loss.vectors(tree)) for tree in (params, changed))
    features = params["item_facts"][:, :-1] @ params["items"]["features"]["kernel"]
    np.testing.assert_allclose(before[cold], features[cold], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(before[cold], after[cold])
    np.testing.assert_allclose(after[~cold] - before[~cold], 1, rtol=1e-5)


def _unboxed(tree):
    from flax import linen as nn

    return nn.unbox(tree)


def test_features_of_users_are_added_to_what_their_events_say(events, tmp_path):
    """By a projection of their own: without it, the same scores as without features."""
    (tmp_path / "users.csv").write_text("user,age,land\n" + "".join(f"u{user},{20 + user},{'ab'[user % 2]}\n" for user in range(USERS)))
    experiment = resolved(experiment_of(events, users=str(tmp_path / "users.csv"), user_features=("age", "land")))
    assert (experiment.objective.users, experiment.objective.user_width) == (USERS, 3)
    dataset = RecommendationDataset(experiment.data, experiment)
    bound = realise(experiment.objective, experiment, 1)
    params = jax.jit(lambda key: _unboxed(bound.start(key)))(jax.random.key(0))
    batch = EventBatches(dataset).batch(0, 4)
    with_them = np.asarray(bound.outputs(params, batch)["scores"])
    none = params | {"user": {"kernel": np.zeros_like(params["user"]["kernel"])}}
    added = params["user_facts"][batch.users] @ params["user"]["kernel"] @ bound.loss.vectors(params).T
    np.testing.assert_allclose(with_them - np.asarray(bound.outputs(none, batch)["scores"]), added, atol=1e-5)


def test_a_run_learns_resumes_and_predicts(events, tmp_path, monkeypatch):
    """Stopped and resumed, it is what it would have been; its lists name items, and the facts of items are as they were."""
    experiment = experiment_of(events)
    whole = tiny_runs.start(tmp_path / "whole", experiment)
    tiny_runs.train(whole)
    tiny_runs.start(tmp_path / "stopped", experiment)
    tiny_runs.train_and_stop(tmp_path / "stopped", 2, monkeypatch)
    tiny_runs.train(open_run(tmp_path / "stopped"))
    assert tiny_runs.outcome(open_run(tmp_path / "stopped"))[1] == tiny_runs.outcome(whole)[1]
    found = evaluate_run(whole, split="test", predictions=tmp_path / "lists.jsonl", change=("diversity=30",))
    assert 0 <= found["recall@10"] <= 1 and found["mmr_diversity@10"] >= 0 and "recall@10" in found["intervals"]
    lines = [json.loads(line) for line in (tmp_path / "lists.jsonl").read_text().splitlines()]
    assert len(lines) == found["users"] and lines[0]["names"][0].startswith("Item ")
    assert evaluate_run(whole, split="next")["users"] == USERS


def test_mistakes_are_named(events, tmp_path):
    def message(lines: str, **options) -> str:
        (tmp_path / "bad.csv").write_text("user,item,time\n" + lines)
        with pytest.raises(UserError) as error:
            read_log(Recommendation(files=(str(tmp_path / "bad.csv"),), **options))
        read_log.cache_clear()
        return str(error.value)

    assert "bad.csv: line 3: time 'soon' is no number" in message("a,b,1\na,c,soon\n")
    assert "bad.csv: line 2: " in message("a,nowhere,1\n", items=events[1])
    assert "no row has a column 'shape'" in message("a,i1,1\n", items=events[1], features=("shape",))
    with pytest.raises(ValueError, match="NAME=WEIGHT"):
        Recommendation(action="what", actions=("buy",))
    with pytest.raises(UserError, match="item_dropout"):
        resolved(experiment_of(events, features=()))
    dataset = RecommendationDataset(experiment_of(events).data, experiment_of(events))
    with pytest.raises(UserError, match="Choose validation"):
        dataset.evaluate(None, None, [], split="train")


def test_an_evaluation_asks_for_the_last_item_alone(events):
    dataset = RecommendationDataset(experiment_of(events).data, experiment_of(events))
    cases = dataset.log.cases["test"]
    batch = CaseBatches(dataset, cases).batch(0, len(cases) + 1)
    assert batch.weights.sum() == len(cases) and not batch.segments[-1].any()
    for row, case in enumerate(cases):
        last = batch.segments[row].sum() - 1
        assert batch.weights[row, last] == 1 and batch.targets[row, last] == dataset.log.item_N[case.target]
        assert batch.tokens[row, last] == dataset.log.item_N[case.history[-1]]
    assert isinstance(cases[0], Case) and dataclasses.is_dataclass(dataset.options)
