"""How Chinese characters sound, and which stand in the place of which when people write by sound."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from train.tasks.metrics.scores import load

CHINESE = re.compile(r"[\u3400-\u9fff]")
"""A Chinese character."""
READINGS = 2
"""Of a character that has more, the first ones that pypinyin gives count."""
_INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcsyw", "")
_FINALS = tuple("a o e i u v ai ei ao ou an en in un ang eng ing ong ia ie iao iu ian iang iong ua uo uai ui uan uang ue ve er".split())
SYLLABLES = len(_INITIALS) * len(_FINALS) + 1
"""Numbers that `number_of` gives, from 0 on."""
_CONFUSED = (
    (re.compile(r"^([zcs])h"), r"\1"),
    (re.compile(r"^n(?=[aeiouv])"), "l"),
    (re.compile(r"^f|^h(?=u)"), "f"),
    (re.compile(r"([aei])ng$"), r"\1n"),
)
"""What many speakers do not tell apart: zh and z, n and l, hu and f, and the ends -ng and -n."""


@functools.lru_cache(maxsize=1 << 15)
def syllables(character: str) -> tuple[str, ...]:
    """The first readings that pypinyin gives, without their tones, in letters; () for what is no Chinese character."""
    if not CHINESE.fullmatch(character):
        return ()
    library = load("pypinyin", "pypinyin")
    (found,) = library.pinyin(character, style=library.Style.NORMAL, heteronym=True, errors=lambda _: [""])
    return tuple(dict.fromkeys(filter(None, found)))[:READINGS]


@functools.lru_cache(maxsize=1 << 15)
def toned(character: str) -> str:
    """The first reading that pypinyin gives, with its tone; "" for what is no Chinese character."""
    if not CHINESE.fullmatch(character):
        return ""
    library = load("pypinyin", "pypinyin")
    return library.pinyin(character, style=library.Style.TONE3, errors=lambda _: [""])[0][0]


def number_of(character: str) -> int:
    """A number of the first reading, below SYLLABLES; 0 for none."""
    for syllable in syllables(character)[:1]:
        initial = next(one for one in _INITIALS if syllable.startswith(one))
        final = syllable[len(initial) :]
        return 1 + _INITIALS.index(initial) * len(_FINALS) + _FINALS.index(final) if final in _FINALS else 0
    return 0


@functools.lru_cache(maxsize=1 << 12)
def blurred(syllable: str) -> str:
    """The same for syllables that many speakers do not tell apart."""
    for pattern, new in _CONFUSED:
        syllable = pattern.sub(new, syllable)
    return syllable


def alike(one: str, other: str) -> str:
    """Whether two characters sound the `same` but for their tone, or `near`; "" for neither."""
    own, theirs = syllables(one), syllables(other)
    if {*own} & {*theirs}:
        return "same"
    return "near" if {*map(blurred, own)} & {*map(blurred, theirs)} else ""


class Confusions:
    """What is written in the place of a character: others of the same or near sound, and those that people wrote."""

    def __init__(self, frequencies: Mapping[str, int], written: Mapping[tuple[str, str], int]):
        """frequencies: of the characters that there are. written: how often one (first) was written in the place of another."""
        self._frequencies = frequencies
        self._same: dict[str, list[str]] = defaultdict(list)
        self._near: dict[str, list[str]] = defaultdict(list)
        for character in frequencies:
            own = syllables(character)
            for syllable in own:
                self._same[syllable].append(character)
            for syllable in {*map(blurred, own)}:
                self._near[syllable].append(character)
        self._written: dict[str, Counter[str]] = defaultdict(Counter)
        for (wrong, right), count in written.items():
            if wrong in frequencies:
                self._written[right][wrong] += count
        self._found: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]] = {}

    def of(self, character: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """{"same", "near", "written"}: characters, and their cumulated shares; only those that there are. By sound, a character is the
        likelier, the more frequent it is: in proportion to the root of its frequency."""
        if character not in self._found:
            self._found[character] = self._of(character)
        return self._found[character]

    def _of(self, character: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        own = syllables(character)
        same = {other for syllable in own for other in self._same.get(syllable, ())} - {character}
        near = {other for syllable in own for other in self._near.get(blurred(syllable), ())} - same - {character}
        weights = {
            "same": {other: self._frequencies[other] ** 0.5 for other in sorted(same)},
            "near": {other: self._frequencies[other] ** 0.5 for other in sorted(near)},
            "written": dict(self._written.get(character, {})),
        }
        return {name: (tuple(one), _cumulated([*one.values()])) for name, one in weights.items() if one}

    def drawn(self, character: str, draw: np.random.Generator) -> str:
        """Another character in its place; itself where there is none."""
        choices = self.of(character)
        if not choices:
            return character
        kinds = [name for name in SHARES if name in choices]
        kind = kinds[int(np.searchsorted(_cumulated([SHARES[name] for name in kinds]), draw.random(), side="right"))]
        others, cumulated = choices[kind]
        return others[int(np.searchsorted(cumulated, draw.random(), side="right"))]


SHARES = {"same": 0.6, "near": 0.15, "written": 0.25}
"""How often characters are drawn of each sort that there is, in proportion."""


def _cumulated(weights: Sequence[float]) -> np.ndarray:
    shares = np.cumsum(np.asarray(weights, float))
    return shares / shares[-1]
