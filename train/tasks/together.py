"""Several tasks in one run: each step has examples of all of them, and each is evaluated by its own measures."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from data.errors import UserError
from data.rows.mixture import Mixture, counts_of_weights
from data.tokenizer import Tokenizer
from train.evaluation.totals import Evaluator
from train.experiment import Experiment
from train.kinds import Data, Dataset, Section, realise
from train.objectives.bind import bind
from train.objectives.tasks.options import Supervised, SupervisedTogether
from train.objectives.tasks.together import with_head
from train.tasks.batches import PackedBatches, TaskBatches
from train.tasks.classification import Classification
from train.tasks.examples import TaskFile
from train.tasks.packing import Item
from train.tasks.retrieval import TextPairs
from train.tasks.rows import in_one
from train.tasks.tagging import Tagging
from train.tasks.task import Task, TaskDataset


@dataclasses.dataclass(frozen=True)
class Together(Data):
    """Labelled examples of several tasks."""

    home: ClassVar[str] = ":TogetherDataset"
    rows: ClassVar[str] = "tasks"
    how_to_get: ClassVar[str] = "Give labelled examples of each task: --data.tasks.0.files train.csv."

    tasks: tuple[Task, ...] = (Classification(), Tagging())
    """The tasks. Rows are as long as the longest of them asks for."""
    names: tuple[str, ...] = ()
    """Names of the tasks, in measures and parameters. Empty: those of their kinds, numbered where there are several of one."""
    weights: tuple[float, ...] = ()
    """Share of each task in the examples of a step and in the loss, in any unit. Empty: equal."""

    def __post_init__(self):
        if len(self.tasks) < 2:
            raise ValueError(f"data.tasks: {len(self.tasks)} are no several; give at least two")
        if any(isinstance(task, TextPairs) for task in self.tasks):
            raise ValueError("data.tasks: TextPairs learn by contrast within a batch, and go with no other task")
        for name, given in (("names", self.names), ("weights", self.weights)):
            if given and len(given) != len(self.tasks):
                raise ValueError(f"data.{name}: {len(given)} for {len(self.tasks)} tasks")
        if len(set(self.names)) < len(self.names) or any(not re.fullmatch(r"\w[\w.-]*", name) for name in self.names):
            raise ValueError(f"data.names {self.names}: give different ones, of letters, digits, '_', '-' and '.'")
        if any(not weight > 0 for weight in self.weights):
            raise ValueError(f"data.weights {self.weights}: all must be above 0")

    def leaving_out(self) -> Self:
        return dataclasses.replace(self, tasks=tuple(task.leaving_out() for task in self.tasks))


class TogetherDataset(Dataset):
    """Measures of a task have its name in front: NAME/accuracy. `loss` is the sum of the tasks' losses, each times its share."""

    options: Together
    takes = TaskDataset.takes
    evaluates_all = True
    counts_tokens = False

    def __init__(self, options: Together, experiment: Experiment):
        super().__init__(options, experiment)
        self._place: Any = None
        self.each: list[TaskDataset] = []
        for number, task in enumerate(options.tasks):
            o = experiment.objective
            objective = o.of_task(number) if isinstance(o, SupervisedTogether) else Supervised()
            longest = {name: max(getattr(one, name) for one in options.tasks) for name in ("length", "written")}
            own = dataclasses.replace(task, **longest)
            self.each.append(realise(own, dataclasses.replace(experiment, data=own, objective=objective)))
        self._evaluators: dict[int, Evaluator] = {}

    @property
    def place(self) -> Any:
        return self._place

    @place.setter
    def place(self, place: Any) -> None:
        self._place = place
        for dataset in self.each:
            dataset.place = place

    @property
    def names(self) -> tuple[str, ...]:
        if self.options.names:
            return self.options.names
        kinds = [type(task).__name__.lower() for task in self.options.tasks]
        return tuple(f"{kind}_{kinds[: n + 1].count(kind)}" if kinds[:n].count(kind) else kind for n, kind in enumerate(kinds))

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each task; their sum is 1."""
        weights = self.options.weights or (1.0,) * len(self.each)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def way(self) -> str:
        return self.each[0].way

    def _divided(self, sources: list[TaskFile]) -> list[list[TaskFile]]:
        """The files of each task."""
        ends = np.cumsum([len(dataset.paths()) for dataset in self.each]).tolist()
        return [sources[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]

    # Files

    def paths(self) -> tuple[str, ...]:
        return tuple(path for dataset in self.each for path in dataset.paths())

    def elsewhere(self, paths: tuple[str, ...]) -> Data:
        if len(paths) != len(self.each):
            raise UserError(
                f"{len(paths)} files for the {len(self.each)} tasks {', '.join(self.names)}", "Give one for each, in this order."
            )
        each = zip(self.options.tasks, paths, strict=True)
        return dataclasses.replace(
            self.options, tasks=tuple(dataclasses.replace(t, files=(), validation_files=(path,)) for t, path in each)
        )

    def open(self, tokenizer: Tokenizer | None = None) -> list[TaskFile]:
        found: list[TaskFile] = []
        for number, dataset in enumerate(self.each):
            if not dataset.paths():
                raise UserError(f"data.tasks.{number}.files is empty", f"Give examples of {self.names[number]}.")
            found += dataset.open(tokenizer)
            tokenizer = found[0].tokenizer()
        return found

    def describe(self, source: TaskFile) -> str:
        return source.dataset.describe(source)

    # Rows

    def batches(self, sources: list, split: str = "train") -> "TogetherBatches":
        each = [dataset.batches(own, split) for dataset, own in zip(self.each, self._divided(sources), strict=True)]
        return TogetherBatches(self, each)

    def make(self, items: list[list[Item]], laid: list[tuple[int, list[int]]], rows: np.ndarray) -> Any:
        """The arrays of rows. laid: of each row its task, and the numbers of its items among those of the task."""
        own = [[held if task == number else [] for task, held in laid] for number in range(len(self.each))]
        return in_one([dataset.make(items[number], own[number], rows) for number, dataset in enumerate(self.each)])

    def empty(self, count: int) -> Any:
        return self.make([[] for _ in self.each], [(0, [])] * count, np.arange(count))

    def check(self, sources: list) -> None:
        for dataset, own in zip(self.each, self._divided(sources), strict=True):
            dataset.check(own)

    def can_validate(self, sources: list) -> bool:
        return all(dataset.can_validate(own) for dataset, own in zip(self.each, self._divided(sources), strict=True))

    # Evaluation

    def evaluate(
        self, evaluator, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        """{"loss", "NAME/loss", "NAME/examples", ...} with each task's own metrics."""
        found: dict[str, Any] = {}
        for number, (dataset, own, name) in enumerate(zip(self.each, self._divided(sources), self.names, strict=True)):
            if number not in self._evaluators:
                self._evaluators[number] = Evaluator(bind(dataset.experiment, evaluator.mesh), dataset.experiment, evaluator.mesh)
            its = with_head(params, name) if self.way == "head" else params
            measured = dataset.evaluate(self._evaluators[number], its, own, split=split, rows=rows, between=between)
            found |= {f"{name}/{measure}": value for measure, value in measured.items()}
        losses = [found.get(f"{name}/loss") for name in self.names]
        if None in losses:
            return found
        return {"loss": float(np.dot(self.shares, np.array(losses)))} | found

    def details(self) -> "JudgedTogether | None":
        judged = {name: own for name, dataset in zip(self.names, self.each, strict=True) if (own := dataset.details()) is not None}
        return JudgedTogether(judged) if judged else None

    def shows(self) -> list[Section]:
        each = zip(self.names, self.each, strict=True)
        return [
            section._replace(
                title=f"{name}: {section.title}", pictures={f"{name}_{picture}": content for picture, content in section.pictures.items()}
            )
            for name, dataset in each
            for section in dataset.shows()
        ]


class JudgedTogether(NamedTuple):
    """What an evaluation found, by the names of the tasks."""

    judged: dict[str, Any]

    def lines(self) -> list[dict[str, Any]]:
        return [{"task": name} | line for name, own in self.judged.items() for line in own.lines()]

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        each = {
            f"{name}/{measure}": bounds
            for name, own in self.judged.items()
            for measure, bounds in own.intervals().get("intervals", {}).items()
        }
        return {"intervals": each} if each else {}


class TogetherBatches(PackedBatches):
    """Rows of examples of all tasks: row r is the next example of the task that the mixture names (data/rows/mixture.py).

    So each batch has about as many of a task as its share says, however many examples the task has. A row of the arrays holds texts of one
    task.
    """

    nothing = (0, [])

    def __init__(self, dataset: TogetherDataset, each: list[TaskBatches]):
        self._dataset, self._each = dataset, each
        self._mixture = Mixture(counts_of_weights(dataset.shares))
        self.rows_per_epoch = sum(own.rows_per_epoch for own in each)

    def rows_of(self, first_row: int, count: int) -> tuple[list[list[Item]], list[tuple[int, list[int]]]]:
        """The items of each task, and rows of the arrays: the task, and the numbers of its items."""
        sources, numbers = self._mixture(np.arange(first_row, first_row + count))
        items, laid = [], []
        for task, own in enumerate(self._each):
            its = numbers[sources == task]
            held, rows = own.rows_of(int(its[0]) if len(its) else 0, len(its))
            items.append(held)
            laid += [(task, row) for row in rows]
        return items, laid

    @functools.cached_property
    def remarks(self) -> list[str]:  # type: ignore[override]
        return [said for own in self._each for said in own.remarks]
