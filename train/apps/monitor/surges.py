"""Counts of a stream in windows of time, and the alerts where a topic has far more of them than it usually has.

What is usual is the level of the last day times the hour's share of former days. Counts are taken as negative binomial, as wide around what
is expected as former ones were (as Poisson where they were no wider). A surge may be short or long, so the last window, the last two and
the last four are each tested, with a third of the alarms that are allowed. A surge teaches nothing of what is usual, until it has gone on
for a day: then it is what is usual.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

DAY = 86_400
REMEMBERED_DAYS = 28
"""Of history that a topic's expectation rests on."""
LEAST = 7
"""Windows that tell the level of now, at least; else those of a day. Fewer, or with fewer items in them, are no history to judge by."""
TOPICS = 2_000
"""That are remembered: of more, those that have been silent the longest are forgotten."""
PRIOR = 3
"""Windows of the mean that an hour's share, and a level, are drawn towards: little history says little."""
SPANS = (1, 2, 4)
"""Windows that are tested together."""


class Surge(NamedTuple):
    """begin, end: seconds. total: of what was watched; expected: of the same. probability: of so many or more where nothing happened."""

    topic: str
    begin: int
    end: int
    total: int
    expected: float
    probability: float


@dataclasses.dataclass
class _Topic:
    """past: of each closed window items of all kinds, what was counted of them, what was expected, and whether it was in a surge; open: of
    each open window items, and what is counted of them; last: the newest window with items."""

    past: list[tuple[int, int, float, bool]] = dataclasses.field(default_factory=list)
    open: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    last: int = 0
    alerting: bool = False

    @property
    def items(self) -> int:
        return sum(items for items, *_ in self.past)


class Windows:
    """Counts of topics by window, and the surges among them. Windows are closed in order, each once."""

    def __init__(self, window: int, false_alarms: float, least: int):
        """window: seconds, a divisor of a day. false_alarms: of a topic in a day, about at most. least: no fewer are a surge."""
        self.window, self._least = window, least
        self._level = false_alarms * window / DAY / len(SPANS)
        self._kept, self._recent = REMEMBERED_DAYS * DAY // window, max(LEAST, DAY // window)
        self._topics: dict[str, _Topic] = {}
        self._next: int | None = None
        """The number of the first window that is open."""

    def number(self, time: int) -> int:
        return time // self.window

    def is_open(self, time: int) -> bool:
        return self._next is None or self.number(time) >= self._next

    def add(self, topic: str, time: int, count: int = 1) -> None:
        """An item in a window that is open. count: 0 for one that is not of what is watched."""
        known = self._topics.setdefault(topic, _Topic())
        held, known.last = known.open.setdefault(self.number(time), [0, 0]), max(known.last, self.number(time))
        held[0] += 1
        held[1] += count
        if len(self._topics) > TOPICS:
            del self._topics[min(self._topics, key=lambda name: self._topics[name].last)]

    @property
    def topics(self) -> set[str]:
        return {*self._topics}

    def closes(self, until: int) -> bool:
        """Whether a window that is open ends at a time or before it, or none was closed yet."""
        return self._next is None or self.number(until) > self._next

    def close(self, until: int) -> tuple[list[Surge], list[str]]:
        """Close all windows that end at a time or before it: (surges that begin in them, topics that are new: seen for the first time, or
        hardly seen in a day before they came in numbers)."""
        surges: list[Surge] = []
        fresh: list[str] = []
        last = self.number(until)
        if self._next is None:
            self._next = min((number for topic in self._topics.values() for number in topic.open), default=None)
            if self._next is None:
                return surges, fresh
            self._next = min(self._next, last)  # who is late for the first window may still be in time
        if last - self._next > self._kept:  # after so long a silence nothing is usual any more
            first = min((number for topic in self._topics.values() for number in topic.open if number > last - self._kept), default=last)
            held = {name: {number: one for number, one in topic.open.items() if number >= first} for name, topic in self._topics.items()}
            self._topics, self._next = {name: _Topic([], open_, max(open_)) for name, open_ in held.items() if open_}, min(first, last)
        while self._next < last:
            for name, topic in sorted(self._topics.items()):
                items, count = topic.open.pop(self._next, (0, 0))
                if not topic.past and not items:
                    continue
                unheard = len(topic.past) >= self._recent and topic.items < self._recent and items >= self._least
                if not topic.past or unheard:
                    fresh.append(name)
                    topic.past = []
                expected = self.expected(name)
                surge = self._surge(name, topic, count, expected)
                topic.past.append((items, count, expected, surge is not None))
                del topic.past[: -self._kept]
                if surge is not None and not topic.alerting:
                    surges.append(surge)
                topic.alerting = surge is not None
                if len(topic.past) >= self._recent and all(surge for *_, surge in topic.past[-self._recent :]):
                    topic.past[-self._recent :] = [(*one[:3], False) for one in topic.past[-self._recent :]]
                    topic.alerting = False
            self._next += 1
            for name in [name for name, topic in self._topics.items() if self._next - topic.last > self._kept]:
                del self._topics[name]
        return surges, fresh

    def expected(self, name: str) -> float:
        """Of a topic in the window that closes next."""
        past = self._topics[name].past
        usual = [count for _, count, _, surge in past if not surge]
        mean = max(sum(usual) / len(usual) if usual else 0.0, 1 / (len(usual) + 1))
        counts = np.array([mean if surge else count for _, count, _, surge in past], float)
        hours = (np.arange(len(counts)) - len(counts)) % (DAY // self.window)  # 0: the hour of the window that closes next
        recent = slice(-self._recent, None)
        size = DAY // self.window
        total_H, number_H = np.bincount(hours, counts, size), np.bincount(hours, minlength=size)
        share_H = (total_H / mean + PRIOR) / (number_H + PRIOR)
        level = (counts[recent].sum() + PRIOR * mean) / (share_H[hours[recent]].sum() + PRIOR)
        return float(level * share_H[0])

    def _width(self, topic: _Topic) -> float:
        """How many times the variance of counts around what was expected is theirs as Poisson, at least 1."""
        told = [(count, expected) for _, count, expected, surge in topic.past[self._recent :] if not surge]
        weight = sum(expected for _, expected in told)
        prior = self._recent * weight / len(told) if told else 1.0
        return max(1.0, (sum((count - expected) ** 2 for count, expected in told) + prior) / (weight + prior))

    def _surge(self, name: str, topic: _Topic, count: int, expected: float) -> Surge | None:
        """What the window that closes ends, if anything: the span of the least probability, or another window of a surge that goes on."""
        if len(topic.past) < self._recent or topic.items < self._recent or self._next is None:
            return None
        width, end = self._width(topic), (self._next + 1) * self.window
        found = []
        for span in SPANS:
            before = topic.past[len(topic.past) - span + 1 :]
            if any(surge for *_, surge in before):  # which was told, and would be told again
                continue
            total, mean = count + sum(one for _, one, _, _ in before), expected + sum(one for _, _, one, _ in before)
            probability = tail(total, mean, width)
            if total >= self._least and probability <= self._level:
                found.append(Surge(name, end - span * self.window, end, total, mean, probability))
        if found:
            return min(found, key=lambda surge: surge.probability)
        probability = tail(count, expected, width)
        goes_on = topic.alerting and probability <= math.sqrt(self._level)
        return Surge(name, end - self.window, end, count, expected, probability) if goes_on else None

    # What a process that goes on must know

    def state(self) -> Any:
        topics = {name: dataclasses.asdict(topic) for name, topic in self._topics.items()}
        for topic in topics.values():
            topic["open"] = {str(number): held for number, held in topic["open"].items()}
        return {"next": self._next, "topics": topics}

    def restore(self, state: Any) -> None:
        self._next, self._topics = state["next"], {}
        for name, kept in state["topics"].items():
            past = [(items, count, expected, surge) for items, count, expected, surge in kept["past"]]
            held = {int(number): counts for number, counts in kept["open"].items()}
            self._topics[name] = _Topic(past, held, kept["last"], kept["alerting"])


def tail(count: int, mean: float, width: float) -> float:
    """Probability of a count or more: of a negative binomial with that mean and width times its variance, or Poisson for a width of 1."""
    if count <= 0:
        return 1.0
    if width <= 1.0:
        return float(stats.poisson.sf(count - 1, mean))
    return float(stats.nbinom.sf(count - 1, mean / (width - 1), 1 / width))
