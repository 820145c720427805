"""Quotes are the text's own, nothing of it is unread, and what is absent is said."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.records.record import Record
from tests.train.apps.columns import check_columns
from train.apps.reading import extraction
from train.apps.reading.extraction import Extracting, Extraction, passages_of

LABELS = ("law", "term", "audit")
HELD = [("law 0.9 applies here", ("law",)), ("term 0.8 of years here", ("term",)), ("audit 0.2", ()), ("nothing of it 0.1", ())]
CONTRACT = (
    "This is made today by both. Law 0.95 of Denmark applies.  The law 0.9 of Norway does not. A term 0.99 of ____ years is agreed."
    "\n\nSigned"
)


@pytest.fixture
def extracting(fake, monkeypatch):
    found = fake(Extraction(length=16), LABELS, [])
    found.held = HELD
    found.validation = lambda: (
        [found.dataset.example(Record({"text": text, "label": [*labels]}, "held")) for text, labels in HELD],
        found([found.dataset.example(Record({"text": text}, "held")) for text, _ in HELD]),
    )
    found.probabilities = lambda text: np.array([_sure(text, name) for name in LABELS], np.float32)
    return Extracting(found)


def _sure(text: str, name: str) -> float:
    words = text.lower().split()
    numbers = [float(words[place + 1]) for place, word in enumerate(words[:-1]) if word == name and words[place + 1][:1].isdigit()]
    return max(numbers, default=0.01)


def ask(extracting, text, **row):
    (line,) = extracting.answers([Record({"text": text} | row, "line 1")])
    return line


@given(st.text(alphabet=st.sampled_from('aB .;\n1,("”。'), max_size=400), st.integers(8, 60))
def test_passages_are_all_of_a_text_in_order_and_fit(text, most):
    """What no passage has is blank, so that the whole text is read."""
    passages, at = passages_of(text, most), 0
    for one in passages:
        assert at <= one.start < one.end <= len(text) and not text[at : one.start].strip() and one.end - one.start <= most
        at = one.end
    assert not text[at:].strip()


def test_a_sentence_that_is_too_long_is_cut_behind_a_mark():
    text = "The first part of it stands here, and the second one there"
    assert [text[a:b] for a, b in passages_of(text, 40)] == ["The first part of it stands here,", "and the second one there"]
    assert passages_of("x" * 50, 20) == [(0, 20), (20, 40), (40, 50)]


def test_clauses_are_quoted_with_their_places(extracting):
    line = ask(extracting, CONTRACT)
    assert all(CONTRACT[one["start"] : one["end"]] == one["quote"] for one in line["clauses"])
    law, term = line["clauses"]
    assert (law["label"], term["label"]) == ("law", "term") and law["quote"].startswith("Law 0.95") and law["quote"].endswith("does not.")
    assert law["confidence"] == pytest.approx(0.95) and "blank" not in law and term["blank"] is True
    (absent,) = line["absent"]
    assert absent["label"] == "audit" and absent["confidence"] == pytest.approx(0.01)
    assert line["passages"] == len(passages_of(CONTRACT, 80)) and len(line["review"]) == extraction.REVIEWED


def test_a_passage_is_read_to_its_end_in_parts(extracting, monkeypatch):
    """Of a sentence without spaces, whatever stands first in a text: its labels are those that any part has."""
    text, asked = " " * 700 + "该合同适用法律" * 9 + " term 0.9", []
    probabilities = extracting._answering.probabilities
    monkeypatch.setattr(extracting._answering, "probabilities", lambda one: asked.append(one) or probabilities(one))
    line = ask(extracting, text)
    assert "".join(asked).replace(" ", "") == text.replace(" ", "") and max(map(len, asked)) <= 64 < 80 and len(asked) > line["passages"]
    assert [(one["label"], one["quote"]) for one in line["clauses"]] == [("term", text.strip())]


def test_what_is_behind_any_length_is_found(extracting, monkeypatch):
    """700,000 characters, of which the last sentence is a clause; some passages at a time, with the same result."""
    text = "Nothing is said here at all, or there. " * 18_000 + "The term 0.97 ends."
    line = ask(extracting, text)
    assert len(text) > 700_000 and [one["quote"] for one in line["clauses"]] == ["The term 0.97 ends."] and line["passages"] > 17_000
    monkeypatch.setattr(extraction, "TOGETHER", 3)
    texts = [CONTRACT, "law 0.9 of old stands here.", CONTRACT]
    assert extracting.answers([Record({"text": one}, "") for one in texts]) == [ask(extracting, one) for one in texts]


def test_another_language_is_told(fake, extracting):
    extracting._languages = ["en"]
    german = "Dieser Vertrag unterliegt dem Recht der Bundesrepublik Deutschland, und der Gerichtsstand ist Berlin. " * 3
    assert "in de" in ask(extracting, german)["remarks"][0] and "remarks" not in ask(extracting, "This agreement is made by both. " * 5)


def test_summary_state_and_page(fake, extracting):
    lines = extracting.answers(
        [Record({"text": CONTRACT, "id": 3}, "a"), Record({"text": " "}, "b"), Record({"text": 5.5}, "c"), Record({}, "d")]
    )
    assert ["error" in line for line in lines] == [False, True, False, True] and lines[0]["id"] == 3
    assert extracting.summary() == {"texts": 2, "passages": lines[0]["passages"] + 1, "clauses": 2, "other_languages": 0}
    kept = json.loads(json.dumps(extracting.state()))
    rows = [one.rows for one in extracting.sections()]
    ask(extracting, CONTRACT)
    assert extracting.summary()["texts"] == 3
    extracting.restore(kept)
    assert [one.rows for one in extracting.sections()] == rows and extracting.summary()["texts"] == 2


@pytest.mark.parametrize("options", [{"precision": 0.0}, {"precision": 1.5}, {"several": False}, {"pair": "other"}])
def test_options(options):
    with pytest.raises(ValueError, match="data"):
        Extraction(**options)


def test_its_columns_are_what_it_reads(extracting):
    check_columns(extracting, {"text": CONTRACT}, dataset=extracting._answering.dataset)
