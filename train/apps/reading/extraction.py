"""What stands where in a long text, such as a contract: each clause quoted with its place, what is absent, and what should be looked at."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.clean.language import languages_of
from data.clean.units import units_of
from data.errors import UserError
from data.records.record import Record
from train.apps.answering import ID, Answering, in_place, legible
from train.apps.confidence import NEVER, log_odds, threshold
from train.kinds import Application, Column, Section
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, column

END = re.compile(r"(?<=[.;!?])(?P<closed>[”\"')\]]*)\s+(?=[A-Z0-9(“\"'\[])|\n\s*\n\s*|(?<=[。！？；])")
"""Where a sentence may end, or a paragraph."""
CUT = re.compile(r"(?<=[,;:])\s+|\s+")
SHORTEST, LETTERS = 25, 5
"""Characters of a passage at least, unless a paragraph has no more; and of a token on average, by which a passage is about what is read."""
BLANK = re.compile(r"_{3,}|\[\s*[●•*]?\s*\]|\.{6,}")
"""What is left open in a form."""
REVIEWED, KEPT = 5, 50
"""Passages of a text whose labels are most in doubt, and those of the page."""
TOGETHER = 4096
"""Passages that are read at once."""
SEEN = 5000
"""Characters by which the language of a text is told."""
COMMON = 0.05
"""Share of the held-out texts from which on their language was learned from."""


@dataclasses.dataclass(frozen=True)
class Extraction(Classification):
    """Passages with any number of labels, to find such in long texts."""

    home: ClassVar[str] = ":ExtractionDataset"
    how_to_get: ClassVar[str] = "Give labelled passages: --data.files clauses.jsonl."

    several: bool = True
    """Passages may have several labels, or none."""
    precision: float = 0.8
    """How often labels that are given should be right, of those that were held out."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.precision <= 1:
            raise ValueError(f"data.precision is {self.precision}; it must be above 0, and at most 1")
        if not self.several or self.pair:
            raise ValueError("data: a passage has several labels, and no pair")


class ExtractionDataset(ClassificationDataset):
    options: Extraction

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Extracting":
        return Extracting(Answering(run, self, step=step, raw=raw))


class Passage(NamedTuple):
    """Characters of a text, from start to before end."""

    start: int
    end: int


def passages_of(text: str, most: int) -> list[Passage]:
    """A text in order, sentence by sentence, each of `most` characters at most; what is between two of them is blank. Short ones stand with
    the next."""
    return [Passage(start, end) for start, end in _pieces(text, most) if text[start:end].strip()]


def _pieces(text: str, most: int) -> Iterator[tuple[int, int]]:
    begin = 0
    ends = [(max(found.start(), found.end("closed")), found.end(), found[0].count("\n") > 1) for found in END.finditer(text)]
    for end, after, paragraph in [*ends, (len(text), len(text), True)]:
        if end - begin < SHORTEST and not paragraph:
            continue
        yield from _cut(text, begin, end, most)
        begin = after


def _cut(text: str, begin: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """A sentence, in parts where it is too long, cut behind a mark if one is in the second half of what fits, or else between words."""
    while end - begin > most:
        places = [(text[found.start() - 1] in ",;:", found) for found in CUT.finditer(text, begin + most // 2, begin + most)]
        chosen = next((found for marked, found in reversed(places) if marked), places[-1][1] if places else None)
        if chosen is None:
            yield begin, begin + most
            begin += most
        else:
            yield begin, chosen.start()
            begin = chosen.end()
    yield begin, end


class Extracting(Application):
    """Of each text its `clauses`, in order: label, start, end, quote, confidence, and `blank` where something is left open in it.
    Neighbours of one label are one clause. `absent`: labels that none has, with the passage that comes nearest. `review`: the passages
    whose labels are most in doubt. A text in a language that was not learned from is told in `remarks`."""

    at_once = 16

    def __init__(self, answering: Answering):
        self._answering, self._options, self.reads = answering, answering.dataset.options, answering.reads
        self.text, self._names = self._options.text, answering.dataset.label_names
        learned = answering.learned(self._learn, of=[self._options.precision])
        self._threshold, self._languages = learned["threshold"], learned["languages"]
        self._counts: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._doubtful: list[list[Any]] = []

    def _learn(self) -> dict[str, Any]:
        """Of the passages that were held out: from which probability on labels are given, and their languages."""
        examples, answers = self._answering.validation()
        if not examples:
            raise UserError(f"{self._answering.run.path}: no passages were held out", "Train with --data.validation 0.1.")
        right_NV = np.array([[name in example.label for name in self._names] for example in examples])
        given_NV = np.array(answers, np.float64)
        told = Counter(
            guess.language for guess in languages_of(units_of([example.fields["text"] for example in examples])) if guess.language
        )
        known = sorted(name for name, count in told.items() if count >= COMMON * told.total())
        return {"threshold": threshold(given_NV.reshape(-1), right_NV.reshape(-1), self._options.precision), "languages": known}

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        return {self.text: Column("The text, of any length.")} | ID

    @property
    def example(self) -> dict[str, Any]:
        text = "This agreement is governed by the laws of England. It ends on 1 May 2030, unless both parties agree to go on."
        return {self.text: legible(text, self._answering.tokenizer)}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> str:
        return self._answering.example_of(Record({self.text: column(row, self.text)}, row.where)).fields["text"]

    @property
    def _most(self) -> int:
        """Characters of a passage."""
        return LETTERS * self._options.length

    def _lines(self, texts: list[str]) -> list[dict[str, Any]]:
        each = [passages_of(text, self._most) for text in texts]
        lines, waiting, count = [], list[int](), 0
        for number, own in enumerate(each):
            waiting.append(number)
            count += len(own)
            if count >= TOGETHER or number == len(each) - 1:
                given = iter(self._given([texts[place][one.start : one.end] for place in waiting for one in each[place]]))
                lines += [self._line(texts[place], each[place], np.array([next(given) for _ in each[place]])) for place in waiting]
                waiting, count = [], 0
        return lines

    def _parts(self, text: str) -> list[str]:
        """A passage, or its parts where the model would not read it to its end, as in writing of many tokens."""
        if len(text) < self._options.length // 4 or self._answering.fits(Example({"text": text}, None, "row")):
            return [text]
        return [part for one in passages_of(text, (len(text) + 1) // 2) for part in self._parts(text[one.start : one.end])]

    def _given(self, texts: list[str]) -> list[np.ndarray]:
        """The probabilities of labels of each passage, some at a time; of one that is read in parts the largest ones."""
        found: list[np.ndarray] = []
        for first in range(0, len(texts), TOGETHER):
            parts = [self._parts(text) for text in texts[first : first + TOGETHER]]
            answers = iter(self._answering([Example({"text": part}, None, "row") for own in parts for part in own]))
            found += [np.max([next(answers) for _ in own], 0) for own in parts]
        return found

    def _line(self, text: str, passages: list[Passage], given_PV: np.ndarray) -> dict[str, Any]:
        clauses = [
            self._clause(text, Passage(passages[first].start, passages[last].end), name, float(given_PV[first : last + 1, place].max()))
            for place, name in enumerate(self._names)
            for first, last in _runs(given_PV[:, place] >= self._threshold)
        ]
        clauses.sort(key=lambda one: (one["start"], one["label"]))
        there = {one["label"] for one in clauses}
        nearest_V = given_PV.argmax(0)
        absent = [
            {
                "label": name,
                "nearest": passages[nearest_V[place]]._asdict(),
                "confidence": round(float(given_PV[nearest_V[place], place]), 4),
            }
            for place, name in enumerate(self._names)
            if name not in there
        ]
        line: dict[str, Any] = {"clauses": clauses, "absent": absent, "review": self._review(passages, given_PV), "passages": len(passages)}
        (guess,) = languages_of(units_of([text[:SEEN]]))
        if guess.language and self._languages and guess.language not in self._languages:
            line["remarks"] = [f"the text is in {guess.language}, and what was learned from is in {', '.join(self._languages)}"]
        self._count(text, line)
        return line

    def _clause(self, text: str, place: Passage, name: str, confidence: float) -> dict[str, Any]:
        quote = text[place.start : place.end]
        found = {"label": name, "start": place.start, "end": place.end, "quote": quote, "confidence": round(confidence, 4)}
        return found | ({"blank": True} if BLANK.search(quote) else {})

    def _apart(self, p: Any) -> Any:
        """How far probabilities are from being given, or not, in nats."""
        return np.abs(log_odds(p) - log_odds(min(self._threshold, 1.0)))

    def _review(self, passages: list[Passage], given_PV: np.ndarray) -> list[dict[str, Any]]:
        """Where a label is nearest to being given, or not."""
        apart_PV = self._apart(given_PV)
        chosen = np.argsort(apart_PV, axis=None, kind="stable")[:REVIEWED]
        return [
            {"label": self._names[label], **passages[place]._asdict(), "confidence": round(float(given_PV[place, label]), 4)}
            for place, label in zip(*np.unravel_index(chosen, apart_PV.shape), strict=True)
        ]

    # All rows

    def _count(self, text: str, line: dict[str, Any]) -> None:
        self._counts += Counter({"texts": 1, "passages": line["passages"], "clauses": len(line["clauses"])})
        self._counts["remarks"] += "remarks" in line
        self._labels += Counter({one["label"] for one in line["clauses"]})
        doubtful = [[float(self._apart(one["confidence"])), one["label"], text[one["start"] : one["end"]][:300]] for one in line["review"]]
        self._doubtful = sorted([*self._doubtful, *doubtful])[:KEPT]

    def state(self) -> Any:
        return {"counts": dict(self._counts), "labels": dict(self._labels), "doubtful": [*self._doubtful]}

    def restore(self, state: Any) -> None:
        self._counts, self._labels, self._doubtful = Counter(state["counts"]), Counter(state["labels"]), list(state["doubtful"])

    def summary(self) -> dict[str, Any]:
        """Texts, their passages and clauses, and texts in other languages than were learned from."""
        return {name: self._counts[name] for name in ("texts", "passages", "clauses")} | {"other_languages": self._counts["remarks"]}

    def sections(self) -> list[Section]:
        given = "never" if self._threshold >= NEVER else f"from {self._threshold:.3f} on"
        labels = [[name, f"{self._labels[name]:,}"] for name in sorted(self._names, key=lambda name: (-self._labels[name], name))]
        return [
            Section("Extraction: texts", {}, ("", ""), [*self.summary_rows(), ["a label is given", given]]),
            Section("Extraction: texts that have a clause", {}, ("label", "texts"), labels),
            Section("Extraction: to look at first", {}, ("label", "passage"), [one[1:] for one in self._doubtful]),
        ]


def _runs(given_P: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of each run of passages."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], given_P.astype(int), [0]])))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)]
