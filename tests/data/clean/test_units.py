import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.clean.units import NAMES, folded, hash_windows, plain, units_of, windows

TEXTS = ["Hello, World!", "", "买viagra吧，北京", "!!!", "a b c d e f g", "ｈｅｌｌｏ\u200b WORLD"]


def test_units_are_words_and_characters_of_scripts_without_spaces():
    units = units_of(TEXTS)
    assert units.counts.tolist() == [2, 0, 5, 0, 7, 2]
    assert units.lengths.tolist() == [5, 5, 1, 6, 1, 1, 1, *[1] * 7, 5, 5]
    assert [NAMES[script] for script in units.of(2).scripts] == ["han", "latin", "han", "han", "han"]
    assert np.array_equal(units.of(0).hashes, units.of(5).hashes)  # width, case and characters of no width do not count
    assert len(set(units.hashes.tolist())) == 2 + 5 + 7


@given(st.lists(st.text(alphabet="ab 京，é\n", max_size=12), max_size=8))
def test_a_text_has_the_same_units_in_any_company(texts):
    together = units_of(texts)
    for number, text in enumerate(texts):
        alone = units_of([text])
        assert np.array_equal(together.of(number).hashes, alone.hashes)
        assert np.array_equal(together.of(number).lengths, alone.lengths)


@pytest.mark.parametrize("shorter", [False, True])
def test_windows_never_reach_over_the_end_of_a_text(shorter):
    """Against windows of words joined by hand: equal hashes where, and only where, these are equal."""
    texts = ["a b c a b", "a b", "", "b c a b c", "x"]
    values, counts = windows(units_of(texts), 3, shorter=shorter)
    expected = []
    for text in texts:
        words = text.split()
        size = min(3, len(words)) if shorter else 3
        expected.append([tuple(words[at : at + size]) for at in range(len(words) - size + 1)] if words else [])
    assert counts.tolist() == [len(part) for part in expected]
    flat = sum(expected, [])
    assert len(set(values.tolist())) == len(set(flat)) == len(set(zip(values.tolist(), flat, strict=True)))


def test_hashes_of_windows_do_not_depend_on_the_place(monkeypatch):
    """Over several blocks, and with long gaps between windows."""
    values = np.tile(np.arange(1, 1001, dtype=np.uint64), 300)
    hashes = hash_windows(values, np.arange(0, 299_000, 1000), 50)
    assert len(set(hashes.tolist())) == 1
    assert len(set(hash_windows(values, np.arange(950), 50).tolist())) == 950


def test_what_exact_copies_may_differ_in():
    assert plain("a  b\n c ") == plain("ａ b c") == "a b c"
    assert plain("A") != plain("a") and folded("A") == folded("ａ")
