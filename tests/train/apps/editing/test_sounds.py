"""How characters sound, and what is put in whose place."""

import gc
import weakref

import numpy as np
import pytest

from train.apps.editing.sounds import SYLLABLES, Confusions, alike, blurred, number_of, syllables, toned

pytest.importorskip("pypinyin")


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("他", "她", "same"),
        ("是", "四", "near"),
        ("女", "旅", "near"),
        ("湖", "服", "near"),
        ("今", "京", "near"),
        ("天", "人", ""),
        ("a", "a", ""),
    ],
)
def test_what_sounds_alike(one, other, found):
    assert alike(one, other) == alike(other, one) == found


def test_letters_have_no_sound():
    assert alike("a", "a") == "" and syllables("a") == ()


def test_a_character_of_two_readings_sounds_like_either():
    assert {"xing", "hang"} <= {*syllables("行")} and alike("行", "航") == alike("行", "形") == "same"


def test_tones_tell_apart_what_sounds_the_same():
    assert toned("妈") != toned("马") and toned("他") == toned("她") and alike("妈", "马") == "same"


def test_each_syllable_has_a_number_of_its_own():
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    numbers = {syllables(one)[0]: number_of(one) for one in characters if syllables(one)}
    known = {syllable: number for syllable, number in numbers.items() if number}
    assert len({*known.values()}) == len(known) and max(known.values()) < SYLLABLES
    assert len(known) > 0.99 * len(numbers)
    assert number_of("a") == number_of("，") == 0


def test_blurring_twice_is_blurring_once():
    for syllable in ("zhang", "nv", "hui", "fu", "sheng", "ling"):
        assert blurred(blurred(syllable)) == blurred(syllable)


def test_confusions_live_no_longer_than_they_are_held():
    """They hold whatever they are of."""
    made = Confusions({"他": 100, "她": 50}, {})
    assert made.of("他") is made.of("他")
    seen = weakref.ref(made)
    del made
    gc.collect()
    assert seen() is None


def test_others_are_drawn_that_there_are_and_sound_alike_or_were_written():
    made = Confusions({"他": 100, "她": 50, "塔": 1, "天": 100, "大": 100, "人": 9}, {("大", "他"): 2, ("无", "他"): 5})
    draw = np.random.default_rng(0)
    drawn = [made.drawn("他", draw) for _ in range(400)]
    assert {*drawn} == {"她", "塔", "大"}  # 无 is no character that there is
    assert drawn.count("她") > drawn.count("塔") and 0.2 < drawn.count("大") / 400 < 0.4
    assert made.drawn("人", draw) == "人" and made.drawn("，", draw) == "，"
