"""Contradictions planted in what somebody said: a number, a day, a "not" or the opposite of a word, and nothing else."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from train.tasks.changes.swaps import Swaps

NUMBERS = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty hundred thousand".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
TIMES = "morning afternoon evening night".split()
OPPOSITES = Swaps(
    [
        ("always", "never"), ("everything", "nothing"), ("everyone", "nobody"), ("everybody", "no one"),
        ("love", "hate"), ("open", "closed"), ("early", "late"), ("hot", "cold"), ("warm", "cool"), ("big", "small"), ("large", "little"),
        ("cheap", "expensive"), ("good", "bad"), ("best", "worst"), ("better", "worse"), ("easy", "difficult"), ("before", "after"),
        ("first", "last"), ("more", "less"), ("most", "least"), ("married", "single"), ("buy", "sell"), ("win", "lose"), ("won", "lost"),
        ("happy", "sad"), ("young", "old"), ("long", "short"), ("high", "low"), ("fast", "slow"), ("near", "far"), ("full", "empty"),
        ("clean", "dirty"), ("safe", "dangerous"), ("strong", "weak"), ("true", "false"), ("yes", "no"),
        ("agree", "disagree"), ("possible", "impossible"), ("remember", "forget"), ("arrive", "leave"), ("accept", "refuse"),
        ("increase", "decrease"), ("up", "down"), ("inside", "outside"), ("with", "without"), ("brother", "sister"), ("son", "daughter"),
        ("husband", "wife"), ("mother", "father"), ("busy", "free"), ("sick", "healthy"), ("wet", "dry"), ("loud", "quiet"),
    ]
)  # fmt: skip
_SAID = re.compile(
    r"\b(am|is|are|was|were|can|could|will|would|should|must|have|has|had|do|does|did)( not\b| ?n ?['’] ?t\b|\b)(?=[ .,!?])", re.I
)
_NUMBER = re.compile(rf"\b(?:\d+|{'|'.join(NUMBERS)})\b", re.IGNORECASE)
_DATE = re.compile(rf"\b(?:{'|'.join([*DAYS, *MONTHS])}|(?i:{'|'.join(TIMES)}))\b")
"""Days and months are written with a capital; may and march are verbs."""
_WORD = re.compile(r"no one|\w+", re.IGNORECASE)
_CAN_T = re.compile(r"\b(?:can ?['’] ?t|won ?['’] ?t|cannot)\b", re.IGNORECASE)


def _number(text: str, rng: np.random.Generator) -> str:
    found = [*_NUMBER.finditer(text)]
    if not found:
        return text
    one = found[rng.integers(len(found))]
    if one[0].isdigit():
        value = int(one[0][:9])
        other = str(value + int(rng.integers(1, max(value // 2, 3) + 1)))
    else:
        others = [word for word in NUMBERS if word != one[0].lower()]
        other = others[rng.integers(len(others))]
    return text[: one.start()] + _cased(other, one[0]) + text[one.end() :]


def _date(text: str, rng: np.random.Generator) -> str:
    found = [*_DATE.finditer(text)]
    if not found:
        return text
    one = found[rng.integers(len(found))]
    own = next(names for names in (DAYS, MONTHS, TIMES) if one[0].lower() in map(str.lower, names))
    others = [word for word in own if word.lower() != one[0].lower()]
    return text[: one.start()] + _cased(others[rng.integers(len(others))], one[0]) + text[one.end() :]


def _negation(text: str, rng: np.random.Generator) -> str:
    """A "not" in the first place where one can stand or stands."""
    one = _SAID.search(text)
    if one is None or _CAN_T.search(text):
        return text
    return text[: one.end(1)] + ("" if one[2] else " not") + text[one.end() :]


def _opposite(text: str, rng: np.random.Generator) -> str:
    """One word becomes its opposite: two would often say the same again."""
    words = [one for one in _WORD.finditer(text) if OPPOSITES.swapped(one[0]) != one[0]]
    if not words:
        return text
    one = words[rng.integers(len(words))]
    return text[: one.start()] + OPPOSITES.swapped(one[0]) + text[one.end() :]


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like[:1].isupper() else word


KINDS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "number": _number,
    "date": _date,
    "negation": _negation,
    "opposite": _opposite,
}
"""How each kind changes a text; one that has no place for it stays as it is."""


def contradicted(text: str, kind: str, rng: np.random.Generator) -> str | None:
    """The text changed by a kind; None where that finds no place, and for questions, which say nothing that could be contradicted."""
    changed = text if "?" in text else KINDS[kind](text, rng)
    return None if changed == text else changed


def plant_one(texts: Sequence[str], kinds: Sequence[str], rng: np.random.Generator) -> tuple[int, str] | None:
    """(which of the texts, and that text changed), drawn; None where no kind finds a place in any. The kind is drawn first, for numbers and
    days are rarer than what can be denied."""
    made = [[(place, changed) for place, text in enumerate(texts) if (changed := contradicted(text, kind, rng))] for kind in kinds]
    found = [own for own in made if own]
    if not found:
        return None
    own = found[rng.integers(len(found))]
    return own[rng.integers(len(own))]
