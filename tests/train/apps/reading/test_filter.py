"""Hardly any message that is wanted is held back, and a reason is a word."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.reading.filter import Filter, Filtering, most_with

LABELS = ("ham", "spam")
HELD = [(f"ham {p}", "ham") for p in (0.6, 0.7, 0.8, 0.9, 0.95)] + [(f"spam {p}", "spam") for p in (0.3, 0.9, 0.95, 0.99)]


@pytest.fixture
def filtering(fake):
    return Filtering(fake(Filter(), LABELS, HELD))


def ask(filtering, text, **row):
    (line,) = filtering.answers([Record({"text": text} | row, "line 1")])
    return line


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 0.99))
def test_no_larger_share_of_the_wanted_is_held_back_and_no_lower_threshold_would_do(wanted, share):
    threshold, wanted_N = most_with(np.array(wanted), share), np.array(wanted)
    assert (wanted_N >= threshold).mean() <= share + 1e-9
    lower = wanted_N[wanted_N < threshold]
    assert not len(lower) or (wanted_N >= lower.max()).mean() > share - 1e-9


def test_messages_are_held_back_from_the_threshold_on(filtering):
    """Of the five wanted messages that were held out the most suspicious one had 0.4, and none may be held back."""
    assert not ask(filtering, "ham 0.6")["held"] and ask(filtering, "spam 0.41 more")["held"]
    assert ask(filtering, "spam 0.41 more")["probability"] == pytest.approx(0.41, abs=1e-4)


def test_a_reason_is_a_word_without_which_it_is_less_probable(filtering):
    line = ask(filtering, "you won a spam prize")
    assert line["because"] == [{"word": "spam", "less": pytest.approx(0.98, abs=1e-3)}]
    assert "because" not in ask(filtering, "ham")


def test_disguised_words_are_read(filtering):
    assert ask(filtering, "sр\u200bam") == ask(filtering, "spam") and ask(filtering, "ѕраm")["held"]
    assert "seen" in ask(filtering, "\u200b\u200b")["error"]
    assert ask(filtering, "ѕраm prize")["because"] == ask(filtering, "spam prize")["because"]


def test_all_is_counted_and_gone_on_with(filtering, fake):
    rows = [("spam", "spam"), ("spam 0.31", "spam"), ("ham", "ham"), ("spam 0.9 indeed", "ham"), ("ham", None), ("ham", "other")]
    given = [{"text": text} | ({"label": label} if label else {}) for text, label in rows] + [{"text": ""}]
    lines = filtering.answers([Record(row, f"line {number}") for number, row in enumerate(given, 1)])
    assert [line.get("held") for line in lines] == [True, False, False, True, False, False, None] and "line 7" in lines[6]["error"]
    assert filtering.summary() == {"messages": 6, "held": 2, "recall": 0.5, "false_positives": 0.5}
    other = Filtering(fake(Filter(), LABELS, HELD))
    other.restore(json.loads(json.dumps(filtering.state())))
    assert other.summary() == filtering.summary() and [one.rows for one in other.sections()] == [one.rows for one in filtering.sections()]


def test_labels_must_be_two_of_which_one_is_not_wanted(fake):
    for labels in (("ham", "eggs"), ("ham", "spam", "eggs")):
        dataset = fake(Filter(files=("a.jsonl",)), labels, []).dataset
        dataset.check_way = lambda: None
        dataset.examples = lambda sources, split: [1]
        with pytest.raises(UserError, match="not wanted|labels are"):
            dataset.check([])
    alone = fake(Filter(), LABELS, [("ham 0.6", "ham")])
    alone.run = SimpleNamespace(path="run")
    with pytest.raises(UserError, match="one label alone"):
        Filtering(alone)


@pytest.mark.parametrize("options", [{"false_positives": 1.0}, {"false_positives": -0.1}, {"several": True}, {"pair": "other"}])
def test_options(options):
    with pytest.raises(ValueError, match="data"):
        Filter(**options)


def test_its_columns_are_what_it_reads(filtering):
    check_columns(filtering, {"text": "ham 0.9"}, dataset=filtering._answering.dataset)
