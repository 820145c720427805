import pytest

from data.clean.forbidden import ForbiddenWords
from data.clean.units import units_of
from data.errors import UserError


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.txt").write_text("ass\nVery Bad\n赌博\n\nviagra\n")
    return ForbiddenWords(str(tmp_path / "words.txt"))


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("You ASS!", "ass"),
        ("a class of bass", None),
        ("it is very, bad", "Very Bad"),
        ("very goodbad", None),
        ("网上赌博网站", "赌博"),
        ("赌 博", "赌博"),
        ("打赌的博士", None),
        ("买ｖｉａｇｒａ吧", "viagra"),
        ("v\u200biagra", "viagra"),
        ("", None),
    ],
)
def test_entries_are_found_however_they_are_written(words, text, entry):
    assert words.find(units_of(["before", text, "after"])) == ({1: entry} if entry else {})


def test_a_text_never_continues_in_the_next(words):
    assert words.find(units_of(["very", "bad", "赌", "博"])) == {}


@pytest.mark.parametrize("content", ["", "\n\n", "good\n!!!\n"])
def test_a_list_must_have_words(content, tmp_path):
    (tmp_path / "words.txt").write_text(content)
    with pytest.raises(UserError, match="no word|no letter"):
        ForbiddenWords(str(tmp_path / "words.txt"))
