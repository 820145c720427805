"""Changed copies of texts to learn from: EDA (Wei & Zou 2019) and typing errors. A pure function of (seed, row).

A row of the stream is changed by draws of its own, so that a run that goes on, and any number of hosts, see the same texts.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from train.kinds import check_range
from train.tasks.changes.noise import Words, join_words, split_words, typing_errors
from train.tasks.changes.synonyms import Synonyms, in_place_of, read_synonyms

Operation = Literal["synonyms", "insert", "swap", "delete", "characters"]


@dataclasses.dataclass(frozen=True)
class Augment:
    """Changed copies of texts to learn from."""

    path_fields: ClassVar[tuple[str, ...]] = ("synonyms",)

    rate: float = 0.0
    """Share of the texts that are changed, each time anew, 0 to 1. 0: none. The paper's 9 changed copies beside a text are 0.9."""
    operations: tuple[Operation, ...] = ()
    """What may be done, one for each text: replace words by synonyms, insert synonyms of words, swap words, delete words, or put typing
    errors into words. Empty: the first four; without a table of synonyms swap and delete."""
    strength: float = 0.1
    """Share of a text's words that are changed, at least one, above 0, at most 1."""
    synonyms: str = ""
    """Table of synonyms: a word on each line and, behind tabs, what may stand in its place."""

    def __post_init__(self):
        if not 0 <= self.rate <= 1:
            raise ValueError(f"data.augment.rate is {self.rate}; it must be from 0 to 1")
        check_range("data.augment.", self, 1e-3, "strength", high=1 + 1e-9)
        if {"synonyms", "insert"} & {*self.operations} and not self.synonyms:
            raise ValueError("data.augment.operations need synonyms: give a table, --data.augment.synonyms FILE")

    @property
    def chosen(self) -> tuple[Operation, ...]:
        """The operations that are meant."""
        return self.operations or (("synonyms", "insert", "swap", "delete") if self.synonyms else ("swap", "delete"))


def augmenter(options: Augment, fields: tuple[str, ...], seed: int) -> Callable[[Any, int], Any] | None:
    """change(example, row) -> the example as that row of the stream has it, itself where it stays; None where nothing is changed.

    fields: the names of the texts of an example that may be changed without changing its label.
    """
    if not options.rate:
        return None
    synonyms = read_synonyms(options.synonyms) if options.synonyms else {}

    def change(example, row: int):
        draw = np.random.default_rng((seed, row))
        if draw.random() >= options.rate:
            return example
        texts = {name: augmented(example.fields[name], options, synonyms, draw) for name in fields if name in example.fields}
        return example._replace(fields=example.fields | texts)

    return change


def augmented(text: str, options: Augment, synonyms: Synonyms, draw: np.random.Generator) -> str:
    """A text after one of the operations, drawn evenly."""
    words = split_words(text)
    count = max(1, round(options.strength * (len(words) - 1)))
    operation = options.chosen[draw.integers(len(options.chosen))]
    if operation == "delete":
        return join_words(_without_some(words, options.strength, draw))
    for _ in range(count):
        words = _OPERATIONS[operation](words, synonyms, draw)
    return join_words(words)


def _without_some(words: Words, share: float, draw: np.random.Generator) -> Words:
    """Each word is left out with this probability, but never the last one that is left. Punctuation stays."""
    places = _places(words)
    gone = {place for place, chance in zip(places, draw.random(len(places)), strict=True) if chance < share}
    if len(gone) == len(places) and places:
        gone.remove(places[draw.integers(len(places))])
    return [word for place, word in enumerate(words) if place not in gone]


def _places(words: Words) -> list[int]:
    """Where words stand that are no punctuation."""
    return [place for place, (_, word) in enumerate(words) if word[:1].isalnum()]


def _place_with(words: Words, choices: Callable[[str], list[str]], draw: np.random.Generator) -> tuple[int, str] | None:
    """A word, drawn among those that have choices, and one of them; None where none has."""
    able = [place for place, (_, word) in enumerate(words) if choices(word)]
    if not able:
        return None
    place = able[draw.integers(len(able))]
    options = choices(words[place][1])
    return place, options[draw.integers(len(options))]


def _replaced(words: Words, choices: Callable[[str], list[str]], draw: np.random.Generator) -> Words:
    found = _place_with(words, choices, draw)
    if found is None:
        return words
    place, other = found
    return [*words[:place], (words[place][0], other), *words[place + 1 :]]


def _with_synonym(words: Words, synonyms: Synonyms, draw: np.random.Generator) -> Words:
    return _replaced(words, lambda word: in_place_of(word, synonyms), draw)


def _with_typing_error(words: Words, synonyms: Synonyms, draw: np.random.Generator) -> Words:
    return _replaced(words, typing_errors, draw)


def _inserted(words: Words, synonyms: Synonyms, draw: np.random.Generator) -> Words:
    """A synonym of one of the words at any place; with spaces around it unless it is Chinese."""
    found = _place_with(words, lambda word: in_place_of(word, synonyms), draw)
    if found is None:
        return words
    places, space = [*_places(words), len(words) - 1], "" if found[1][:1] > "\u2e7f" else " "
    place = places[draw.integers(len(places))]
    before, word = words[place]
    new = [(before, found[1]), (space, word)] if word else [(space, found[1]), (before, "")]
    return [*words[:place], *new, *words[place + 1 :]]


def _swapped(words: Words, synonyms: Synonyms, draw: np.random.Generator) -> Words:
    """Two words change places, and what stands between words stays."""
    places = _places(words)
    if len(places) < 2:
        return words
    one, other = draw.choice(places, 2, replace=False).tolist()
    changed = list(words)
    changed[one], changed[other] = (words[one][0], words[other][1]), (words[other][0], words[one][1])
    return changed


_OPERATIONS = {"synonyms": _with_synonym, "insert": _inserted, "swap": _swapped, "characters": _with_typing_error}
