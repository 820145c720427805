"""Phrases that are not to be asked or answered, found while a text is written and however its letters are disguised.

Phrases and texts are read as skeletons (after Unicode Technical Standard 39): look-alikes of other scripts, styled and accented letters,
digits and signs that stand for letters and characters of no width become what they look like. The letters of a skeleton are also read
alone, for words with signs between their letters. A text is shown as far as no phrase can have begun in it: what is held back is the
longest end that some phrase begins with (Aho & Corasick 1975).
"""

import copy
import functools
import itertools
import unicodedata
from collections import deque
from collections.abc import Iterable
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
WIDE = "  "
"""Several signs between two letters, which no word has."""
APOSTROPHES = "'’‘‛′`"
SHORTEST = 3
"""Letters of a word that is found with signs between them. Of two, as in "a-b", too many words would consist."""


@functools.lru_cache(maxsize=1 << 16)
def skeleton(character: str, signs: bool = True) -> str:
    """What a character is taken for: none, one or several letters; a space for all kinds of space. signs: whether such as $ are letters."""
    if character.isspace():
        return SPACE
    found = []
    for one in unicodedata.normalize("NFKD", fold(character).text).casefold():
        if unicodedata.combining(one) or unicodedata.category(one) in ("Cf", "Cc", "Mn", "Me"):
            continue
        found.append(LOOK_ALIKES.get(one, one) if signs or one.isalnum() else one)
    return "".join(found)


@functools.lru_cache(maxsize=1 << 16)
def _both(character: str) -> tuple[tuple[str, str], ...]:
    """The letters of its skeletons, with and without signs."""
    return tuple(zip(skeleton(character), skeleton(character, False), strict=True))


@functools.lru_cache(maxsize=1 << 16)
def _is_word(character: str) -> bool:
    """Whether it makes one word with a letter beside it: Chinese characters and signs do not."""
    return fold(character).text[:1].isalnum() and not "\u2e80" <= character <= "\U0003ffff"


def _is_chinese(character: str) -> bool:
    """Whether it is of a script that writes no spaces between words, as Chinese and Japanese and not Korean."""
    return "\u2e80" <= character <= "\U0003ffff" and not "\uac00" <= character <= "\ud7ff"


class Found(NamedTuple):
    """Characters [start, end) of a text are a phrase."""

    start: int
    end: int
    phrase: str


class Entry(NamedTuple):
    """A phrase as letters to look for. gaps: of each letter, what stands before it in the phrase and is no letter."""

    letters: str
    gaps: tuple[str, ...]
    phrase: str


class Automaton:
    """Entries, looked for in letters that come one by one. It never changes."""

    def __init__(self, entries: Iterable[Entry]):
        self._next: list[dict[str, int]] = [{}]
        self._depth, self._fail, self._ends = [0], [0], [tuple[Entry, ...]()]
        for entry in entries:
            place = 0
            for letter in entry.letters:
                if letter not in self._next[place]:
                    self._next[place][letter] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[place] + 1)
                    self._fail.append(0)
                    self._ends.append(())
                place = self._next[place][letter]
            self._ends[place] += (entry,)
        waiting = deque(self._next[0].values())
        while waiting:
            place = waiting.popleft()
            for letter, below in self._next[place].items():
                waiting.append(below)
                self._fail[below] = self.after(self._fail[place], letter)
                self._ends[below] += self._ends[self._fail[below]]
        self.longest = max(self._depth)

    def after(self, place: int, letter: str) -> int:
        """The longest end of what was read that some entry begins with, one letter later."""
        while place and letter not in self._next[place]:
            place = self._fail[place]
        return self._next[place].get(letter, 0)

    def depth(self, place: int) -> int:
        """Letters of that end."""
        return self._depth[place]

    def ends(self, place: int) -> tuple[Entry, ...]:
        """The entries that end here."""
        return self._ends[place]


class Phrases:
    """A set of phrases, for skeletons (`whole`) and for their letters alone (`apart`)."""

    def __init__(self, phrases: Iterable[str]):
        """UserError for a phrase of which nothing is left to look for."""
        self.phrases = tuple(dict.fromkeys(phrases))
        whole, apart = [], []
        for phrase in self.phrases:
            letters = SPACE.join("".join(map(skeleton, phrase)).split())
            if not letters:
                raise UserError(f"forbidden phrases: {phrase!r} has no letter", "Leave it out.")
            whole.append(Entry(letters, ("",) * len(letters), phrase))
            if any(one.isalpha() for one in phrase):  # a number with signs in it is another number
                apart.append(_apart(letters, phrase))
        self.whole, self.apart = Automaton(whole), Automaton(entry for entry in apart if len(entry.letters) > 1)

    @classmethod
    def read(cls, path: str) -> "Phrases":
        """A phrase on each line of a file; empty lines and those that begin with # are left out."""
        lines = [line.strip() for line in read_text(path).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UserError(f"{path}: holds no phrase", "Give one on each line.")
        return cls(found)

    def find(self, text: str) -> list[Found]:
        """All phrases in a whole text."""
        search = Search(self)
        return [*search.feed(text), *search.finish()]


def _apart(letters: str, phrase: str) -> Entry:
    """The letters of a skeleton alone."""
    found, gaps, gap = [], [], ""
    for letter in letters:
        if letter.isalnum():
            found.append(letter)
            gaps.append(gap)
        gap = "" if letter.isalnum() else letter
    return Entry("".join(found), tuple(gaps), phrase)


class Letter(NamedTuple):
    """One that was read. at: where its character stands. gap: what stands between the letter before and it."""

    at: int
    gap: str
    letter: str
    character: str


class _Reading:
    """A text that is looked through for the entries of an automaton. alone: letters are read alone."""

    def __init__(self, automaton: Automaton, alone: bool):
        self._automaton, self._alone = automaton, alone
        self._place, self._gap = 0, ""
        self._letters: deque[Letter] = deque(maxlen=1 + automaton.longest)

    def read(self, at: int, letter: str, character: str) -> list[Found]:
        """The phrases that end with a letter, if no letter of the same word follows."""
        if self._alone and not letter.isalnum():
            if not (letter == self._gap == SPACE):
                self._gap = WIDE if self._gap else letter
            if self._gap == WIDE:
                self._place = 0
            return []
        if letter == SPACE and self._letters and self._letters[-1].letter == SPACE:
            return []
        self._letters.append(Letter(at, self._gap, letter, character))
        self._gap, self._place = "", self._automaton.after(self._place, letter)
        if not (ends := self._automaton.ends(self._place)):
            return []
        letters, found = list(self._letters), []
        for entry in ends:
            own, before = letters[-len(entry.letters) :], letters[: -len(entry.letters)]
            in_word = bool(before) and not own[0].gap and _is_word(own[0].letter) and _is_word(before[-1].character)
            if not in_word and _is_phrase(own, entry) and not _is_number(own, entry):
                found.append(Found(own[0].at, at + 1, entry.phrase))
        return found

    def held(self) -> int | None:
        """Where the text begins that may become a phrase."""
        depth = self._automaton.depth(self._place)
        return self._letters[-depth].at if depth else None

    def copy(self) -> "_Reading":
        found = copy.copy(self)
        found._letters = self._letters.copy()
        return found


def _is_phrase(own: list[Letter], entry: Entry) -> bool:
    """Whether what stands between the letters leaves them a phrase.

    Words stay apart. Between letters of a word a sign may stand, but no apostrophe: he'll is not hell. A space may only where something
    stands between all letters, as in k i l l, or in Chinese, which writes no spaces.
    """
    inner = []
    for (before, letter), gap in zip(itertools.pairwise(own), entry.gaps[1:], strict=True):
        if gap and not letter.gap:
            return False
        if not gap and letter.at != before.at:
            inner.append((letter.gap, _is_chinese(before.character) and _is_chinese(letter.character)))
    if not any(gap for gap, _ in inner):
        return True
    if all(chinese for _, chinese in inner):
        return True
    if len({one.at for one in own}) < SHORTEST:
        return False
    return all(gap for gap, _ in inner) or not any(gap in APOSTROPHES or (gap == SPACE and not chinese) for gap, chinese in inner if gap)


def _is_number(own: list[Letter], entry: Entry) -> bool:
    """Whether letters were read from digits and signs of a number, such as 1111 or $5, or from one sign over and over. With signs between
    them, more digits than letters are one too: A.5.5 is a section."""
    if not any(one.isalpha() for one in entry.phrase):
        return False
    read = [fold(one.character).text for one in own if one.letter != SPACE]
    digits, letters = sum(map(str.isdecimal, read)), sum(any(map(str.isalpha, one)) for one in read)
    if any(one.gap for one in own[1:]):
        return not letters or 2 * digits > len(read)
    return not letters and (digits > 0 or len({*read}) == 1)


class Search:
    """A text that comes in pieces. size: how many characters came; safe: so many can be shown, if nothing was found."""

    def __init__(self, phrases: Phrases):
        self._readings = [_Reading(phrases.whole, alone=False), _Reading(phrases.apart, alone=True)]
        """A third one, since the first sign that may be a letter or stand between two, takes such signs for the latter."""
        self._waiting: list[Found] = []
        self.size = self.safe = 0

    def feed(self, text: str) -> list[Found]:
        """The phrases that are now known to be there."""
        found: list[Found] = []
        for character in text:
            for letter, plain in _both(character):
                found += self._letter(letter, plain, character)
            self.size += 1
        held = (reading.held() for reading in self._readings)
        self.safe = min([self.size, *(one.start for one in self._waiting), *(at for at in held if at is not None)])
        return found

    def finish(self) -> list[Found]:
        """The text ends here."""
        found, self._waiting = self._waiting, []
        self.safe = self.size
        return found

    def copy(self) -> "Search":
        """Another one, that has read the same."""
        found = copy.copy(self)
        found._readings, found._waiting = [one.copy() for one in self._readings], [*self._waiting]
        return found

    def _letter(self, letter: str, plain: str, character: str) -> list[Found]:
        found: list[Found] = []
        if self._waiting:
            if not _is_word(character):
                found = self._waiting
            self._waiting = []
        if plain != letter and len(self._readings) == 2:
            self._readings.append(self._readings[1].copy())
        new: list[Found] = []
        for reading, one in zip(self._readings, (letter, letter, plain), strict=False):
            new += reading.read(self.size, one, character)
        if not new:
            return found
        new = list(dict.fromkeys(new))  # each reading may find the same
        if not _is_word(letter):
            return found + new
        self._waiting += new  # the beginning of another word, it may be
        return found
