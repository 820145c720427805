"""Poems of a tiny model, in the form that is asked for."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from tests.train.apps.runs import LEVELS, TUNE, verse_run
from train.apps.answering import Answering
from train.apps.writing.verse import Poet
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.step.private.options import Private

pytest.importorskip("pypinyin")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return verse_run(tmp_path_factory.mktemp("verse"))


def poet_of(path) -> Poet:
    opened = open_run(path)
    dataset = dataset_of(opened.experiment)
    dataset.place = opened.path
    return dataset.application(opened)


@pytest.fixture(scope="module")
def poet(run):
    return poet_of(run)


def ask(poet, **row):
    (line,) = poet.answers([Record(row, "line 1")])
    return line


def test_poems_keep_their_tune_and_differ(poet):
    """Of a model that knows next to nothing: without the form it would keep none."""
    poems = ask(poet, form=TUNE, n=8)["poems"]
    assert all(one["shape"] and one["tones"] == 1 and one["rhymes"] == 1 for one in poems)
    assert len({"".join(one["lines"]) for one in poems}) > 4
    line = ask(poet, form=TUNE, n=8)
    assert line["text"] == "\n".join(max(line["poems"], key=lambda one: one["log_prob"])["lines"])
    free = ask(poet, form=TUNE, n=8, free=True)["poems"]
    assert not all(one["shape"] for one in free)


def test_the_same_row_is_answered_the_same(poet):
    assert ask(poet, form=TUNE, n=2) == ask(poet, form=TUNE, n=2) != ask(poet, form=TUNE, n=2, seed=1)
    assert ask(poet, form=TUNE, temperature=0)["poems"][0] == ask(poet, form=TUNE, temperature=0, seed=3)["poems"][0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"form": "无"}, "no tune"),
        ({"form": TUNE, "n": 0}, "n is '0'"),
        ({"form": TUNE, "n": True}, "n is 'True'"),
        ({"form": TUNE, "n": 9}, "n is '9', not a whole number from 1 to 8"),
        ({"form": TUNE, "seed": -1}, "seed"),
        ({"form": TUNE, "temperature": -1}, "temperature"),
        ({"form": TUNE, "top_p": "x"}, "top_p"),
        ({"form": "", "title": "☃"}, "not among"),
        ({"form": 3.5}, "3.5"),
    ],
)
def test_rows_that_are_none(poet, row, said):
    lines = poet.answers([Record(row, "line 1"), Record({"form": TUNE, "id": 1}, "line 2")])
    assert said in lines[0]["error"] and lines[1]["id"] == 1 and lines[1]["text"]


def test_a_tune_is_remembered_by_the_run(run, poet, monkeypatch):
    monkeypatch.setattr(Poet, "_learn", lambda self: pytest.fail("learned twice"))
    again = poet_of(run)
    assert ask(again, form=TUNE) == ask(poet, form=TUNE)


def test_a_private_run_is_not_looked_into(run, monkeypatch):
    """Tunes are counted in the poems that were learned from, of which nothing may be told."""
    opened = open_run(run)
    answering = Answering(opened, dataset_of(opened.experiment))
    private = dataclasses.replace(opened.experiment, gradient=Private(epsilon=8.0))
    monkeypatch.setattr(answering, "run", SimpleNamespace(path=opened.path, experiment=private))
    with pytest.raises(UserError, match="learned in private"):
        answering.learned_from()


def test_summary_state_and_page(run):
    poet = poet_of(run)
    assert poet.summary() == {"poems": 0}
    ask(poet, form=TUNE, n=3)
    found = poet.summary()
    assert found["poems"] == 3 and found["shape"] == found["tones"] == found["rhymes"] == 1 and 0 < found["distinct_2"] <= 1
    other = poet_of(run)
    other.restore(json.loads(json.dumps(poet.state())))
    assert other.summary() == found and [one.rows for one in other.sections()] == [one.rows for one in poet.sections()]
    before = poet.state()
    assert poet.reply([TUNE])["answer"] and poet.reply(["无"])["answer"] and poet.state() == before


def test_poems_are_read_in_each_form(poet):
    dataset = poet._answering.dataset
    as_text = dataset.example(Record({"form": "x", "title": None, "lines": "一\n二"}, "line"))
    assert as_text.label == ("一\n二",) and as_text.fields == {"source": "x", "title": ""}
    with pytest.raises(UserError, match="no lines"):
        dataset.example(Record({"form": "x", "lines": [1]}, "line"))


def test_scores_are_of_tunes_that_the_examples_tell(poet):
    dataset = poet._answering.dataset
    examples = [dataset.example(Record({"form": TUNE, "lines": [f"{LEVELS[n]}月春，", f"{LEVELS[n]}雨人。"]}, "line")) for n in range(6)]
    right = dataset.score(examples, [one.label[0] for one in examples])
    assert right.values == {"shape": 1, "tones": 1, "rhymes": 1}
    assert dataset.score(examples, ["天。"] * 6).values["shape"] == 0
    assert dataset.score(examples[:2], ["天。"] * 2).values == {}


def test_the_row_by_which_it_is_compiled_has_an_answer(poet):
    made = poet
    (line,) = made.answers([Record(made.example, "row 1")])
    assert "error" not in line


def test_its_columns_are_what_it_reads(poet):
    check_columns(poet, {"form": TUNE}, dataset=poet._answering.dataset)
