"""Facts that go together: what a sheet lacks is drawn among the values of other sheets, as they stand beside what it has."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from data.rows.order import fold
from train.tasks.examples import content_hash

ABSENT = ""
"""Stands for a fact that a sheet does not have: spells have no size."""


class Facts:
    """How often values of choices stand in sheets, each by itself and two together."""

    def __init__(self, sheets: Sequence[Sequence[tuple[str, str]]], choices: Mapping[str, Sequence[str]]):
        """choices: of each fact its values, in lower case; other facts are not drawn."""
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in choices}
        self._pairs: Counter[tuple[str, str, str, str]] = Counter()
        self._written: dict[tuple[str, str], str] = {}
        for sheet in sheets:
            values = {name: value for name, value in sheet if value.casefold() in choices.get(name, ())}
            self._written |= {(name, value.casefold()): value for name, value in values.items()}
            own = {name: values.get(name, ABSENT).casefold() for name in choices}
            for name, value in own.items():
                self._counts[name][value] += 1
                self._pairs.update((name, value, other, own[other]) for other in own if other != name)

    def filled(self, sheet: Mapping[str, str], seed: int) -> dict[str, str]:
        """A sheet with the choices that it lacks. Each is drawn in turn, by how often its values stand beside what is there (naive Bayes,
        half a sheet added to each count), among those that stood beside all of that, each by itself, if there are such. The same for the
        same sheet and seed."""
        own = {name: sheet.get(name, ABSENT).casefold() for name in self._counts if name in sheet}
        known = {name: value for name, value in own.items() if self._counts[name][value]}
        found = dict(sheet)
        for number, name in enumerate(name for name in self._counts if name not in sheet):
            weights = {value: self._weight(name, value, known) for value in sorted(self._counts[name])}
            together = {value: weight for value, weight in weights.items() if self._goes(name, value, known)} or weights
            most = max(together.values())
            share_V = np.exp(np.array([*together.values()]) - most)
            at = int(fold(seed, content_hash(sorted(sheet.items())), number)) / 2.0**64
            value = [*together][int(np.searchsorted(np.cumsum(share_V / share_V.sum()), at, side="right").clip(0, len(share_V) - 1))]
            known[name] = value
            if value != ABSENT:
                found[name] = self._written[name, value]
        return found

    def _weight(self, name: str, value: str, known: Mapping[str, str]) -> float:
        """The logarithm of a probability, but for a constant."""
        count = self._counts[name][value]
        beside = (
            math.log((self._pairs[name, value, other, given] + 0.5) / (count + 0.5 * len(self._counts[other])))
            for other, given in known.items()
        )
        return math.log(count) + sum(beside)

    def _goes(self, name: str, value: str, known: Mapping[str, str]) -> bool:
        return all(self._pairs[name, value, other, given] for other, given in known.items())


def closed(sheets: Sequence[Sequence[tuple[str, str]]], most: int) -> dict[str, list[str]]:
    """Of each fact with at most so many different values, in three sheets each on average, these values, in lower case."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for sheet in sheets:
        for name, value in sheet:
            values[name][value.casefold()] += 1
    return {name: sorted(own) for name, own in values.items() if len(own) <= most and own.total() >= 3 * len(own)}
