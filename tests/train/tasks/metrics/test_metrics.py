"""Entities, spans, texts, rankings, numbers and programs, against what the definitions give by hand."""

import itertools
import math
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from train.tasks.metrics.entities import entity_scores
from train.tasks.metrics.programs import pass_at_k, program_scores
from train.tasks.metrics.ranking import ranking_scores
from train.tasks.metrics.regression import regression_scores
from train.tasks.metrics.scores import LOWER_IS_BETTER, Additive
from train.tasks.metrics.spans import span_scores
from train.tasks.metrics.texts import text_scores


def check_measures(scores):
    """The values that intervals vary are those that are given, of all examples once."""
    for name, one in scores.measures.items():
        value = one.of(one.parts_NP.sum(0)[None])[0] if isinstance(one, Additive) else one.of(np.arange(one.examples))
        assert value == pytest.approx(scores.values[name], nan_ok=True), name


# ------------------------------------------------------------------------------------------------------------------ entities


def entities_of(tags):
    """{(start, end, type)} of tags in IOB2, by its definition."""
    found = set()
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(tags) and tags[end] == "I" + tag[1:]:
                end += 1
            found.add((start, end, tag[2:]))
    return found


TAGS = st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6), min_size=1, max_size=4))
def test_entities_are_right_with_both_ends_and_the_type(rows):
    """Of any tags: those that no B- begins are no entities."""
    truth, predicted = ([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    sides = [{(number, *one) for number, tags in enumerate(side) for one in entities_of(tags)} for side in (truth, predicted)]
    hits, true, given_ = len(sides[0] & sides[1]), len(sides[0]), len(sides[1])
    expected = {"precision": hits / max(given_, 1), "recall": hits / max(true, 1), "f1": 2 * hits / max(given_ + true, 1)}
    pairs = list(itertools.chain(*rows))
    expected["token_accuracy"] = sum(a == b for a, b in pairs) / len(pairs)
    scores = entity_scores(truth, predicted)
    check_measures(scores)
    assert scores.values == pytest.approx(expected)
    assert {row["type"]: row["count"] for row in scores.tables["per_type"]} == {
        kind: sum(one[-1] == kind for one in sides[0]) for kind in {one[-1] for one in sides[0] | sides[1]}
    }


# --------------------------------------------------------------------------------------------------------------------- spans


@pytest.mark.parametrize(
    "given_, true, language, exact, f1",
    [
        ("The  Cat!", ["cat"], "en", 1, 1),
        ("the black cat", ["cat", "a white cat"], "en", 0, 2 / 3),
        ("cat cat", ["cat sat"], "en", 0, 0.5),
        ("the cat", ["cat"], "de", 0, 2 / 3),
        ("", ["cat"], "en", 0, 0),
        ("", [], "en", 1, 1),
        ("cat", [], "en", 0, 0),
        ("the", ["a"], "en", 1, 1),
        ("北京大学", ["北京。"], "zh", 0, 2 * 2 / 6),
        ("《北京》 2008", ["北京2008"], "zh", 1, 1),
        ("大人", ["人大"], "zh", 0, 1),
    ],
)
def test_answers_share_words_or_characters(given_, true, language, exact, f1):
    values = span_scores([true], [given_], language).values
    assert [values["exact"], values["f1"]] == pytest.approx([exact, f1])


def test_questions_without_an_answer_are_a_part_of_their_own():
    scores = span_scores([["cat"], ["cat"], []], ["cat", "", "dog"])
    expected = {"exact": 1 / 3, "f1": 1 / 3, "no_answer_accuracy": 0, "has_answer_exact": 0.5, "has_answer_f1": 0.5}
    check_measures(scores)
    assert scores.values == pytest.approx(expected) and set(span_scores([["a"]], ["a"]).values) == {"exact", "f1"}


# --------------------------------------------------------------------------------------------------------------------- texts

SENTENCES = {"en": "the cat sat on the mat today", "de": "über große Bäume läuft früh der Fuchs", "zh": "小猫今天坐在垫子上面睡觉"}
MEASURES = ("bleu", "chrf", "rouge", "wer", "cer", "exact", "contains")


@pytest.mark.parametrize("language", SENTENCES)
def test_the_true_text_is_perfect_and_another_is_not(language, monkeypatch):
    """Without a network, in any alphabet, and also where there is another reference."""
    monkeypatch.setattr(socket, "socket", None)
    text = SENTENCES[language]
    names = [name for name in MEASURES if (language, name) != ("zh", "wer")]
    for references in ([text], [text[::-1], text]):
        best, other = (text_scores([references], [given_], names, language).values for given_ in (text, text[: len(text) // 2]))
        for name, value in best.items():
            assert value == pytest.approx(0 if name in LOWER_IS_BETTER else 100 if name in ("bleu", "chrf") else 1)
            assert (other[name] > value) == (name in LOWER_IS_BETTER) and other[name] != value


def test_summaries_share_words_pairs_and_an_order():
    """Units a b c d against a c b: 3 of 4 and 3; no pair; the longest common order is 2."""
    for language, text, true in (("en", "ax bx cx dx", "ax cx bx"), ("de", "ä b ç d", "ä ç b"), ("zh", "天地人和", "天人地")):
        values = text_scores([[true]], [text], ["rouge"], language).values
        assert values == pytest.approx({"rouge1": 6 / 7, "rouge2": 0, "rougeL": 4 / 7})


def test_bleu_says_how_it_was_computed():
    table = {row["metric"]: row["signature"] for row in text_scores([["小猫"]], ["小猫"], ["bleu", "chrf"], "zh").tables["signatures"]}
    assert "tok:zh" in table["bleu"] and "version:" in table["bleu"] and "nc:6" in table["chrf"]
    assert "tok:13a" in text_scores([["a"]], ["a"], ["bleu"]).tables["signatures"][0]["signature"]


def test_what_adds_up_is_what_is_given():
    """Of texts of any length, of several references, and not as many of each."""
    rng = np.random.default_rng(0)
    make = lambda: " ".join(rng.choice(list("abc"), rng.integers(1, 9)))  # noqa: E731
    references = [[make() for _ in range(rng.integers(1, 4))] for _ in range(12)]
    scores = text_scores(references, [make() for _ in references], MEASURES)
    check_measures(scores)
    assert set(scores.measures) == set(scores.values) and 0 < scores.values["bleu"] < 100


def test_error_rates_are_edits_over_what_was_said():
    rates = lambda true, given_, name, language="en": text_scores(true, given_, [name], language).values[name]  # noqa: E731
    assert rates([["a b c d"], [""]], ["a x c", "y"], "wer") == pytest.approx(3 / 4)
    assert rates([["x y", "a b c d"]], ["a b c"], "wer") == pytest.approx(1 / 4)  # of the nearest reference
    assert rates([["小猫咪"]], ["小 狗"], "cer", "zh") == pytest.approx(2 / 3)
    assert math.isnan(rates([[""]], [""], "wer"))
    assert rates([["c", "a b"], ["A"]], [" a  b", "a"], "exact") == 0.5
    assert rates([["c", "b d"], ["A"]], ["a b  d.", "a"], "contains") == 0.5
    with pytest.raises(UserError, match="Take cer"):
        rates([["小"]], ["小"], "wer", "zh")


# ------------------------------------------------------------------------------------------------------------------- numbers


def test_numbers_follow_their_definitions():
    rng = np.random.default_rng(0)
    true, given_ = rng.integers(0, 5, 40), rng.normal(2, 2, 40)
    scores = regression_scores(true, given_)
    values = scores.values
    check_measures(scores)
    rank = lambda x: np.array([(x < one).sum() + ((x == one).sum() - 1) / 2 for one in x])  # noqa: E731
    assert values["pearson"] == pytest.approx(np.corrcoef(true, given_)[0, 1])
    assert values["spearman"] == pytest.approx(np.corrcoef(rank(true), rank(given_))[0, 1])
    assert values["rmse"] == pytest.approx(np.sqrt(((true - given_) ** 2).mean()))
    assert values["mae"] == pytest.approx(abs(true - given_).mean())
    grades = np.clip(np.rint(given_), 0, 4)
    by_chance = ((true[:, None] - grades[None]) ** 2).mean()
    assert values["quadratic_kappa"] == pytest.approx(1 - ((true - grades) ** 2).mean() / by_chance)  # Cohen 1968
    assert "quadratic_kappa" not in regression_scores([0.5, 1], [1, 2]).values


def test_constant_numbers_have_no_correlation():
    values = regression_scores([3, 3], [1.0, 2.0]).values
    assert math.isnan(values["pearson"]) and math.isnan(values["spearman"]) and "quadratic_kappa" not in values
    assert regression_scores([3], [1]).values["mae"] == 2


# ------------------------------------------------------------------------------------------------------------------- ranking


def test_rankings_follow_their_definitions():
    ranked, relevant = [[5, 1, 2], [3, 0, 4]], [{1, 2, 7}, {3}]
    vectors = np.zeros((8, 3))
    vectors[[5, 3], 0] = vectors[[1, 0], 1] = vectors[[2, 4], 2] = 2.0  # each list: three that have nothing in common
    scores = ranking_scores(relevant, ranked, items=8, ks=(1, 3), vectors=vectors)
    values = scores.values
    check_measures(scores)
    gain = [1 / math.log2(place + 1) for place in (1, 2, 3)]
    assert values == pytest.approx(
        {
            "recall@1": 0.5,
            "ndcg@1": 0.5,
            "mrr@1": 0.5,
            "recall@3": (2 / 3 + 1) / 2,
            "ndcg@3": ((gain[1] + gain[2]) / sum(gain) + 1) / 2,
            "mrr@3": 0.75,
            "coverage@1": 2 / 8,
            "coverage@3": 6 / 8,
            "diversity@3": 1,
        }
    )
    assert ranking_scores(relevant, ranked, ks=(3,), vectors=np.ones((8, 2))).values["diversity@3"] == pytest.approx(0)
    for bad in (([{1}], [[1, 1]]), ([set()], [[1]])):
        with pytest.raises(ValueError, match="twice"):
            ranking_scores(*bad)


# ------------------------------------------------------------------------------------------------------------------ programs


@given(samples=st.integers(1, 9), data=st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_program(samples, data):
    """Over all draws of k of the samples."""
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(itertools.combinations(range(samples), k))
    assert pass_at_k(samples, correct, k) == pytest.approx(sum(min(draw) < correct for draw in draws) / len(draws))


def test_pass_at_k_is_given_where_all_tasks_have_samples_enough():
    assert program_scores([(10, 10), (5, 0)], ks=(1, 5, 10)).values == {"pass@1": 0.5, "pass@5": 0.5}
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)
