"""Phrases that are not to be asked or answered, found while a text is written and however its letters are disguised.

Phrases and texts are read as skeletons (after Unicode Technical Standard 39): look-alikes of other scripts, styled and accented letters,
digits that stand for letters and characters of no width become what they look like. A text is shown as far as no phrase can have begun in
it: what is held back is the longest end that some phrase begins with (Aho & Corasick 1975).
"""

import functools
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from data.anonymize.folding import fold
from data.errors import UserError
from data.files.text_files import read_text

LOOK_ALIKES = {
    **dict(zip("абвгдезиіјкӏмнопрѕстухһԁԛԝьԍҽ", "abbrgeeuijkimhonpsctyxhdqwbge", strict=True)),
    **dict(zip("αβγδεζηικλμνοπρσςτυφχω", "abydezniklmvonpsstufxw".replace("l", "i"), strict=True)),
    **dict(zip("ıɑɡʟɴʀꜱᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍᴏᴘᴛᴜᴠᴡʏᴢ", "iaginrsabcdefghijkmoptuvwyz", strict=True)),
    **dict(zip("¢£€¥@$013457l|!", "cieyasoieastiii", strict=True)),
}
"""Of small letters: what each is taken for. A letter l is one with the digit and the strokes that look like it."""
SPACE = " "


@functools.lru_cache(maxsize=1 << 16)
def skeleton(character: str) -> str:
    """What a character is taken for: none, one or several letters; a space for all kinds of space."""
    if character.isspace():
        return SPACE
    found = []
    for one in unicodedata.normalize("NFKD", fold(character).text).casefold():
        if unicodedata.combining(one) or unicodedata.category(one) in ("Cf", "Cc", "Mn", "Me"):
            continue
        found.append(LOOK_ALIKES.get(one, one))
    return "".join(found)


def _is_word(character: str) -> bool:
    """Whether it makes one word with a letter beside it: Chinese characters and signs do not."""
    return character.isalnum() and not "\u2e80" <= character <= "\U0003ffff"


class Found(NamedTuple):
    """Characters [start, end) of a text are a phrase."""

    start: int
    end: int
    phrase: str


class Phrases:
    """A set of phrases, as an automaton that reads skeletons."""

    def __init__(self, phrases: Iterable[str]):
        """UserError for a phrase of which nothing is left to look for."""
        self.phrases = tuple(dict.fromkeys(phrases))
        self._next: list[dict[str, int]] = [{}]
        self._depth, self._fail, self._ends = [0], [0], [tuple[tuple[int, str], ...]()]
        for phrase in self.phrases:
            letters = _letters(phrase)
            if not letters or letters == SPACE:
                raise UserError(f"forbidden phrases: {phrase!r} has no letter", "Leave it out.")
            place = 0
            for letter in letters:
                if letter not in self._next[place]:
                    self._next[place][letter] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[place] + 1)
                    self._fail.append(0)
                    self._ends.append(())
                place = self._next[place][letter]
            self._ends[place] += ((len(letters), phrase),)
        waiting = deque(self._next[0].values())
        while waiting:
            place = waiting.popleft()
            for letter, below in self._next[place].items():
                waiting.append(below)
                self._fail[below] = self.after(self._fail[place], letter)
                self._ends[below] += self._ends[self._fail[below]]

    @classmethod
    def read(cls, path: str) -> "Phrases":
        """A phrase on each line of a file; empty lines and those that begin with # are left out."""
        lines = [line.strip() for line in read_text(path).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UserError(f"{path}: holds no phrase", "Give one on each line.")
        return cls(found)

    def after(self, place: int, letter: str) -> int:
        """The longest end of what was read that some phrase begins with, one letter later."""
        while place and letter not in self._next[place]:
            place = self._fail[place]
        return self._next[place].get(letter, 0)

    def depth(self, place: int) -> int:
        """Letters of that end."""
        return self._depth[place]

    def ends(self, place: int) -> tuple[tuple[int, str], ...]:
        """(letters, phrase) of the phrases that end here."""
        return self._ends[place]

    def find(self, text: str) -> list[Found]:
        """All phrases in a whole text."""
        search = Search(self)
        return [*search.feed(text), *search.finish()]


def _letters(text: str) -> str:
    """The skeleton of a text, spaces in a row being one."""
    found = "".join(map(skeleton, text))
    return SPACE.join(part for part in found.split(SPACE) if part)


class Search:
    """A text that comes in pieces. safe: so many of its characters can be shown, if nothing was found."""

    def __init__(self, phrases: Phrases):
        self._phrases = phrases
        self._place, self._read = 0, 0
        self._letters: deque[tuple[int, str, str]] = deque(maxlen=1 + max(map(len, map(_letters, phrases.phrases)), default=0))
        """(where it stands in the text, the letter, the character that it was read from) of the last letters."""
        self._waiting: list[Found] = []
        self.safe = 0

    def feed(self, text: str) -> list[Found]:
        """The phrases that are now known to be there."""
        found: list[Found] = []
        for character in text:
            for letter in skeleton(character):
                found += self._letter(letter, character)
            self._read += 1
        held = [self._read, *(one.start for one in self._waiting)]
        if depth := self._phrases.depth(self._place):
            held.append(self._letters[-depth][0])
        self.safe = min(held)
        return found

    def finish(self) -> list[Found]:
        """The text ends here."""
        found, self._waiting = self._waiting, []
        self.safe = self._read
        return found

    def _letter(self, letter: str, character: str) -> Iterator[Found]:
        if self._waiting:
            if not _is_word(character):
                yield from self._waiting
            self._waiting = []
        if letter == SPACE and self._letters and self._letters[-1][1] == SPACE:
            return
        self._letters.append((self._read, letter, character))
        self._place = self._phrases.after(self._place, letter)
        for length, phrase in self._phrases.ends(self._place):
            own = list(self._letters)[-length:]
            before = self._letters[-length - 1][2] if len(self._letters) > length else SPACE
            if _is_word(own[0][1]) and _is_word(before):
                continue  # the end of another word
            signs = [one for _, read, one in own if read != SPACE]
            if any(one.isalpha() for one in phrase) and 2 * sum(one.isalpha() for one in signs) < len(signs):
                continue  # a number
            found = Found(own[0][0], self._read + 1, phrase)
            if _is_word(letter):
                self._waiting.append(found)  # the beginning of another word, it may be
            else:
                yield found
