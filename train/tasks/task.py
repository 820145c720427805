"""What all tasks share: examples from files, their rows for any family of models, and an evaluation that keeps each answer.

A task is one file with an option, a kind of Data, and a TaskDataset. It says how a record becomes an example, which texts an encoder's head
reads, which prompt and answer a model that writes learns, and how answers are scored.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from data.errors import UserError
from data.records.record import Record
from data.records.rows import iter_records
from data.rows.order import by_owner, few_of, fold, row_numbers
from data.tokenizer import Tokenizer, load_tokenizer
from model.config import OfStart
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.generation.chat import load_chat
from train.kinds import Application, Column, Data, Dataset, Section, Units, check_range, realise
from train.tasks.batches import EvaluationRows, TaskBatches
from train.tasks.changes.augmentation import Augment, augmenter
from train.tasks.examples import Example, TaskFile, content_hash, told
from train.tasks.metrics.scores import Scores
from train.tasks.packing import Item, Piece
from train.tasks.rows import head_batch, source_batch, text_batch

LOOKED_AT = 200
"""Examples that are made rows before training begins, to say how many are cut."""
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Task(Data):
    """Labelled examples from files."""

    rows: ClassVar[str] = "task"
    how_to_get: ClassVar[str] = "Give labelled examples: --data.files train.csv."
    path_fields = (*Data.path_fields, "tokenizer")

    files: tuple[str, ...] = ()
    """Files to learn from: CSV, TSV, JSONL, JSON or Parquet, gzipped or not, or tfds:NAME."""
    validation_files: tuple[str, ...] = ()
    """Files to evaluate on. Empty: `validation` is kept from `files`."""
    validation: float = 0.1
    """Share of the examples in `files` that is kept for evaluation, by a hash of their content, 0 to below 1."""
    length: int = 128
    """Tokens of a row. Several short texts share one; longer texts are cut."""
    written: int = 64
    """Tokens of an answer, at most, for models that write answers."""
    prompt: str = ""
    """What a model that writes answers reads, with {column} for the text of a column. Empty: the task's own."""
    leave_out: bool = False
    """Leave out rows that cannot be used, and count them, instead of stopping."""
    shots: int = 0
    """Examples to learn from that a model that writes answers is shown before each one."""
    ended: bool = True
    """An answer ends with the end of a text. Off for models that were never taught to end there."""
    examples: int = 0
    """Learn from so many examples only, drawn by the seed. 0: all."""
    tokenizer: str = ""
    """Tokenizer, for a run that starts fresh: a folder that has one, such as a run. Empty: that of `start`."""
    augment: Augment = Augment()
    """Changed copies of texts to learn from."""

    def __post_init__(self):
        check_range("data.", self, 0, "validation", high=1)
        check_range("data.", self, 0, "examples", "shots")
        check_range("data.", self, 8, "length")
        check_range("data.", self, 1, "written")

    def without_files(self) -> Self:
        """Nothing is changed by a table of synonyms any more either, nor in another way beside it."""
        plain = dataclasses.replace(self, augment=Augment()) if self.augment.synonyms else self
        return super(Task, plain).without_files()


class TaskDataset(Dataset):
    """Files of examples. A task's own says at least `example`, and either `pieces`, `head` and `found`, or `answer`; and `score`."""

    options: Any
    experiment: Experiment
    takes = frozenset({"split", "batch_size", "int8"})
    evaluates_all = True
    counts_tokens = False
    counted = "examples"

    def __init__(self, options: Any, experiment: Any):
        super().__init__(options, experiment)
        self.shown_before: list[Example] = []
        self.cut = 0
        """How many examples did not fit as they were made rows."""
        self._cut = False

    # ------------------------------------------------------------------------------------------------ what a task says

    by_token: ClassVar[bool] = False
    """Whether an encoder's head labels tokens, and not texts."""
    in_parts: ClassVar[bool] = False
    """Whether several examples may be parts of one, neighbours in their file."""
    empty_label: ClassVar[np.ndarray] = np.zeros((), np.int32)
    """Shape and type of a label, for the head of an encoder."""
    beside: int = 0
    """Numbers that stand beside each text, for the head of an encoder."""
    own_prompt: ClassVar[str] = "{text}\n"
    """The prompt where the options give none."""
    writes: ClassVar[bool] = True
    """Whether a text can hold an answer, so that a model that writes may give it."""
    label_option: ClassVar[str] = "label"
    """The option that names the column of what is right, if there is one."""
    label_fields: ClassVar[tuple[str, ...]] = ("label",)
    """Of what `shown` gives, what is right: at work nobody knows it."""
    changeable: ClassVar[tuple[str, ...]] = ()
    """Fields of an example whose words may change without changing its label; (): labels tell of single words, or of places."""

    def example(self, record: Record) -> Example:
        """UserError, with the record's place, for one that is no example of the task."""
        raise NotImplementedError

    @property
    def row_columns(self) -> dict[str, Column]:
        """What a row may have, for an answer: its label is no part of it. See Application.columns."""
        raise NotImplementedError

    @property
    def row(self) -> dict[str, Any]:
        """A row that can be answered; by default it has all columns, each a short text."""
        return dict.fromkeys(self.row_columns, "A short text.")

    def prompted(self, *fields: str) -> dict[str, Column]:
        """Columns that the prompt asks for, beside fields that an example has in any case."""
        asked = PLACEHOLDER.findall(self.options.prompt) if self.way != "head" else ()
        return {name: Column("Read by the prompt of the run.") for name in asked if name not in fields}

    def examples_of(self, record: Record) -> list[Example]:
        """The examples that a row without a label is: several where it is read in parts, whose answers `joined` puts together. UserError
        for a row that is none."""
        return [self.example(record)]

    def names_of(self, example: Example) -> tuple[str, ...]:
        """The labels that an example has."""
        return ()

    def counted_labels(self, example: Example) -> tuple[str, ...]:
        """Those by which it is told how frequent labels are."""
        return self.names_of(example)

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Names of the labels that examples have, in a fixed order; () where labels have no names."""
        return ()

    def labelled(self, example: Example) -> bool:
        """Whether it is known what is to be found."""
        return example.label is not None

    def judgeable(self, example: Example) -> bool:
        """Whether answers to it can be scored."""
        return self.labelled(example)

    def fitted_to(self, examples: Sequence[Example]) -> tuple[float, ...]:
        """What is measured of the examples to learn from and kept with the run, such as the means of values. () for nothing."""
        return ()

    def fusion(self) -> Any:
        """How a head joins what stands beside a text with it: see train/objectives/tasks/fusion.py. None: it reads texts alone."""
        return None

    def check_known(self, example: Example) -> None:
        """UserError for a label that the run was not trained with."""

    def identity(self, example: Example) -> Any:
        """What makes it another example than others: those of one identity are never apart. What no model reads of a row, such as a number
        that it has, makes none."""
        read = {name: value for name, value in example.fields.items() if name in self._read}
        return [read or example.fields, example.label]

    @functools.cached_property
    def _read(self) -> frozenset[str]:
        """Fields that models read, if there are such."""
        return frozenset({"text", "pair", "source", "question", "context", *PLACEHOLDER.findall(self.options.prompt or self.own_prompt)})

    def pieces(self, example: Example, labelled: bool) -> Item:
        """What the head of an encoder reads. labelled: whether the label is known."""
        raise NotImplementedError

    def head(self) -> Any:
        """What an encoder answers with: see train/objectives/tasks/heads.py. UserError for a task that asks for texts."""
        raise UserError(f"{type(self.options).__name__} has no head for an encoder", "Start from a decoder or an encoder-decoder.")

    def answer(self, example: Example) -> str:
        """What a model that writes is to write."""
        raise NotImplementedError

    def choices(self, example: Example) -> tuple[str, ...]:
        """The answers that there are; () where any text may be one."""
        return ()

    def statements(self, example: Example) -> tuple[Example, ...]:
        """Of several answers at once: an example for each, to which a model that was not trained to list them says yes or no. ()
        otherwise."""
        return ()

    @property
    def stops(self) -> tuple[str, ...]:
        """What a written answer ends before, beside the end of the text: with no end taught, the end of its line."""
        return () if self.options.ended else ("\n",)

    drawn = 1
    """Answers written for each example."""

    def found(self, example: Example, outputs: Any) -> Any:
        """The answer, from what the head gives for the example's texts: a list with one array for each; or, from a model that writes, from
        the probabilities of `choices`, or a text."""
        return outputs

    def joined(self, examples: list[Example], answers: list[Any]) -> tuple[list[Example], list[Any]]:
        """Examples and answers as they are scored, where a model reads one in several parts."""
        return examples, answers

    def score(self, examples: Sequence[Example], answers: Sequence[Any]) -> Scores:
        """How good answers are, by the field's metrics."""
        raise NotImplementedError

    def loss_of(self, example: Example, answer: Any) -> float | None:
        """How bad an answer is, by which the report finds the worst ones; None: the task does not say."""
        return None

    def shown(self, example: Example, answer: Any) -> dict[str, Any]:
        """An answer as a line of a file of predictions."""
        return {"answer": answer}

    # ---------------------------------------------------------------------------------------------------------- files

    def paths(self) -> tuple[str, ...]:
        return (*self.options.files, *self.options.validation_files)

    def elsewhere(self, paths: tuple[str, ...]) -> Data:
        return dataclasses.replace(self.options, files=self.options.files if self.options.shots else (), validation_files=paths)

    def open(self, tokenizer: Tokenizer | None = None) -> list[TaskFile]:
        place = self.options.tokenizer or self.experiment.start
        if tokenizer is None and not place:
            raise UserError(
                "a task needs a run whose tokenizer and parameters it starts from",
                "Give one: --start RUN_DIR; or a tokenizer to start fresh: --data.tokenizer DIR.",
            )
        if len(set(self.paths())) < len(self.paths()):
            twice = next(path for path in self.paths() if self.paths().count(path) > 1)
            raise UserError(f"data: {twice} is named twice", "Name it once.")
        found = tokenizer or load_tokenizer(place)
        return [TaskFile(path, self, found) for path in self.paths()]

    def authors_pool(self) -> str:
        """How the authors of the imported model that a run starts from make the vector of a text; empty where they do not say."""
        start = self.experiment.start
        said = load_chat(Path(start)).pool if start else ""
        return said if said in ("pooler", "first", "mean") else ""

    def describe(self, source: TaskFile) -> str:
        return f"{len(source.examples):,} examples"

    def read(self, source: TaskFile) -> list[Example]:
        """The examples of a file; with leave_out the reasons for which rows are left out are put into `source.left_out`."""
        found = []
        for record in iter_records(source.path, left_out=source.left_out if self.options.leave_out else None):
            with self.usable(source, record.where):
                example = self.example(record)
                self.check_usable(source, example)
                found.append(example)
        if not found:
            raise UserError(f"{source.path}: holds no example that can be used", "Give one with some.")
        return found

    @contextlib.contextmanager
    def usable(self, source: TaskFile, where: str) -> Iterator[None]:
        """With leave_out, counts a UserError of what is done within, and goes on."""
        try:
            yield
        except UserError as error:
            if not self.options.leave_out:
                raise
            source.left_out[str(error).partition("\n")[0].removeprefix(f"{where}: ")] += 1

    def check_usable(self, source: TaskFile, example: Example) -> None:
        """UserError for an example to learn from without a label, or one whose label the run was not trained with."""
        if self.label_names:
            self.check_known(example)
        if source.path in self.options.files and not self.labelled(example):
            raise UserError(f"{example.where}: has no label to learn", "Give labels, or name their column: --data.label, --data.target.")

    def examples(self, sources: Sequence[TaskFile], split: str) -> list[Example]:
        """Those of a split: of `train` what is learned from, of any other what is kept from it."""
        o, files = self.options, len(self.options.files)
        held = [example for source in sources[files:] for example in source.examples]
        if split != "train" and held:
            return held
        given = [example for source in sources[:files] for example in source.examples]
        keys = np.array([self.key(example) for example in given], np.uint64)
        if not held:
            distinct = np.unique(keys)
            kept = np.isin(keys, distinct[: round(o.validation * len(distinct))]) & (len(distinct) > 1)
            chosen = np.flatnonzero(kept if split != "train" else ~kept)
            given, keys = [given[place] for place in chosen], keys[chosen]
        if split != "train":
            return given
        if not o.examples:
            return given
        order = np.argsort(fold(self.experiment.seed, keys), kind="stable")
        return self.first([given[place] for place in order], o.examples)

    def key(self, example: Example) -> int:
        """A hash of the identity."""
        return content_hash(self.identity(example))

    def first(self, examples: list[Example], rows: int) -> list[Example]:
        """The first `rows` of them, 0 for all, and the other parts of the last."""
        count = rows or len(examples)
        while self.in_parts and 0 < count < len(examples) and self.key(examples[count]) == self.key(examples[count - 1]):
            count += 1
        return examples[:count]

    # ----------------------------------------------------------------------------------------------------------- rows

    @functools.cached_property
    def way(self) -> Literal["head", "source", "text"]:
        """How the experiment's model answers: by a head, by a text of its own, or by going on with the prompt."""
        model = self.experiment.model
        if isinstance(model, OfStart) and self.experiment.start:  # files are read before a new run's model is filled in
            from train.runs.directory import open_run

            model = open_run(self.experiment.start, said=lambda line: None).experiment.model
        if isinstance(model, TextEncoderConfig):
            return "head"
        return "source" if isinstance(model, EncoderDecoderConfig) else "text"

    @functools.cached_property
    def label_names(self) -> tuple[str, ...]:
        return getattr(self.experiment.objective, "labels", ())

    @property
    def texts(self) -> int:
        """Texts that a row may hold."""
        return max(4, self.options.length // 8)

    @property
    def room(self) -> tuple[int, int, int]:
        """Of a row: see `size` in train/tasks/packing.py."""
        return self.options.length, self.options.written if self.way == "source" else 0, self.texts

    def item(self, example: Example, tokenizer: Tokenizer, labelled: bool = True) -> Item:
        """An example as the model reads it."""
        self.tokens, self._cut = tokenizer, False
        made = self._item(example, labelled)
        self.cut += self._cut
        return made

    def _item(self, example: Example, labelled: bool) -> Item:
        if self.way == "head":
            return self.pieces(example, labelled)
        answer = self.answer_ids(self.answer(example) if labelled else "")
        if self.way == "source":
            return (Piece(self.prompt_ids(example, self.options.length), target=answer),)
        prompt = self.prompt_ids(example, self.options.length - len(answer))
        learned = np.concatenate([np.zeros(len(prompt), np.float32), np.ones(len(answer), np.float32)])
        return (Piece(np.concatenate([prompt, answer]), learned=learned),)

    def prompt_text(self, example: Example) -> str:
        """What a model that writes reads, as text."""
        shown = "".join(f"{self._filled(shot)}{self.answer(shot)}\n\n" for shot in self.shots_for(example))
        return shown + self._filled(example)

    def shots_for(self, example: Example) -> list[Example]:
        """What is shown before an example: others, drawn by the seed."""
        shown = [shot for shot in self.shown_before if self.key(shot) != self.key(example)]
        return shown[: self.options.shots]

    def _filled(self, example: Example) -> str:
        """The prompt of one example."""
        prompt = self.options.prompt or self.own_prompt

        def value(found: re.Match) -> str:
            if found[1] not in example.fields:
                raise UserError(
                    f"{example.where}: data.prompt asks for {found[1]!r}, and there is no such column",
                    f"There are: {', '.join(example.fields)}.",
                )
            return example.fields[found[1]]

        return PLACEHOLDER.sub(value, prompt)

    def prompt_ids(self, example: Example, room: int) -> np.ndarray:
        """The prompt between what begins a text (and, for an encoder-decoder, ends it), cut at its front so that its end is read."""
        start, ids = self.tokens.document_start, self._fitting(example, max(room - 1, 1))
        if self.way == "source":
            return np.append(ids, self.tokens.specials["document_end"]).astype(np.int32)
        return np.concatenate([[start], ids]).astype(np.int32)

    def _fitting(self, example: Example, room: int) -> np.ndarray:
        """The ids of a prompt. One that is too long is cut where its longest text ends; if that is not enough, at its front."""
        ids = self.tokens.encode(self.prompt_text(example))
        names = [name for name in PLACEHOLDER.findall(self.options.prompt or self.own_prompt) if name in example.fields]
        self._cut |= len(ids) > room
        if len(ids) > room and names:
            name = max(names, key=lambda one: len(example.fields[one]))
            own = self.tokens.encode(example.fields[name])
            kept = self.tokens.decode(own[: max(len(own) - (len(ids) - room) - 1, 0)])
            ids = self.tokens.encode(self.prompt_text(example._replace(fields=example.fields | {name: kept})))
        return ids[-room:]

    def answer_ids(self, answer: str) -> np.ndarray:
        """The answer and its end; of one that is too long, its beginning."""
        ids, most = self.tokens.encode_inside(answer), self.options.written
        self._cut |= len(ids) > most
        if len(ids) >= most or (not self.options.ended and len(ids)):
            return ids[:most].astype(np.int32)
        return np.append(ids, self.tokens.specials["document_end"]).astype(np.int32)

    def wrapped(self, first: np.ndarray, second: np.ndarray | None = None, room: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """[start] first [end] second [end], and the types 0 and 1 of the two (Devlin et al. 2019, sec. 3.2); cut to the row, or to `room`,
        the longer one first."""
        start, end = self.tokens.document_start, self.tokens.specials["document_end"]
        room = (room or self.options.length) - (2 if second is None else 3)
        self._cut |= len(first) + (0 if second is None else len(second)) > room
        beside = 0 if second is None else min(len(second), room // 2)
        first = first[: room - beside]
        if second is not None:
            second = second[: room - len(first)]
        parts: list[Any] = [[start], first, [end]] + ([] if second is None else [second, [end]])
        types = np.zeros(sum(map(len, parts)), np.int32)
        if second is not None:
            types[len(first) + 2 :] = 1
        return np.concatenate(parts).astype(np.int32), types

    def make(self, items: list[Item], laid: list[list[int]], rows: np.ndarray) -> Any:
        """The arrays of rows."""
        o = self.options
        if self.way == "head":
            return head_batch(items, laid, rows, o.length, self.texts, self.empty_label, self.by_token, self.beside)
        if self.way == "source":
            return source_batch(items, laid, rows, o.length, o.written, self.experiment.model.start_token)  # type: ignore[attr-defined]
        return text_batch(items, laid, rows, o.length)

    def changer(self, examples: Sequence[Example]) -> Callable[[Example, int], Example] | None:
        """change(example, row) -> the example to learn from as that row of the stream has it, itself where it stays; None where none is
        changed. examples: all of them."""
        return augmenter(self.options.augment, self.changeable, self.experiment.seed)

    def batches(self, sources: list, split: str = "train") -> TaskBatches:
        self.show(sources)
        examples = self.examples(sources, split)
        change = self.changer(examples) if split == "train" else None
        made = TaskBatches(self, examples, sources[0].tokenizer(), self.experiment.seed, change)
        made.said = [f"{source.path}: {said}" for source in sources if (said := told(source.left_out))]
        held = [example for source in sources[len(self.options.files) :] for example in source.examples] if split == "train" else []
        if held:
            known = {self.key(example) for example in examples}
            both = sum(self.key(example) in known for example in held)
            made.said += [f"{both:,} of {len(held):,} examples to evaluate on are also learned from, or of what is"] if both else []
        return made

    def cut_in(self, batches: TaskBatches) -> list[str]:
        """A remark, where some of the first examples do not fit."""
        looked, self.cut = min(LOOKED_AT, batches.rows_per_epoch), 0
        for number in range(looked):
            self.item(batches.example(number), batches.tokenizer)
        sizes = f"--data.length is {self.options.length}" + ("" if self.way == "head" else f", --data.written {self.options.written}")
        return [f"{self.cut} of {looked} examples do not fit, and are cut: {sizes}"] if self.cut else []

    def units(self, sources: list, user: str = "", rows: int = 1) -> Units:
        batches, examples = self.batches(sources), self.examples(sources, "train")
        if not user and len({example.where for example in examples}) < len(examples):
            what = "several rows of one example, where it is long" if self.in_parts else "several examples of one row of a file"
            mend = "Give a larger --data.length, or name" if self.in_parts else "Name"
            raise UserError(
                f"data: {type(self.options).__name__} makes {what}", f"{mend} the column that says whose they are: --gradient.user."
            )
        owners = [self._owner(example, user) for example in examples] if user else np.arange(len(examples))
        held = by_owner(owners)

        def make(numbers: np.ndarray, coins: np.ndarray) -> Any:
            places = row_numbers(coins, rows)
            laid: list[list[int]] = []
            items: list[Item] = []
            for place, (unit, coin) in enumerate(zip(numbers.tolist(), coins.tolist(), strict=True)):
                own = few_of(held[unit], rows, coin) if unit >= 0 else []
                own_items = [batches.changed(int(number), int(places[place * rows + row])) for row, number in enumerate(own)]
                laid += [[len(items) + row] if row < len(own) else [] for row in range(rows)]
                items += own_items
            return self.make(items, laid, places)

        return Units("user" if user else "example", len(held), make)

    def _owner(self, example: Example, user: str) -> str:
        if user not in example.fields:
            raise UserError(f"{example.where}: gradient.user asks for the column {user!r}", f"There are: {', '.join(example.fields)}.")
        return example.fields[user]

    def show(self, sources: Sequence[TaskFile]) -> None:
        """Draw the examples that are shown before others."""
        self.shown_before = []
        if not self.options.shots:
            return
        given = self.examples(sources, "train") if self.options.files else []
        if len(given) <= self.options.shots:
            raise UserError(
                f"{self.options.shots} examples are to be shown before each one, of {len(given)}", "Give more examples, or show fewer."
            )
        keys = np.array([self.key(example) for example in given], np.uint64)
        order = np.argsort(fold(self.experiment.seed, keys), kind="stable")[: self.options.shots + 1]
        self.shown_before = [given[place] for place in order]

    def empty(self, count: int) -> Any:
        return self.make([], [[] for _ in range(count)], np.arange(count))

    def check_way(self) -> None:
        """UserError for a task that the experiment's model cannot answer, or not as the options say."""
        if self.way == "head":
            self.head()
        elif not self.writes:
            raise UserError(
                f"{type(self.options).__name__} asks for labels of tokens or places, which no text can hold", "Start from an encoder."
            )

    def check(self, sources: list) -> None:
        self.check_way()
        o, model = self.options, self.experiment.model
        if o.length > model.context_length:
            raise UserError(
                f"data.length is {o.length}, and the model reads {model.context_length} tokens", "Set --data.length to that, or less."
            )
        if self.way == "text" and o.written > o.length // 2:
            raise UserError(
                f"data.written is {o.written}, which leaves too little of data.length {o.length} for prompts", "Give at most half of it."
            )
        if not o.files:
            raise UserError("data.files is empty: there is nothing to learn from", self.options.how_to_get)
        if not self.examples(sources, "train"):
            raise UserError(f"{o.files[0]}: every example is kept for evaluation", "Give more, or a smaller --data.validation.")
        if o.augment.rate and not self.changeable:
            raise UserError(f"data.augment: labels of {type(o).__name__} belong to words or places, which would move", "Leave it out.")

    def can_validate(self, sources: list) -> bool:
        return bool(self.examples(sources, "validation"))

    # ------------------------------------------------------------------------------------------------------ evaluation

    def evaluate(
        self, evaluator, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        """{"loss", "examples", ...} with the task's own metrics; where there were any, how many examples were `cut`, and how many of the
        files to evaluate on were `left_out`. What each example was answered is kept: see `details`."""
        examples = self.first(self.examples(sources, split), rows)
        if not examples:
            return {}
        known = all(map(self.labelled, examples))
        self.show(sources)
        self.tokens = sources[0].tokenizer()
        found: dict[str, Any] = {}
        outputs: list = [[] for _ in examples]
        self.cut = 0
        if self.way == "head" or known:
            laid = EvaluationRows(self, [self.item(example, self.tokens, known) for example in examples])
            totals = evaluator.totals(params, laid.batch, laid.rows_per_epoch, between=between, collect=laid.collector(outputs))
            found = evaluator.result(totals) if known else {}
        beside = {"cut": self.cut, "left_out": sum(source.left_out.total() for source in sources[len(self.options.files) :])}
        if self.way != "head":
            from train.tasks.writing import answers_of

            outputs = answers_of(self, realise(self.experiment.model), params, evaluator.mesh, examples)
        found = {name: value for name, value in found.items() if name not in ("tokens", "accuracy")}  # which the task counts itself
        return found | self.judge(examples, outputs) | {name: count for name, count in beside.items() if count}

    def judge(self, examples: list[Example], outputs: list[Any]) -> dict[str, Any]:
        """The measures of what a model gives for examples; they, and each answer, are kept for `details`."""
        known = all(map(self.judgeable, examples))
        answers = [self.found(example, output) for example, output in zip(examples, outputs, strict=True)]
        examples, answers = self.joined(examples, answers)
        self.judged = Judged(self, examples, answers, self.score(examples, answers) if known else None)
        return (self.judged.scores.values if self.judged.scores else {}) | {self.counted: len(examples)}

    def shows(self) -> list[Section]:
        from train.tasks.pictures import task_sections

        judged = self.details()
        if judged is None or judged.scores is None:
            return []
        losses = [self.loss_of(example, answer) for example, answer in zip(judged.examples, judged.answers, strict=True)]
        return task_sections(judged.scores, judged.lines(), [loss for loss in losses if loss is not None])

    def answers(self, evaluator, params, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Any]:
        """What each example is answered, whether or not its label is known."""
        outputs: list = [[] for _ in examples]
        if self.way == "head":
            laid = EvaluationRows(self, [self.item(example, tokenizer, False) for example in examples])
            evaluator.outputs(params, laid.batch, laid.rows_per_epoch, laid.collector(outputs))
        else:
            from train.tasks.writing import answers_of

            self.tokens = tokenizer
            outputs = answers_of(self, realise(self.experiment.model), params, evaluator.mesh, list(examples))
        return [self.found(example, output) for example, output in zip(examples, outputs, strict=True)]

    def details(self) -> "Judged | None":
        """Of the last evaluation."""
        return getattr(self, "judged", None)

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> Application:
        from train.apps.answering import Answering, TaskApplication

        return TaskApplication(Answering(run, self, step=step, raw=raw))


class Judged(NamedTuple):
    """What an evaluation found, example by example."""

    dataset: TaskDataset
    examples: list[Example]
    answers: list[Any]
    scores: Scores | None

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """{"intervals": {measure: [low, high]}}, of 95 %; {} where nothing was scored."""
        return {} if self.scores is None else {"intervals": self.scores.intervals()}

    def lines(self) -> list[dict[str, Any]]:
        """What a file of predictions holds."""
        return [
            {"where": example.where, **example.fields, **self.dataset.shown(example, answer)}
            for example, answer in zip(self.examples, self.answers, strict=True)
        ]
