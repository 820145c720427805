"""One of several labels, or several at once, of a text or of a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.errors import UserError
from data.records.record import Record
from data.rows.order import fold
from train.kinds import Column
from train.tasks.examples import NO, YES, Example, column
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset

SEPARATOR = "|"
"""Between the labels of a text, in files that cannot hold lists."""
ASKED = "label asked for"
"""Field of an example that is asked for one label; no column of a prompt."""


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Texts, or pairs of them, with labels."""

    home: ClassVar[str] = ":ClassificationDataset"

    text: str = "text"
    """Column of the text."""
    pair: str = ""
    """Column of a second text. Empty: there is none."""
    label: str = "label"
    """Column of the label."""
    several: bool = False
    """Texts may have any number of labels: a list, or names with | between them."""
    words: tuple[str, ...] = ()
    """What a model that writes answers writes for each label, in the order of objective.labels. Empty: a space and the label."""
    threshold: float = 0.5
    """With several: labels with at least this probability are given."""
    label_noise: float = 0.0
    """Share of the examples to learn from whose label is replaced by another at random, to study noise; 0 to below 1."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"data.label_noise is {self.label_noise}; it must be at least 0 and below 1")
        if self.several and (self.label_noise or self.words):
            raise ValueError("data.several goes with neither data.words nor data.label_noise")


class ClassificationDataset(TaskDataset):
    """Answers are probabilities, float32 [V]."""

    options: Classification
    changeable = ("text", "pair")

    def example(self, record: Record) -> Example:
        o = self.options
        fields = {"text": column(record, o.text)} | ({"pair": column(record, o.pair)} if o.pair else {})
        fields |= {
            name: value for name, value in record.items() if isinstance(value, str) and name not in (*fields, o.text, o.pair, o.label)
        }
        if o.label not in record:
            return Example(fields, None, record.where)
        if not o.several:
            return Example(fields, column(record, o.label).strip(), record.where)
        value = record[o.label]
        names = value if isinstance(value, list) else column(record, o.label, empty=True).split(SEPARATOR)
        return Example(fields, tuple(sorted({str(name).strip() for name in names} - {""})), record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        o = self.options
        own = {o.text: Column("The text.")} | ({o.pair: Column("The second text, which stands beside it.")} if o.pair else {})
        return self.prompted("text", "pair") | own

    def names_of(self, example: Example) -> tuple[str, ...]:
        """The labels that an example has."""
        return () if example.label is None else example.label if self.options.several else (example.label,)

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        found = sorted({name for example in examples for name in self.names_of(example)})
        if len(found) < 2 and examples:
            what = f"only the label {found[0]!r}" if found else f"no column {self.options.label!r}"
            raise UserError(
                f"{examples[0].where.partition(':')[0]}: has {what}", "Give examples of two labels at least: --data.label NAME."
            )
        return tuple(found)

    def examples(self, sources, split: str) -> list[Example]:
        found = super().examples(sources, split)
        if split != "train" or not self.options.label_noise:
            return found
        names = sorted({example.label for example in found if example.label is not None})
        return [self._noisy(example, names) for example in found]

    def _noisy(self, example: Example, names: list[str]) -> Example:
        drawn = int(fold(self.experiment.seed, self.key(example) & 0xFFFFFFFF, 0))
        if drawn % 10**6 >= self.options.label_noise * 10**6:
            return example
        others = [name for name in names if name != example.label]
        return example._replace(label=others[(drawn // 10**6) % len(others)])

    # What models read

    @property
    def empty_label(self) -> np.ndarray:  # type: ignore[override]
        return np.zeros(len(self.label_names), np.float32) if self.options.several else np.zeros((), np.int32)

    def pieces(self, example: Example, labelled: bool) -> Item:
        encode = self.tokens.encode
        second = encode(example.fields["pair"]) if self.options.pair else None
        ids, types = self.wrapped(encode(example.fields["text"]), second)
        return (Piece(ids, types, self._label(example) if labelled else self.empty_label),)

    def _label(self, example: Example) -> Any:
        places = [self.place_of(name, example) for name in self.names_of(example)]
        if not self.options.several:
            return places[0]
        label = np.zeros(len(self.label_names), np.float32)
        label[places] = 1.0
        return label

    def check_known(self, example: Example) -> None:
        for name in self.names_of(example):
            self.place_of(name, example)

    def place_of(self, name: str, example: Example) -> int:
        """The number of a label; UserError for one that the run was not trained with."""
        if name not in self.label_names:
            known = ", ".join(self.label_names[:20]) + (" ..." if len(self.label_names) > 20 else "")
            raise UserError(f"{example.where}: label {name!r} is none of the run's", f"They are {known}.")
        return self.label_names.index(name)

    def head(self):
        from train.objectives.tasks.heads import Classes, SeveralLabels

        return (SeveralLabels if self.options.several else Classes)(len(self.label_names))

    @property
    def own_prompt(self) -> str:  # type: ignore[override]
        texts = "{text}\n{pair}\n" if self.options.pair else "{text}\n"
        return f"{texts}{self.options.label}:"

    def _words(self) -> tuple[str, ...]:
        words = self.options.words or tuple(f" {name}" for name in self.label_names)
        if len(words) != len(self.label_names):
            raise UserError(
                f"data.words has {len(words)} entries, for {len(self.label_names)} labels", f"Give one for each of {self.label_names}."
            )
        return words

    def answer(self, example: Example) -> str:
        if self.options.several:
            return " " + ", ".join(example.label) if example.label else " none"
        return self._words()[self.place_of(example.label, example)]

    def choices(self, example: Example) -> tuple[str, ...]:
        return () if self.options.several else self._words()

    def statements(self, example: Example) -> tuple[Example, ...]:
        """A model that was trained lists its labels; one that is only asked is asked for each."""
        if not self.options.several or self.options.ended:
            return ()
        return tuple(_about(example, name) for name in self.label_names)

    def prompt_text(self, example: Example) -> str:
        name = example.fields.get(ASKED)
        if name is None:
            return super().prompt_text(example)
        plain = example._replace(fields={key: value for key, value in example.fields.items() if key != ASKED})
        shots = [(_about(shot, name), YES if name in shot.label else NO) for shot in self.shots_for(plain)]
        return "".join(f"{self._filled(shot)}{answer}\n\n" for shot, answer in shots) + self._filled(example)

    def _filled(self, example: Example) -> str:
        return super()._filled(example) + (f" {example.fields[ASKED]}?" if ASKED in example.fields else "")

    # Answers

    def found(self, example: Example, outputs: Any) -> np.ndarray:
        if isinstance(outputs, str):  # several labels, written out
            written = {name.strip() for name in outputs.split(",")}
            return np.array([float(name in written) for name in self.label_names], np.float32)
        return np.asarray(outputs[0] if isinstance(outputs, list) else outputs, np.float32)

    def _given(self, answer: np.ndarray) -> tuple[str, ...]:
        if self.options.several:
            return tuple(name for name, p in zip(self.label_names, answer, strict=True) if p >= self.options.threshold)
        return (self.label_names[int(answer.argmax())],)

    def score(self, examples: Sequence[Example], answers: Sequence[np.ndarray]):
        from train.tasks.metrics.classification import classification_scores, several_labels_scores

        if self.options.several:
            truth = np.stack([self._label(example) for example in examples])
            return several_labels_scores(truth, np.stack(answers), self.label_names, self.options.threshold)
        return classification_scores([self._label(example) for example in examples], np.stack(answers), self.label_names)

    def loss_of(self, example: Example, answer: np.ndarray) -> float:
        """In nats."""
        label = self._label(example)
        right = np.where(label > 0.5, answer, 1 - answer) if self.options.several else answer[label]
        return float(-np.log(np.maximum(right, 1e-12)).sum())

    def shown(self, example: Example, answer: np.ndarray) -> dict[str, Any]:
        names = self._given(answer)
        given: Any = list(names) if self.options.several else names[0]
        return {"label": example.label, "answer": given, "probabilities": [round(float(p), 6) for p in answer]}


def _about(example: Example, name: str) -> Example:
    """The question whether an example has a label."""
    return example._replace(fields=example.fields | {ASKED: name})
