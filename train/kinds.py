"""Kinds: what a sort of data, objective, model, optimizer, gradient, adapters, metric or learner offers, so that nothing else names one.

A kind is an option dataclass, which a config file, the command line and config.json see. Its class attribute `home` names what realises it:
"module:name", or ":name" in the module of the class itself. `realise` imports that when a run needs it, so options load nothing heavy. The
loop, run directories, plans, the doctor and the verbs call what is declared here and know no kind by name. A class defined in a user's own
config file is a kind like ours.
"""

import contextlib
import dataclasses
import importlib
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from data.errors import UserError
from data.tokenizer import Tokenizer

Path = tuple[str, ...]
"""Where something stands in a tree of parameters."""


def realise(option, *arguments):
    """What realises an option: its home, called with the option and the arguments."""
    return home_of(option)(option, *arguments)


def home_of(option) -> Callable:
    """The class or function that `option.home` names, imported. UserError where nothing does."""
    return at(type(option), "home")


def learner_class(experiment) -> Any:
    """The Learner that takes the steps of an experiment."""
    gradient = type(experiment.gradient)
    return at(gradient if gradient.learner else type(experiment.objective), "learner")


def at(kind: type, attribute: str) -> Callable:
    """What a class attribute of a kind names: "module:name", or ":name" in the module of the class that has the attribute."""
    owner = next((base for base in kind.__mro__ if vars(base).get(attribute)), None)
    if owner is None:
        known = ", ".join(one.__name__ for one in kind.__subclasses__())
        others = f"Choose one of {known}" if known else "Choose another"
        raise UserError(
            f"{kind.__name__} realises nothing", f"{others} in the config file, or give the class a {attribute} (train/kinds.py)."
        )
    home = vars(owner)[attribute]
    module, _, name = home.partition(":") if isinstance(home, str) else ("", "", "")
    try:
        return getattr(importlib.import_module(module or owner.__module__), name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImportError) and error.name and not (module or owner.__module__).startswith(error.name):
            raise  # the module is there, and misses a package
        raise UserError(
            f"{owner.__name__}.{attribute} is {home!r}, and there is no such thing",
            "Give 'module:name', or ':name' for something in the class's own file.",
        ) from None


def check_range(of: str, holder, low: float, *names: str, high: float = math.inf) -> None:
    """ValueError unless the fields lie in [low, high); NaN never does."""
    for name in names:
        value = getattr(holder, name)
        if not low <= value < high:
            below = f" and below {high:g}" if high < math.inf else ""
            raise ValueError(f"{of}{name} is {value}; it must be at least {low:g}{below}")


# ---------------------------------------------------------------------------------------------------------------------- data


@dataclasses.dataclass(frozen=True)
class Data:
    """Where rows come from. Home: a Dataset, made of the option and the experiment."""

    home: ClassVar[str] = ""
    rows: ClassVar[str] = ""
    """What a row is, as objectives name what they read: tokens, comparisons, media, prompts, games, or a word of your own."""
    how_to_get: ClassVar[str] = "Give some: --data.files FILE."
    """What to do where it names no source."""
    fixes: ClassVar[tuple[str, ...]] = ()
    """Fields of the experiment, such as batch_size, that its rows depend on: a run that goes on may not change them."""

    path_fields: ClassVar[tuple[str, ...]] = ("shards", "files", "validation_files")
    """Fields that name files, folders or runs, each a text or several, as far as a kind has them. Options inside it have the same."""

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same data, `change` applied to each path that it names."""

        def each(paths):
            return tuple(map(change, paths)) if isinstance(paths, tuple) else paths and change(paths)

        return map_paths(each, self, lambda data: data.with_paths(change))

    def without_files(self) -> Self:
        """The same data, naming no file, folder or run any more: as it may come from others, and go to them."""
        return map_paths(lambda paths: () if isinstance(paths, tuple) else "", self, lambda data: data.without_files())

    def leaving_out(self) -> Self:
        """The same data, without rows that cannot be used. UserError for a kind that has no such rows."""
        if not hasattr(self, "leave_out"):
            raise UserError(f"--leave-out is not for runs on {type(self).__name__}", "Leave it out.")
        return dataclasses.replace(self, leave_out=True)  # type: ignore[call-arg]


def map_paths(change: Callable[[Any], Any], option, of_data: Callable[[Data], Data]):
    """An option with `change` of each of its path_fields, and of those of all options inside it, in their place; of data inside it, what
    `of_data` gives."""

    def inside(value):
        if isinstance(value, Data):
            return of_data(value)
        if type(value) is tuple:
            return tuple(map(inside, value))
        return map_paths(change, value, of_data) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value

    fields = {field.name: inside(getattr(option, field.name)) for field in dataclasses.fields(option) if field.init}
    paths = {name: change(fields[name]) for name in getattr(option, "path_fields", ()) if name in fields}
    return dataclasses.replace(option, **fields | paths)


class Source(Protocol):
    """One opened source of an experiment's data: a folder of shards, a file, an environment, a game."""

    path: str
    digest: str
    """Of the content: a run only goes on with the same."""
    document_end: int | None
    ids: int
    """Token ids lie below this."""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its rows."""


class Batches(Protocol):
    """Rows as a pure function of (seed, row): no other iterator state exists."""

    padding_share: float
    damaged: Sequence
    """What was found damaged so far, and left an empty place."""
    damage: str
    """What those are called, in the plural."""
    rows_per_epoch: int

    def batch(self, first_row: int, count: int) -> Any:
        """Rows [first_row, first_row + count): a named tuple of NumPy arrays, each with an axis of rows first. It has `weights` [B, ...]
        or `counts` [B], in which 0 stands for padding. Rows of tokens are TextBatch (data/text/rows.py): tokens, targets, segments and
        positions int32 [B, T], weights float32 [B, T], rows int32 [B].

        Where several rows of the stream share one of the arrays, it also has `laid(first_row, count, multiple) -> rows, make`: the rows of
        the arrays, a multiple of `multiple`, and make(first, rows) for any range of them.
        """


class Units(NamedTuple):
    """What a dataset consists of, to be drawn one by one. what: one of them is called. size: how many there are.

    make(numbers, coins) -> arrays with the rows of the units of these numbers, one behind the other, -1 standing for padding. coins: a
    uint64 for each, by which all that is random of it is drawn, and nothing else: so it is the same whoever is drawn beside it.
    """

    what: str
    size: int
    make: Callable[[Any, Any], Any]


class Sample(NamedTuple):
    """A text that the model wrote, to be looked at; its score, where something scores it."""

    prompt: str
    text: str
    score: float | None = None


class Section(NamedTuple):
    """A section of report.html. pictures: PNGs, by the names that their files in plots/ get. columns, rows: of a table."""

    title: str
    pictures: dict[str, bytes] = {}
    columns: tuple[str, ...] = ()
    rows: list[list[str]] = []


class Column(NamedTuple):
    """What stands in rows under a name. meaning: one short sentence. form: what a person fills in: a text; a number; a list, whose entries
    may be written one a line; an object; true or nothing; an image, as data:image/...;base64."""

    meaning: str
    form: Literal["text", "number", "list", "object", "truth", "image"] = "text"


class Dataset:
    """An experiment's data. Subclasses give at least `open`, `batches` and `empty`."""

    takes: ClassVar[frozenset[str]] = frozenset()
    """Options of `omnia evaluate` that it understands: split, batch_size, int8."""
    evaluates_all: ClassVar[bool] = False
    """Whether `omnia evaluate` takes all rows where it is given no number; else as many as the run's own evaluations."""
    counts_tokens: ClassVar[bool] = True
    """Whether tokens alone tell what a step computes."""
    shows_media: ClassVar[bool] = False
    """Whether its batches are MediaBatch, which contact sheets are drawn of."""
    counted: ClassVar[str] = ""
    """What an evaluation calls the number of its rows; empty: it does not say."""
    workers: int = 0
    """Processes that make batches; 0: a thread."""

    place: Any = None
    """Folder of the run that it is the data of (pathlib.Path), once there is one."""

    def __init__(self, options: Any, experiment: Any):
        self.options, self.experiment = options, experiment

    @property
    def chat(self) -> Any:
        """What belongs to a conversation with the model: the run's, or that of the run it starts from."""
        from train.generation.chat import Chat, load_chat

        place = self.place or self.experiment.start
        return load_chat(pathlib.Path(place)) if place else Chat()

    # What a run directory knows of it

    def paths(self) -> tuple[str, ...]:
        """What the experiment names as its data, one for each source."""
        return tuple(getattr(self.options, "shards", ()) or getattr(self.options, "files", ()))

    def elsewhere(self, paths: tuple[str, ...]) -> Data:
        """The options with other sources of the same kind."""
        for field in ("shards", "files"):
            if hasattr(self.options, field):
                unweighted = {"weights": ()} if hasattr(self.options, "weights") else {}
                return dataclasses.replace(self.options, **{field: paths}, **unweighted)
        raise UserError(f"data: {type(self.options).__name__} reads no files that others could replace", "Leave --shards out.")

    def open(self, tokenizer: Tokenizer | None = None) -> list:
        """Its sources, at least one. tokenizer: of the run, for data that is not tokenized yet."""
        raise NotImplementedError

    def describe(self, source: Any) -> str:
        """What a source holds, in a few words, for the doctor."""
        return "can be opened"

    # Rows

    def batches(self, sources: list, split: str = "train") -> Any:
        """Rows of a split: of `train` an endless stream in the order of the seed, of others one pass, the same for any seed."""
        raise NotImplementedError

    def units(self, sources: list, user: str = "", rows: int = 1) -> Units:
        """What can be drawn one by one for training. user: a column of the files that says whose a row is, so that each user is a unit of
        `rows` rows. UserError where the data has no such units, or no such column."""
        what = f"whose rows belong to users ({user})" if user else "that can be drawn by itself"
        raise UserError(f"data: {type(self.options).__name__} has nothing {what}", "Use data that has, such as text or a task's files.")

    def empty(self, count: int) -> Any:
        """A batch of padding, of the shapes and types that batches have: enough to compile a step."""
        raise NotImplementedError

    def maker(self, batches: Any, first: int, size: int, rows: int) -> Any:
        """Picklable, for `workers` processes: makes rows [first + i * size, first + i * size + rows) for each i."""
        raise NotImplementedError

    def check(self, sources: list) -> None:
        """UserError for what would stop a run before its first step, or let it learn nothing."""

    # Looking at a model

    def can_validate(self, sources: list) -> bool:
        """Whether anything is kept from training."""
        return True

    def evaluate(
        self, evaluator: Any, params, sources: list, *, split: str = "validation", rows: int = 0, between: Callable[[], None] = lambda: None
    ) -> dict:
        """What the objective's totals come to over a split, and the experiment's metrics: {"loss", ...}; {} where there is nothing.

        rows: of each source, 0 for all. between: called after every batch; it may raise.
        """
        batches = self.batches(sources, split)
        count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
        found = evaluator.result(evaluator.totals(params, batches.batch, count, between=between))
        return found | {self.counted: count} if found and self.counted else found

    def details(self) -> Any:
        """Of the last evaluation, what is too much for a row of metrics: an object with `lines()`, one for each example as JSON, and
        `intervals()`, measures by name; None where no single examples are answered."""
        return None

    def samples(self, run: Any, params, sources: list, said: Callable[[str], None]) -> Iterable[Sample]:
        """What the averaged parameters write, to be looked at. said: takes what went wrong beside it."""
        return []

    def shows(self) -> list[Section]:
        """Sections of the report about the last evaluation; asked for when a run ends."""
        return []

    # At work

    watches: ClassVar[bool] = False
    """Whether its application watches a stream, and has no line for a row by itself."""
    talks: ClassVar[bool] = False
    """Whether its application talks with people: it then answers them in place of the run's model."""

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Application":
        """What a run on this data does with rows that somebody gives (`omnia apply`). step: a checkpoint, by default the latest; raw: its
        trained parameters even where an average is kept. UserError where it does nothing with any."""
        raise UserError(f"{run.path}: runs on {type(self.options).__name__} answer no rows", "Give a run on a task's examples.")


class Application:
    """A run at work: rows in, lines out. Rows come in order, some at a time; the lines do not depend on how many at a time."""

    text: str = "text"
    """Column of the text, for a row of one text."""
    notice: str = ""
    """What its answers are for, or not for, in one sentence or two that people read first. Empty: nothing has to be said."""
    labels: Sequence[str] = ()
    """What the `probabilities` of its lines are of, in their order, where lines have some and do not say."""
    at_once: int = 256
    """Rows of a request over HTTP, at most: fewer where a row takes long."""
    reads: Any = None
    """What its lines depend on of the run, such as the step of the checkpoint: who goes on with lines must have it again."""

    @property
    def columns(self) -> dict[str, Column]:
        """What its rows may have, by the names of the columns: it reads these, and no others."""
        return {self.text: Column("The text.")}

    @property
    def example(self) -> dict[str, Any]:
        """A row that it can answer, by which what it needs is compiled, and which people are shown."""
        return {self.text: "-"}

    def answers(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Lines for the output, such as JSON can say: one for each row, or where rows are watched, for what was found in them. rows:
        Records; for one that cannot be answered the line {"error": why}, and never a UserError."""
        raise NotImplementedError

    def state(self) -> Any:
        """What later lines depend on beside the run, such as JSON can say; None where nothing is remembered."""
        return None

    def restore(self, state: Any) -> None:
        """Go on from what `state` gave."""

    @contextlib.contextmanager
    def forgetting(self) -> Iterator[None]:
        """Nothing of what is done within is remembered."""
        before = self.state()
        try:
            yield
        finally:
            if before is not None:
                self.restore(before)

    def finish(self) -> list[dict[str, Any]]:
        """Lines for what was still open when the rows ended."""
        return []

    def reply(self, turns: Sequence[str]) -> dict[str, Any] | None:
        """The line, with an `answer`, for the last of a person's turns, given those before; nothing of it is remembered. None where it
        talks with nobody."""
        return None

    def summary(self) -> dict[str, Any]:
        """Of all rows so far: numbers by name."""
        return {}

    def summary_rows(self) -> list[list[str]]:
        """The summary as rows of a table."""
        return [[name, str(value) if isinstance(value, int) else f"{value:.4f}"] for name, value in self.summary().items()]

    def sections(self) -> list[Section]:
        """Of all rows so far, for the run's report."""
        return []


# ----------------------------------------------------------------------------------------------------------------- objective


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised. Home: a function (options, experiment, shards) -> Bound; shards: devices that rows are spread over."""

    home: ClassVar[str] = ""
    learner: ClassVar[str] = "train.loop.row_learner:RowLearner"
    """What takes its steps: a Learner."""
    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    """The kinds of rows that it can read: see Data.rows."""
    generates: ClassVar[bool] = False
    """Whether it trains a model that continues texts."""
    unsound: ClassVar[str] = "unsound values"
    """What its metric `unsound` counts, if it has one: a step with any changes nothing."""
    only_evaluated: ClassVar[tuple[str, ...]] = ()
    """Fields, whole numbers, that evaluations alone read: `omnia evaluate --change` sets them."""
    shifted: ClassVar[bool] = False
    """Whether its loss reads `shift` of a batch, which is added to the vectors of tokens: what adversarial gradients need."""
    contrasted: ClassVar[bool] = False
    """Whether the shift may be a Contrast (train/step/adversarial/perturbation.py): the loss then compares the answers with and without."""
    teacher: ClassVar[str] = ""
    """Run directory of a model that it learns from, kept in <run>/teacher; a field of kinds that have one."""
    uses_model: ClassVar[bool] = True
    """Whether it trains the experiment's `model`; False: the network is described by the objective."""
    of_texts: ClassVar[bool] = True
    """Whether its model reads texts: no other has vectors of texts."""

    @property
    def unit(self) -> Literal["token", "example", "batch"]:
        """What its loss is a sum over. Of a whole batch, it cannot be taken in micro-batches."""
        return "token"

    def completed(self, sources: list) -> "Objective":
        """The options with what a config may leave open filled in from the data."""
        return self


@dataclasses.dataclass(frozen=True)
class Bound:
    """An objective, bound to its model.

    `loss(params, batch, key, *, frozen=None, carry=None) -> terms, metrics, carry` is pure: see train/objectives/__init__.py.
    """

    loss: Callable
    start: Callable[[Any], Any]
    """Fresh parameters from a random key, boxed with logical axis names."""
    parts: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Where the parts of the model stand, by names that other objectives share: so that a run can start from another of another kind."""
    heads: tuple[Path, ...] = ()
    """Parts that belong to what is learned, and not to the model: adapters train them beside, whether or not the start has them."""
    inherit: Callable[[Any, dict[str, Path]], dict[Path, Any]] | None = None
    """(another run's parameters, its parts) -> parameters that take a place here beside those of equal names; may remove from the parts."""
    carry: Any = None
    """What one step hands the next, at the start: a tree of arrays, or a function that makes it of fresh parameters; both may be boxed with
    logical axis names."""
    evaluation_carry: Callable[[int], Any] | None = None
    """What a batch of so many rows hands the next in an evaluation, at the start; None where batches know nothing of one another."""
    reference: tuple[str, ...] = ()
    """Names of the parameters of the run it starts from that it reads as frozen["reference"]."""
    teacher: Any = None
    """The experiment of the model whose parameters, of the run in <run>/teacher, it reads as frozen["teacher"]; None for none."""
    refresh: Callable | None = None
    """(params, batch, key, carry) -> params, carry: puts parameters right now and then, such as dead codes."""
    outputs: Callable[[Any, Any], dict[str, Any]] | None = None
    """(params, batch) -> arrays with an axis of rows first: what metrics that are no sums are made of. Weight 0 stands for padding."""


# ---------------------------------------------------------------------------------------------------- optimizer, gradient, adapters, metric


@dataclasses.dataclass(frozen=True)
class Gradient:
    """How the gradient of a loss is taken. Home: a function (options, experiment, unit) -> gradient.

    gradient(loss, params, batch, key, *, frozen=None, carry=None) -> gradients, metrics, carry; see train/step/gradients.py. It may have
    carry(params), what the first step is handed, for objectives that hand nothing on themselves. The function raises UserError where the
    loss, a sum over `unit`, does not come apart as it needs, and for experiment.micro_batches above 1 if it does not take them.
    """

    home: ClassVar[str] = ""
    drawing: ClassVar[str] = ""
    """What draws the rows of its steps, where that is part of the method: a Drawing. Empty: rows come in the order of the data."""
    learner: ClassVar[str] = ""
    """What takes the steps in place of the objective's learner, where gradients come from elsewhere."""
    fixes: ClassVar[tuple[str, ...]] = ()
    """Fields of the experiment that what it promises depends on: a run that goes on may not change them."""
    user: ClassVar[str] = ""
    """Column of the files that names whose row it is, where users are its units; a field of kinds that have one."""

    @property
    def private(self) -> bool:
        """Whether nobody may learn of a run what single units were in the data: nothing else of it may tell either."""
        return False

    @property
    def unit_rows(self) -> int:
        """Rows of the arrays for each of the experiment's batch_size."""
        return 1


class Drawing(Protocol):
    """Draws the rows of steps for a gradient method. Made as Drawing(options, experiment)."""

    def completed(self, dataset: "Dataset", sources: list) -> Gradient:
        """The options with what a config may leave open filled in; UserError for data that it cannot draw from."""

    def begin(self, place: Any) -> None:
        """Before the first step of a process; place: the run directory."""

    def batches(self, dataset: "Dataset", sources: list) -> Any:
        """Batches of which each row consumed takes `unit_rows` of the arrays."""

    def empty(self, dataset: "Dataset") -> Any:
        """A batch of padding, of the shapes and types that its batches have."""

    def frozen(self) -> dict[str, Any]:
        """What the gradient reads as frozen[name], NumPy arrays that are the run's own; before `begin` of their shapes alone."""

    def shows(self, cursor: int) -> list["Section"]:
        """Sections of the report; cursor: rows consumed so far."""


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Which parameters are trained beside a frozen model. Home: a Method (train/adapters/method.py), made of the option and the experiment.

    This class itself, without a home, stands for none: all parameters are trained.
    """

    home: ClassVar[str] = ""
    fixed: ClassVar[bool] = False
    """Whether no average of its parameters may be kept, since some are set to zero."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score that is no mean over rows. Home: a class, made of the option: add(outputs), then result() -> {name: number}, the names being
    none that the evaluation has already.

    outputs: what the objective's `Bound.outputs` gives, NumPy arrays of all rows of a batch, on every process alike.
    """

    home: ClassVar[str] = ""


# ------------------------------------------------------------------------------------------------------------------- learner


class Learner(Protocol):
    """Where a step's rows come from, what the step does with them, and what is measured. Made as Learner(run, sources, mesh).

    Everything that a step depends on is in the state, or a pure function of it and the experiment: a learner keeps nothing that a resumed
    run would lack.
    """

    parameters: Callable[[Any], Any]
    """Fresh parameters from a random key, boxed with logical axis names."""
    carry: Any
    """The state's carry at the start."""
    optimizer: Any
    """An optax.GradientTransformation."""
    rate: Callable[[int], Any]
    """The learning rate of a step, counted from 0."""
    validates: bool
    """Whether there is anything to validate with."""
    flops_per_token: float | None
    """Of a training step; None where tokens do not tell."""

    @staticmethod
    def check(experiment: Any, sources: list, mesh: Any) -> None:
        """UserError for what would stop a run before its first step."""

    @staticmethod
    def abstract_step(experiment: Any, mesh: Any) -> tuple[Callable, Any, tuple]:
        """(the jitted program of a step, the state, its further arguments): shapes, types and places, to compile without data."""

    @property
    def padding_share(self) -> float:
        """Of the rows, as far as it is known before they are made."""

    @property
    def waited_s(self) -> float:
        """Seconds spent in waiting for rows so far."""

    def remarks(self) -> list[str]:
        """New warnings since the last call, such as records that had to be left out."""

    def adopt(self, params: Any) -> Any:
        """Fresh parameters with those that the run starts from in their place; the same object where it starts from none."""

    def whole(self, params: Any) -> Any:
        """All parameters of the model, given those that the state trains; the same object where it trains all."""

    def begin(self, cursor: int, between: Callable[[], None]) -> None:
        """Rows from `cursor` on are asked for next. between: to be called now and then by steps that wait for others; it may raise, and the
        step is then not taken."""

    def __next__(self) -> Any:
        """The rows of the next step."""

    def step(self, state: Any, batch: Any) -> tuple[Any, dict, int]:
        """The state after a step, its metrics as Means (train/objectives/terms.py), and how many rows it consumed.

        Among the metrics: loss, whose weight counts tokens unless there is one called tokens; gradient_norm; skipped (see make_update).
        """

    def evaluate(self, params, between: Callable[[], None], split: str = "validation") -> dict:
        """What is measured of the averaged parameters, all of them: `loss`, lower being better, and more. {} for nothing to measure on.

        `between` is called now and then, and may raise.
        """

    def samples(self, params) -> Iterable[Sample]:
        """Texts of the averaged parameters, the same at every step but for those."""

    def shows(self) -> list[Section]:
        """Sections of the report about the last evaluation."""

    def details(self) -> Any:
        """Of the last evaluation, as `Dataset.details`. None, as a learner that subclasses this says by itself, where it asks for no
        single examples."""
        return None

    def close(self) -> None:
        """Nothing more is asked for."""


# --------------------------------------------------------------------------------------------------------------- model family


class Family(Protocol):
    """A family of models: the home of a ModelConfig, a linen module made of it."""

    config: Any

    def start(self, key) -> Any:
        """Fresh parameters, boxed with logical axis names; those of the tables of tokens as `embedding` (and `head`)."""

    def apply(self, variables, tokens_BT, *, segments_BT=None, positions_BT=None, keys_B=None) -> Any:
        """An output with `hidden_BTD`, and `router` or None. keys_B: of dropout; None for a pass without randomness."""

    def parts(self) -> dict[str, Path]:
        """Its parameters by names that models of the same kind share."""

    def kernels(self, platform: str, *, split_positions: bool) -> list[str]:
        """Attention kernels in use on a platform. ValueError where the one asked for cannot serve."""

    def training_flops_per_token(self, length: int) -> float | None:
        """Of a row of `length` tokens, forward and backward; None where nobody counts."""
