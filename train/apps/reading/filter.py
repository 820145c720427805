"""A filter of messages: those that nobody wants are held back, and of the others hardly any."""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.errors import UserError
from data.records.record import Record
from train.apps.answering import ID, Answering, in_place, legible
from train.apps.reading.lookalikes import undisguised
from train.kinds import Application, Column, Section
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example

WORD = re.compile(r"\w+")
WORDS, TOLD = 40, 3
"""Words of a message that are left out one by one, and those that are told."""
KEPT = 50
"""Messages of the page that were held back, the most doubtful ones."""


@dataclasses.dataclass(frozen=True)
class Filter(Classification):
    """Messages with two labels, of which one is not wanted."""

    home: ClassVar[str] = ":FilterDataset"
    how_to_get: ClassVar[str] = "Give labelled messages: --data.files messages.jsonl."

    unwanted: str = "spam"
    """The label of messages that are held back."""
    false_positives: float = 0.002
    """Share of the wanted messages, among those that were held out, that may be held back."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.false_positives < 1:
            raise ValueError(f"data.false_positives is {self.false_positives}; it must be at least 0 and below 1")
        if self.several or self.pair:
            raise ValueError("data: a message has one label and no pair")


class FilterDataset(ClassificationDataset):
    options: Filter

    def example(self, record: Record) -> Example:
        """Read as it looks: words with letters of other scripts are those that people see."""
        found = super().example(record)
        text = undisguised(found.fields["text"])
        if not text.strip():
            raise UserError(f"{record.where}: {self.options.text} holds nothing that can be seen", "Leave it out.")
        return found._replace(fields=found.fields | {"text": text})

    def check(self, sources: list) -> None:
        super().check(sources)
        if self.options.unwanted not in self.label_names or len(self.label_names) != 2:
            raise UserError(
                f"data.unwanted is {self.options.unwanted!r}, and the labels are {', '.join(self.label_names)}",
                "Give messages of two labels, and name that of those which are not wanted.",
            )

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Filtering":
        return Filtering(Answering(run, self, step=step, raw=raw))


def most_with(wanted_N: np.ndarray, share: float) -> float:
    """The lowest probability from which on no more than this share of the wanted messages is held back. wanted_N: theirs."""
    allowed = math.floor(share * len(wanted_N) + 1e-9)
    ordered = np.sort(np.asarray(wanted_N, np.float64))[::-1]
    return float(np.nextafter(ordered[allowed], 2.0)) if allowed < len(ordered) else 0.0


def _without(example: Example, word: re.Match) -> Example | None:
    """A message without a word; None where nothing else is left."""
    text = example.fields["text"]
    rest = f"{text[: word.start()]}{text[word.end() :]}".strip()
    return example._replace(fields=example.fields | {"text": rest}) if rest else None


class Filtering(Application):
    """Whether each message is held back, how probable it is that it is not wanted, and by which words."""

    def __init__(self, answering: Answering):
        self._answering, self._options, self.reads = answering, answering.dataset.options, answering.reads
        self.text = self._options.text
        self._place = answering.dataset.label_names.index(self._options.unwanted)
        learned = answering.learned(self._learn, of=[self._options.unwanted, self._options.false_positives])
        self._threshold, self._curve = learned["threshold"], learned["curve"]
        self._counts: Counter[str] = Counter()
        self._held: list[list[Any]] = []

    def _learn(self) -> dict[str, Any]:
        """Of the messages that were held out: the threshold, and what others would have let through."""
        examples, answers = self._answering.validation()
        unwanted = np.array([example.label == self._options.unwanted for example in examples], bool)
        if not unwanted.any() or unwanted.all():
            raise UserError(f"{self._answering.run.path}: messages of one label alone were held out", "Train with --data.validation 0.2.")
        given = np.array([answer[self._place] for answer in answers], np.float64)
        of = functools.partial(most_with, given[~unwanted])
        curve = [
            [share, threshold := of(share), float((given[unwanted] >= threshold).mean())]
            for share in (0.0, 0.001, 0.002, 0.005, 0.01, 0.05)
        ]
        return {"threshold": of(self._options.false_positives), "curve": curve}

    @property
    def columns(self) -> dict[str, Column]:
        label = Column("Whether it is wanted, if that is known: the summary counts how often it is told.")
        return {self.text: Column("The message."), self._options.label: label} | ID

    @property
    def example(self) -> dict[str, Any]:
        return {self.text: legible("You have won a prize! Call now to claim it.", self._answering.tokenizer)}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, lambda row: self._answering.example_of(row, labelled=True), self._lines)

    def _lines(self, examples: list[Example]) -> list[dict[str, Any]]:
        given = [float(answer[self._place]) for answer in self._answering(examples)]
        held = [example for example, p in zip(examples, given, strict=True) if p >= self._threshold]
        words = [
            [(word[0], rest) for word in [*WORD.finditer(example.fields["text"])][:WORDS] if (rest := _without(example, word)) is not None]
            for example in held
        ]
        less = iter(float(answer[self._place]) for answer in self._answering([rest for own in words for _, rest in own]))
        why = iter([[(word, next(less)) for word, _ in own] for own in words])
        lines = []
        for example, p in zip(examples, given, strict=True):
            line: dict[str, Any] = {"held": p >= self._threshold, "probability": round(p, 6)}
            if line["held"]:
                lost = [(word, p - other) for word, other in next(why)]
                best = sorted(lost, key=lambda one: -one[1])[:TOLD]
                line["because"] = [{"word": word, "less": round(value, 4)} for word, value in best if value > 0]
            self._count(example, line)
            lines.append(line)
        return lines

    def _count(self, example: Example, line: dict[str, Any]) -> None:
        c = self._counts
        c["messages"] += 1
        c["held"] += line["held"]
        if example.label in self._answering.dataset.label_names:
            kind = "unwanted" if example.label == self._options.unwanted else "wanted"
            c[kind] += 1
            c[f"{kind} held"] += line["held"]
        if line["held"]:
            self._held = sorted([*self._held, [line["probability"], example.fields["text"][:200]]])[:KEPT]

    def state(self) -> Any:
        return {"counts": dict(self._counts), "held": [*self._held]}

    def restore(self, state: Any) -> None:
        self._counts, self._held = Counter(state["counts"]), list(state["held"])

    def summary(self) -> dict[str, Any]:
        """Messages and those held back; where rows have labels, the shares of unwanted ones that were, and of wanted ones."""
        c = self._counts
        found: dict[str, Any] = {"messages": c["messages"], "held": c["held"]}
        found |= {"recall": c["unwanted held"] / c["unwanted"]} if c["unwanted"] else {}
        return found | ({"false_positives": c["wanted held"] / c["wanted"]} if c["wanted"] else {})

    def sections(self) -> list[Section]:
        rows = [[f"{share:.3f}", f"{threshold:.6f}", f"{found:.3f}"] for share, threshold, found in self._curve]
        doubtful = [[f"{p:.4f}", text] for p, text in self._held]
        return [
            Section("Filter: held-out messages", {}, ("wanted held back, at most", "from a probability of", "unwanted held back"), rows),
            Section("Filter: messages", {}, ("", ""), self.summary_rows()),
            Section("Filter: held back, the most doubtful first", {}, ("probability", "message"), doubtful),
        ]
