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
def _is_word(character: str) -> bool:
    """Whether it makes one word with a letter beside it: Chinese characters and signs do not."""
    one = fold(character).text[:1]
    return one.isalnum() and not "\u2e80" <= one <= "\U0003ffff"


def _is_chinese(character: str) -> bool:
    """Whether it is of a script that writes no spaces between words, as Chinese and Japanese and not Korean."""
    return "\u2e80" <= fold(character).text[:1] <= "\U0003ffff" and not "\uac00" <= character <= "\ud7ff"


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

    def __deepcopy__(self, memo: dict) -> "Automaton":
        return self

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
    """A text that is looked through for the entries of an automaton. alone: its letters are, and the rest stands between them. signs:
    whether such as $ are letters."""

    def __init__(self, automaton: Automaton, *, alone: bool = False, signs: bool = True):
        self._automaton, self._alone, self._signs = automaton, alone, signs
        self._place, self._gap = 0, ""
        self._letters: deque[tuple[int, str, str, str]] = deque(maxlen=1 + automaton.longest)
        """What `Letter` has, of the last ones."""
        self._waiting: list[Found] = []
        """Phrases, if no letter of the same word follows."""

    def feed(self, text: str, start: int) -> list[Found]:
        """The phrases that are now known to be there. start: where this piece of the text stands."""
        found: list[Found] = []
        for at, character in enumerate(text, start):
            for letter in skeleton(character, self._signs):
                if self._waiting:
                    ended = self.finish()
                    found += [] if _is_word(character) else ended
                if self._alone and not letter.isalnum():
                    self._separate(letter)
                    continue
                if letter == SPACE and self._letters and self._letters[-1][2] == SPACE:
                    continue
                self._letters.append((at, self._gap, letter, character))
                self._gap, self._place = "", self._automaton.after(self._place, letter)
                if ends := self._automaton.ends(self._place):
                    (self._waiting if _is_word(letter) else found).extend(self._phrases(ends))
        return found

    def finish(self) -> list[Found]:
        """No letter of the same word follows."""
        found, self._waiting = self._waiting, []
        return found

    def held(self) -> list[int]:
        """Where what may become a phrase begins."""
        depth = self._automaton.depth(self._place)
        return [one.start for one in self._waiting] + ([self._letters[-depth][0]] if depth else [])

    def without_signs(self) -> "_Reading":
        """One that has read the same, and takes signs for no letters from here on."""
        found = copy.deepcopy(self)
        found._signs = False
        return found

    def _separate(self, sign: str) -> None:
        if not sign == self._gap == SPACE:
            self._gap = WIDE if self._gap else sign
        if self._gap == WIDE:
            self._place = 0

    def _phrases(self, ends: Iterable[Entry]) -> list[Found]:
        letters, found = [Letter(*one) for one in self._letters], []
        for entry in ends:
            own, before = letters[-len(entry.letters) :], letters[: -len(entry.letters)]
            in_word = bool(before) and not own[0].gap and _is_word(own[0].letter) and _is_word(before[-1].character)
            if not in_word and _is_phrase(own, entry) and not _is_number(own, entry):
                found.append(Found(own[0].at, own[-1].at + 1, entry.phrase))
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
        self._readings = [_Reading(phrases.whole), _Reading(phrases.apart, alone=True)]
        """A third one, from the first sign on that may be a letter or stand between two."""
        self.size = self.safe = 0

    def feed(self, text: str) -> list[Found]:
        """The phrases that are now known to be there, in their order."""
        if len(self._readings) == 2 and any(skeleton(one) != skeleton(one, False) for one in set(text)):
            self._readings.append(self._readings[1].without_signs())
        found = {one for reading in self._readings for one in reading.feed(text, self.size)}
        self.size += len(text)
        self.safe = min([self.size, *(at for reading in self._readings for at in reading.held())])
        return sorted(found)

    def finish(self) -> list[Found]:
        """The text ends here."""
        self.safe = self.size
        return sorted({one for reading in self._readings for one in reading.finish()})

    def copy(self) -> "Search":
        """Another one, that has read the same."""
        return copy.deepcopy(self)
