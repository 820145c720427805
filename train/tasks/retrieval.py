"""Questions and the texts that answer them: vectors that find one by the other."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.records.record import Record
from train.kinds import Column
from train.tasks.examples import Example, column
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset

NEAREST = 10


@dataclasses.dataclass(frozen=True)
class TextPairs(Task):
    """Pairs of a question and a text that answers it, or of any two texts that belong together."""

    home: ClassVar[str] = ":PairsDataset"

    text: str = "question"
    """Column of the question."""
    pair: str = "answer"
    """Column of the text to find."""


class PairsDataset(TaskDataset):
    """Answers are the NEAREST texts of the split, by their places, and the rank of the right one, from 1; equal texts are one."""

    options: TextPairs
    writes = False

    def example(self, record: Record) -> Example:
        o = self.options
        return Example({"text": column(record, o.text), "pair": column(record, o.pair)}, True, record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        return {
            self.options.text: Column("The question."),
            self.options.pair: Column("The text that is to be found, among those of all rows."),
        }

    def head(self) -> None:
        """Vectors are compared as they are."""

    def pieces(self, example: Example, labelled: bool) -> Item:
        both = (self.tokens.encode(example.fields[name]) for name in ("text", "pair"))
        found = []
        for side, ids in enumerate(both):
            wrapped, types = self.wrapped(ids, room=self.options.length // 2)
            found.append(Piece(wrapped, types, np.int32(side)))
        return tuple(found)

    def found(self, example: Example, outputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(outputs)

    def joined(self, examples: list[Example], answers: list[Any]) -> tuple[list[Example], list[Any]]:
        vectors = np.stack(answers)
        names: dict[str, int] = {}
        own = [names.setdefault(example.fields["pair"], len(names)) for example in examples]
        texts = np.zeros((len(names), vectors.shape[-1]), np.float32)
        texts[own] = vectors[:, 1]
        found = []
        for place, scores in zip(own, vectors[:, 0] @ texts.T, strict=True):
            nearest = np.argsort(-scores, kind="stable")[:NEAREST]
            found.append((nearest.tolist(), 1 + int((scores > scores[place]).sum())))
        self._texts = len(texts)
        return [example._replace(label=place) for example, place in zip(examples, own, strict=True)], found

    def score(self, examples: Sequence[Example], answers: Sequence[tuple[list[int], int]]):
        from train.tasks.metrics.ranking import ranking_scores

        truth, ranked = [{example.label} for example in examples], [nearest for nearest, _ in answers]
        return ranking_scores(truth, ranked, items=self._texts)

    def loss_of(self, example: Example, answer: tuple[list[int], int]) -> float:
        """1 - 1 / rank."""
        return 1.0 - 1.0 / answer[1]

    def shown(self, example: Example, answer: tuple[list[int], int]) -> dict[str, Any]:
        return {"rank": answer[1]}
