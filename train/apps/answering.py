"""A task's run at work: rows in, answers out."""

import contextlib
import functools
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from data.errors import UserError
from data.files import json_files, storage
from data.records.record import Record, is_number
from model.decoding.sampling import Sampling
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.evaluation.totals import Evaluator
from train.generation.text import Completion, Form, TextGenerator
from train.kinds import Application, Column, realise
from train.objectives.bind import bind
from train.tasks.examples import Example
from train.tasks.writing import AT_ONCE, completions_of, generator_of, prompts_of

Read = TypeVar("Read")
KEPT = "application.json"
"""In a run directory: what an application learned beside the model, such as from which confidence on it answers."""
COUNTED = "application.npz"
"""The same for arrays: what was counted in the examples that were learned from."""
ID = {"id": Column("A name of the row, which its line has too.")}
"""What `in_place` reads of a row itself."""
DRAWN = {
    "n": Column("How many are written; one of them is chosen.", "number"),
    "temperature": Column("How freely they are drawn: 0 takes what is likeliest, 1 draws as the model says.", "number"),
    "top_p": Column("Draw among the likeliest that together have this probability, up to 1.", "number"),
    "seed": Column("With the same one, the same row is answered the same.", "number"),
}
"""What applications that write read of a row."""


class Answering:
    """The answers of a task's run, of one checkpoint."""

    def __init__(self, run: Any, dataset: Any, *, step: int | None = None, raw: bool = False):
        """dataset: the run's, a TaskDataset."""
        self.run, self.dataset = run, dataset
        self._mesh = inference_mesh(run.experiment.mesh)
        self._params, self.step = load_parameters(run, self._mesh, step=step, raw=raw)
        self.reads = [run.identity, self.step, raw]
        """Which parameters these are."""
        self.tokenizer = run.tokenizer()

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(bind(self.run.experiment, self._mesh), self.run.experiment, self._mesh)

    def __call__(self, examples: Sequence[Example]) -> list[Any]:
        """Of each, as the task's `found` gives it."""
        return self.dataset.answers(self._evaluator, self._params, examples, self.tokenizer) if examples else []

    def completions(self, examples: Sequence[Example]) -> list[list[Any]]:
        """Of each the texts that the run's model writes, as Completions."""
        return completions_of(self.dataset, self._generator, list(examples)) if examples else []

    @property
    def vocabulary(self) -> int:
        """Ids that the run's model knows."""
        return self._generator.vocabulary

    @functools.cached_property
    def _generator(self) -> TextGenerator:
        self.dataset.tokens = self.tokenizer
        return generator_of(self.dataset, realise(self.run.experiment.model), self._params)

    def continued(
        self,
        examples: Sequence[Example],
        *,
        sampling: Sampling,
        draws: Sequence[tuple[int, int]],
        forms: Sequence[Form] = (),
    ) -> list[Completion]:
        """A text for each example. draws: (seed, number) of each, which alone decide what is drawn. forms: what each may be; empty:
        anything."""
        generator, options = self._generator, self.dataset.options
        how: dict[str, Any] = {"tokens": options.written, "sampling": sampling, "draws": draws, "forms": forms}
        return generator.generate(prompts_of(self.dataset, list(examples)), stop=self.dataset.stops, stop_in_space=False, **how)

    def fits(self, example: Example) -> bool:
        """Whether the model reads it whole."""
        self.dataset.tokens, self.dataset._cut = self.tokenizer, False
        if self.dataset.way == "head":
            self.dataset.pieces(example, False)
        else:
            prompts_of(self.dataset, [example])
        return not self.dataset._cut

    def held_out(self) -> list[Example]:
        """The labelled examples that the run kept from learning. Its files must be where they were."""
        return [one for one in self.dataset.examples(self.run.corpora(), "validation") if self.dataset.labelled(one)]

    def learned_from(self) -> list[Example]:
        """The examples that the run learned from. Its files must be where they were. UserError for a run that promises to tell nothing of
        any of them."""
        if self.run.experiment.gradient.private:
            what = f"{self.run.path}: learned in private, and this application looks again at what it learned from"
            raise UserError(what, "Train with the gradient Exact.")
        return self.dataset.examples(self.run.corpora(), "train")

    def validation(self) -> tuple[list[Example], list[Any]]:
        """The examples of `held_out`, and their answers."""
        examples = self.held_out()
        return examples, self(examples)

    def example_of(self, row: Record, *, labelled: bool = False) -> Example:
        """UserError for a row that is none, or that the run's model cannot read. labelled: its label is read, if it says one; else whatever
        stands there is not looked at."""
        return self.checked(self.dataset.example(self._without_label(row, labelled)))

    def parts_of(self, row: Record) -> list[Example]:
        """The same of a row that may be read in several parts, without its label."""
        self.dataset.tokens = self.tokenizer
        return [self.checked(part) for part in self.dataset.examples_of(self._without_label(row, False))]

    def checked(self, example: Example) -> Example:
        """Itself. UserError for characters that have no id, and for turns that the model's template refuses: while one row is at stake."""
        if self.dataset.way != "head" or self.tokenizer.refuses:
            self.dataset.item(example, self.tokenizer, False)
        return example

    def answered(self, rows: Sequence[list[Example]]) -> list[tuple[Example, Any]]:
        """Of each row's parts, the row as one example, and its answer."""
        parts = [part._replace(where=f"{number}: {part.where}") for number, own in enumerate(rows) for part in own]
        return list(zip(*self.dataset.joined(parts, self(parts)), strict=True))

    def _without_label(self, row: Record, labelled: bool) -> Record:
        name = getattr(self.dataset.options, self.dataset.label_option, "")
        if name in row and not (labelled and row[name] not in (None, "")):
            return Record({key: value for key, value in row.items() if key != name}, row.where)
        return row

    def learned(self, what: Callable[[], dict[str, Any]], of: Any = None) -> dict[str, Any]:
        """What was learned beside the model for this checkpoint: kept in the run, or made now and, if that can be written, kept. of: what
        else it depends on."""
        path = Path(self.run.path) / KEPT
        wanted = {"reads": self.reads, "of": of}
        if path.is_file():
            kept = json_files.read(path, "Remove it: it is made again.")
            if {name: kept.get(name) for name in wanted} == wanted:
                return kept["learned"]
        found = what()
        with contextlib.suppress(OSError):  # a run that may only be read
            json_files.write(path, wanted | {"learned": found})
        return found

    def counted(self, what: Callable[[], dict[str, np.ndarray]], of: Any = None) -> dict[str, np.ndarray]:
        """The same for what was counted in the examples that the run learned from, whichever the checkpoint, and is too large for JSON.
        of: what it depends on."""
        path = Path(self.run.path) / COUNTED
        wanted = json.dumps([self.run.identity, of])
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as kept:
                    said, *names = kept["of"].ravel().tolist()
                    if said == wanted and names:
                        return {name: kept[name] for name in names}
            except Exception as error:  # zlib, zipfile and numpy raise errors of many types, as it happens which bytes are damaged
                raise UserError(f"{path}: cannot be read ({type(error).__name__})", "Remove it: it is made again.") from None
        found = what()
        held = io.BytesIO()
        np.savez_compressed(held, of=np.array([wanted, *found]), **found)  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            storage.write_atomically(str(path), held.getvalue())
        return found


def in_place(
    rows: Sequence[Record], read: Callable[[Record], Read], answer: Callable[[list[Read]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """A line for each row, with the row's id if it has one: what `answer` makes of those that can be read, all together, and of others the
    UserError of `read`."""
    lines: list[dict[str, Any]] = []
    readable: list[Read] = []
    for row in rows:
        try:
            readable.append(read(row))
            lines.append({})
        except UserError as error:
            lines.append({"error": str(error).partition("\n")[0]})
    answers = iter(answer(readable))
    return [({"id": row["id"]} if "id" in row else {}) | (line or next(answers)) for row, line in zip(rows, lines, strict=True)]


def legible(text: str, tokenizer: Any) -> str:
    """A text, or where a tokenizer refuses it, letters that it has."""
    try:
        tokenizer.encode(text)
        return text
    except UserError:
        letters = [letter for piece in tokenizer.pieces if (letter := piece.decode("utf-8", "ignore")).isalpha()]
        return "".join(letters[:4])


def number_in(row: Record, name: str, usual: float, low: float, high: float, *, whole: bool = False) -> float:
    """A number of a row, also one that a table has as text. UserError for one that is none, or out of range."""
    value: Any = row.get(name)
    if isinstance(value, str) and len(value) <= 32:
        with contextlib.suppress(ValueError):
            value = float(value)
    if value in (None, ""):
        return usual
    if not is_number(value) or not low <= value <= high or (whole and value != int(value)):
        wanted = f"a {'whole ' if whole else ''}number from {low:.10g} to {high:.10g}"  # in the first line, which is all that a row is told
        raise UserError(f"{row.where}: {name} is {str(value)[:40]!r}, not {wanted}", f"Give {wanted}.")
    return int(value) if whole else float(value)


def truth_in(row: Record, name: str) -> bool:
    """A truth value of a row, also one that a table has as text; not there, it is false. UserError for anything else."""
    value: Any = row.get(name)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        value = value.strip().lower() == "true"
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{row.where}: {name} is {str(value)[:40]!r}, not true or false", "Give one of these.")
    return bool(value)


def sampling_in(row: Record, temperature: float) -> Sampling:
    """How a row wants its text drawn, by its `temperature` and `top_p`."""
    return Sampling(temperature=number_in(row, "temperature", temperature, 0, 10), top_p=number_in(row, "top_p", 0.95, 1e-6, 1))


class ToDraw(Protocol):
    """A row that asks for `number` texts to an example, drawn in a way that its own seed decides."""

    @property
    def example(self) -> Example: ...
    @property
    def number(self) -> int: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def seed(self) -> int: ...


def drawn(answering: Answering, asked: Sequence[ToDraw]) -> list[list[Completion]]:
    """The texts of each row. They are written together where they are drawn in the same way, and each is as if it stood alone."""
    found: list[list[Completion]] = [[] for _ in asked]
    for sampling in dict.fromkeys(one.sampling for one in asked):
        wanted = [(place, number) for place, one in enumerate(asked) if one.sampling == sampling for number in range(one.number)]
        for first in range(0, len(wanted), AT_ONCE):
            part = wanted[first : first + AT_ONCE]
            texts = answering.continued(
                [asked[place].example for place, _ in part],
                sampling=sampling,
                draws=[(asked[place].seed, number) for place, number in part],
            )
            for (place, _), text in zip(part, texts, strict=True):
                found[place].append(text)
    return found


class TaskApplication(Application):
    """Answers of any task, as `omnia evaluate --predictions` writes them, for rows whose labels nobody knows; with `cut` where a row has
    more than the model reads."""

    def __init__(self, answering: Answering):
        self._answering, self.reads, options = answering, answering.reads, answering.dataset.options
        self.text = getattr(options, "text", "") or getattr(options, "source", "") or "text"
        self.labels = answering.dataset.label_names

    @property
    def columns(self) -> dict[str, Column]:
        return self._answering.dataset.row_columns | ID

    @property
    def example(self) -> dict[str, Any]:
        return {
            name: legible(value, self._answering.tokenizer) if isinstance(value, str) else value
            for name, value in self._answering.dataset.row.items()
        }

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._answering.parts_of, self._lines)

    def _lines(self, rows: list[list[Example]]) -> list[dict[str, Any]]:
        dataset = self._answering.dataset
        shown = [dataset.shown(example, answer) for example, answer in self._answering.answered(rows)]
        cut = [{} if all(map(self._answering.fits, parts)) else {"cut": True} for parts in rows]
        return [
            {name: value for name, value in one.items() if name not in dataset.label_fields} | more
            for one, more in zip(shown, cut, strict=True)
        ]
