"""The forms of Chinese verse: which places a tune has, which of them are level or oblique, and which rhyme, by what its poems share."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from train.tasks.metrics.scores import load

CHARACTER = re.compile(r"[\u3400-\u9fff]")
FEWEST = 15
"""Poems of one shape from which on the form of a tune is believed."""
_BEFORE_ZHI = ("zh", "ch", "sh", "r", "z", "c", "s")
AGREED = 0.8
"""Share of a tune's poems from which on the tone of a place belongs to its form."""
_GROUPS = {
    "a": "a ia ua", "o": "o e uo", "ie": "ie ve ue", "ai": "ai uai", "ei": "ei uei ui", "ao": "ao iao", "ou": "ou iou iu",
    "an": "an ian uan van", "en": "en in uen un vn", "ang": "ang iang uang", "eng": "eng ing ueng ong iong", "i": "i er v",
    "zhi": "zhi", "u": "u",
}  # fmt: skip
"""Finals of each of the fourteen rhymes of Chinese (中华新韵, 2005); zhi stands for that of 诗 and 知, which has no letter of its own."""
_GROUP_OF = {final: group for group, finals in _GROUPS.items() for final in finals.split()}
RHYMING = 0.6
"""The same of rhymes, many of which the Chinese of today has lost."""
LEVEL, OBLIQUE = "level", "oblique"


@functools.lru_cache(maxsize=1 << 15)
def sounds(character: str) -> tuple[str, str]:
    """(tone, rhyme group) of a character's commonest reading in the Chinese of today (pypinyin): its first and second tones are level, the
    others oblique. The entering tones of the poets' time are lost there. Empty for what is no Chinese character."""
    if not CHARACTER.fullmatch(character):
        return "", ""
    library = load("pypinyin", "pypinyin")
    (reading,), (initial,) = (
        library.pinyin(character, style=style, neutral_tone_with_five=True, strict=False)[0]
        for style in (library.Style.FINALS_TONE3, library.Style.INITIALS)
    )
    final = reading.rstrip("12345")
    if final == "i" and initial in _BEFORE_ZHI:
        final = "zhi"
    return (LEVEL if reading[-1:] in ("1", "2") else OBLIQUE, _GROUP_OF.get(final, ""))


class Tune(NamedTuple):
    """shape: a poem of it, with 字 for each character. tones: of each 字, LEVEL, OBLIQUE or "" for either. rhymes: which 字 rhyme with the
    first of them. poems: how many it was found in."""

    shape: str
    tones: tuple[str, ...]
    rhymes: tuple[int, ...]
    poems: int

    def obeyed(self, text: str) -> dict[str, Any]:
        """Of a poem: whether its shape is the tune's, and if so the share of the tones that it keeps, and of the rhymes."""
        if shape_of(text) != self.shape:
            return {"shape": False, "tones": 0.0, "rhymes": 0.0}
        characters = CHARACTER.findall(text)
        asked = [sounds(one)[0] == tone for one, tone in zip(characters, self.tones, strict=True) if tone]
        groups = [sounds(characters[place])[1] for place in self.rhymes]
        rhyming = [other == groups[0] for other in groups[1:]]
        return {"shape": True, "tones": float(np.mean(asked)) if asked else 1.0, "rhymes": float(np.mean(rhyming)) if rhyming else 1.0}


def shape_of(text: str) -> str:
    return CHARACTER.sub("字", text)


def tunes(poems: Sequence[tuple[str, str]], fewest: int = FEWEST) -> dict[str, Tune]:
    """The tunes of poems (name of the tune, text) of which there are enough: the commonest shape, and of the poems in it the tones that
    most of them share, and the ends of sentences that rhyme in most of them."""
    own: dict[str, list[str]] = defaultdict(list)
    for name, text in poems:
        own[name].append(text)
    found = {}
    for name, texts in own.items():
        (shape, count), *_ = Counter(map(shape_of, texts)).most_common(1)
        if name and count >= fewest:
            found[name] = _tune(shape, [text for text in texts if shape_of(text) == shape])
    return found


def _tune(shape: str, texts: list[str]) -> Tune:
    poems = [CHARACTER.findall(text) for text in texts]
    tones = []
    for column in zip(*poems, strict=True):
        tone, count = Counter(sounds(one)[0] for one in column).most_common(1)[0]
        tones.append(tone if count >= AGREED * len(poems) else "")
    return Tune(shape, tuple(tones), _rhyming(poems, _ends(shape)), len(poems))


def _ends(shape: str) -> list[int]:
    """The places of characters that a mark follows."""
    found, place = [], -1
    for at, letter in enumerate(shape):
        place += letter == "字"
        if letter == "字" and (at + 1 == len(shape) or shape[at + 1] != "字"):
            found.append(place)
    return found


def _rhyming(poems: list[list[str]], ends: list[int]) -> tuple[int, ...]:
    """The largest set of ends that rhyme with one of them in most poems."""
    best: tuple[int, ...] = ()
    for first in ends:
        same = [place for place in ends if np.mean([sounds(one[first])[1] == sounds(one[place])[1] for one in poems]) >= RHYMING]
        if len(same) > len(best):
            best = tuple(same)
    return best if len(best) > 1 else ()


class Metre:
    """A tune as a Form for a tokenizer of single characters (see TextGenerator.stream). characters: of each id. end: id that ends a text.
    size: of the vocabulary. Where no character has both the tone and the rhyme, the rhyme alone counts."""

    def __init__(self, tune: Tune, characters: str, end: int, size: int):
        self._tune, self._end, self._size = tune, end, size
        self._characters, self._ids = characters, {one: place for place, one in enumerate(characters)}
        self._at, self._place = 0, 0
        self._group = ""

    def allowed(self) -> np.ndarray:
        if self._at == len(self._tune.shape):
            return self._only(self._end)
        letter = self._tune.shape[self._at]
        if letter != "字":
            return self._only(self._ids[letter]) if letter in self._ids else self._only(self._end)
        has_tone, has_rhyme = self._masks()
        both = has_tone & has_rhyme
        return both if both.any() else has_rhyme if has_rhyme.any() else has_tone

    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        table = _table(self._characters)
        tone = self._tune.tones[self._place]
        has_tone = self._padded(table.tones[tone] if tone else table.any)
        if self._place not in self._tune.rhymes:
            return has_tone, self._padded(table.any)
        rhymes = [table.groups[self._group]] if self._group else [*table.groups.values()]
        has_rhyme = self._padded(np.any(rhymes, axis=0))
        return has_tone, has_rhyme

    def _padded(self, mask: np.ndarray) -> np.ndarray:
        return np.pad(mask, (0, self._size - len(mask)))

    def _only(self, token: int) -> np.ndarray:
        mask = np.zeros(self._size, bool)
        mask[token] = True
        return mask

    def take(self, token: int) -> None:
        if token == self._end:
            return
        if self._tune.shape[self._at] == "字":
            if self._place in self._tune.rhymes:
                self._group = self._group or sounds(self._characters[token])[1]
            self._place += 1
        self._at += 1


class _Table(NamedTuple):
    """Masks over characters."""

    any: np.ndarray
    tones: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]


@functools.lru_cache(maxsize=4)
def _table(characters: str) -> _Table:
    each = [sounds(one) for one in characters]
    return _Table(
        np.array([bool(CHARACTER.fullmatch(one)) for one in characters]),
        {tone: np.array([one == tone for one, _ in each]) for tone in (LEVEL, OBLIQUE)},
        {group: np.array([one == group for _, one in each]) for group in _GROUPS},
    )
