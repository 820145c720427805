"""Questions with several answers to choose from, of which one is right."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.errors import UserError
from data.files.text_files import is_whole
from data.records.record import Record, lacks
from train.kinds import Column
from train.tasks.examples import Example, column
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class MultipleChoice(Task):
    """Questions with choices."""

    home: ClassVar[str] = ":ChoiceDataset"

    question: str = "question"
    """Column of the question."""
    context: str = ""
    """Column of a text that it asks about. Empty: there is none."""
    choices: tuple[str, ...] = ("choices",)
    """Columns of the choices; or one, of a list of them."""
    label: str = "label"
    """Column of the right one: its number, counted from 0, its letter, counted from A, or its text."""


class ChoiceDataset(TaskDataset):
    """Answers are a score of each choice, float32 [choices]."""

    options: MultipleChoice

    @property
    def row_columns(self) -> dict[str, Column]:
        o = self.options
        asked = {o.question: Column("The question.")} | ({o.context: Column("The text that it asks about.")} if o.context else {})
        if len(o.choices) == 1:
            return asked | {o.choices[0]: Column("The answers to choose from.", "list")}
        return asked | {name: Column("An answer to choose from.") for name in o.choices}

    @property
    def row(self) -> dict[str, Any]:
        found = super().row
        return found | ({self.options.choices[0]: ["A choice.", "Another choice."]} if len(self.options.choices) == 1 else {})

    def example(self, record: Record) -> Example:
        o = self.options
        fields = {"question": column(record, o.question)} | ({"context": column(record, o.context)} if o.context else {})
        if len(o.choices) == 1 and o.choices[0] not in record:
            raise lacks(record, o.choices[0])
        given = record[o.choices[0]] if len(o.choices) == 1 else [column(record, name) for name in o.choices]
        given = [json.dumps(one) if type(one) in (int, float) else one for one in given] if isinstance(given, list) else given
        if not isinstance(given, list) or len(given) < 2 or not all(isinstance(one, str) and one.strip() for one in given):
            raise UserError(f"{record.where}: {o.choices[0]} holds no choices", "Give a list of two texts at least, or a column for each.")
        if len(given) > self.texts or self.options.length // len(given) < 8:
            raise UserError(
                f"{record.where}: {len(given)} choices have no room in a row of {o.length} tokens", "Give a larger --data.length."
            )
        if o.label not in record:
            return Example(fields, None, record.where, tuple(given))
        return Example(fields, _place(record[o.label], column(record, o.label).strip(), given, record.where), record.where, tuple(given))

    def head(self):
        from train.objectives.tasks.heads import Choice

        return Choice()

    def pieces(self, example: Example, labelled: bool) -> Item:
        encode, room = self.tokens.encode, self.options.length // len(example.parts)
        asked = encode("\n".join([*([example.fields["context"]] if self.options.context else []), example.fields["question"]]))
        found = []
        for number, choice in enumerate(example.parts):
            ids, types = self.wrapped(asked, encode(choice), room)
            right = np.int32(labelled and number == example.label)
            found.append(Piece(ids, types, right, learned=np.float32(right)))
        return tuple(found)

    @property
    def own_prompt(self) -> str:  # type: ignore[override]
        return ("{context}\n" if self.options.context else "") + "Question: {question}\nAnswer:"

    def answer(self, example: Example) -> str:
        return f" {example.parts[example.label]}"

    def choices(self, example: Example) -> tuple[str, ...]:
        return tuple(f" {choice}" for choice in example.parts)

    def found(self, example: Example, outputs: Any) -> np.ndarray:
        scores = np.asarray(outputs, np.float32)
        if self.way != "head":  # they are probabilities
            return scores
        likely = np.exp(scores - scores.max())
        return likely / likely.sum()

    def score(self, examples: Sequence[Example], answers: Sequence[np.ndarray]):
        from train.tasks.metrics.classification import choice_scores

        return choice_scores([example.label for example in examples], answers)

    def loss_of(self, example: Example, answer: np.ndarray) -> float:
        """In nats."""
        return float(-np.log(max(answer[example.label], 1e-12)))

    def shown(self, example: Example, answer: np.ndarray) -> dict[str, Any]:
        given = int(answer.argmax())
        return {
            "choices": list(example.parts),
            "label": example.label,
            "answer": given,
            "probabilities": [round(float(p), 6) for p in answer],
        }


def _place(label: Any, value: str, choices: Sequence[str], where: str) -> int:
    """The place of the right choice. label: as the file has it; value: as text."""
    number = int(value) if is_whole(value) else LETTERS.find(value.upper()) if len(value) == 1 else -1
    named = list(choices).index(value) if value in choices and not isinstance(label, int) else -1
    if 0 <= number < len(choices) and named not in (-1, number):
        raise UserError(
            f"{where}: the label {value!r} is choice {named} by its text, and choice {number} by its place", "Give the place as a number."
        )
    place = named if named >= 0 else number
    if not 0 <= place < len(choices):
        raise UserError(
            f"{where}: the label {value!r} is none of {len(choices)} choices", "Give its number from 0, its letter from A, or its text."
        )
    return place
