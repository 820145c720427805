"""Pairs of neighbouring texts, made from prepared text."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from data.text.pairs import PairBatches
from data.text.rows import TextBatch, empty_batch
from data.text.shards import Corpus
from data.text.words import sentence_ends
from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.kinds import Data, Dataset, check_range


@dataclasses.dataclass(frozen=True)
class SentencePairData(Data):
    """Two texts a row, of which the second follows the first in half of the rows."""

    home: ClassVar[str] = ":PairDataset"
    rows: ClassVar[str] = "pairs"
    how_to_get: ClassVar[str] = "Prepare some with `omnia prepare text`, then give the folder: --data.shards DIR."

    shards: tuple[str, ...] = ()
    """Folders made by `omnia prepare text`. Several are mixed by their counts of rows."""
    negatives: Literal["random", "swapped"] = "random"
    """What does not follow: a text of another document (BERT), or the two texts in the other order (ALBERT)."""
    max_damaged: int = 0
    """Damaged documents tolerated as empty rows before training stops."""

    def __post_init__(self):
        check_range("data.", self, 0, "max_damaged")


class PairDataset(Dataset):
    """Folders that `omnia prepare text` made, as pairs."""

    options: SentencePairData
    experiment: Experiment
    takes = frozenset({"split", "batch_size", "int8"})
    counted = "pairs"

    def open(self, tokenizer: Tokenizer | None = None) -> list[Corpus]:
        return [Corpus(path) for path in self.options.shards]

    def describe(self, source: Corpus) -> str:
        return ", ".join(f"{name} {split['documents']:,} documents" for name, split in source.manifest["splits"].items())

    def batches(self, sources: list[Corpus], split: str = "train") -> PairBatches:
        return PairBatches(
            [corpus for corpus in sources if _documents(corpus, split)] or sources,
            context_length=self.experiment.model.context_length,
            negatives=self.options.negatives,
            ends=sentence_ends(sources[0].tokenizer()),
            split=split,
            seed=self.experiment.seed,
            order="shuffled" if split == "train" else "sequential",
            max_damaged=self.options.max_damaged,
        )

    def empty(self, count: int) -> TextBatch:
        batch = empty_batch(np.arange(count), self.experiment.model.context_length)
        return batch._replace(types=np.zeros_like(batch.tokens), follows=np.zeros(count, np.int32))

    def evaluate(self, evaluator, params, sources: list, **options) -> dict:
        """As of any data, without the metric that counts tokens for the clock: its mean says nothing."""
        if not self._enough(sources, options.get("split", "validation")):
            return {}
        found = super().evaluate(evaluator, params, sources, **options)
        return {name: value for name, value in found.items() if name != "tokens"}

    def can_validate(self, sources: list[Corpus]) -> bool:
        return self._enough(sources, "validation")

    def _enough(self, sources: list[Corpus], split: str) -> bool:
        """Negatives of other documents need a second one."""
        return sum(_documents(corpus, split) for corpus in sources) > (self.options.negatives == "random")


def _documents(corpus: Corpus, split: str) -> int:
    return corpus.manifest["splits"].get(split, {}).get("documents", 0)
