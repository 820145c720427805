"""Counts of a stream in windows of time, and the alerts where a topic has far more of them than it usually has.

What is usual is the level of the last day times the hour's share of former days. Counts are taken as negative binomial, as wide around that
as former ones were (as Poisson where they were no wider). A surge may be short or long, so the last window, the last two and the last four
are each tested, with a third of the alarms that are allowed.
"""

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

DAY = 86_400
REMEMBERED_DAYS = 28
"""Of history that a topic's expectation rests on."""
RECENT = 24
"""Windows that tell the level of now; fewer are no history to judge by."""
PRIOR = 3
"""Windows of the mean that an hour's share, and days that a level, are drawn together to: little history says little."""
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


class Windows:
    """Counts of topics by window, and the surges among them. Windows are closed in order, each once."""

    def __init__(self, window: int, false_alarms: float, least: int):
        """window: seconds, a divisor of a day. false_alarms: of a topic in a day, about. least: no fewer are a surge."""
        self.window, self._least = window, least
        self._level = false_alarms * window / DAY / len(SPANS)
        self._past: dict[str, list[tuple[int, bool]]] = {}  # of each closed window: the count, and whether it was part of a surge
        self._born: dict[str, int] = {}
        self._open: dict[str, Counter[int]] = {}
        self._closed: int | None = None  # the number of the first window that is open
        self._alerting: set[str] = set()

    def number(self, time: int) -> int:
        return time // self.window

    def is_open(self, time: int) -> bool:
        return self._closed is None or self.number(time) >= self._closed

    def add(self, topic: str, time: int, count: int = 1) -> None:
        """In a window that is open. count: 0 for an item that is not of what is watched: its topic lives."""
        self._open.setdefault(topic, Counter())[self.number(time)] += count
        self._born.setdefault(topic, self.number(time))

    def close(self, until: int) -> tuple[list[Surge], list[str]]:
        """Close all windows that end at a time or before it: (the surges that begin in them, topics that were seen for the first time)."""
        first = min((min(counts) for counts in self._open.values() if counts), default=None)
        if self._closed is None:
            if first is None:
                return [], []
            self._closed = first
        last, surges, fresh = self.number(until), [], []
        if last - self._closed > REMEMBERED_DAYS * DAY // self.window:  # after so long a silence nothing is usual any more
            self._past, self._closed = {}, max(self._closed, last - 1)
            self._born = dict.fromkeys(self._born, self._closed)
        while self._closed < last:
            for topic in sorted(self._born):
                if self._born[topic] <= self._closed:
                    count = self._open.get(topic, Counter()).pop(self._closed, 0)
                    if topic not in self._past:
                        self._past[topic] = []
                        fresh.append(topic)
                    surge = self._surge(topic, count)
                    self._past[topic].append((count, surge is not None))
                    del self._past[topic][: -REMEMBERED_DAYS * DAY // self.window]
                    if surge is not None and topic not in self._alerting:
                        surges.append(surge)
                    (self._alerting.add if surge is not None else self._alerting.discard)(topic)
            self._closed += 1
        for topic in list(self._open):
            if not self._open[topic]:
                del self._open[topic]
        return surges, fresh

    def expected(self, topic: str) -> tuple[float, float]:
        """(of the window that closes next, how many times wider than Poisson counts are)."""
        past = self._past.get(topic, [])
        usual = np.array([count for count, surge in past if not surge] or [0], float)
        mean = max(float(usual.mean()), 1 / (len(usual) + 1))
        day = DAY // self.window
        counts = np.array([mean if surge else count for count, surge in past], float)  # a surge teaches nothing of the usual
        place = np.arange(len(counts)) - len(counts)  # -1 for the last; the next window is 0
        shares = {}
        for hour in {0, *(int(one) % day for one in place[-RECENT:])}:
            own = counts[place % day == hour]
            shares[hour] = (own.sum() / mean + PRIOR) / (len(own) + PRIOR)
        recent = place[-RECENT:]
        hours = np.array([shares[int(one) % day] for one in recent])
        level = (counts[-RECENT:].sum() + PRIOR * mean) / (hours.sum() + PRIOR) if len(recent) else mean
        width = float(np.mean((usual - usual.mean()) ** 2) / mean) if len(usual) > RECENT else 1.0
        return level * shares[0], max(1.0, width * 0.5 + 0.5)

    def _surge(self, topic: str, count: int) -> Surge | None:
        """What the window that closes ends, if anything: the span with the least probability. It is not in the past yet."""
        past = self._past[topic]
        if len(past) < RECENT:
            return None
        expected, width = self.expected(topic)
        found = None
        for span in SPANS:
            total, mean = count + sum(one for one, _ in past[len(past) - span + 1 :]), span * expected
            probability = tail(total, mean, width)
            if total >= self._least and probability <= self._level and (found is None or probability < found.probability):
                end = (self._closed + 1) * self.window if self._closed is not None else 0
                found = Surge(topic, end - span * self.window, end, total, mean, probability)
        if found is None and topic in self._alerting and tail(count, expected, width) <= math.sqrt(self._level):
            end = (self._closed + 1) * self.window if self._closed is not None else 0
            return Surge(topic, end - self.window, end, count, expected, tail(count, expected, width))  # the same one goes on
        return found

    # What a process that goes on must know

    def state(self) -> Any:
        return {
            "past": {topic: [[count, int(surge)] for count, surge in past] for topic, past in self._past.items()},
            "born": self._born,
            "open": {topic: {str(number): count for number, count in counts.items()} for topic, counts in self._open.items()},
            "closed": self._closed,
            "alerting": sorted(self._alerting),
        }

    def restore(self, state: Any) -> None:
        self._past = {topic: [(count, bool(surge)) for count, surge in past] for topic, past in state["past"].items()}
        self._born, self._closed, self._alerting = state["born"], state["closed"], set(state["alerting"])
        self._open = {topic: Counter({int(number): count for number, count in counts.items()}) for topic, counts in state["open"].items()}


def tail(count: int, mean: float, width: float) -> float:
    """Probability of a count or more: of a negative binomial with that mean and width times its variance, or Poisson for a width of 1."""
    if count <= 0:
        return 1.0
    if width <= 1.0:
        return float(stats.poisson.sf(count - 1, mean))
    return float(stats.nbinom.sf(count - 1, mean / (width - 1), 1 / width))
