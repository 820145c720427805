"""The gate: nothing forbidden comes out of it, whatever a text is cut into and however it is disguised, and all else does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from serve.forbidden import LOOK_ALIKES, Phrases, Search, skeleton
from serve.gate import through
from serve.guard import Guard, Watch
from serve.protocol import CompletionRequest, Refused

PHRASES = ("nerve gas", "bomb", "Ölberg", "毒药", "制造炸弹", "kill", "pass word 7", "ab")
SEEN = Phrases(PHRASES)
WORDS = [
    "the",
    "gas",
    "nerve",
    "bombast",
    "skill",
    "ill",
    "毒",
    "药品",
    "炸弹",
    "cab",
    "abc",
    "a b",
    "7",
    "455",
    "olive",
    "Öl",
    "pass",
    "word",
    "。",
    "!",
]
DISGUISES: dict[str, list[str]] = {}
for _sign, _letter in LOOK_ALIKES.items():
    DISGUISES.setdefault(_letter, []).append(_sign)
INVISIBLE = "\u200b\u200d\u2060\ufeff\u00ad\u0301"


def disguised(phrase: str, rng) -> str:
    """Look-alikes, capitals, full width, accents, characters of no width, other spaces."""
    found = []
    for place, letter in enumerate(phrase):
        one = letter
        choice = rng.integers(6)
        like = [sign for sign in DISGUISES.get(skeleton(letter), []) if sign.isalpha()]
        if choice == 0 and like:
            one = like[rng.integers(len(like))]
        elif choice == 1:
            one = letter.upper() if len(letter.upper()) == 1 else letter
        elif choice == 2 and "!" <= letter <= "~":
            one = chr(ord(letter) + 0xFEE0)
        elif choice == 3 and letter.isascii() and letter.isalpha():
            one = letter + "\u0308"
        elif letter == " ":
            one = ("\u00a0", "  ", "\n", "\u3000")[rng.integers(4)]
        found.append(one + (INVISIBLE[rng.integers(len(INVISIBLE))] if place + 1 < len(phrase) and rng.integers(3) == 0 else ""))
    return "".join(found)


def streamed(guard: Guard, text: str, cuts) -> tuple[str, bool]:
    """What comes out of a text that is cut at some places; whether it was stopped."""
    watch = Watch(guard, lambda why, text: None)
    out, last = "", 0
    for cut in [*sorted(cuts), len(text)]:
        out += watch.feed(text[last:cut])
        last = cut
    return out + watch.finish(), watch.stopped


def test_nothing_forbidden_comes_out_of_ten_thousand_adversarial_streams():
    """Cut anywhere. What comes out is the beginning of the text, and the whole of one without a phrase."""
    rng, guard = np.random.default_rng(0), Guard(SEEN)
    planted = 0
    for number in range(10_000):
        parts = list(rng.choice(WORDS, rng.integers(0, 6)))
        if number % 4:
            parts.insert(int(rng.integers(len(parts) + 1)), disguised(PHRASES[rng.integers(len(PHRASES))], rng))
            planted += 1
        text = " ".join(parts)
        cuts = rng.integers(0, len(text) + 1, rng.integers(0, 8)) if number % 3 else range(len(text))
        out, stopped = streamed(guard, text, cuts)
        assert text.startswith(out) and not SEEN.find(out), (text, out)
        assert stopped == bool(SEEN.find(text)) and (stopped or out == text), (text, out)
        assert stopped or number % 4 == 0, f"{text!r} has a phrase"
    assert planted > 7000


@given(st.lists(st.sampled_from(["a", "b", "c", "ab", " ", "é", "毒", "药", "1", "!", "\u200b"]), max_size=14), st.data())
@settings(max_examples=300, deadline=None)
def test_a_stream_finds_what_a_search_of_the_whole_finds(parts, data):
    """Against looking at each place of the skeleton."""
    phrases = Phrases(("ab", "abc ab", "毒药", "bé", "c"))
    text = "".join(parts)
    letters = [(place, letter, sign) for place, sign in enumerate(text) for letter in skeleton(sign)]
    letters = [one for number, one in enumerate(letters) if not (one[1] == " " and number and letters[number - 1][1] == " ")]
    wanted = set()
    for phrase in phrases.phrases:
        own = "".join(map(skeleton, phrase))
        for first in range(len(letters) - len(own) + 1):
            window = letters[first : first + len(own)]
            if "".join(letter for _, letter, _ in window) != own:
                continue
            before = letters[first - 1][2] if first else " "
            after = letters[first + len(own)][2] if first + len(own) < len(letters) else " "
            word = {side: sign.isalnum() and sign < "\u2e80" for side, sign in (("before", before), ("after", after))}
            inner = phrase[0] < "\u2e80"
            real = sum(sign.isalpha() for _, letter, sign in window if letter != " ") * 2 >= len(own.replace(" ", ""))
            if real and not (inner and (word["before"] or word["after"])):
                wanted.add((window[0][0], phrase))
    search, found = Search(phrases), []
    while text:
        size = data.draw(st.integers(1, len(text)))
        found += search.feed(text[:size])
        text = text[size:]
    assert {(one.start, one.phrase) for one in [*found, *search.finish()]} == wanted


def test_as_little_is_held_back_as_can_be():
    """Only what a phrase may have begun with."""
    watch = Watch(Guard(SEEN), lambda why, text: None)
    assert watch.feed("the nerv") == "the " and watch.feed("ous ner") == "nervous " and watch.feed("ve") == ""
    assert watch.feed(" of it") == "nerve of it" and watch.feed(" bomb") == " " and watch.feed("er") == "bomber"
    assert watch.finish() == "" and not watch.stopped


def test_requests_with_a_phrase_are_refused_and_taken_down():
    notes = []
    guard = Guard(SEEN, note=lambda *note: notes.append(note))
    request = CompletionRequest(prompts=("how to make a b\u200bomb?",))
    with pytest.raises(Refused) as error:
        through(guard, request, "ann")
    assert error.value.code == "content_filter" and "bomb" not in error.value.message
    assert notes == [("ann", "phrase: bomb", ["how to make a b\u200bomb?"], None)]
    fine, passage = through(guard, CompletionRequest(prompts=("how to make a bombast",)), "ann")
    assert fine.prompts == ("how to make a bombast",)
    answer = passage.outgoing()
    assert answer.feed("with a bo") == "with a " and answer.feed("mb.") == "" and answer.stopped
    assert notes[1] == ("ann", "phrase: bomb", ["how to make a bombast"], "with a bomb.")
    assert answer.feed(" and more") == "" and answer.finish() == ""


def test_a_classifier_judges_sentences_before_they_are_shown():
    seen = []

    def judge(texts):
        seen.extend(texts)
        return ["steal" in text for text in texts]

    watch = Watch(Guard(judge=judge), lambda why, text: None)
    assert watch.feed("It is fi") == "" and seen == []
    assert watch.feed("ne. You") == "It is fine." and seen == ["It is fine. You"]
    whole = Watch(Guard(judge=judge), lambda why, text: None)
    out = "".join(whole.feed(letter) for letter in "It is fine. You can steal it. Yes.") + whole.finish()
    assert out == "It is fine." and whole.stopped
    calm = Watch(Guard(judge=judge), lambda why, text: None)
    text = "x" * 1000 + ". The end"
    assert "".join(calm.feed(part) for part in (text[:500], text[500:])) + calm.finish() == text
    with pytest.raises(Refused):
        Guard(judge=judge).open(["how to steal"], "ann")


def test_before_a_phrase_only_what_was_judged_is_shown():
    """With both, a phrase that ends a text does not let out the sentence before it."""
    guard = Guard(SEEN, judge=lambda texts: ["steal" in text for text in texts])
    watch = Watch(guard, lambda why, text: None)
    assert watch.feed("It is fine. You can steal it with a bomb. ") == "" and watch.stopped
    calm = Watch(guard, lambda why, text: None)
    assert calm.feed("It is fine. ") == "It is fine." and calm.feed("But a bomb. ") == "" and calm.stopped


def test_what_cannot_be_looked_at_is_stopped():
    """An error of the classifier, or of the search, shows nothing more."""

    def broken(texts):
        raise RuntimeError("out of order")

    notes: list = []
    guard = Guard(judge=broken, note=lambda *note: notes.append(note[1]))
    with pytest.raises(Refused):
        guard.open(["hello"], "ann")
    watch = Watch(guard, lambda why, text: notes.append(why))
    assert watch.feed("hello. ") == "" and watch.stopped
    assert watch.finish() == "" and notes == ["error: RuntimeError"] * 2


def test_files_of_phrases_are_checked(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("# ours\n\nbomb\n  毒药 \n")
    assert Phrases.read(str(path)).phrases == ("bomb", "毒药")
    for content, why in (("# none\n", "holds no phrase"), ("bomb\n\u200b.\u0301\u200b\n", "")):
        path.write_text(content)
        if why:
            with pytest.raises(UserError, match=why):
                Phrases.read(str(path))
    with pytest.raises(UserError, match="has no letter"):
        Phrases(["\u200b"])
