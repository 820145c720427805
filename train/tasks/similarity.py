"""A number for a text or a pair: similarity, a grade, a rating."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.errors import UserError
from data.records.record import Record
from train.kinds import Column
from train.tasks.examples import Example, column
from train.tasks.metrics.scores import Scores
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset


@dataclasses.dataclass(frozen=True)
class Similarity(Task):
    """Texts, or pairs of them, with numbers."""

    home: ClassVar[str] = ":SimilarityDataset"

    text: str = "text"
    """Column of the text."""
    pair: str = ""
    """Column of a second text. Empty: there is none."""
    label: str = "score"
    """Column of the number."""
    scale: float = 1.0
    """Numbers are divided by this before a head learns them: about the largest there is."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.scale < math.inf:
            raise ValueError(f"data.scale is {self.scale}; it must be above 0")


class SimilarityDataset(TaskDataset):
    """Answers are numbers."""

    options: Similarity
    empty_label = np.zeros((), np.float32)
    changeable = ("text", "pair")

    def example(self, record: Record) -> Example:
        o = self.options
        fields = {"text": column(record, o.text)} | ({"pair": column(record, o.pair)} if o.pair else {})
        if o.label not in record:
            return Example(fields, None, record.where)
        text = column(record, o.label)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{record.where}: {o.label} is {text!r}, which is no number", "Give numbers, or another column: --data.label.")
        return Example(fields, number, record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        o = self.options
        return {o.text: Column("The text.")} | ({o.pair: Column("The second text, which stands beside it.")} if o.pair else {})

    def head(self):
        from train.objectives.tasks.heads import Number

        return Number()

    def pieces(self, example: Example, labelled: bool) -> Item:
        encode = self.tokens.encode
        ids, types = self.wrapped(encode(example.fields["text"]), encode(example.fields["pair"]) if self.options.pair else None)
        return (Piece(ids, types, np.float32(example.label / self.options.scale if labelled else 0.0)),)

    @property
    def own_prompt(self) -> str:  # type: ignore[override]
        return ("{text}\n{pair}\n" if self.options.pair else "{text}\n") + f"{self.options.label}:"

    def answer(self, example: Example) -> str:
        return f" {example.label:g}"

    def found(self, example: Example, outputs: Any) -> float:
        if not isinstance(outputs, str):
            return float(outputs[0]) * self.options.scale
        try:
            return float(outputs)
        except ValueError:
            return math.nan

    def score(self, examples: Sequence[Example], answers: Sequence[float]):
        from train.tasks.metrics.regression import regression_scores

        readable = [not math.isnan(answer) for answer in answers]
        both = [(example.label, answer) for example, answer in zip(examples, answers, strict=True) if not math.isnan(answer)]
        if not both:
            return Scores({"pearson": math.nan, "readable": 0.0})
        found = regression_scores([true for true, _ in both], [answer for _, answer in both])
        return found if all(readable) else found._replace(values=found.values | {"readable": sum(readable) / len(readable)})

    def loss_of(self, example: Example, answer: float) -> float:
        """The squared error; infinite for what is no number."""
        return math.inf if math.isnan(answer) else (answer - example.label) ** 2

    def shown(self, example: Example, answer: float) -> dict[str, Any]:
        return {"label": example.label, "answer": answer}
