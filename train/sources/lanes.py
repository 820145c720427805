"""Rows of text that go on where those of the batch before ended, for objectives that remember."""

import dataclasses
from typing import ClassVar

from data.errors import UserError
from data.text.lanes import LaneBatches
from train.experiment import TextData
from train.kinds import Dataset
from train.sources.text import TextDataset


@dataclasses.dataclass(frozen=True)
class TextLanes(TextData):
    """Prepared text in as many lanes as a batch has rows, each read from its start to its end (Dai et al. 2019, sec. 3.2)."""

    home: ClassVar[str] = ":LaneDataset"
    rows: ClassVar[str] = "lanes"
    fixes: ClassVar[tuple[str, ...]] = ("batch_size",)

    def __post_init__(self):
        super().__post_init__()
        if self.weights or self.fim_rate:
            raise ValueError("data.weights and data.fim_rate take texts apart, which lanes read from end to end: leave them out")
        if self.words or self.lexicon:
            raise ValueError("data.words and data.lexicon number the words of rows, which no reader of lanes asks for: leave them out")


class LaneDataset(TextDataset):
    """Lanes of prepared text."""

    options: TextLanes
    units = Dataset.units  # none: a lane goes on where the row before ended
    lanes = 0  # rows of a batch of the evaluation at hand

    def batches(self, sources, split: str = "train"):
        if split != "train":
            return self.in_order(sources, split)
        for corpus in sources:
            if not corpus.targets("train"):
                raise UserError(f"{corpus.path}: holds no token to learn in its training split", "Prepare more text, or leave it out.")
        whole = self.experiment
        length, damaged = whole.model.context_length, self.options.max_damaged
        return LaneBatches(sources, lanes=whole.batch_size, context_length=length, seed=whole.seed, max_damaged=damaged)

    def evaluate(self, evaluator, params, sources, **options) -> dict:
        self.lanes = evaluator.rows
        return super().evaluate(evaluator, params, sources, **options)

    def in_order(self, sources, split: str, length: int = 0) -> LaneBatches:
        lanes, length = self.lanes or self.experiment.batch_size, length or self.experiment.model.context_length
        damaged = self.options.max_damaged
        return LaneBatches(sources, lanes=lanes, context_length=length, split=split, order="sequential", max_damaged=damaged)
