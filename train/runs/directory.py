"""A run directory: what it holds, how it is made and opened. Alone it is enough to generate; training and evaluation read its shards too.

config.json       the experiment, its defaults, the shards by path and digest
config.py         the config file, where the experiment has classes of it
tokenizer/        a copy of the corpus' tokenizer
chat.json         what belongs to a conversation, of an imported model and of what started from one (train/generation/chat.py)
checkpoints/      train/checkpoints/checkpointer.py
metrics.jsonl, metrics.csv, environment.json, summary.json, report.html, plots/
sections.json     what the data adds to the report (train/loop/sections.py)
privacy.json      what private training cost, and privacy.key, its secret (train/privacy/drawing.py)
added.jsonl       which clients' updates were added up unseen in which round (train/federated/added.py)
fairness.json     the last comparison of groups of a classifier (train/tasks/fairness.py)
access.json       who may do what with it, where somebody wrote that (train/runs/roles.py)
start/            what the run started from, if anything: a run in small, with the parameters of one checkpoint alone
teacher/          what a student learns from, if anything, likewise
"""

import dataclasses
import secrets
import shutil
from pathlib import Path

from data.errors import UserError
from data.files import json_files
from data.tokenizer import load_tokenizer
from train.adapters.options import Tuning
from train.checkpoints.journal import Journal
from train.experiment import Experiment
from train.generation.chat import FILE as CHAT
from train.runs import roles
from train.runs.classes import KEPT, finder, source_of
from train.runs.serialize import FORMAT, from_json, parts_of, to_json
from train.sources.dataset import dataset_of, elsewhere, open_sources, open_the_same


@dataclasses.dataclass(frozen=True)
class Run:
    """An opened run directory."""

    path: Path
    experiment: Experiment
    digests: tuple[str, ...]
    document_end: int | None
    identity: str = ""
    """16 hexadecimal digits, drawn when the run is made: its checkpoints carry them. A copy of the run keeps them."""
    config: dict | None = None
    """{"file", "digest"} of the config file that defines classes of the experiment; None where it has only ours."""

    def tokenizer(self):
        return load_tokenizer(str(self.path / "tokenizer"))

    def corpora(self) -> list:
        """The run's data, which must be what it was started with."""
        return open_corpora(self.experiment, self)

    def other_corpora(self, paths: tuple[str, ...]) -> list:
        """Other data of the same kind, folders of shards or files, to be measured on; the run's own need not be there any more."""
        tokenizer = self.tokenizer()
        corpora = open_sources(elsewhere(self.experiment, paths), tokenizer, self.path)
        for corpus in corpora:
            if corpus.tokenizer().digest != tokenizer.digest:
                raise UserError(
                    f"{corpus.path}: prepared with another tokenizer than the run's", f"Prepare with --tokenizer {self.path / 'tokenizer'}."
                )
        return corpora


def open_corpora(experiment: Experiment, run: Run | None = None) -> list:
    """Open the data of an experiment. With `run`: the data it was started with, at its current place, with the run's tokenizer."""
    return open_sources(experiment) if run is None else open_the_same(experiment, run.path, run.digests, run.tokenizer())


def is_run(path: Path) -> bool:
    return (Path(path) / "config.json").is_file()


def has_checkpoint(path: Path) -> bool:
    """Whether anything was trained: some step has been saved."""
    folder = Path(path) / "checkpoints"
    return folder.is_dir() and any(step.name.isdigit() for step in folder.iterdir())


def read_stored(path: Path) -> dict:
    """What config.json holds, whose classes are not looked for; UserError for no run, one of a newer version, or one whose access.json
    keeps it from the user."""
    if not is_run(path):
        raise UserError(f"{path}: not a run (no config.json)", "Give a folder made by `omnia train ... --run-dir DIR`.")
    roles.check(path)
    stored = json_files.read(path / "config.json", "Restore the file, or start a new run.")
    if stored.get("format") not in range(1, FORMAT + 1):
        raise UserError(f"{path}/config.json: format {stored.get('format')}; this version reads up to {FORMAT}", "Update Omnia.")
    return stored


def open_run(path: str | Path, said=print) -> Run:
    """Open a run directory. UserError if it is not one, if a newer version wrote it, or if its access.json keeps it from the user."""
    path = Path(path)
    stored = read_stored(path)
    try:
        find = finder(str(path), stored.get("config"), said)
        experiment = from_json(Experiment, stored["experiment"], "experiment", find, said)
        digests = tuple(shard["digest"] for shard in stored["shards"])
        return Run(path, experiment, digests, stored["document_end"], stored.get("identity", ""), stored.get("config"))
    except (ValueError, TypeError, KeyError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}/config.json: {what}", "Undo the change, or start a new run.") from None


FAIRNESS, PRIVACY = "fairness.json", "privacy.json"
"""Files of what was measured of a classifier's groups, and of what privacy cost."""
START, TEACHER = "start", "teacher"
"""The folders of what a run starts from, and of what a student learns from: runs in small, with the parameters of one checkpoint alone. A
run so needs nothing but itself, whatever becomes of those."""


def keep_start(folder: Path, source: Run) -> None:
    """Copy what a run starts or learns from into `folder`: the newest checkpoint of `source`, or with checkpoints.use_best the best; its
    averaged parameters where it keeps some."""
    journal = Journal(source.path / "checkpoints")
    steps = journal.steps()
    if not steps:
        raise UserError(f"{source.path}: has no checkpoint to start from", "Train it first.")
    best = journal.best() if source.experiment.checkpoints.use_best else None
    step, item = steps[-1] if best is None else best, "ema" if source.experiment.keeps_average else "params"
    if not journal.step_folder(step).is_dir():
        raise UserError(
            f"{journal.step_folder(step)}: is missing", "Start from a run that is whole; `omnia checkpoint verify` says which is."
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source.path / "tokenizer", partial / "tokenizer")
    shutil.copytree(journal.step_folder(step), partial / "checkpoints" / str(step), ignore=_all_but(journal.step_folder(step), item))
    (partial / "checkpoints" / "journal").mkdir()
    for entry in (source.path / "checkpoints" / "journal").glob(f"{step}-*.json"):
        shutil.copy(entry, partial / "checkpoints" / "journal")
    for name in ("config.json", KEPT, CHAT):
        if (source.path / name).is_file():
            shutil.copy(source.path / name, partial)
    if isinstance(source.experiment.adapters, Tuning):  # whose checkpoints hold a part of the model
        shutil.copytree(source.path / START, partial / START)
    damage = Journal(partial / "checkpoints").damage(step, items={item}, identity=source.identity)
    if damage:
        raise UserError(
            f"{source.path}/checkpoints/{damage[0]}", "Start from a run that is whole; `omnia checkpoint verify` says which is."
        )
    partial.rename(folder)


def _all_but(root: Path, item: str):
    return lambda folder, names: [name for name in names if Path(folder) == root and (root / name).is_dir() and name != item]


def create_run(path: str | Path, experiment: Experiment, corpora: list) -> Run:
    """Make a run directory for a resolved experiment, with config.json and the tokenizer."""
    path = Path(path)
    if is_run(path) and has_checkpoint(path):
        raise UserError(f"{path}: already holds a run", f"Choose another folder, or `omnia train {path}` resumes it.")
    if not is_run(path) and path.exists() and any(path.iterdir()):
        raise UserError(f"{path}: exists and is not a run", "Choose another --run-dir, or empty it.")
    path.mkdir(parents=True, exist_ok=True)
    corpora[0].tokenizer().save(str(path / "tokenizer"))
    if experiment.start:
        keep_start(path / START, open_run(experiment.start, said=lambda line: None))
        if (path / START / CHAT).is_file():
            shutil.copy(path / START / CHAT, path)
    if experiment.objective.teacher:
        keep_start(path / TEACHER, open_run(experiment.objective.teacher, said=lambda line: None))
    digests = tuple(corpus.digest for corpus in corpora)
    config = source_of(parts_of(experiment))
    if config is not None:
        (path / KEPT).write_bytes(config.pop("content"))
    write_run(Run(path, experiment, digests, corpora[0].document_end, secrets.token_hex(8), config))
    return open_run(path)


def with_config(run: Run) -> Run:
    """The run with the config file that its classes are of now: the copy that it keeps is that of the steps to come."""
    config = source_of(parts_of(run.experiment))
    if config is None or (run.config is not None and config["digest"] == run.config["digest"]):
        return run
    (run.path / KEPT).write_bytes(config.pop("content"))
    return dataclasses.replace(run, config=config)


def write_run(run: Run) -> None:
    """Write config.json: last of all when a run is made, again when a resumed run changes what may be changed."""
    stored = {
        "format": FORMAT,
        "identity": run.identity,
        "experiment": to_json(run.experiment),
        "defaults": to_json(defaults(run.experiment)),
        "shards": [{"path": path, "digest": digest} for path, digest in zip(dataset_of(run.experiment).paths(), run.digests, strict=True)],
        "document_end": run.document_end,
    }
    if run.config is not None:
        stored["config"] = run.config
    json_files.write(run.path / "config.json", stored)


def defaults(experiment: Experiment) -> Experiment:
    """The experiment with every field of its kinds at its default."""
    fields = {
        field.name: type(getattr(experiment, field.name))()
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(getattr(experiment, field.name))
    }
    return Experiment(**fields)


def reached(run: Run) -> int:
    """The newest step that was saved; 0 for none."""
    return max(Journal(run.path / "checkpoints").steps(), default=0)
