"""How much texts differ, by what can be counted by hand."""

import math

import numpy as np
import pytest

from train.tasks.metrics.diversity import distinct, longest_copy, mauve, repeats, self_bleu


def test_distinct():
    assert distinct(["abab"], 2) == 2 / 3 and distinct(["ab", "ab"], 2) == 0.5 and distinct(["ab", "cd"], 2) == 1
    assert math.isnan(distinct(["a"], 2))


def test_self_bleu():
    same = [["the", "cat", "sat", "on", "it"]] * 3
    assert self_bleu(same) == pytest.approx(100)
    assert self_bleu([list("abcdefgh"), list("ijklmnop")]) < 20 and math.isnan(self_bleu(same[:1]))


@pytest.mark.parametrize(("times", "found"), [(3, False), (4, True)])
def test_repeats(times, found):
    words = [word for number in range(times) for word in ("a", "b", "c", "d", str(number))]
    assert repeats(words) is found
    assert not repeats([str(number) for number in range(200)] + words * 9)


@pytest.mark.parametrize(("text", "found"), [("xabcdx", 4), ("abcdef", 6), ("fedcba", 0), ("ab", 2), ("a", 0), ("zzab", 3), ("cdabc", 3)])
def test_longest_copy(text, found):
    assert longest_copy(text, ["abcdef", "zab"]) == found


def test_longest_copy_is_what_a_slow_search_finds():
    rng = np.random.default_rng(0)
    for _ in range(30):
        text, known = "".join(rng.choice(list("ab"), 12)), ["".join(rng.choice(list("ab"), 15)) for _ in range(2)]
        parts = [text[a:b] for a in range(12) for b in range(a + 2, 13) if any(text[a:b] in other for other in known)]
        assert longest_copy(text, known) == max(map(len, parts), default=0)


def test_mauve_is_one_for_the_same_and_falls_with_distance():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(80, 4))
    found = [mauve(rng.normal(size=(80, 4)) + shift, true) for shift in (0.0, 1.0, 6.0)]
    assert found[0] > 0.8 and found[0] > found[1] > found[2] and found[2] < 0.1
    assert mauve(true, true) == pytest.approx(1.0, abs=0.02)
    assert mauve(true * 0 + 1, true) < found[0]  # one text over and over
