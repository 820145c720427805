"""Rules of quality: Gopher's for documents and repetition (Rae et al. 2021, table A1), and C4's for pages (Raffel et al. 2020, 2.2).

Where scripts write no spaces, a unit is a character (data/clean/units.py). A word is about 1.6 of those: there the rules count 1.6 times
as many, and those on the length of words do not apply. The rule on stop words applies to the languages whose words we know.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.clean.language import CHINESE, WORDS, Guess
from data.clean.units import SPACELESS, Units, hash_windows


class Reason(NamedTuple):
    """Why a document is removed. value: what was measured."""

    rule: str
    value: float | str


LEAST_WORDS, MOST_WORDS = 50, 100_000
WORD_LENGTH = (3.0, 10.0)
CHARACTERS_OF_A_WORD = 1.6  # of Chinese
MOST_SYMBOLS = 0.1  # hash signs or ellipses for each word
MOST_BULLETS, MOST_ELLIPSES = 0.9, 0.3  # of lines that begin or end so
LEAST_ALPHABETIC = 0.8  # of words have a letter
LEAST_STOP_WORDS = 2  # different ones
STOP_WORDS = {"en": frozenset("the be to of and that have with".split())}
"""Those that Gopher names. In other languages: the commonest, from data/clean/language.py."""
MOST_REPEATED = {"lines": 0.3, "paragraphs": 0.3}
MOST_REPEATED_CHARACTERS = {"lines": 0.2, "paragraphs": 0.2}
MOST_OF_TOP = {2: 0.2, 3: 0.18, 4: 0.16}
MOST_OF_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}

_BULLETS = ("•", "‣", "◦", "▪", "●", "*", "-", "·", "・")
_ELLIPSES = ("...", "…")
_ALPHABETIC = re.compile(r"[^\W\d_]")


def gopher(text: str, units: Units, guess: Guess) -> Reason | None:
    """The first rule of Gopher that a text breaks."""
    spaceless = is_spaceless(units)
    return _words(text, units, spaceless) or _lines(text) or _stop_words(text, guess) or _repetition(text, units, spaceless)


def is_spaceless(units: Units) -> bool:
    """Whether most of a text is in scripts that write no spaces."""
    return bool(2 * SPACELESS[units.scripts].sum() > len(units.scripts))


def _words(text, units, spaceless):
    count = len(units.hashes)
    words = count / CHARACTERS_OF_A_WORD if spaceless else count
    if not LEAST_WORDS <= words <= MOST_WORDS:
        return Reason("words", round(words))
    if not spaceless and not WORD_LENGTH[0] <= (length := float(units.lengths.mean())) <= WORD_LENGTH[1]:
        return Reason("word_length", round(length, 3))
    symbols = max(text.count("#"), text.count("...") + text.count("…")) / words
    if symbols > MOST_SYMBOLS:
        return Reason("symbols", round(symbols, 3))
    alphabetic = float((units.scripts > 0).mean()) if spaceless else _alphabetic(text)
    return Reason("alphabetic", round(alphabetic, 3)) if alphabetic < LEAST_ALPHABETIC else None


def _alphabetic(text):
    words = text.split()
    return sum(1 for _ in filter(_ALPHABETIC.search, words)) / max(len(words), 1)


def _lines(text):
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    for rule, count, most in (
        ("bullets", sum(line.startswith(_BULLETS) for line in lines), MOST_BULLETS),
        ("ellipses", sum(line.endswith(_ELLIPSES) for line in lines), MOST_ELLIPSES),
    ):
        if count > most * len(lines):
            return Reason(rule, round(count / len(lines), 3))
    return None


def _stop_words(text, guess):
    if guess.language == "zh":
        found = sum(character in text for character in CHINESE)
    elif guess.language in WORDS:
        known = STOP_WORDS.get(guess.language) or frozenset(WORDS[guess.language].split())
        found = len(known.intersection(re.findall(r"\w+", text.lower())))
    else:
        return None
    return Reason("stop_words", found) if found < LEAST_STOP_WORDS else None


def _repetition(text, units, spaceless):
    for kind, pieces in (("lines", text.split("\n")), ("paragraphs", re.split(r"\n\s*\n", text))):
        pieces = [piece for piece in map(str.strip, pieces) if piece]
        seen: set[str] = set()
        again = [piece for piece in pieces if piece in seen or seen.add(piece)]  # type: ignore[func-returns-value]
        if len(again) > MOST_REPEATED[kind] * len(pieces):
            return Reason(f"repeated_{kind}", round(len(again) / len(pieces), 3))
        share = sum(map(len, again)) / max(sum(map(len, pieces)), 1)
        if share > MOST_REPEATED_CHARACTERS[kind]:
            return Reason(f"characters_of_repeated_{kind}", round(share, 3))
    scale = CHARACTERS_OF_A_WORD if spaceless else 1
    for size, most in MOST_OF_TOP.items():
        if (share := top_share(units, round(size * scale))) > most:
            return Reason(f"top_{size}_gram", round(share, 3))
        if not share:
            return None  # what does not come twice is in nothing longer that does
    share = 1.0
    for size, most in MOST_OF_REPEATED.items():
        if share <= min(MOST_OF_REPEATED.values()):
            break  # what longer ones cover is part of what shorter ones do
        if (share := repeated_share(units, round(size * scale))) > most:
            return Reason(f"repeated_{size}_grams", round(share, 3))
    return None


def top_share(units: Units, size: int) -> float:
    """Part of the characters of units that the commonest n-gram has; 0 where none comes twice."""
    grams = _grams(units, size)
    if _differ(grams):
        return 0.0
    values, first, counts = np.unique(grams, return_index=True, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(units.lengths)])
    covered = np.where(counts > 1, counts * (ends[first + size] - ends[first]), 0)
    return float(covered.max() / ends[-1])


def repeated_share(units: Units, size: int) -> float:
    """Part of the characters of units that lie in n-grams which the text has had before; each counts once."""
    grams = _grams(units, size)
    if _differ(grams):
        return 0.0
    _, first = np.unique(grams, return_index=True)
    later = np.ones(len(grams), np.int64)
    later[first] = 0
    depth = np.zeros(len(units.hashes) + 1, np.int64)
    depth[: len(grams)] += later
    depth[size : size + len(grams)] -= later
    return float(units.lengths[np.cumsum(depth)[:-1] > 0].sum() / units.lengths.sum())


def _differ(grams):
    ordered = np.sort(grams)
    return not (ordered[1:] == ordered[:-1]).any()


def _grams(units, size):
    count = len(units.hashes) - size + 1
    return hash_windows(units.hashes, np.arange(count), size) if count > 1 else np.zeros(0, np.uint64)


# ------------------------------------------------------------------------------------------------------------------------- C4

LEAST_SENTENCES = 3
LEAST_WORDS_OF_A_LINE = 5
_TERMINAL = (".", "!", "?", '"', "。", "！", "？", "”", "」", "』", "؟", "।")
_SENTENCE = re.compile(r"[.!?؟।](?=\s|[\"'”’)]|$)|[。！？]")


def c4(text: str, count_words: Callable[[str], float]) -> tuple[str, Reason | None]:
    """A page without lines that are no sentences, and the first rule of C4 that it breaks as a whole.

    Lines stay that end in a terminal mark, have five words and no word "javascript". A page breaks a rule with "lorem ipsum", a curly
    bracket, or fewer than three sentences in what stays.
    """
    for phrase in ("lorem ipsum", "{"):
        if phrase in text.lower():
            return text, Reason("c4_phrase", phrase)
    kept = "\n".join(line for line in text.split("\n") if _is_sentence(line.strip(), count_words))
    sentences = len(_SENTENCE.findall(kept))
    return kept, Reason("c4_sentences", sentences) if sentences < LEAST_SENTENCES else None


def _is_sentence(line, count_words):
    return line.endswith(_TERMINAL) and "javascript" not in line.lower() and count_words(line) >= LEAST_WORDS_OF_A_LINE


def words_in(line: str) -> float:
    """About how many words a line has, whatever its script."""
    characters = sum(unicodedata.category(one) == "Lo" and ord(one) >= _FIRST_SPACELESS for one in line) if not line.isascii() else 0
    return len(line.split()) + characters / CHARACTERS_OF_A_WORD


_FIRST_SPACELESS = 0xE00
