"""What is hidden in letters of other scripts is read, and what is written in them stays."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.apps.reading.lookalikes import LOOKALIKES, undisguised


@pytest.mark.parametrize(
    "text, read",
    [
        ("FRЕЕ рrіzе", "FREE prize"),
        ("Сору that", "Copy that"),
        ("Сору", "Сору"),
        ("рос оса", "рос оса"),
        ("w\u200bi\u200dn", "win"),
        ("ＦＲＥＥ 𝐩𝐫𝐢𝐳𝐞", "FREE prize"),
        ("Я люблю чай", "Я люблю чай"),
        ("She met Саша and Борис at noon", "She met Саша and Борис at noon"),
        ("λόγος καὶ ἔργον", "λόγος καὶ ἔργον"),
        ("café, naïve, Straße", "café, naïve, Straße"),
        ("恭喜您中奖了 call nоw", "恭喜您中奖了 call now"),
        ("", ""),
    ],
)
def test_a_text_is_read_as_it_looks(text, read):
    assert undisguised(text) == read


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40), st.randoms(use_true_random=False))
def test_any_disguise_of_latin_letters_is_taken_off(text, random):
    back: dict[str, list[str]] = {}
    for other, letter in LOOKALIKES.items():
        back.setdefault(chr(letter) if isinstance(letter, int) else letter, []).append(chr(other))
    hidden = "".join(random.choice([letter, *back.get(letter, [])]) for letter in text)
    assert undisguised(f"{hidden} x") == f"{text} x"


def test_only_single_letters_of_two_scripts_are_taken_for_latin_ones():
    for other, letter in LOOKALIKES.items():
        assert unicodedata.name(chr(other)).split()[0] in ("CYRILLIC", "GREEK") and chr(int(letter)).isascii()
