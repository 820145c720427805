"""A monitor of opinion: how a stream of posts and news feels about each topic, and an alert where the negative surges."""

import dataclasses
import heapq
import math
import re
import time as clock
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
import xxhash

from data.anonymize.folding import fold
from data.clean.language import languages_of
from data.clean.units import units_of
from data.errors import UserError
from data.records.record import Record, is_number
from train.apps.monitor.surges import DAY, SPANS, Windows
from train.kinds import Application, Column, Section, check_range
from train.tasks.classification import Classification, ClassificationDataset

MOVED = re.compile(r"https?://\S+|[@#]\w+|\brt\b|\d+|[^\w\s]|_")
"""What posts of one text differ in: addresses, names, marks and numbers."""
REMEMBERED, AUTHORS = 20_000, 20_000
"""Texts and authors that are remembered, the newest."""
POSTS = 3
"""Posts of an alert."""
AHEAD, AGREE = 7 * DAY, 3
"""Seconds that an item may be ahead of the newest before it: a clock that is wrong would close all windows until then. So many in a row are
believed, after a silence."""
NAME = 200
"""Characters of the name of a topic or an author."""
TREND = 48
"""Windows on the page."""
SECONDS = re.compile(r"\d{9,15}(\.\d{1,9})?")
"""Since 1970, as text. Fewer digits may be a date without marks, such as 20150222."""


@dataclasses.dataclass(frozen=True)
class FinanceMonitor(Classification):
    """Posts and news with how their writers feel, and a stream of such with times and topics."""

    home: ClassVar[str] = ":MonitorDataset"
    how_to_get: ClassVar[str] = "Give labelled posts: --data.files posts.jsonl."

    label: str = "sentiment"
    """Column of how the writer feels."""
    negative: str = "negative"
    """The label that is watched."""
    time: str = "time"
    """Column of the time of an item of the stream: ISO 8601, without a zone UTC, or seconds since 1970."""
    topic: str = "topic"
    """Column of the topic."""
    author: str = "author"
    """Column of who wrote it, where the stream says so."""
    window_minutes: int = 60
    """Width of the windows in which items are counted; divides a day."""
    late_minutes: int = 10
    """How late an item may come to be counted in its window, which stays open for so long."""
    false_alarms: float = 0.05
    """Alerts of a topic in a day, about at most, in which nothing happened."""
    least: int = 5
    """Fewer negative items are no surge."""
    of_author: int = 3
    """Items of one author and topic that count in a window."""
    languages: tuple[str, ...] = ()
    """Languages that the run reads, such as en and zh: items of others are counted and not judged. Empty: any."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 1, "least", "of_author")
        check_range("data.", self, 5, "window_minutes")
        check_range("data.", self, 0, "late_minutes")
        if 24 * 60 % self.window_minutes:
            raise ValueError(f"data.window_minutes is {self.window_minutes}; it must divide a day of 1440")
        if not 0 < self.false_alarms <= 10:
            raise ValueError(f"data.false_alarms is {self.false_alarms}; it must be above 0, and at most 10")
        if self.several or self.pair:
            raise ValueError("data: an item has one sentiment and no pair")


class MonitorDataset(ClassificationDataset):
    options: FinanceMonitor
    watches = True

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Monitor":
        from train.apps.answering import Answering

        if self.options.negative not in self.label_names:
            raise UserError(
                f"{run.path}: watches {self.options.negative!r}, and knows {', '.join(self.label_names)}", "Train with --data.negative."
            )
        return Monitor(Answering(run, self, step=step, raw=raw))


class Monitor(Application):
    """Lines of three kinds: `window`, of each topic and each window that had items, when it closes; `alert`, of a surge, once; `topic`, of
    one that is seen for the first time."""

    notice = "It tells what was written about topics, and forecasts no prices."

    def __init__(self, answering: Any):
        self._answering, o = answering, answering.dataset.options
        self._options, self._names, self.text, self.reads = o, answering.dataset.label_names, o.text, answering.reads
        self._place = self._names.index(o.negative)
        self._seconds = 60 * o.window_minutes
        self._windows = Windows(self._seconds, o.false_alarms, o.least)
        self._confusion = np.array(answering.learned(self._learn)["confusion"])
        self._newest: int | None = None
        self._ahead = 0
        """Items in a row that were too far ahead."""
        self._counts: Counter[str] = Counter()
        self._open: dict[int, dict[str, dict[str, Any]]] = {}
        self._closed: dict[int, dict[str, dict[str, Any]]] = {}
        """The last ones, as far as a surge may reach back."""
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._authors: OrderedDict[str, None] = OrderedDict()
        self._trend: dict[str, list[list[Any]]] = {}
        self._alerts: list[dict[str, Any]] = []

    def _learn(self) -> dict[str, Any]:
        """confusion[i][j]: of the held-out items of label i, the share that was answered j; one of each is added, so that none is 0."""
        examples, answers = self._answering.validation()
        counts = np.eye(len(self._names))
        for example, answer in zip(examples, answers, strict=True):
            counts[self._answering.dataset.place_of(example.label, example), int(np.argmax(answer))] += 1
        return {"confusion": (counts / counts.sum(1, keepdims=True)).tolist()}

    # Items

    @property
    def columns(self) -> dict[str, Column]:
        o = self._options
        return {
            o.text: Column("The post, or the news."),
            o.time: Column("When it was written: ISO 8601, or seconds since 1970."),
            o.topic: Column("What it is about, such as a company."),
            o.author: Column("Who wrote it."),
        }

    @property
    def example(self) -> dict[str, Any]:
        from train.apps.answering import legible

        o = self._options
        text = legible("The shares fell again.", self._answering.tokenizer)
        return {o.text: text, o.time: "2024-05-01T12:00:00Z", o.topic: "Example"}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        read = [self._read(row) for row in rows]
        texts = [one for one in read if not isinstance(one, UserError)]
        foreign = self._foreign([example.fields["text"] for example, *_ in texts])
        judged = [one[0] for one, other in zip(texts, foreign, strict=True) if not other]
        answers = iter(self._answering([example._replace(label=None) for example in judged]))
        strange = iter(foreign)
        for one in read:
            if isinstance(one, UserError):
                lines.append({"error": str(one).partition("\n")[0]})
                continue
            example, time, topic, author = one
            other = next(strange)
            answer = None if other else next(answers)
            if self._is_astray(time):
                lines.append({"error": f"{example.where}: its time is more than {AHEAD // DAY} days ahead of the item before"})
                continue
            self._newest = time if self._newest is None else max(time, self._newest)
            self._counts["items"] += 1
            if other:
                self._counts["foreign"] += 1
            elif not self._windows.is_open(time):
                self._counts["late"] += 1
            elif self._is_repeated(topic, example.fields["text"], time):
                self._counts["repeated"] += 1
            else:
                self._take(topic, time, author, example.fields["text"], np.asarray(answer))
            lines += self._close(self._newest - 60 * self._options.late_minutes)
        return lines

    def _is_astray(self, time: int) -> bool:
        """Whether its clock seems to be wrong."""
        astray = self._newest is not None and time > self._newest + AHEAD
        self._ahead = self._ahead + 1 if astray else 0
        return astray and self._ahead < AGREE

    def _read(self, row: Record) -> Any:
        """(example, seconds, topic, author), or what is wrong with the row."""
        o = self._options
        try:
            example, topic = self._answering.example_of(row), row.get(o.topic)
            if not isinstance(topic, str) or not topic.strip():
                raise UserError(f"{row.where}: has no topic ({o.topic})", "Give one.")
            time = seconds_of(row.get(o.time), f"{row.where}: {o.time}")
            return example, time, topic.strip()[:NAME], str(row.get(o.author) or "")[:NAME]
        except UserError as error:
            return error

    def _foreign(self, texts: list[str]) -> list[bool]:
        if not self._options.languages or not texts:
            return [False] * len(texts)
        return [bool(guess.language) and guess.language not in self._options.languages for guess in languages_of(units_of(texts))]

    def _is_repeated(self, topic: str, text: str, time: int) -> bool:
        """Whether the same words were counted of this topic within a day."""
        words = " ".join(MOVED.sub(" ", fold(text).text.lower()).split())
        key = xxhash.xxh3_64_hexdigest(f"{topic}\n{words}".encode())
        if not words or abs(time - self._seen.get(key, time - DAY)) < DAY:
            return bool(words)
        self._seen.pop(key, None)
        self._seen[key] = time
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _take(self, topic: str, time: int, author: str, text: str, answer_V: np.ndarray) -> None:
        number, which = self._windows.number(time), int(answer_V.argmax())
        held = self._open.setdefault(number, {}).setdefault(
            topic, {"counts": [0] * len(self._names), "posts": [], "authors": {}, "fresh": 0}
        )
        if author:
            own = held["authors"].get(author, 0)
            if own >= self._options.of_author:
                self._counts["of one author"] += 1
                return
            held["authors"][author] = own + 1
            held["fresh"] += own == 0 and author not in self._authors
            self._authors.pop(author, None)
            self._authors[author] = None
            if len(self._authors) > AUTHORS:
                self._authors.popitem(last=False)
        held["counts"][which] += 1
        negative = which == self._place
        self._windows.add(topic, time, int(negative))
        if negative:  # the most typical are kept: those that the model is surest of
            heapq.heappush(held["posts"], [round(float(answer_V[self._place]), 4), text[:500]])
            if len(held["posts"]) > POSTS:
                heapq.heappop(held["posts"])

    def _close(self, until: int) -> list[dict[str, Any]]:
        """Lines of the windows that ended by then."""
        if not self._windows.closes(until):  # as at almost every item
            return []
        last = self._windows.number(until)
        closing = {number: self._open.pop(number) for number in sorted(self._open) if number < last}
        return self._told(*self._windows.close(until), closing)

    def _told(self, surges, fresh: list[str], closing: dict[int, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [{"kind": "topic", "topic": topic} for topic in fresh]
        for number, topics in closing.items():
            for topic, held in sorted(topics.items()):
                held["authors"] = len(held["authors"])  # who they were is no longer asked
                counts = dict(zip(self._names, held["counts"], strict=True))
                line = {
                    "kind": "window",
                    "topic": topic,
                    "from": written(number * self._seconds),
                    "to": written((number + 1) * self._seconds),
                    "counts": counts,
                    "shares": self._corrected(held["counts"]),
                }
                lines.append(line)
                self._trend[topic] = [*self._trend.get(topic, []), [number, held["counts"]]][-TREND:]
        self._closed |= closing
        for surge in surges:
            inside = [
                topics[surge.topic]
                for number, topics in self._closed.items()
                if surge.topic in topics and surge.begin <= number * self._seconds < surge.end
            ]
            posts = heapq.nlargest(POSTS, (post for held in inside for post in held["posts"]))
            authors = sum(held["authors"] for held in inside)
            alert = {
                "kind": "alert",
                "topic": surge.topic,
                "from": written(surge.begin),
                "to": written(surge.end),
                self._options.negative: surge.total,
                "expected": round(surge.expected, 2),
                "probability": float(f"{surge.probability:.2g}"),
                "posts": [text for _, text in posts],
                "new_authors": round(sum(held["fresh"] for held in inside) / authors, 3) if authors else None,
            }
            lines.append(alert)
            self._alerts = [*self._alerts, alert][-200:]
            self._counts["alerts"] += 1
        self._closed = {number: topics for number, topics in self._closed.items() if number > max(self._closed) - max(SPANS)}
        known = self._windows.topics if closing else {*self._trend}
        self._trend = {topic: windows for topic, windows in self._trend.items() if topic in known}
        return lines

    def _corrected(self, counts: Sequence[int]) -> dict[str, float]:
        """Shares of labels that would be answered as these were, by the confusions of held-out items: adjusted counts (Forman 2008), by
        expectation-maximisation, so that no share is below 0."""
        answered = np.array(counts, float)
        share = np.full(len(answered), 1 / len(answered))
        for _ in range(100):
            joint = share[:, None] * self._confusion
            share = (joint / np.maximum(joint.sum(0), 1e-300) * answered).sum(1) / max(answered.sum(), 1.0)
        return {name: round(float(one), 4) for name, one in zip(self._names, share, strict=True)}

    # All of them

    def finish(self) -> list[dict[str, Any]]:
        if self._newest is None:
            return []
        return self._close((self._windows.number(self._newest) + 1) * self._seconds)

    def state(self) -> Any:
        return {
            "newest": self._newest,
            "ahead": self._ahead,
            "closed": {str(number): topics for number, topics in self._closed.items()},
            "counts": dict(self._counts),
            "open": {str(number): topics for number, topics in self._open.items()},
            "seen": list(self._seen.items()),
            "authors": list(self._authors),
            "trend": self._trend,
            "alerts": self._alerts,
            "windows": self._windows.state(),
        }

    def restore(self, state: Any) -> None:
        self._newest, self._ahead, self._counts = state["newest"], state["ahead"], Counter(state["counts"])
        self._closed = {int(number): topics for number, topics in state["closed"].items()}
        self._open = {int(number): topics for number, topics in state["open"].items()}
        self._seen, self._authors = OrderedDict(state["seen"]), OrderedDict.fromkeys(state["authors"])
        self._trend, self._alerts = state["trend"], state["alerts"]
        self._windows.restore(state["windows"])

    def summary(self) -> dict[str, Any]:
        return {name: self._counts[name] for name in ("items", "foreign", "late", "repeated", "of one author", "alerts")}

    def sections(self) -> list[Section]:
        from train.apps.pictures import trend_picture

        topics = sorted(self._trend, key=lambda topic: -sum(sum(counts) for _, counts in self._trend[topic]))[:8]
        pictures = {
            f"monitor_{place}": trend_picture(topic, self._trend[topic], self._names, self._seconds) for place, topic in enumerate(topics)
        }
        watched = self._options.negative
        rows = [[one["topic"], one["to"], str(one[watched]), f"{one['expected']:.1f}", *one["posts"][:1]] for one in self._alerts]
        columns = ("topic", "until", watched, "expected", "a typical post")
        numbers = [[name, f"{value:,}"] for name, value in self.summary().items()]
        return [
            Section("Monitor: alerts", {}, columns, rows[::-1][:50]),
            Section("Monitor: the last windows", pictures, ("items", "number"), numbers),
        ]


def seconds_of(value: Any, what: str) -> int:
    """Since 1970. UserError for what is no time, or one before 1970 or after tomorrow."""
    if is_number(value) or (isinstance(value, str) and SECONDS.fullmatch(value.strip())):  # a table has numbers as texts
        found = float(value)
    elif isinstance(value, str):
        try:
            read = datetime.fromisoformat(value.strip())
        except ValueError:
            raise UserError(f"{what}: {value[:40]!r} is no time", "Give ISO 8601, or seconds since 1970.") from None
        found = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    else:
        raise UserError(f"{what}: there is no time", "Give ISO 8601, or seconds since 1970.")
    if not 0 <= found < clock.time() + DAY:
        raise UserError(f"{what}: {value!r} is no time since 1970, or lies ahead of us", "Give seconds, not milliseconds.")
    return math.floor(found)


def written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
