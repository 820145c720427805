"""Texts found by their words."""

import math
from collections import Counter

import numpy as np
import pytest

from train.apps.bm25 import K1, B, WordIndex
from train.tasks.words import words

TEXTS = ["the cat sat on the mat", "a dog sat", "cats and dogs and cats", "银行卡丢了怎么办", "如何开通网上银行"]


def by_definition(question: str) -> list[float]:
    """Equation 3.15, word by word."""
    counts = [Counter(words(text)) for text in TEXTS]
    mean = sum(count.total() for count in counts) / len(counts)
    found = []
    for count in counts:
        score = 0.0
        for word in words(question):
            have = sum(word in other for other in counts)
            rarity = math.log(1 + (len(TEXTS) - have + 0.5) / (have + 0.5))
            score += rarity * count[word] * (K1 + 1) / (count[word] + K1 * (1 - B + B * count.total() / mean))
        found.append(score)
    return found


@pytest.mark.parametrize("question", ["the cat", "dog dog sat", "银行卡", "nothing here", ""])
def test_scores_are_those_of_the_equation(question):
    assert WordIndex(TEXTS).scores(question) == pytest.approx(by_definition(question))


def test_writing_without_spaces_is_found_by_neighbours():
    index = WordIndex(TEXTS)
    assert np.argmax(index.scores("卡丢了")) == 3 and np.argmax(index.scores("开通网银")) == 4
    assert words("ＣＡＲＤ 银行") == ["card", "银", "行", "银行"]


def test_a_share_is_one_for_the_text_itself_and_falls_with_strange_words():
    texts = [f"question number {number} about {topic}" for number, topic in enumerate(("cards", "loans", "fees", "rates"))]
    index = WordIndex(texts)
    for place, text in enumerate(texts):
        shares = index.shares(text)
        assert shares.argmax() == place and shares[place] > 0.95 and (shares <= 1).all()
    assert index.shares(texts[0] + " with many strange words behind it")[0] < 0.6
    assert not index.shares("?!").any() and not WordIndex([]).shares("cards").size
