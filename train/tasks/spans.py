"""Questions on a text, answered by a span of it (Rajpurkar et al. 2016), or by saying that it holds no answer (Rajpurkar et al. 2018)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.questions import read_questions
from data.records.record import Record
from train.kinds import Column, check_range
from train.tasks.examples import Example, TaskFile, column
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset
from train.tasks.words import WordEncoder, word_spans

MAY, BEGINS, ENDS = 1, 2, 4
"""Bits of a token's label: see Span in train/objectives/tasks/heads.py."""
LIKELIEST = 20
"""Beginnings and ends that are combined to spans."""


@dataclasses.dataclass(frozen=True)
class Spans(Task):
    """Questions on texts, in SQuAD's JSON, of version 1.1 or 2.0."""

    home: ClassVar[str] = ":SpansDataset"
    how_to_get: ClassVar[str] = "Give questions on texts: --data.files train.json, as SQuAD has them."

    length: int = 384
    """Tokens of a row: question and a window of the text."""
    stride: int = 128
    """Tokens between the beginnings of two windows of a long text."""
    longest: int = 30
    """Words of an answer, at most."""
    language: str = "en"
    """Language of the answers, which decides how they are compared: of zh and ja by characters."""
    answerable: bool = True
    """Every question has an answer, as in SQuAD 1.1. Off: some have none (SQuAD 2.0)."""
    no_answer: float = 0.0
    """Without answerable: log-odds of an empty answer from which on it is given; larger values answer more."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 1, "stride", "longest")


class Window(NamedTuple):
    """What a row reads of a text: its words [first, last), of all words with their spans and ids, and the question's ids."""

    number: int
    question: np.ndarray
    spans: list[tuple[int, int]]
    ids: list[np.ndarray]
    first: int
    last: int
    answers: tuple[tuple[str, int], ...]


class Pointed(str):
    """A part of a text. start: the place of its first character there."""

    start: int

    def __new__(cls, quote: str, start: int):
        pointed = super().__new__(cls, quote)
        pointed.start = start
        return pointed

    def __getnewargs__(self):
        return str(self), self.start


class SpansDataset(TaskDataset):
    """Answers are (text, log-odds of having no answer, log-probability). An example is one window of a question's text."""

    options: Spans
    by_token, in_parts, label_fields = True, True, ("answers",)

    @property
    def row_columns(self) -> dict[str, Column]:
        return {"question": Column("The question."), "context": Column("The text that it asks about, which holds the answer.")}

    def read(self, source: TaskFile) -> list[Example]:
        o, found = self.options, []
        self.tokens = source.tokenizer()
        for number, one in enumerate(read_questions(source.path, left_out=source.left_out if o.leave_out else None)):
            fields = {"id": one.id, "question": one.question, "context": one.context}
            with self.usable(source, one.where):
                if o.answerable and not one.answers:
                    raise UserError(f"{one.where}: has no answer", "Set --data.no-answerable where questions may have none.")
            if one.answers or not o.answerable:
                found += self._windows_of(number, fields, one.where, tuple(one.answers))
        return found

    def _windows_of(self, number: int, fields: dict[str, str], where: str, answers: tuple[tuple[str, int], ...]) -> list[Example]:
        context, o = fields["context"], self.options
        if getattr(self, "_encoder", None) is None:
            self._encoder = WordEncoder(self.tokens)
        spans = word_spans(context)
        close = [place > 0 and spans[place - 1][1] < begin for place, (begin, _) in enumerate(spans)]
        ids = self._encoder([context[begin:end] for begin, end in spans], close)
        question = self.tokens.encode(fields["question"])[: o.length // 3]
        room = o.length - len(question) - 3
        ids = [piece[:room] for piece in ids]
        if self.way != "head":
            answer = answers[0][0] if answers else ""
            return [Example(fields, answer, where, Window(number, question, spans, ids, 0, len(ids), answers))]
        return [
            Example(fields, _places(answers[:1], spans, first, last), where, Window(number, question, spans, ids, first, last, answers))
            for first, last in windows(np.array([len(piece) for piece in ids], np.int64), room, o.stride)
        ]

    def examples_of(self, record: Record) -> list[Example]:
        fields = {"id": str(record.get("id", "")), "question": column(record, "question"), "context": column(record, "context")}
        if not word_spans(fields["context"]):
            raise UserError(f"{record.where}: context has no word", "Give the text that is asked about.")
        return self._windows_of(0, fields, record.where, ())

    def labelled(self, example: Example) -> bool:
        return True

    def identity(self, example: Example) -> Any:
        """The question, in however many windows."""
        return [example.fields["id"], example.fields["question"], example.fields["context"]]

    def head(self):
        from train.objectives.tasks.heads import Span

        return Span()

    def pieces(self, example: Example, labelled: bool) -> Item:
        window = example.parts
        words = window.ids[window.first : window.last]
        ids, types = self.wrapped(window.question, np.concatenate([*words, np.zeros(0, np.int32)]))
        label, learned = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
        begins, ends = self._tokens_of(window)
        label[begins], label[0] = MAY, MAY
        label[ends] |= MAY
        true = (0, 0) if example.label is None else (begins[example.label[0] - window.first], ends[example.label[1] - window.first])
        label[true[0]] |= BEGINS
        label[true[1]] |= ENDS
        learned[0] = 1.0
        return (Piece(ids, types, label, learned=learned),)

    def _tokens_of(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last token in the row of each word of a window."""
        sizes = np.array([len(ids) for ids in window.ids[window.first : window.last]], np.int64)
        ends = len(window.question) + 2 + np.cumsum(sizes)
        return np.where(sizes > 0, ends - sizes, 0), np.where(sizes > 0, ends - 1, 0)

    own_prompt = "{context}\nQuestion: {question}\nAnswer:"

    def answer(self, example: Example) -> str:
        return f" {example.label}" if example.label else " none"

    def found(self, example: Example, outputs: Any) -> tuple[str, float, float]:
        if isinstance(outputs, str):
            text = outputs.strip()
            return ("", 1.0, 0.0) if text == "none" else (text, -1.0, 0.0)
        window, log_p = example.parts, outputs[0]
        begins, ends = self._tokens_of(window)
        first, last = log_p[begins, 0], log_p[ends, 1]
        likely = np.argsort(-first)[:LIKELIEST], np.argsort(-last)[:LIKELIEST]
        best, span = -np.inf, (0, -1)
        for begin in likely[0].tolist():
            for end in likely[1].tolist():
                if begin <= end < begin + self.options.longest and begins[begin] and ends[end] and first[begin] + last[end] > best:
                    best, span = float(first[begin] + last[end]), (begin, end)
        if span[1] < 0:
            return "", np.inf, -np.inf
        start, stop = window.spans[window.first + span[0]][0], window.spans[window.first + span[1]][1]
        return Pointed(example.fields["context"][start:stop], start), float(log_p[0].sum()) - best, best

    def joined(self, examples: list[Example], answers: list[Any]) -> tuple[list[Example], list[Any]]:
        """The likeliest answer of all windows; none only where every window says so."""
        held: dict[str, tuple[Example, list[Any]]] = {}
        for example, answer in zip(examples, answers, strict=True):
            held.setdefault(f"{example.where}\n{example.fields['id']}", (example, []))[1].append(answer)
        best = [(max(given, key=lambda one: one[2])[0], min(one[1] for one in given)) for _, given in held.values()]
        texts = ["" if not self.options.answerable and odds > self.options.no_answer else text for text, odds in best]
        return [example for example, _ in held.values()], texts

    def score(self, examples: Sequence[Example], answers: Sequence[str]):
        from train.tasks.metrics.spans import span_scores

        return span_scores([[text for text, _ in example.parts.answers] for example in examples], answers, self.options.language)

    def loss_of(self, example: Example, answer: str) -> float:
        """1 - F1."""
        from train.tasks.metrics.spans import score_each

        return 1.0 - float(score_each([[text for text, _ in example.parts.answers]], [answer], self.options.language)[1][0])

    def shown(self, example: Example, answer: str) -> dict[str, Any]:
        place = {"start": answer.start, "end": answer.start + len(answer)} if isinstance(answer, Pointed) else {}
        return {"answers": [text for text, _ in example.parts.answers], "answer": answer, **place}


def windows(sizes: np.ndarray, room: int, stride: int) -> list[tuple[int, int]]:
    """Ranges of words that cover them all, each of at most `room` tokens (or one word), about `stride` tokens after one another."""
    ends = np.cumsum(sizes)
    found, first = [], 0
    while True:
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + room, side="right")), first + 1)
        found.append((first, min(last, len(sizes))))
        if last >= len(sizes):
            return found
        first = max(first + 1, min(int(np.searchsorted(ends, before + stride, side="right")), last))


def _places(answers: Sequence[tuple[str, int]], spans: list[tuple[int, int]], first: int, last: int) -> tuple[int, int] | None:
    """The first and last word of the answer, if a window holds both."""
    for text, start in answers:
        touched = [place for place, (begin, end) in enumerate(spans) if begin < start + len(text) and end > start]
        if touched and first <= touched[0] and touched[-1] < last:
            return touched[0], touched[-1]
    return None
