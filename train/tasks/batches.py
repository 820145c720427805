"""Batches of a task's examples: any step's from its number alone, as many examples in each, in as few rows as they need."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.rows.order import shuffled
from data.tokenizer import Tokenizer
from train.tasks.packing import Item, enough_rows, lay, lay_in_order, size, usual_rows


class PackedBatches:
    """Rows of which several share one of the arrays. A subclass gives `_dataset`, `rows_per_epoch` and `rows_of`."""

    remarks: Sequence[str] = ()
    damaged: Sequence = ()
    damage = "examples"
    rows_per_epoch: int
    nothing: Any = []
    """A row that holds no example."""
    _dataset: Any

    def rows_of(self, first_row: int, count: int) -> tuple[Any, list]:
        """The examples [first_row, first_row + count), and the rows of the arrays that hold them, as `_dataset.make` takes both."""
        raise NotImplementedError

    def laid(self, first_row: int, count: int, multiple: int) -> tuple[int, Callable[[int, int], Any]]:
        """(rows of the arrays, make): make(first, rows) gives any of the rows that hold the examples [first_row, first_row + count).

        Their number, a multiple of `multiple`, is nearly always the same: for each, the step is compiled.
        """
        items, rows = self.rows_of(first_row, count)
        number = enough_rows(len(rows), self._usual(count, multiple), count, multiple)
        rows += [self.nothing] * (number - len(rows))

        def make(first: int, taken: int):
            return self._dataset.make(items, rows[first : first + taken], first_row + np.arange(first, first + taken))

        return number, make

    @functools.lru_cache(maxsize=4)  # noqa: B019 - as long-lived as what it is of
    def _usual(self, count: int, multiple: int) -> int:
        return usual_rows(lambda number: len(self.rows_of(number * count, count)[1]), multiple)

    def batch(self, first_row: int, count: int) -> Any:
        rows, make = self.laid(first_row, count, 1)
        return make(0, rows)

    @functools.cached_property
    def padding_share(self) -> float:
        return 1.0 - float(np.mean(self.batch(0, self._dataset.experiment.batch_size).segments != 0))


class TaskBatches(PackedBatches):
    """Rows of examples: row r is example number r of an endless stream in the order of the seed, shuffled anew each epoch.

    The arrays of a batch have fewer rows than it has examples, since several share one: see `laid`.
    """

    def __init__(self, dataset: Any, examples: list, tokenizer: Tokenizer, seed: int, change: Callable[[Any, int], Any] | None = None):
        """change: (example, row) -> the example as that row has it, itself where it stays."""
        self._dataset, self._examples, self.tokenizer, self._seed, self._change = dataset, examples, tokenizer, seed, change
        self.said: list[str] = []
        self.rows_per_epoch = len(examples)
        self._items: dict[int, Item] = {}

    @functools.cached_property
    def remarks(self) -> list[str]:  # type: ignore[override]
        """What is said of the files, and of what does not fit."""
        return self.said + self._dataset.cut_in(self)

    def example(self, number: int) -> Any:
        return self._examples[number]

    def item(self, number: int) -> Item:
        """An example, encoded once."""
        if number not in self._items:
            self._items[number] = self._dataset.item(self._examples[number], self.tokenizer)
        return self._items[number]

    def items(self, first_row: int, count: int) -> list[Item]:
        numbers = shuffled(np.arange(first_row, first_row + count), self.rows_per_epoch, self._seed)[1]
        return [self.changed(number, first_row + place) for place, number in enumerate(numbers.tolist())]

    def changed(self, number: int, row: int) -> Item:
        """An example as a row has it."""
        example = self._examples[number]
        changed = example if self._change is None else self._change(example, row)
        return self.item(number) if changed is example else self._dataset.item(changed, self.tokenizer)

    def rows_of(self, first_row: int, count: int) -> tuple[list[Item], list[list[int]]]:
        """The examples [first_row, first_row + count), and the rows that hold them, by their numbers among these."""
        items = self.items(first_row, count) if count else []
        return items, lay(np.stack([size(item) for item in items]), self._dataset.room) if items else []


class EvaluationRows:
    """Every example once, those of equal lengths beside one another."""

    def __init__(self, dataset: Any, items: list[Item]):
        self._dataset, self._items = dataset, items
        self._rows = lay_in_order(np.stack([size(item) for item in items]), dataset.room)
        self.rows_per_epoch = len(self._rows)

    def batch(self, first_row: int, count: int) -> Any:
        rows = self._rows[first_row : first_row + count]
        rows += [[] for _ in range(count - len(rows))]
        return self._dataset.make(self._items, rows, np.arange(first_row, first_row + count))

    def collector(self, found: list) -> Callable[[dict], None] | None:
        """collect(outputs): puts what a head gives into `found`, a list for each example with an array for each of its texts; None for
        models without a head. outputs: as of `HeadLoss.outputs`."""
        if self._dataset.way != "head":
            return None

        def collect(outputs: dict) -> None:
            for row, numbers in enumerate(outputs["items"]):
                for text, number in enumerate(numbers.tolist()):
                    if number >= 0:
                        there = outputs["segments"][row] == text + 1
                        found[number].append(outputs["values"][row, there] if self._dataset.by_token else outputs["values"][row, text])

        return collect
