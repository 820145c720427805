"""Edits between two texts: found, described, and put into the first text so that all else stays as it is, byte for byte."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_CONTRACTED = r"n['’]t\b|['’](?:s|m|d|re|ve|ll)\b"
WORD = re.compile(rf"\w+?(?=n['’]t\b)|{_CONTRACTED}|[^\W_]+|[^\w\s]|_", re.IGNORECASE)
"""A word, the end of a contraction, or a mark. "do n't" and "don't" are the same words, as are "word ." and "word."."""
CHARACTER = re.compile(r"[0-9A-Za-z]+|\S")
"""The same for languages without spaces."""
_LOOSE = re.compile(rf"(?<=\w) +(?={_CONTRACTED})| +(?=[.,!?;:%)\]])|(?<=[(\[]) +", re.IGNORECASE)
_SPACED = re.compile(r"\w [.,!?;:](?:\s|$)")
_PARTED = re.compile(rf"[.,!?;:%)\]]|{_CONTRACTED}", re.IGNORECASE)
"""What has a space before it only where words and marks are parted."""
KINDS = ("punctuation", "case", "missing", "extra", "form", "wording")
"""Of an edit: marks alone; capitals alone; words too few; words too many; a word in another form, or spelled otherwise; others."""
ALIKE = 0.6
"""From which share of common letters on two words are forms of one."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """`new` in place of text[start:end], which is `old`; of an insertion both are one place. begin, stop: where `new` stands in the other
    text."""

    start: int
    end: int
    old: str
    new: str
    begin: int
    stop: int

    @property
    def kind(self) -> str:
        old, new = self.old, self.new
        if not re.search(r"\w", old + new):
            return "punctuation"
        if old.casefold() == new.casefold():
            return "case"
        if not old or not new:
            return "extra" if old else "missing"
        alike = difflib.SequenceMatcher(None, old.casefold(), new.casefold(), autojunk=False).ratio()
        return "form" if alike >= ALIKE and " " not in old + new else "wording"


def natural(text: str) -> str:
    """A text whose words and marks were parted by spaces, as people write it; others stay as they are."""
    return _LOOSE.sub("", text) if is_spaced(text) else text


def is_spaced(text: str) -> bool:
    """Whether words and marks are parted by spaces, as in most collections of sentences."""
    return bool(_SPACED.search(text))


class _Step(NamedTuple):
    """Words first to last of a text, and begin to stop of the other; alike, or an edit."""

    first: int
    last: int
    begin: int
    stop: int
    edit: Edit | None


class Comparison:
    """Two texts, word by word; spaces are no words. As few and as short edits as difflib finds; as many words in place of as many others
    are one edit for each."""

    def __init__(self, text: str, other: str, units: re.Pattern = WORD):
        self._texts = text, other
        self._old, self._new = ([*units.finditer(one)] for one in self._texts)
        self._spaced = units is WORD and is_spaced(text)
        matcher = difflib.SequenceMatcher(None, [one[0] for one in self._old], [one[0] for one in self._new], autojunk=False)
        self._steps: list[_Step] = []
        for what, first, last, begin, stop in matcher.get_opcodes():
            if what == "equal":
                self._steps.append(_Step(first, last, begin, stop, None))
            elif last - first == stop - begin:
                self._steps += [self._step(first + n, first + n + 1, begin + n, begin + n + 1) for n in range(last - first)]
            else:
                self._steps.append(self._step(first, last, begin, stop))

    def _step(self, first: int, last: int, begin: int, stop: int) -> _Step:
        (text, other), old, new = self._texts, self._old[first:last], self._new[begin:stop]
        start, end = (old[0].start(), old[-1].end()) if old else (_end(self._old, first),) * 2
        where, until = (new[0].start(), new[-1].end()) if new else (_end(self._new, begin),) * 2
        return _Step(first, last, begin, stop, Edit(start, end, text[start:end], other[where:until], where, until))

    @property
    def edits(self) -> list[Edit]:
        """In order."""
        return [step.edit for step in self._steps if step.edit is not None]

    def applied(self, accepts: Callable[[Edit], bool]) -> str:
        """The text after those of the edits that are accepted. Between words that stood beside each other its own spaces stay; new ones
        have those of the other text, and where words and marks are parted by spaces, they are so here too."""
        text, other = self._texts
        words: list[tuple[str, int | None, int | None]] = []  # with the places that each has in the text, and in the other
        for first, last, begin, stop, edit in self._steps:
            olds, news = self._old[first:last], self._new[begin:stop]
            if edit is not None and not accepts(edit):
                words += [(one[0], first + place, None) for place, one in enumerate(olds)]
            elif len(olds) == len(news):
                for place, (was, now) in enumerate(zip(olds, news, strict=True)):
                    # A mark in place of a word stands as in the other text.
                    alike = _is_mark(was[0]) == _is_mark(now[0])
                    words.append((now[0], first + place if alike else None, begin + place))
            else:
                words += [(one[0], None, begin + place) for place, one in enumerate(news)]
        parts = [text[: self._old[0].start()]] if self._old else []
        before: int | None = None
        for place, (word, old, new) in enumerate(words):
            if place and old is not None and (new is None or (before is not None and old == before + 1)):
                parts.append(_gap(text, self._old, old))
            elif place:
                parts.append(self._new_gap(other, new))  # type: ignore[arg-type]
            parts.append(word)
            before = old
        return "".join([*parts, text[self._old[-1].end() :] if self._old else ""])

    def _new_gap(self, other: str, new: int) -> str:
        word = self._new[new][0]
        if self._spaced and new and (_PARTED.fullmatch(word) or self._new[new - 1][0] in "(["):
            return " "
        return _gap(other, self._new, new) if new else " "


def _is_mark(unit: str) -> bool:
    return re.search(r"\w", unit) is None


def _end(words: Sequence[re.Match], number: int) -> int:
    """Where something stands that comes before the word of a number: behind the word before it."""
    return words[number - 1].end() if number else 0


def _gap(text: str, words: Sequence[re.Match], number: int) -> str:
    """What stands before a word; a space before the first."""
    return text[words[number - 1].end() : words[number].start()] if number else " "
