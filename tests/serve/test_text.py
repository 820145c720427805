"""What is sent is the text, once and in order, and nothing of a stop string, however tokens cut it."""

from hypothesis import given
from hypothesis import strategies as st

from serve.text import TextWriter

PIECES = [bytes([byte]) for byte in range(256)] + [b"the ", b"stop", b" st", b"op", "é".encode(), "汉".encode(), b"\xe6\xb1", b"\n\n"]
END = len(PIECES)


def written(ids, stops=(), size=1, tokens=True):
    """(text, pieces of it, whether a stop string came, tokens shown, tokens counted), in calls of some tokens."""
    writer, calls = TextWriter(PIECES, stops, frozenset({END}), tokens), [ids[begin : begin + size] for begin in range(0, len(ids), size)]
    shown = [*(writer.feed(call, [0.0] * len(call)) for call in calls), writer.finish()]
    tokens = [token.id for one in shown for token in one.tokens]
    return "".join(one.text for one in shown), [one.text for one in shown], any(one.ended for one in shown), tokens, writer.count


def decoded(some):
    return b"".join(PIECES[i] for i in some if i != END).decode("utf-8", "replace")


ids = st.lists(st.integers(0, END), max_size=30)


@given(ids, st.integers(1, 9))
def test_the_joined_pieces_are_the_whole_text(some, size):
    text, _, ended, tokens, count = written(some, size=size)
    assert text == decoded(some) and not ended
    assert count == len(some)
    assert decoded(tokens) == text


@given(ids, st.lists(st.text("stop hé\n", min_size=1, max_size=5), min_size=1, max_size=3), st.integers(1, 9))
def test_a_text_ends_before_its_first_stop_string_wherever_tokens_cut_it(some, stops, size):
    whole = decoded(some)
    text, _, ended, _, count = written(some, stops, size)
    places = [whole.find(stop) for stop in stops if stop in whole]
    assert ended == bool(places)
    # The stop string that is complete first ends it: another that begins earlier may not be complete yet.
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    if not places:
        assert text == whole and count == len(some)
    else:
        assert whole.startswith(text) and any(whole[len(text) :].startswith(stop) for stop in stops)
        assert len(text) <= min(ends)
    assert not any(stop in text for stop in stops)


@given(ids, st.lists(st.text("stop ", min_size=1, max_size=5), max_size=2))
def test_how_many_tokens_come_at_once_changes_nothing(some, stops):
    one = written(some, stops, 1)
    for size in (2, 7, 30):
        text, pieces, ended, tokens, count = written(some, stops, size)
        assert (text, ended, tokens, count) == (one[0], one[2], one[3], one[4])
        text, alone, ended, _, count = written(some, stops, size, tokens=False)
        assert (text, alone, ended, count) == (one[0], pieces, one[2], one[4])


def test_only_what_may_begin_a_stop_string_is_held_back():
    writer = TextWriter(PIECES, ("stop!",))
    assert writer.feed([*b"hello "], [0.0] * 6).text == "hello "
    assert writer.feed([*b"sto"], [0.0] * 3).text == ""
    assert writer.feed([*b"rm"], [0.0] * 2).text == "storm"
    assert writer.feed([*b" s"], [0.0] * 2).text == " "
    assert writer.finish().text == "s"


def test_a_character_is_sent_once_it_is_whole():
    writer = TextWriter(PIECES)
    first, *rest = "汉".encode()
    assert writer.feed([first], [-1.0]).tokens == ()
    shown = writer.feed(rest, [-2.0] * len(rest))
    assert shown.text == "汉" and [token.log_prob for token in shown.tokens] == [-1.0, -2.0, -2.0]
    assert TextWriter(PIECES).feed([first], [-1.0]).text == ""


def test_a_text_that_ends_inside_a_character_says_so():
    assert written([*b"a", 0xE6])[0] == "a\ufffd"


def test_an_end_is_no_text_but_is_counted():
    text, _, ended, tokens, count = written([*b"ab", END])
    assert (text, ended, tokens, count) == ("ab", False, [97, 98], 3)
