import random

import pytest

from data.clean.language import languages_of
from data.clean.quality import c4, gopher, repeated_share, top_share, words_in
from data.clean.units import units_of

ENGLISH = "the house of a man that we have seen with his dog to be built on sand and stone by many hands".split()
CHINESE = "的是不了在有和这那我他也就都要为与之天地人山水木火土金日月星风雨雷电花草树鸟鱼虫马牛羊车船桥路城门家国学书画琴棋诗酒茶"


def prose(words=200, seed=0):
    drawn = random.Random(seed)
    rows = [
        " ".join(drawn.choice(ENGLISH) + str(drawn.randrange(50)) * (drawn.random() < 0.4) for _ in range(20)) for _ in range(words // 20)
    ]
    return ".\n".join(rows) + "."


def chinese(characters=300, seed=0):
    drawn = random.Random(seed)
    return "。\n".join("".join(drawn.choice(CHINESE) for _ in range(25)) for _ in range(characters // 25)) + "。"


def judged(text):
    units = units_of([text])
    reason = gopher(text, units, languages_of(units)[0])
    return reason and reason.rule


def test_prose_stays_in_both_kinds_of_script():
    assert judged(prose()) is None
    assert judged(chinese()) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (prose(40), "words"),
        (chinese(50), "words"),
        (prose().replace(" ", ""), "words"),
        (" ".join("internationalization" for _ in range(80)), "word_length"),
        (prose() + " #tag" * 30, "symbols"),
        (chinese() + "……" * 100, "symbols"),
        (prose() + " 12345" * 90, "alphabetic"),
        ("\n".join(f"- {line}" for line in prose().split("\n")), "bullets"),
        (prose().replace(".\n", "...\n"), "ellipses"),
        (" ".join(f"name{number}" for number in range(90)) + " the of", None),
        ("\n".join([prose(40)] * 6), "repeated_lines"),
        (prose(400) + "\n" + "\n".join([prose(400, 1).replace("\n", " ")] * 2), "characters_of_repeated_lines"),
        (prose(100) + " buy it" * 60, "top_2_gram"),
        (chinese(100) + "买买买" * 30, "top_2_gram"),
    ],
)
def test_each_rule_removes_what_it_is_about(text, rule):
    assert judged(text) == rule


def test_a_text_without_the_words_of_its_language_is_no_prose():
    names = " ".join(f"{chr(97 + number % 26)}name{number}" for number in range(90))
    assert judged(names + " of of of") == "stop_words"
    assert judged(names + " of the") is None
    assert judged("".join(chr(0x5000 + number) for number in range(200))) == "stop_words"


def test_long_passages_that_come_again_are_found_where_short_ones_do_not():
    """Words in passages of ten, each passage twice: no 2-gram is common, and all 5- to 10-grams of the second copies are repeated."""
    passages = [" ".join(f"w{place}x{number}" for number in range(12)) for place in range(20)]
    text = " of ".join(passages) + " the " + " and ".join(reversed(passages))
    units = units_of([text])
    assert top_share(units, 2) < 0.05
    assert 0.4 < repeated_share(units, 10) <= repeated_share(units, 5) < 0.51
    assert judged(text) == "repeated_5_grams"


def test_shares_against_counting_by_hand():
    units = units_of(["aa b aa b c aa b"])
    assert top_share(units, 2) == 3 * 3 / 10  # "aa b", three characters, three times
    assert repeated_share(units, 2) == (3 + 3) / 10
    assert repeated_share(units, 3) == 0 and top_share(units_of(["a b c d"]), 2) == 0


def test_pages_are_what_c4_keeps():
    page = "Home | About\nThis is a whole sentence here.\nShort one.\nAnother line that goes on well!\nTurn on JavaScript to see it now.\n"
    assert c4(page + "And is this a third line?", words_in) == (
        "This is a whole sentence here.\nAnother line that goes on well!\nAnd is this a third line?",
        None,
    )
    assert c4(page, words_in)[1] == ("c4_sentences", 2)
    assert c4("if (x) { return; }", words_in)[1] == ("c4_phrase", "{")
    assert c4("Lorem Ipsum dolor sit amet.", words_in)[1] == ("c4_phrase", "lorem ipsum")
    kept, reason = c4("首页\n今天的天气非常好我们去公园。\n大家都说这是一个很好的主意！\n你明天还想再去一次那里吗？\n好。", words_in)
    assert reason is None and kept.count("\n") == 2
    assert c4(kept, words_in) == (kept, None)
