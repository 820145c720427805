"""Answers of students to exercises, in order: rows for a model that predicts the next one, and an evaluation on every answer."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from data.records.record import LeftOut, Record, bad_row, lacks
from data.records.rows import read_records
from data.rows.order import fold, shuffled
from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.kinds import Data, Dataset, check_range
from train.tasks.metrics.binary import auc
from train.tasks.recommending.recommendation import EventFile

RIGHT, WRONG = {"1", "1.0", "true", "right", "correct"}, {"0", "0.0", "false", "wrong", "incorrect"}
BEGIN, GOES_ON = 0, 1
"""Tokens before the first answer of a row: of a student's first one, and of a later one."""
BEFORE = 2
"""Tokens that are no answers. The answer to skill s is token BEFORE + 2 s, and one more where it was right."""
UNKNOWN = ""
"""The first skill: all that the run does not know."""
HIDDEN_ONE_OF = 50
"""In training one answer in so many is of the unknown skill, so that the model learns what it can say of one."""


@dataclasses.dataclass(frozen=True)
class Tracing(Data):
    """Answers of students to exercises, in their order: a row for each answer, or for each student with lists."""

    home: ClassVar[str] = ":TracingDataset"
    rows: ClassVar[str] = "answers"
    how_to_get: ClassVar[str] = "Give answers of students: --data.files answers.jsonl."

    files: tuple[str, ...] = ()
    """Files to learn from: CSV, TSV, JSONL, JSON or Parquet, gzipped or not. A student's rows are in order."""
    validation_files: tuple[str, ...] = ()
    """Files of other students to evaluate on. Empty: `validation` of the students is kept from `files`."""
    validation: float = 0.1
    """Share of the students that is kept for evaluation, by a hash of their names, 0 to below 1."""
    student: str = "student"
    """Column of the student."""
    skill: str = "skill"
    """Column of the skill that an exercise is about, or of a list of them."""
    correct: str = "correct"
    """Column that says whether the answer was right: 1 or 0, true or false; or of a list."""
    exercise: str = ""
    """Column of the exercise. One that has several skills has a row for each: its rows follow one another, and none of their predictions
    sees the answer. Empty: rows are exercises."""
    apart: bool = False
    """Take the answers of a student to each skill for those of a student of their own: then no prediction sees an answer to another skill,
    nor a copy of its own answer under one."""
    any_order: bool = False
    """The rows do not tell in which order skills were practised, as where they are sorted by skill: in training, a student's skills come in
    a new order each time."""
    leave_out: bool = False
    """Leave out rows that cannot be used, instead of stopping."""

    def __post_init__(self):
        check_range("data.", self, 0, "validation", high=1)
        if self.any_order and self.exercise:
            raise ValueError("data.exercise needs the order of rows, which data.any_order gives up")


class Answers(NamedTuple):
    """A student's answers. before_N: how many answers were there before the exercise of each, at most its own place."""

    student: str
    skills: list[str]
    correct_N: np.ndarray
    before_N: np.ndarray


class AnswerBatch(NamedTuple):
    """B rows of T answers: tokens, what stands before each answer, skills and reads (the place whose state an answer is predicted from)
    int32 [B, T], correct and weights float32 [B, T], segments, positions int32 [B, T], rows int32 [B]."""

    tokens: Any
    skills: Any
    reads: Any
    correct: Any
    weights: Any
    segments: Any
    positions: Any
    rows: Any


def outcome(value: Any, where: str) -> bool:
    """UserError for what says neither right nor wrong."""
    said = str(value).strip().lower()
    if said not in RIGHT | WRONG:
        raise UserError(f"{where}: {value!r} says neither right nor wrong", "Give 1 or 0.")
    return said in RIGHT


def skill_name(value: Any, where: str) -> str:
    if isinstance(value, bool | list | dict) or value is None or not str(value).strip():
        raise UserError(f"{where}: {value!r} is no name of a skill", "Give texts or numbers.")
    return str(value).strip()


def answers_of(record: Record, o: Tracing) -> list[tuple[str, bool, Any]]:
    """(skill, right, exercise) of a row, or of each entry of its lists. UserError for lists that do not go together."""
    for name in (o.skill, o.correct):
        if name not in record:
            raise lacks(record, name)
    skills, correct = record[o.skill], record[o.correct]
    if isinstance(skills, list) != isinstance(correct, list):
        raise UserError(f"{record.where}: one of {o.skill} and {o.correct} is a list", "Give two lists, or none.")
    exercises = record.get(o.exercise) if o.exercise else None
    if not isinstance(skills, list):
        skills, correct, exercises = [skills], [correct], [exercises]
    elif not isinstance(exercises, list):
        exercises = [None] * len(skills)
    if not len(skills) == len(correct) == len(exercises):
        raise UserError(f"{record.where}: {len(skills)} skills and {len(correct)} answers", "Give as many of each.")
    pairs = zip(skills, correct, exercises, strict=True)
    return [(skill_name(skill, record.where), outcome(right, record.where), exercise) for skill, right, exercise in pairs]


def sequence_of(student: str, answers: list[tuple[str, bool, Any]]) -> Answers:
    before, begin = [], 0
    for place, (_, _, exercise) in enumerate(answers):
        if not place or exercise is None or exercise != answers[place - 1][2]:
            begin = place
        before.append(begin)
    skills = [skill for skill, _, _ in answers]
    return Answers(student, skills, np.array([right for _, right, _ in answers], np.float32), np.array(before, np.int64))


@functools.lru_cache(maxsize=8)
def read_sequences(path: str, o: Tracing) -> list[Answers]:
    """Of each student of a file, in the order of their first rows."""
    left_out: LeftOut | None = LeftOut() if o.leave_out else None
    found: dict[str, list[tuple[str, bool, Any]]] = {}
    for record in read_records(path, left_out=left_out):
        try:
            student = skill_name(record.get(o.student), record.where)
            answers = answers_of(record, o)
        except UserError as error:
            what = str(error).partition("\n")[0].removeprefix(f"{record.where}: ")
            bad_row(record.where, what, "Mend the row, or leave such rows out: --data.leave-out.", left_out)
            continue
        if o.apart:
            for one in answers:
                found.setdefault(f"{student}\0{one[0]}", []).append(one)
        else:
            found.setdefault(student, []).extend(answers)
    if not any(found.values()):
        raise UserError(f"{path}: holds no answer that can be used", "Give one with some.")
    return [sequence_of(student.partition("\0")[0], answers) for student, answers in found.items() if answers]


def _reordered(one: Answers, draw: int) -> Answers:
    """The same answers with the skills in an order that is drawn."""
    if len(set(one.skills)) < 2:
        return one
    _, first, skill_N = np.unique(one.skills, return_index=True, return_inverse=True)
    order = np.lexsort((np.arange(len(skill_N)), fold(draw, first)[skill_N]))
    return one._replace(skills=[one.skills[place] for place in order], correct_N=one.correct_N[order])


class AnswerRows:
    """Rows of stretches of students' answers. windows: (sequence, first answer, first answer that is predicted, end)."""

    damaged: tuple = ()
    damage = "answers"
    padding_share = 0.0

    def __init__(self, dataset: "TracingDataset", sequences: list[Answers], *, training: bool):
        self._dataset, self.sequences, self._training = dataset, sequences, training
        length, self.windows = dataset.length, []
        for number, one in enumerate(sequences):
            size = len(one.skills)
            if training:
                self.windows += [(number, 0, 0, size)] * -(-size // length)
                continue
            self.windows.append((number, 0, 0, min(size, length)))
            for first in range(length, size, length // 2):  # half of a later row is what came before
                end = min(first + length // 2, size)
                self.windows.append((number, end - length, first, end))
        self.rows_per_epoch = len(self.windows)

    def batch(self, first_row: int, count: int) -> AnswerBatch:
        numbers = np.arange(first_row, first_row + count)
        batch = self._dataset.empty(count)._replace(rows=numbers.astype(np.int32))
        length, seed = self._dataset.length, self._dataset.experiment.seed
        places = shuffled(numbers, self.rows_per_epoch, seed)[1] if self._training else numbers
        draws = fold(seed, numbers, 1)
        for row, (place, draw) in enumerate(zip(places.tolist(), draws.tolist(), strict=True)):
            if place >= self.rows_per_epoch:
                continue
            number, first, predicted, end = self.windows[place]
            one = self.sequences[number]
            if self._training:
                one = _reordered(one, draw) if self._dataset.options.any_order else one
                predicted = first = draw % (max(end - length, 0) + 1)
                end = min(first + length, end)
            self._dataset.put(batch, row, one, first, predicted, end, hidden=draw if self._training else None)
        return batch


class TracingDataset(Dataset):
    """Answers of students."""

    options: Tracing
    experiment: Experiment
    takes = frozenset({"batch_size"})
    evaluates_all = True
    counts_tokens = False
    counted = "answers"

    def paths(self) -> tuple[str, ...]:
        return (*self.options.files, *self.options.validation_files)

    def elsewhere(self, paths: tuple[str, ...]) -> Data:
        return dataclasses.replace(self.options, files=(), validation_files=paths)

    def open(self, tokenizer: Tokenizer | None = None) -> list[EventFile]:
        return [EventFile(path, self) for path in self.paths()]  # type: ignore[arg-type]

    def describe(self, source: EventFile) -> str:
        found = read_sequences(source.path, self.options)
        return f"{len(found):,} students, {sum(len(one.skills) for one in found):,} answers"

    def sequences(self, split: str) -> list[Answers]:
        """Of a split: of `train` what is learned from, of any other what is kept from it."""
        o = self.options
        held = [one for path in o.validation_files for one in read_sequences(path, o)]
        if split != "train" and held:
            return held
        given = [one for path in o.files for one in read_sequences(path, o)]
        if held:
            return given
        kept = [xxhash.xxh3_64_intdigest(one.student.encode("utf-8", "replace")) < o.validation * 2.0**64 for one in given]
        return [one for one, out in zip(given, kept, strict=True) if out == (split != "train")]

    def skills(self) -> tuple[str, ...]:
        """Of what is learned from; the first stands for all others."""
        return (UNKNOWN, *sorted({skill for one in self.sequences("train") for skill in one.skills}))

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """Numbers of the skills that the run knows."""
        return {skill: place for place, skill in enumerate(getattr(self.experiment.objective, "skills", ()))}

    @property
    def length(self) -> int:
        return self.experiment.model.context_length

    def check(self, sources: list) -> None:
        if self.length < 2:
            raise UserError("model.context_length is 1, which has no room for an answer before the next", "Set --model.context-length 128.")
        if not self.sequences("train"):
            raise UserError("data.files: there are no students to learn from", self.options.how_to_get)

    def can_validate(self, sources: list) -> bool:
        return bool(self.sequences("validation"))

    def batches(self, sources: list, split: str = "train") -> AnswerRows:
        return AnswerRows(self, self.sequences(split), training=split == "train")

    def empty(self, count: int) -> AnswerBatch:
        tokens, skills, reads, segments, positions = (np.zeros((count, self.length), np.int32) for _ in range(5))
        correct, weights = (np.zeros((count, self.length), np.float32) for _ in range(2))
        return AnswerBatch(tokens, skills, reads, correct, weights, segments, positions, np.arange(count, dtype=np.int32))

    def put(self, batch: AnswerBatch, row: int, one: Answers, first: int, predicted: int, end: int, hidden: int | None = None) -> None:
        """Answers first to end - 1 into a row, of which those from `predicted` on count. hidden: draws the answers whose skill is taken for
        unknown. An exercise whose first answer is not in the row is not predicted."""
        size = end - first
        skill_T = np.array([self.places.get(skill, 0) for skill in one.skills[first:end]], np.int64)
        if hidden is not None:
            skill_T[fold(hidden, np.arange(size)) % HIDDEN_ONE_OF == 0] = 0
        correct_T = one.correct_N[first:end]
        tokens = BEFORE + 2 * skill_T + correct_T.astype(np.int64)
        batch.tokens[row, :size] = [GOES_ON if first else BEGIN, *tokens[:-1]]
        reads_T = one.before_N[first:end] - first
        batch.skills[row, :size], batch.correct[row, :size] = skill_T, correct_T
        batch.reads[row, :size] = np.maximum(reads_T, 0)
        batch.weights[row, :size] = (np.arange(first, end) >= predicted) & (reads_T >= 0)
        batch.segments[row, :size], batch.positions[row, :size] = 1, np.arange(size)

    def evaluate(
        self, evaluator, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        """{"loss" in nats per answer, "auc", "accuracy", "answers"}, over all answers of the students together."""
        batches = self.batches(sources, "validation" if split == "train" else split)
        count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
        if not count:
            return {}
        probabilities, correct = [], []

        def collect(outputs: dict) -> None:
            counted = np.asarray(outputs["weights"]) > 0
            probabilities.append(np.asarray(outputs["probability"])[counted])
            correct.append(np.asarray(outputs["correct"])[counted])

        found = evaluator.result(evaluator.totals(params, batches.batch, count, between=between, collect=collect))
        given, true = np.concatenate(probabilities), np.concatenate(correct) > 0.5
        found = {name: value for name, value in found.items() if name != "tokens"}
        return found | {"auc": auc(true, given), "accuracy": float(((given > 0.5) == true).mean()), self.counted: len(true)}
