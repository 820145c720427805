"""A run directory: what it holds, how it is made and opened. Alone it is enough to generate; training and evaluation read its shards too.

config.json       the experiment, its defaults, the shards by path and digest
tokenizer/        a copy of the corpus' tokenizer
checkpoints/      train/checkpoints/checkpointer.py
metrics.jsonl, metrics.csv, environment.json, summary.json, report.html, plots/
start/            what the run started from, if anything: a run in small, with the parameters of one checkpoint alone
"""

import dataclasses
import importlib.metadata
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.files import json_files
from data.errors import MissingData, UserError
from data.text.shards import Corpus
from data.media.world import World
from data.tokenizer import Tokenizer, load_tokenizer
from model.config import ModelConfig
from model.media.omni_config import OmniConfig
from train.experiment import Experiment, ScheduleFree, TextData
from train.checkpoints.journal import Journal
from train.sources.media_options import MediaClassification, MediaData, MediaShards, WorldScenes
from train.runs.parts import parts_of
from train.sources.media import MediaSource, folders_of, open_media
from train.rl.games.options import BoardGame, GameSource
from train.rl.environments.code import PythonFunctions  # noqa: F401 (with it and those marked below, from_json knows all environments and rewards)
from train.sources.examples import Examples, map_paths, open_examples
from train.rl.options import Demonstrations, Preferences, Prompts
from train.rl.environments.files import PromptFile  # noqa: F401
from train.sources.records import absolute
from train.rl.environments.simulators import SlotFilling  # noqa: F401
from train.rl.environments.text_games import TreasureMap  # noqa: F401
from train.rl.environments.word_problems import WordProblems  # noqa: F401
from train.runs.serialize import FORMAT, flatten, from_json, to_json

MAY_CHANGE = (
    "name",
    "model.scan",
    "model.remat",
    "model.attention",
    "steps",
    "batch_size",
    "micro_batches",
    "data.shards",
    "data.files",
    "data.tokenizer",
    "data.max_damaged",
    "data.workers",
    "mesh.",
    "evaluation.",
    "checkpoints.",
    "faults.",
    "samples.",
    "logging.",
)
"""Fields that a resumed run may change: none of them alters what the saved state means."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An opened run directory."""

    path: Path
    experiment: Experiment
    digests: tuple[str, ...]
    document_end: int | None
    identity: str = ""
    """16 hexadecimal digits, drawn when the run is made: its checkpoints carry them. A copy of the run keeps them."""

    def tokenizer(self):
        return load_tokenizer(str(self.path / "tokenizer"))

    def corpora(self) -> list[Corpus | Examples | GameSource | MediaSource]:
        """The run's data, which must be what it was started with."""
        return open_corpora(self.experiment, self)

    def other_corpora(self, paths: tuple[str, ...]) -> list[Corpus | Examples | GameSource | MediaSource]:
        """Other data of the same kind, folders of shards or files, to be measured on; the run's own need not be there any more."""
        tokenizer = self.tokenizer()
        corpora = _open(with_paths(self.experiment, paths), tokenizer)
        for corpus in corpora:
            if corpus.tokenizer().digest != tokenizer.digest:
                raise UserError(
                    f"{corpus.path}: prepared with another tokenizer than the run's", f"Prepare with --tokenizer {self.path / 'tokenizer'}."
                )
        return corpora


def is_run(path: Path) -> bool:
    return (Path(path) / "config.json").is_file()


def has_checkpoint(path: Path) -> bool:
    """Whether anything was trained: some step has been saved."""
    folder = Path(path) / "checkpoints"
    return folder.is_dir() and any(step.name.isdigit() for step in folder.iterdir())


def open_run(path: str | Path, said=print) -> Run:
    """Read a run directory; UserError when it is none or was written by a newer version."""
    path = Path(path)
    if not is_run(path):
        raise UserError(f"{path}: not a run (no config.json)", "Give a folder made by `omnia train ... --run-dir DIR`.")
    stored = json_files.read(path / "config.json", "Restore the file, or start a new run.")
    if stored.get("format") != FORMAT:
        raise UserError(f"{path}/config.json: format {stored.get('format')}; this version reads {FORMAT}", "Update Omnia.")
    try:
        experiment = from_json(Experiment, stored["experiment"], "experiment", said)
        digests = tuple(shard["digest"] for shard in stored["shards"])
        return Run(path, experiment, digests, stored["document_end"], stored.get("identity", ""))
    except (ValueError, TypeError, KeyError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}/config.json: {what}", "Undo the change, or start a new run.") from None


START = "start"
"""The folder of what a run starts from: a run in small, with the parameters of one checkpoint alone."""


def keep_start(folder: Path, source: Run) -> None:
    """Copy what a run starts from into `folder`: the newest checkpoint of `source`, its averaged parameters where it keeps some."""
    journal = Journal(source.path / "checkpoints")
    steps = journal.steps()
    if not steps:
        raise UserError(f"{source.path}: has no checkpoint to start from", "Train it first.")
    step, averaged = steps[-1], source.experiment.ema_decay > 0 or isinstance(source.experiment.optimizer, ScheduleFree)
    item = "ema" if averaged else "params"
    if not journal.step_folder(step).is_dir():
        raise UserError(f"{journal.step_folder(step)}: is gone", "Start from a run that is whole; `omnia checkpoint verify` says which is.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source.path / "tokenizer", partial / "tokenizer")
    shutil.copytree(journal.step_folder(step), partial / "checkpoints" / str(step), ignore=_all_but(journal.step_folder(step), item))
    (partial / "checkpoints" / "journal").mkdir()
    for part in (source.path / "checkpoints" / "journal").glob(f"{step}-*.json"):
        shutil.copy(part, partial / "checkpoints" / "journal")
    shutil.copy(source.path / "config.json", partial)
    damage = Journal(partial / "checkpoints").damage(step, items={item}, identity=source.identity)
    if damage:
        raise UserError(
            f"{source.path}/checkpoints/{damage[0]}", "Start from a run that is whole; `omnia checkpoint verify` says which is."
        )
    partial.rename(folder)


def _all_but(root: Path, item: str):
    return lambda folder, names: [name for name in names if Path(folder) == root and (root / name).is_dir() and name != item]


def create_run(path: str | Path, experiment: Experiment, corpora: list) -> Run:
    """Make the run directory and write what describes the run; the experiment must be resolved."""
    path = Path(path)
    if path.exists() and any(path.iterdir()) and (not is_run(path) or has_checkpoint(path)):
        raise UserError(f"{path}: exists and is not a run", "Choose another --run-dir, or empty it.")
    path.mkdir(parents=True, exist_ok=True)
    corpora[0].tokenizer().save(str(path / "tokenizer"))
    if experiment.start:
        keep_start(path / START, open_run(experiment.start, said=lambda line: None))
    digests = tuple(corpus.digest for corpus in corpora)
    write_run(Run(path, experiment, digests, corpora[0].document_end, secrets.token_hex(8)))
    return open_run(path)


def write_run(run: Run) -> None:
    """Write config.json: last of all when a run is made, again when a resumed run changes what may be changed."""
    stored = {
        "format": FORMAT,
        "identity": run.identity,
        "experiment": to_json(run.experiment),
        "defaults": to_json(defaults(run.experiment)),
        "shards": [{"path": path, "digest": digest} for path, digest in zip(data_paths(run.experiment), run.digests, strict=True)],
        "document_end": run.document_end,
    }
    json_files.write(run.path / "config.json", stored)


def defaults(experiment: Experiment) -> Experiment:
    """The experiment with every field of its kinds at its default."""
    parts = {
        field.name: type(getattr(experiment, field.name))()
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(getattr(experiment, field.name))
    }
    return Experiment(**parts)


def text_data(experiment: Experiment) -> TextData:
    """The experiment's data, which must be text."""
    if not isinstance(experiment.data, TextData):
        raise UserError(f"data: {type(experiment.data).__name__} is no text", "This needs a run whose data is TextData.")
    return experiment.data


def data_paths(experiment: Experiment) -> tuple[str, ...]:
    """What the experiment names as its data: folders, files, or kinds of environments."""
    match experiment.data:
        case TextData(shards=shards):
            return shards
        case Preferences(files=files):
            return files
        case Prompts(environments=environments) | Demonstrations(environments=environments):
            return tuple(", ".join(environment.files) or type(environment).__name__ for environment in environments)
        case BoardGame(game=game):
            return (game,)
        case WorldScenes():
            return (World.path,)
        case MediaShards():
            return tuple(path for path, _ in folders_of(experiment))
    raise UserError(f"data: {type(experiment.data).__name__} is no kind of data", "Choose TextData in the config file.")


def with_paths(experiment: Experiment, paths: tuple[str, ...]) -> Experiment:
    """The experiment with other data of the same kind: folders of shards, files of comparisons, files of prompts to validate with."""
    data: Any = experiment.data
    for field in ("shards", "files"):
        if hasattr(data, field):
            return dataclasses.replace(experiment, data=dataclasses.replace(data, **{field: paths, "weights": ()}))
    environments = list(getattr(data, "environments", ()))
    of_files = [number for number, one in enumerate(environments) if hasattr(one, "validation_path")]
    if not of_files:
        raise UserError(f"data: {type(data).__name__} is of no files, which others could take the place of", "Leave --shards out.")
    if len(of_files) != len(paths):
        raise UserError(f"data: {len(of_files)} environments read files, and {len(paths)} are given", "Give one file for each.")
    for number, path in zip(of_files, paths, strict=True):
        environments[number] = dataclasses.replace(environments[number], path=path, validation_path=path)
    return dataclasses.replace(experiment, data=dataclasses.replace(data, environments=tuple(environments)))


def open_corpora(experiment: Experiment, run: Run | None = None) -> list[Corpus | Examples | GameSource | MediaSource]:
    """The data that an experiment names; of a run, what it was started with, wherever that lies now, and with the run's tokenizer."""
    if run is None:
        return _open(experiment)
    try:
        corpora = _open(experiment, run.tokenizer())
    except MissingData as error:
        named = [name for name in ("shards", "files") if hasattr(experiment.data, name)] or ["environments.0.path"]
        raise MissingData(
            f"{error.path}: the data of {run.path} is not there",
            f"If it has moved, say where to: `omnia train RUN --data.{named[0]} PATH`, `omnia evaluate RUN --shards PATH`.",
            error.path,
        ) from None
    if len(run.digests) != len(corpora):
        raise UserError(
            f"data names {len(corpora)} sources; the run was started with {len(run.digests)}", "Give the same number, in the same order."
        )
    for corpus, digest in zip(corpora, run.digests, strict=True):
        if corpus.digest != digest:
            raise UserError(
                f"{corpus.path}: digest {corpus.digest}, but the run was started on {digest}",
                "Give what it was started with (for text --data.shards DIR), or start a new run.",
            )
    return corpora


def _open(experiment: Experiment, tokenizer: Tokenizer | None = None) -> list[Corpus | Examples | GameSource | MediaSource]:
    """tokenizer: of data that is not tokenized yet, instead of the one that the experiment names."""
    paths = data_paths(experiment)
    if not paths:
        if hasattr(experiment.data, "shards"):
            what = "text" if isinstance(experiment.data, TextData) else "images|video|audio|interleaved"
            raise UserError("data.shards is empty", f"Prepare some with `omnia prepare {what}`, then give the folder: --data.shards DIR.")
        raise UserError("data.files is empty", "Give some: --data.files FILE.")
    match experiment.data:
        case TextData():
            return [Corpus(path) for path in paths]
        case BoardGame() as game:
            return [GameSource(game)]
        case MediaData():
            return list(open_media(experiment, tokenizer))
    return list(open_examples(experiment, tokenizer))


def resolve(experiment: Experiment, corpora: list, run: Run | None = None) -> Experiment:
    """The experiment with what its config leaves open filled in: the model of the run it starts from, but for rows that may be shorter, or
    the vocabulary from the tokenizer; local paths made absolute. run: that is gone on with; it keeps what it started from.

    UserError when the data holds an id that the model has no row for, or was prepared with another tokenizer than the run to start from.
    """
    tokenizer, model = corpora[0].tokenizer(), experiment.model
    if experiment.start:
        source = open_run(experiment.start if run is None else run.path / START, said=lambda line: None)
        if source.tokenizer().digest != tokenizer.digest:
            raise UserError(
                f"{experiment.start}: has another tokenizer than {corpora[0].path}",
                f"Prepare with --tokenizer {source.path / 'tokenizer'}.",
            )
        switches: dict[str, Any] = {name: getattr(model, name) for name in ("scan", "remat", "attention", "dtype")}
        if source.experiment.model.positions == "rotary":  # no parameters depend on it, and shorter rows cost less
            switches["context_length"] = min(model.context_length, source.experiment.model.context_length)
        model = _model_to_start_from(model, source.experiment, switches)
        experiment = dataclasses.replace(experiment, start=os.path.abspath(experiment.start))
    if model.vocab_size == 0:
        model = dataclasses.replace(model, vocab_size=-(-tokenizer.size // 64) * 64)
    for corpus in corpora:
        if corpus.ids > model.vocab_size:
            raise UserError(
                f"{corpus.path}: holds token id {corpus.ids - 1}, but model.vocab_size is {model.vocab_size}",
                f"Set --model.vocab-size {tokenizer.size} or more (0 takes the tokenizer's), or prepare with another tokenizer.",
            )
    if isinstance(experiment.objective, MediaClassification) and not experiment.objective.classes:
        classes = max(len(getattr(getattr(corpus, "source", None), "classes", ())) for corpus in corpora)
        if not classes:
            raise UserError(
                "objective: the data has no classes", "Prepare files in folders, each named by a class, or choose another objective."
            )
        experiment = dataclasses.replace(experiment, objective=dataclasses.replace(experiment.objective, classes=classes))
    data = experiment.data
    for field in ("shards", "files"):
        if hasattr(data, field):
            data = dataclasses.replace(data, **{field: tuple(map(absolute, getattr(data, field)))})
    data = _with_paths(absolute, data)  # the run is gone on with from any folder
    if isinstance(data, MediaData) and os.path.exists(data.tokenizer):
        data = dataclasses.replace(data, tokenizer=os.path.abspath(data.tokenizer))
    return dataclasses.replace(experiment, model=model, data=data)


def _model_to_start_from(model: ModelConfig, source: Experiment, switches: dict[str, Any]) -> ModelConfig:
    """The model of a run that another starts from. Encoders that this one lacks are the new run's own, and so is the decoder where it
    has trained none."""
    if not isinstance(model, OmniConfig):
        return dataclasses.replace(source.model, **switches)
    theirs = {encoder.kind: encoder for encoder in getattr(source.model, "encoders", ())}
    encoders = tuple(theirs.get(encoder.kind, encoder) for encoder in model.encoders)
    decoder = source.model if "layers" in parts_of(source) else model
    plain = {field.name: getattr(decoder, field.name) for field in dataclasses.fields(ModelConfig)}
    return dataclasses.replace(model, **{**plain, **switches}, encoders=encoders)


def _with_paths(change: Callable[[str], str], data):
    """Data with `change` of the paths of its environments in their place."""
    if not isinstance(data, Prompts | Demonstrations):
        return data
    return dataclasses.replace(data, environments=map_paths(change, data.environments))


def check_resume(stored: Experiment, asked: Experiment) -> None:
    """UserError naming the fields that may not change within a run."""
    # Files may have moved: what they hold is known by its digest.
    both = (dataclasses.replace(one, data=_with_paths(lambda path: "moved", one.data)) for one in (stored, asked))
    before, after = (flatten(to_json(one)) for one in both)
    changed = [name for name in after if before.get(name) != after[name] and not name.startswith(MAY_CHANGE)]
    if changed:
        what = ", ".join(f"{name} is {before.get(name)}, asked {after[name]}" for name in changed)
        raise UserError(f"the run cannot go on with another {what}", "Leave it as it was, or start a new run with another --run-dir.")


def reached(run: Run) -> int:
    """The newest step that was saved; 0 for none."""
    return max(Journal(run.path / "checkpoints").steps(), default=0)


def environment() -> dict:
    """Versions, devices and cores: what a run's numbers depend on."""
    import jax

    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def differences(run_dir: Path, here: dict) -> list[str]:
    """What of `here` (environment() and numerics) is not as the run's environment.json has it, and may change its last bits."""
    try:
        before = json_files.read(run_dir / "environment.json", "")
    except (OSError, UserError):
        return []  # it is only to tell what has changed
    matters = ("versions", "platform", "device", "devices", "processes", "cores", "compiler_options", "attention_kernels")
    old, new = (flatten({name: json_files.parse(json_files.dumps(of.get(name)), object) for name in matters}) for of in (before, here))
    return [f"{name} was {old.get(name)}, is {value}" for name, value in new.items() if old.get(name) != value]
