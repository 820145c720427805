"""A run's answers without a run: what a fake model says of texts."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.records.record import Record
from data.tokenizer import byte_tokenizer
from train.experiment import Experiment
from train.objectives.tasks.options import Supervised
from train.sources.dataset import dataset_of


@dataclasses.dataclass
class Fake:
    """As of Answering: a text's label is the one whose name it has, and its probability stands behind it, as in `card 0.9`."""

    dataset: Any
    held: list[tuple[str, str]]
    run: Any = dataclasses.field(
        default_factory=lambda: SimpleNamespace(experiment=SimpleNamespace(gradient=SimpleNamespace(private=False)))
    )
    reads: Any = ("identity", 1, False)
    tokenizer: Any = byte_tokenizer()

    def __call__(self, examples):
        return [self.probabilities(example.fields["text"]) for example in examples]

    def probabilities(self, text: str) -> np.ndarray:
        names = self.dataset.label_names
        name = next((name for name in names if name in text.split()), names[0])
        numbers = [float(word) for word in text.split() if word.replace(".", "").isdigit() and float(word) <= 1]
        sure = numbers[0] if numbers else 0.99
        found = np.full(len(names), (1 - sure) / (len(names) - 1), np.float32)
        found[names.index(name)] = sure
        return found

    def example_of(self, row, labelled=False):
        plain = {name: value for name, value in row.items() if labelled or name != self.dataset.options.label}
        return self.dataset.example(Record(plain, row.where))

    def validation(self):
        o = self.dataset.options
        examples = [self.dataset.example(Record({o.text: text, o.label: label}, "held")) for text, label in self.held]
        return examples, self(examples)

    def fits(self, example):
        return len(example.fields["text"]) <= 4 * self.dataset.options.length

    def learned_from(self):
        return []

    def learned(self, what, of=None):
        return what()


@pytest.fixture
def fake():
    """(options, labels, held-out texts with labels) -> Fake."""

    def make(options, labels: tuple[str, ...], held: list[tuple[str, str]]) -> Fake:
        experiment = Experiment(data=options, objective=Supervised(labels=labels))
        dataset = dataset_of(experiment)
        dataset.place = Path()
        return Fake(dataset, held)

    return make
