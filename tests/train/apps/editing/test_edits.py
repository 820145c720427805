"""Edits lead from one text to the other, and what they do not touch stays as it is."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from train.apps.editing.edits import CHARACTER, WORD, Comparison, Edit, is_spaced, natural

PIECES = ["a", "b", "don't", "It", "'s", " ", "  ", "\n", ".", ",", "-", "是", "é", "(", "10"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def words(text: str) -> list[str]:
    return WORD.findall(text)


@given(TEXTS, TEXTS, st.sampled_from([WORD, CHARACTER]))
def test_all_edits_give_the_other_text_and_none_the_text_itself(text, other, units):
    comparison = Comparison(text, other, units)
    assert re.sub(r"\s", "", comparison.applied(lambda edit: True)) == re.sub(r"\s", "", other)
    assert comparison.applied(lambda edit: False) == text or not words(text)
    for edit in comparison.edits:
        assert text[edit.start : edit.end] == edit.old and other[edit.begin : edit.stop] == edit.new
        assert edit.old != edit.new


@given(st.lists(st.sampled_from(["a", "b", "cat", "9"]), min_size=1, max_size=8), st.data())
def test_edits_that_are_not_accepted_leave_their_words(text, data):
    other = data.draw(st.lists(st.sampled_from(["a", "b", "dog"]), max_size=8))
    comparison = Comparison(" ".join(text), " ".join(other))
    taken = {edit for edit in comparison.edits if data.draw(st.booleans())}
    at, parts = 0, []
    for edit in comparison.edits:  # by places alone, spaces apart
        if edit in taken:
            parts += [" ".join(text)[at : edit.start], " ", edit.new, " "]
            at = edit.end
    assert comparison.applied(taken.__contains__).split() == "".join([*parts, " ".join(text)[at:]]).split()


@pytest.mark.parametrize(
    ("text", "other", "made"),
    [
        ("He go  home .", "He goes home, now.", "He goes  home , now ."),
        ("He go  home.", "He goes home, now.", "He goes  home, now."),
        ("I do n't know .", "I don't know", "I do n't know"),
        ("is it", "Well, is it?", "Well, is it?"),
        ("a non biological thing", "a non-biological thing", "a non-biological thing"),
        ("\tthe the end\n", "the end", "\tthe end\n"),
        ("It was very good", "It was excellent.", "It was excellent."),
        ("It was, yes, good", "It was rather good", "It was rather good"),
        ("因为我有事情阿！", "因为我有事情啊！", "因为我有事情啊！"),
    ],
)
def test_spaces_are_those_of_the_text(text, other, made):
    units = CHARACTER if "我" in text else WORD
    assert Comparison(text, other, units).applied(lambda edit: True) == made


def test_as_many_words_for_as_many_are_single_edits():
    assert [(one.old, one.new) for one in Comparison("he have cats", "she has cats").edits] == [("he", "she"), ("have", "has")]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (".", "!", "punctuation"),
        ("", ",", "punctuation"),
        ("i", "I", "case"),
        ("", "the", "missing"),
        ("the", "", "extra"),
        ("goed", "goes", "form"),
        ("went", "is", "wording"),
        ("go to", "go too", "wording"),
    ],
)
def test_kinds(old, new, kind):
    assert Edit(0, 0, old, new, 0, 0).kind == kind


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It 's ( not ) so , he said .", "It's (not) so, he said."),
        ("do n't go .", "don't go."),
        ("It is 3 .5 and $ 5", "It is 3 .5 and $ 5"),
        ("Plain text, as it is.", "Plain text, as it is."),
    ],
)
def test_words_and_marks_that_were_parted_come_together(text, found):
    assert natural(text) == found and words(natural(text)) == words(text)
    assert not is_spaced(natural(text))
