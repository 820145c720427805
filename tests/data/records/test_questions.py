"""Questions whose answers are parts of texts: each answer is at its place, or named."""

import contextlib
import gzip
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.records.questions import read_questions

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
CONTEXT = "Äußerst 长 🙂 text"


def entry(name, *answers, **fields):
    return {"id": name, "question": "q?", "answers": [{"text": text, "answer_start": start} for text, start in answers]} | fields


def write(path, *entries, context=CONTEXT):
    content = json.dumps({"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": entries}]}]})
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return str(path)


@ANY_FOLDER
@given(context=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), data=st.data())
def test_answers_are_what_stands_at_their_places(tmp_path, context, data):
    """Places count characters, of any plane of Unicode."""
    start = data.draw(st.integers(0, len(context) - 1))
    text = context[start : data.draw(st.integers(start + 1, len(context)))]
    (question,) = read_questions(write(tmp_path / "a.json.gz", entry("1", (text, start)), context=context))
    assert question.answers == [(text, start)] and question.context == context and not question.impossible


def test_what_cannot_be_answered_has_no_answers(tmp_path):
    path = write(tmp_path / "a.json", entry("a", ("长", 8)), entry("b", ("长", 8), is_impossible=True), entry("c", is_impossible=True))
    assert [(question.id, len(question.answers), question.impossible) for question in read_questions(path)] == [
        ("a", 1, False),
        ("b", 0, True),
        ("c", 0, True),
    ]


@pytest.mark.parametrize(
    "bad, says",
    [
        (entry("bad", ("长", 7)), "question bad: an answer that is not at its place\n.*it is at 8"),
        (entry("bad", ("nothing", 0)), "nowhere in the context"),
        (entry("bad", ("长", "8")), "not at its place"),
        (entry("bad", ("", 0)), "not at its place"),
        (entry("bad", ("t", -1)), "not at its place"),
        (entry("bad"), "question bad: no answer"),
        (entry("good", ("长", 8)), "question good: the id stands twice"),
        (entry("bad", ("长", 8), question=None), "question bad: its question is null"),
        (entry("bad", ("长", 8), is_impossible="no"), "is_impossible is a string"),
        (entry(None, ("长", 8)), "article 1, paragraph 1, question 2: its id is null"),
    ],
)
def test_a_question_that_cannot_be_used_is_named_or_left_out(tmp_path, bad, says):
    path = write(tmp_path / "a.json", entry("good", ("长", 8)), bad)
    with pytest.raises(UserError, match=says) as raised:
        read_questions(path)
    assert path in str(raised.value)
    left_out = Counter()
    assert [question.id for question in read_questions(path, left_out=left_out)] == ["good"] and left_out.total() >= 1


def test_one_good_answer_keeps_its_question(tmp_path):
    left_out = Counter()
    (question,) = read_questions(write(tmp_path / "a.json", entry("a", ("长", 8), ("长", 0))), left_out=left_out)
    assert question.answers == [("长", 8)] and left_out == {"an answer that is not at its place": 1}


@ANY_FOLDER
@given(
    value=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "paragraphs", "context", "qas", "id", "question", "answers", "text"]), inner, max_size=4
            )
        ),
    ),
    cut=st.integers(0, 3),
)
def test_any_json_gives_questions_or_an_error_for_people(tmp_path, value, cut):
    wrapped = [value, {"data": value}, {"data": [{"paragraphs": value}]}, {"data": [{"paragraphs": [{"context": "a", "qas": value}]}]}][cut]
    (tmp_path / "a.json").write_text(json.dumps(wrapped))
    for left_out in (None, Counter()):
        with contextlib.suppress(UserError):
            read_questions(str(tmp_path / "a.json"), left_out=left_out)
