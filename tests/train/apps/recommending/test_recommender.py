"""What a recommender answers, and what never comes: items that were seen or are excluded."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from model.config import ModelConfig
from tests.train import tiny_runs
from tests.train.apps.columns import check_columns
from tests.train.apps.runs import COLD, ITEMS, USERS, WORDLESS, recommender_run
from train.apps.recommending.ranker import known_of
from train.apps.recommending.recommender import MOST
from train.generation.embeddings import load_embedder
from train.objectives.tasks.towers import TwoTowers
from train.runs.directory import open_run
from train.sources.dataset import dataset_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return recommender_run(tmp_path_factory.mktemp("recommender"))


@pytest.fixture(scope="module")
def recommender(run):
    return made(run)


def made(path):
    run = open_run(path)
    dataset = dataset_of(run.experiment)
    dataset.place = run.path
    return dataset.application(run)


def ask(recommender, **row):
    (line,) = recommender.answers([Record(row, "line 1")])
    return line


def items_of(line) -> list[str]:
    return [item["item"] for item in line["items"]]


def recorded(recommender, user: str) -> set[str]:
    log = recommender._log
    return {log.items[item] for item in log.item_N[log.user_N == log.users.index(user)]}


def test_users_get_what_they_have_not_had(recommender):
    for user in ("u0", "u1", "u39"):
        line = ask(recommender, user=user, top=ITEMS)
        assert line["by"] == "ranker" and not line["cold"]
        assert set(items_of(line)) == {f"i{item}" for item in range(ITEMS)} - recorded(recommender, user)
        scores = [item["score"] for item in line["items"]]
        assert scores == sorted(scores, reverse=True)
        assert len(items_of(ask(recommender, user=user))) == 10


def test_what_is_excluded_or_seen_since_never_comes(recommender):
    before = items_of(ask(recommender, user="u0", top=ITEMS))
    after = items_of(ask(recommender, user="u0", top=ITEMS, exclude=[before[0]], history=[before[1], "unheard of"]))
    assert set(after) == set(before[2:])
    line = ask(recommender, user="u0", exclude=[f"i{item}" for item in range(ITEMS)])
    assert line["items"] == [] and "error" not in line


def test_a_history_says_what_comes(recommender):
    """Red things for red things, blue ones for blue ones: but for the first in half of the cases at least."""
    for colour in (0, 1):
        line = ask(recommender, history=[f"i{item}" for item in range(colour, 10, 2)], top=4)
        assert line["by"] == "ranker" and sum(int(item[1:]) % 2 == colour for item in items_of(line)) >= 3


def test_reasons_are_items_of_the_history(recommender):
    """The nearest first: by brute force, the cosine of the users of both, or of the texts where it is larger."""
    history = ["i0", "i2", "i4"]
    line = ask(recommender, history=history, top=ITEMS)
    log = recommender._log
    had = {name: {user for user, item in zip(log.user_N, log.item_N, strict=True) if log.items[item] == name} for name in log.items}
    number = recommender._items
    for item in line["items"]:
        near = {}
        for name in history:
            users = len(had[item["item"]] & had[name]) / max(np.sqrt(len(had[item["item"]]) * len(had[name])), 1)
            texts = recommender._texts_ID[[number[item["item"]]]] @ recommender._texts_ID[[number[name]]].T
            near[name] = max(users, texts.toarray()[0, 0])
        expected = sorted((value for value in near.values() if value), reverse=True)[:2]
        assert [reason["nearness"] for reason in item["reasons"]] == pytest.approx(expected, abs=1e-4)
        for reason in item["reasons"]:
            assert reason["nearness"] == pytest.approx(near[reason["because"]], abs=1e-4)
            assert set(reason["words"]) <= set(item["title"].split()) & set(reason["title"].split())
    assert any("thing0" in reason["words"] for item in line["items"] for reason in item["reasons"])


def test_nobody_knows_somebody_new_and_the_answer_says_so(recommender):
    counts = recommender._had_I
    for row in ({"user": "stranger"}, {"history": []}, {"history": ["unheard of"]}, {"history": [WORDLESS]}):
        line = ask(recommender, **row)
        assert line["cold"] and line["by"] == "popularity"
        assert [counts[recommender._items[item]] for item in items_of(line)] == sorted(counts, reverse=True)[:10]
    line = ask(recommender, history=[COLD], top=3)
    assert line["cold"] and line["by"] == "text" and COLD not in items_of(line)
    assert "thing3" in line["items"][0]["title"] and "blue" in line["items"][0]["title"]


def test_an_answer_depends_on_nothing_else_that_is_asked(recommender):
    rows = [Record(row, "") for row in ({"user": "u3"}, {"history": []}, {"history": ["i1", "i5"], "diversity": 0.5}, {"user": "u4"}, {})]
    together = recommender.answers(rows)
    assert together == [line for row in rows for line in recommender.answers([row])]


def test_the_average_user_is_meant_where_nobody_is_named(recommender):
    """Whose standardised features are 0; a user with other features gets other scores for the same items."""
    scoring, items = recommender.scoring, np.array([0, 2])
    nobody, first, last = scoring.scores([items] * 3, [None, 0, USERS - 1])
    np.testing.assert_allclose(nobody, (first + last) / 2, atol=1e-4)  # their ages lie as far below the mean as above it
    assert np.abs(first - last).max() > 1e-4


def test_diversity(recommender):
    history = ["i0", "i2", "i4"]
    plain = ask(recommender, history=history, top=5)
    assert ask(recommender, history=history, top=5, diversity=0) == plain
    from train.apps.recommending.lists import variety

    found = [ask(recommender, history=history, top=5, diversity=step / 4) for step in range(5)]
    varieties = [variety(recommender._texts_ID[[recommender._items[item] for item in items_of(line)]].toarray()) for line in found]
    assert varieties == sorted(varieties) and varieties[-1] > varieties[0]


@pytest.mark.parametrize(
    "row, what",
    [
        ({}, "neither user nor history"),
        ({"user": ["u1"]}, "user"),
        ({"user": " "}, "no name"),
        ({"history": "i1"}, "no list"),
        ({"history": [{"a": 1}]}, "no name"),
        ({"history": [True]}, "no name"),
        ({"user": "u1", "exclude": 5}, "no list"),
        ({"user": "u1", "top": 0}, "top"),
        ({"user": "u1", "top": MOST + 1}, "top"),
        ({"user": "u1", "top": "5.5"}, "top"),
        ({"user": "", "history": ""}, "neither user nor history"),
        ({"user": "u1", "diversity": 1.5}, "diversity"),
        ({"user": "u1", "diversity": float("nan")}, "diversity"),
        ({"user": "u1", "next": []}, "next"),
    ],
)
def test_rows_that_are_wrong_have_their_error(recommender, row, what):
    before = recommender.summary()
    (line, other) = recommender.answers([Record(row | {"id": 7}, "line 1"), Record({"user": "u1"}, "line 2")])
    assert what in line["error"] and line["id"] == 7 and set(line) == {"id", "error"} and other["items"]
    assert recommender.summary()["ranker"] == before["ranker"] + 1


def test_rows_of_a_table_are_answered_alike(recommender):
    """Whose numbers are texts, and whose empty cells are empty texts."""
    row = {"user": "u1", "top": "3", "diversity": "0.5", "exclude": "", "history": "", "next": ""}
    assert ask(recommender, **row) == ask(recommender, user="u1", top=3, diversity=0.5)


def test_recorded_events_keep_their_kinds(run, recommender, monkeypatch):
    """As they had while the weights were learned."""
    log, seen = recommender._log, []
    monkeypatch.setattr(recommender, "_log", log._replace(kind_N=np.arange(len(log.item_N)) % 2))
    scores = np.zeros((1, len(log.items)), np.float32)
    monkeypatch.setattr(recommender.scoring, "scores", lambda items, users, kinds=None: seen.append(kinds) or scores)
    ask(recommender, user="u1", history=["i0"])
    ((kinds,),) = seen
    events = recommender._history_U[recommender._users["u1"]]
    np.testing.assert_array_equal(kinds, [*(events % 2), 0])


def test_weights_are_learned_once_and_without_what_is_held_out(run, recommender, monkeypatch):
    """Kept in the run; the events that they are learned on, and every last item, are in nothing that is known then."""
    asked = {}

    def spied(known, texts, histories, targets):
        asked.update(known=known, targets=targets, histories=histories)
        return recommender._learned

    monkeypatch.setattr("train.apps.recommending.recommender.learn", spied)
    again = made(run)
    assert not asked and again._learned == recommender._learned
    again._learn()
    log = again._log
    for number, case in enumerate(log.cases["validation"]):
        assert asked["targets"][number] == log.item_N[case.target]
        assert not asked["known"].x_UI[case.user, asked["targets"][number]]
        assert log.item_N[case.target] not in asked["histories"].items[number]
    for case in log.cases["test"]:
        assert not asked["known"].x_UI[case.user, log.item_N[case.target]]
    now = known_of(log, [case.history for case in log.cases["next"]]).x_UI
    assert (again.ranker.known.x_UI != now).nnz == 0 and now.sum() > asked["known"].x_UI.sum()


@pytest.fixture(scope="module")
def with_towers(run):
    """The same run beside one of two towers, without what was learned before."""
    experiment = dataclasses.replace(open_run(run).experiment, model=ModelConfig(context_length=6), objective=TwoTowers(hidden=8), steps=2)
    tiny_runs.train(tiny_runs.start(run.parent / "towers", experiment))
    return run.parent / "towers"


def beside(run, towers, **changed):
    opened = open_run(run)
    options = dataclasses.replace(opened.experiment.data, towers=str(towers), **changed)
    dataset = dataset_of(dataclasses.replace(opened.experiment, data=options))
    dataset.place = opened.path
    return dataset.application(opened)


def test_towers_are_weighed_beside_the_rest(run, with_towers, recommender):
    found = beside(run, with_towers)
    assert {*found.ranker.names} == {*recommender.ranker.names, "towers"} and "towers" in found.tested()
    history = np.array([0, 2, 4])
    asked = found.asked_now([found._request(Record({"history": [found._log.items[place] for place in history]}, ""))])
    np.testing.assert_array_equal(found.ranker.features(asked)[found.ranker.names.index("towers")], found.towers.scores([history], [None]))
    assert ask(found, history=["i0", "i2"])["by"] == "ranker"
    assert "towers" not in made(run).ranker.names  # what was learned with them is not taken for what is learned without


def test_towers_of_other_events_are_refused(run, with_towers):
    with pytest.raises(UserError, match="the same events"):
        beside(run, with_towers, cold=0.5)


def test_towers_of_the_same_counts_in_another_order_are_refused(run, with_towers, tmp_path):
    """Which would have learned from the events that others are asked for."""
    experiment = open_run(with_towers).experiment
    (events,) = experiment.data.files
    first, *lines = Path(events).read_text().splitlines()
    times = [line.rsplit(",", 1) for line in lines]
    (tmp_path / "events.csv").write_text("\n".join([first, *(f"{rest},{-float(time)}" for rest, time in times)]) + "\n")
    changed = dataclasses.replace(experiment.data, files=(str(tmp_path / "events.csv"),))
    tiny_runs.train(tiny_runs.start(tmp_path / "towers", dataclasses.replace(experiment, data=changed)))
    with pytest.raises(UserError, match="did not learn from the same events"):
        beside(run, tmp_path / "towers")


def test_a_run_that_is_no_towers_is_refused(run):
    with pytest.raises(UserError, match="is no run of two towers"):
        beside(run, run)


def test_a_run_of_towers_is_a_recommender_too(with_towers):
    line = ask(made(with_towers), history=["i0", "i2", "i4"], top=4)
    assert line["by"] == "ranker" and len(line["items"]) == 4


def test_the_page_ranks_every_item_for_the_last_one_of_each_user(recommender, monkeypatch):
    found = recommender.tested()
    assert {"model", "ease", "neighbours", "popularity", "recency", "text", "ranker", "diversity 0.3"} <= set(found)
    assert all({"ndcg@10", "hit@10", "coverage", "gini", "novelty", "diversity"} == set(one) for one in found.values())
    assert (
        found["ranker"]["hit@10"] > found["popularity"]["hit@10"] / 2
        and found["diversity 0.5"]["diversity"] >= found["ranker"]["diversity"]
    )
    titles = [section.title for section in recommender.sections()]
    assert len(set(titles)) == 3 and all(section.rows for section in recommender.sections())


def test_rows_are_counted_also_across_processes(run):
    rows = [{"user": f"u{user}", "next": f"i{user % ITEMS}"} for user in range(USERS)] + [{"history": []}, {"top": 1}]
    records = [Record(row, f"line {number}") for number, row in enumerate(rows, 1)]
    first, working = made(run), made(run)
    lines = first.answers(records[:15])
    working.restore(json.loads(json.dumps(first.state())))
    lines += working.answers(records[15:])
    assert "error" in lines[-1] and lines[-2]["cold"]
    lists = [items_of(line) for line in lines[:USERS]]
    places = [one.index(row["next"]) if row["next"] in one else None for row, one in zip(rows[:USERS], lists, strict=True)]
    summary = working.summary()
    assert summary["hit"] == sum(place is not None for place in places) / USERS
    assert summary["ndcg"] == pytest.approx(sum(1 / np.log2(2 + place) for place in places if place is not None) / USERS)
    assert summary["coverage"] == len({item for line in lines[:-1] for item in items_of(line)}) / ITEMS
    assert (summary["ranker"], summary["popularity"], summary["text"]) == (USERS, 1, 0)


def test_events_that_were_changed_are_not_taken_for_those_of_the_run(run):
    path = run.parent / "events.csv"
    content = path.read_text()
    path.write_text(content + "u0,i0,999\n")
    try:
        with pytest.raises(UserError, match=r"events\.csv"):
            made(run)
    finally:
        path.write_text(content)


def test_its_columns_are_what_it_reads(recommender):
    check_columns(recommender, {"user": "u1"}, dataset=recommender.scoring.dataset)


def test_a_model_of_items_has_no_vectors_of_texts(run):
    with pytest.raises(UserError, match="reads no texts"):
        load_embedder(open_run(run))
