"""The gate: nothing forbidden comes out of it, whatever a text is cut into and however it is disguised, and all else does."""

import re

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
CIRCLED, FULL_WIDTH, BOLD = 0x24D0 - ord("a"), 0xFEE0, 0x1D41A - ord("a")
MARKS = "-._*/~,:·•—、"
"""What may stand between the letters of a word; beside them a space or an apostrophe may, where each letter stands alone."""


def disguised(phrase: str, rng) -> str:
    """Look-alikes of all kinds, capitals, other styles, accents, characters of no width, other spaces, signs between letters. One letter
    stays one: of digits alone would be a number."""
    kept = rng.choice([place for place, letter in enumerate(phrase) if letter.isalpha()])
    found = [disguised_letter(letter, place == kept, rng) for place, letter in enumerate(phrase)]
    letters = [one for one, letter in zip(found, phrase, strict=True) if letter != " "]
    between = ["" for _ in found]
    digits = sum(one[0].isdigit() for one in letters)
    if 2 * digits <= len(letters) and (len(letters) > 2 or not phrase.isascii()):
        inner = [place for place in range(1, len(phrase)) if " " not in phrase[place - 1 : place + 1]]
        if kind := rng.integers(3):
            signs = MARKS + " '’" if kind == 1 else MARKS
            for place in inner if kind == 1 else rng.choice(inner, 1):
                between[place] = signs[rng.integers(len(signs))]
            found = [MARKS[rng.integers(len(MARKS))] if one.isspace() and rng.integers(2) else one for one in found]
    hidden = ["", *(INVISIBLE[rng.integers(len(INVISIBLE))] if rng.integers(3) == 0 else "" for _ in phrase[1:])]
    return "".join(map("".join, zip(hidden, between, found, strict=True)))


def disguised_letter(letter: str, stays: bool, rng) -> str:
    like = [sign for sign in DISGUISES.get(skeleton(letter), []) if sign.isalpha() or not stays]
    if letter == " ":
        return (" ", "\u00a0", "  ", "\n", "\u3000")[rng.integers(5)]
    ways = [letter, letter.upper() if len(letter.upper()) == 1 else letter, *(like[rng.integers(len(like))] for _ in like[:2])]
    if "!" <= letter <= "~":
        ways.append(chr(ord(letter) + FULL_WIDTH))
    if letter.isascii() and letter.isalpha():
        ways += [letter + "\u0308", chr(ord(letter) + CIRCLED), chr(ord(letter) + BOLD)]
    return ways[rng.integers(len(ways))]


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


@pytest.mark.parametrize(
    "text",
    "ⓚⓘⓛⓛ|ｋ１ｌｌ|𝐤𝐢𝐥𝐥|k!11|k111|K1LL!|a$$|@$$|k-ill|ki.ll|k.i.l.l|k i l l|K I\nL L|k_i_l_l|k'i'l'l|k\u200b-i-l-l|k·!·l·l|кіll|"
    "to k-i-l-l it|炸 弹|炸.弹|炸，弹|制造 炸弹|制 造 炸 弹|nerve-gas|n.e.r.v.e g.a.s|ner-ve gas|k!i!l!l|nerve gas".split("|")
    + ["k|i|l|l", "bo|mb"],
)
def test_disguises_are_seen_through(text):
    phrases = Phrases(("kill", "ass", "bomb", "炸弹", "制造炸弹", "nerve gas"))
    assert streamed(Guard(phrases), text, range(len(text))) == ("to " if text.startswith("to ") else "", True)


@pytest.mark.parametrize(
    "text",
    "1111|10.11|11:11|1-1-1|$1.11|1 111|111|455|$455|4:55|4.5.5|A.5.5|!!!|wow !!!|$$|as sure|as s|takes s|as-sure|he'll|he’ll|I'll|skill|"
    "s-kills|ki ll|killer|k. i. l. l.|ⓢⓚⓘⓛⓛ|ＳＫＩＬＬ|𝐬𝐤𝐢𝐥𝐥|𝐚𝐬 𝐬|nervegas|nerve, gas|a b|a.b|a-b|炸。  弹|a·b|9-11|9.11|14-88".split("|"),
)
def test_numbers_and_other_words_are_let_through(text):
    phrases = Phrases(("kill", "ass", "ill", "hell", "ss", "ab", "炸弹", "nerve gas", "liii", "io ii", "911", "1488"))
    assert streamed(Guard(phrases), text, range(len(text))) == (text, False)


PARTS = ["a", "b", "c", "ab", " ", "é", "毒", "药", "4", "@", "1", "!", "-", "'", "\u200b"]
WORD = "[a-cé14]"


def expressions(phrase: str, a: str, mark: str, separator: str) -> list[str]:
    """How a phrase may be written in PARTS, as regular expressions: as it is, with marks within its words, and letter by letter. a: what
    may be an a."""
    words = [[a if letter == "a" else letter for letter in word] for word in phrase.split(" ")]
    whole = [" +".join(map("".join, words))]
    if len(phrase.replace(" ", "")) < 3 and phrase.isascii():
        return whole
    if len(phrase) == 2 and not phrase.isascii() and phrase[0] > "\u2e80":
        return [f"{separator}?".join(phrase)]
    if len(phrase) < 3:
        return whole
    return [*whole, separator.join(f"{mark}?".join(word) for word in words), separator.join(separator.join(word) for word in words)]


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.data())
@settings(max_examples=500, deadline=None)
def test_a_stream_finds_what_expressions_find_in_the_whole(parts, data):
    """The sign @ is an a in one reading, and stands between letters in the other."""
    phrases = Phrases(("ab", "abc ab", "毒药", "bé", "c", "cab"))
    text = "".join(parts)
    visible = [place for place, sign in enumerate(text) if sign != "\u200b"]
    seen, wanted = "".join(text[place] for place in visible), set()
    for phrase in phrases.phrases:
        ways = expressions(phrase, "[a4@]", "-", "(?:[-']| +)") + expressions(phrase, "[a4]", "[-!@]", "(?:[-!@']| +)")
        alone = phrase[0] < "\u2e80"
        for way in ways:
            whole = f"(?<!{WORD}){way}(?!{WORD})" if alone else way
            wanted |= {(visible[found.start()], phrase) for found in re.finditer(f"(?={whole})", seen)}
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
    assert watch.feed(" as b") == " as " and watch.feed(" o") == "" and watch.feed(" is") == "b o is"
    assert watch.feed(" k.i.") == " " and watch.feed(" l") == "k.i. l" and watch.finish() == "" and not watch.stopped


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


def test_what_is_made_of_an_answer_is_looked_at_too():
    notes: list = []
    watch = Watch(Guard(SEEN, judge=lambda texts: ["steal" in text for text in texts]), lambda *note: notes.append(note))
    assert watch.passes(["bombast", ""]) and not watch.stopped
    assert not watch.passes(["fine", "a b-omb"]) and watch.stopped and watch.feed("more") == ""
    assert not watch.passes(["steal"]) and notes == [("phrase: bomb", "fine\na b-omb"), ("classifier", "steal")]


def test_an_answer_goes_on_with_its_prompt():
    """Found from the prompt on, and by itself; each answer to a prompt goes on with it anew."""
    _, passage = through(Guard(SEEN), CompletionRequest(prompts=("how to make a bo",)), "ann")
    for _ in range(2):
        answer = passage.outgoing_after("how to make a bo")
        assert answer.feed("m") == "" and answer.feed("b.") == "" and answer.stopped
        answer = passage.outgoing_after("how to make a bo")
        assert answer.feed("m") == "" and answer.feed("bast, ") == "mbast, " and answer.feed("a bomb. ") == "a " and answer.stopped
    alone = passage.outgoing_after("s")
    assert alone.feed("kill them") == "" and alone.stopped
    assert passage.outgoing().feed("mb. ") == "mb. "


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
