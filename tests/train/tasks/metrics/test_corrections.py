"""GLEU, edits and sentences against slow or closed forms."""

import math
import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from train.tasks.metrics.corrections import edit_scores, gleu, sentence_scores

SENTENCE = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join)


def slow_gleu(sources, references, predicted, draws=2000) -> float:
    """As their program counts it: one reference for each sentence, drawn anew each time."""

    def grams(text, n):
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    rng, scores = random.Random(0), []
    for _ in range(draws):
        counted, there, short, long = [0] * 4, [0] * 4, 0, 0
        for source, own, text in zip(sources, references, predicted, strict=True):
            reference = rng.choice(own)
            short += len(reference.split())
            long += len(text.split())
            for n in range(1, 5):
                h, r, s = grams(text, n), grams(reference, n), grams(source, n)
                shared = sum(min(count, r[gram]) for gram, count in h.items())
                kept = sum(min(count, s[gram]) for gram, count in h.items() if gram not in r)
                counted[n - 1] += max(shared - kept, 0)
                there[n - 1] += max(len(text.split()) + 1 - n, 0)
        if 0 in counted:
            scores.append(0.0)
        else:
            precision = math.exp(sum(math.log(a / b) for a, b in zip(counted, there, strict=True)) / 4)
            scores.append(100 * precision * math.exp(min(0, 1 - short / long)))
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(SENTENCE, SENTENCE, SENTENCE), min_size=1, max_size=4))
def test_gleu_of_one_reference_is_theirs(rows):
    sources, references, predicted = map(list, zip(*rows, strict=True))
    found = gleu(sources, [[one] for one in references], predicted).values["gleu"]
    assert found == pytest.approx(slow_gleu(sources, [[one] for one in references], predicted, 1))


def test_gleu_of_several_references_is_near_the_mean_over_draws():
    rng = random.Random(1)
    words = "the cat sat on a mat and it was warm".split()
    rows = [[rng.choice(words) for _ in range(12)] for _ in range(60)]

    def changed(row):
        return " ".join(word if rng.random() < 0.85 else rng.choice(words) for word in row)

    sources, predicted = [changed(row) for row in rows], [changed(row) for row in rows]
    references = [[" ".join(row), changed(row)] for row in rows]
    assert gleu(sources, references, predicted).values["gleu"] == pytest.approx(slow_gleu(sources, references, predicted, 300), abs=0.2)


def test_gleu_rewards_what_people_did_and_not_what_they_undid():
    source, reference = ["he go to the school today with all of us"], [["he goes to school today with all of us"]]
    texts = (reference[0][0], source[0], "he went to school today with all of us")
    right, kept, other = (gleu(source, reference, [text]).values["gleu"] for text in texts)
    assert right == pytest.approx(100) and kept < other < right


def test_edits():
    proposed, true = [{1, 2}, set(), {5}], [[{1}, {9}], [set()], [{5, 6, 7}]]
    found = edit_scores(proposed, true).values
    assert found == pytest.approx({"edit_precision": 2 / 3, "edit_recall": 0.5, "edit_f0.5": 1.25 * (2 / 3) * 0.5 / (0.25 * 2 / 3 + 0.5)})
    nothing = edit_scores([set()], [[{1}]]).values
    assert nothing == {"edit_precision": 1.0, "edit_recall": 0.0, "edit_f0.5": 0.0}


def test_edits_are_held_against_the_reference_that_suits_best():
    assert edit_scores([{1}], [[{1, 2, 3}, {1}]]).values["edit_f0.5"] == 1.0


def test_sentences():
    sources, targets = ["a", "b", "c", "d", "e"], ["a", "B", "C", "D", "e"]
    found = sentence_scores(sources, targets, ["a", "B", "X", "d", "E"])
    assert found.values == pytest.approx({"sentence_precision": 1 / 3, "sentence_recall": 1 / 3, "sentence_f1": 1 / 3, "spoiled": 0.5})
    assert np.isnan(sentence_scores(["a"], ["a"], ["a"]).values["sentence_f1"])
