"""What a file of configs/tables/ gives: a claim of a paper, and the commands that test it. Loads nothing heavy."""

import dataclasses
import re
import shlex
from pathlib import Path

from data.errors import UserError
from train.reproduce.files import PublicFile
from train.runs.classes import described, load_file

ROOT = Path(__file__).parent.parent.parent
TABLES = ROOT / "configs" / "tables"
TIERS = ("cpu", "gpu", "pod")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
OWN = ("run", "seed", "table")
"""Placeholders that every command may have, beside the names of files and of shared jobs."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of what a row's last command says."""

    path: str
    """Its keys, with slashes between: validation/loss."""
    name: str
    """As a table's column."""
    unit: str = ""
    lower_is_better: bool = True
    digits: int = 3
    """Decimals that are shown."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """What several rows need, such as a corpus or a run to start from; `{name}` in their commands is its folder.

    It runs once for each seed if its commands, or those that it needs, have {seed} in them, and otherwise once.
    """

    name: str
    commands: tuple[str, ...]
    """As one would type them. {run} is the folder that they fill, {seed} the seed, {FILE} the path of a file of the table."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: commands whose last one gives the number, as a line of JSON or by {run}/summary.json. It runs once for each
    seed, or once, as Shared does."""

    name: str
    what: str
    """In a few words, what is different here."""
    commands: tuple[str, ...]
    tier: str = "cpu"
    """cpu, gpu or pod: the smallest machine that it is meant for."""
    needs: str = ""
    """That machine in words: '1 GPU of 16 GB, 10 minutes'."""
    paper: float | None = None
    """What the paper has for it."""
    same_setting: bool = False
    """Whether the row is the paper's own setting, so that its number should be the paper's."""
    x: float | None = None
    """Where it stands on the horizontal axis of the picture, if all rows have such a number."""
    series: str = ""
    """With x: the line that it belongs to."""
    read: str = ""
    """Keys of the first metric's number in what the last command says, where they are not the metric's own."""
    alone: bool = False
    """Whether it measures time, so that nothing else may run."""


@dataclasses.dataclass(frozen=True)
class Better:
    """The claim that one row is better than another, or than a number, by more than `by`."""

    row: str
    than: str | float
    by: float = 0.0
    metric: str = ""
    """Name of the metric; the table's first by default."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A claim of a paper, the rows that test it, and what has to hold between them."""

    title: str
    paper: str
    """Authors, year, and the table or figure."""
    claim: str
    """In one sentence."""
    metrics: tuple[Metric, ...]
    """The first is what the table is about."""
    rows: tuple[Row, ...]
    claims: tuple[Better, ...]
    """What has to hold between rows, each beyond the noise of seeds."""
    shared: tuple[Shared, ...] = ()
    files: tuple[PublicFile, ...] = ()
    """Public files that it reads."""
    x: str = ""
    """Label of the horizontal axis, where rows have an x."""
    across: str = ""
    """Name of the metric that is the horizontal axis instead."""
    note: str = ""
    """What a reader should know: where the small version differs from the paper."""

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name) if name else self.metrics[0]

    def of_tier(self, tier: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.tier == tier)

    def seeded(self) -> set[str]:
        """Names of the shared jobs and rows that run once for each seed: a seed enters them, or what they need, or they measure time. Any
        other runs once, and a row that does stands for all seeds."""
        found: set[str] = set()
        named: tuple[Shared | Row, ...] = (*self.shared, *self.rows)
        for job in named:  # each names only shared jobs above it
            if names_in(job.commands) & {"seed", *found} or (isinstance(job, Row) and job.alone):
                found.add(job.name)
        return found


CHARACTERS = Shared("shakespeare", ("omnia prepare text --input {shakespeare_txt} --output {run} --tokenizer char --validation 0.1",))
"""Shakespeare by characters, the last tenth held out, of the file `SHAKESPEARE`: what several tables train on."""
SMOLLM2 = Shared("smollm2", ("omnia import smollm2 --run-dir {run}",))
"""SmolLM2-135M-Instruct (Allal et al. 2025), with its weights in 4 bits."""
ON_GPU = (
    "--model.num-layers 6 --model.embed-dim 384 --model.num-heads 6 --model.context-length 256 --model.dropout 0.2"
    " --batch-size 64 --steps 2000 --evaluation.every 200"
)
"""Options that make a tiny model of characters as large as nanoGPT's on a GPU: rows of tier gpu then test the same claim on it."""
NEEDS_GPU = "1 GPU or TPU of 16 GB, a few minutes"


def names_in(commands: tuple[str, ...]) -> set[str]:
    """The placeholders of some commands."""
    return {name for command in commands for name in PLACEHOLDER.findall(command)}


def training(config: str, *options: str) -> str:
    """The command that trains a config file, or a variant of it, in the row's folder with its seed."""
    return " ".join(("omnia train", config, "--run-dir {run} --seed {seed}", *options))


def table_names() -> list[str]:
    return sorted(path.stem for path in TABLES.glob("*.py"))


def table_path(name: str) -> Path:
    """The file of a table: its name in configs/tables/, or the path of one's own."""
    path = Path(name) if name.endswith(".py") else TABLES / f"{name}.py"
    if not path.is_file():
        raise UserError(f"{name}: no such table", f"There are: {', '.join(table_names())}; or give a file of your own, PATH.py.")
    return path


def load_table(path: Path) -> Table:
    """The table of a file, by its `get_table()`. UserError for whatever is wrong with it."""
    module = load_file(str(path))
    if not hasattr(module, "get_table"):
        raise UserError(f"{path}: has no function get_table", "A table's file defines get_table() -> Table (train/reproduce/table.py).")
    try:
        table = module.get_table()
    except UserError:
        raise
    except Exception as error:  # whatever a file of the user's can raise
        raise UserError(described(str(path), error)) from None
    if not isinstance(table, Table):
        raise UserError(f"{path}: get_table gives no Table")
    check(table, path)
    return table


def check(table: Table, path: Path) -> None:
    """UserError for names that are not there, are there twice, or mean nothing."""
    names = [row.name for row in table.rows]
    shared, files = [job.name for job in table.shared], [file.name for file in table.files]
    folders = [*names, *shared]
    metrics = [metric.name for metric in table.metrics]
    for kind, found in (("rows and shared jobs", folders), ("files", files), ("metrics", metrics)):
        if len(found) != len(set(found)):
            raise UserError(f"{path}: two {kind} have the same name")
    if not table.rows or not table.metrics:
        raise UserError(f"{path}: a table has rows and metrics")
    for name in folders:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"{path}: {name!r} is no name for a folder", "Use letters, digits, '_', '-', '+' and '.'.")
    known: set[str] = {*OWN, *files}
    jobs: tuple[Shared | Row, ...] = (*table.shared, *table.rows)
    for job in jobs:
        if not job.commands:
            raise UserError(f"{path}: {job.name}: has no commands")
        for command in job.commands:
            try:
                words = shlex.split(command)
            except ValueError as error:
                raise UserError(f"{path}: {job.name}: {command!r}: {error}") from None
            if unknown := set(PLACEHOLDER.findall(command)) - known - (set() if isinstance(job, Shared) else set(shared)):
                raise UserError(f"{path}: {job.name}: {{{unknown.pop()}}} is neither a file nor a shared job above it")
            if words[:1] not in (["omnia"], ["python"]) or len(words) < 2:
                raise UserError(f"{path}: {job.name}: {command!r} is no command", "Commands are omnia VERB ... or python FILE ...")
        known.add(job.name)
    for row in table.rows:
        if row.tier not in TIERS:
            raise UserError(f"{path}: {row.name}: tier {row.tier!r}", f"Choose from {', '.join(TIERS)}.")
        if row.tier != "cpu" and not row.needs:
            raise UserError(f"{path}: {row.name}: does not say what machine it needs")
    for claim in table.claims:
        for side in (claim.row, claim.than):
            if isinstance(side, str) and side not in names:
                raise UserError(f"{path}: a claim names a row {side!r} that is not there")
        if claim.metric not in ("", *metrics):
            raise UserError(f"{path}: a claim names a metric {claim.metric!r} that is not there")
    if table.across not in ("", *metrics):
        raise UserError(f"{path}: `across` names a metric {table.across!r} that is not there")
