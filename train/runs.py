"""A run directory: what it holds, how it is made and opened. Alone it is enough to generate; training and evaluation read its shards too.

config.json       the experiment, its defaults, the shards by path and digest
tokenizer/        a copy of the corpus' tokenizer
checkpoints/      train/checkpoint.py
metrics.jsonl, metrics.csv, environment.json, summary.json, report.html, plots/
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import secrets
import sys
from pathlib import Path

from data.errors import UserError
from data.shards import Corpus
from data.tokenizer import load_tokenizer
from train.experiment import Experiment, TextData
from train.serialize import FORMAT, flatten, from_json, to_json

MAY_CHANGE = (
    "name",
    "model.scan",
    "model.remat",
    "model.attention",
    "steps",
    "batch_size",
    "micro_batches",
    "data.shards",
    "data.max_damaged",
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

    def corpora(self) -> list[Corpus]:
        """The run's shards, which must be the ones it was started with."""
        return open_corpora(self.experiment, self.digests)


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
    try:
        stored = json.loads((path / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}/config.json: line {error.lineno}: {error.msg}", "Restore the file, or start a new run.") from None
    if stored.get("format") != FORMAT:
        raise UserError(f"{path}/config.json: format {stored.get('format')}; this version reads {FORMAT}", "Update Omnia.")
    try:
        experiment = from_json(Experiment, stored["experiment"], "experiment", said)
    except ValueError as error:
        raise UserError(f"{path}/config.json: {error}", "Undo the change, or start a new run.") from None
    digests = tuple(shard["digest"] for shard in stored["shards"])
    return Run(path, experiment, digests, stored["document_end"], stored.get("identity", ""))


def create_run(path: str | Path, experiment: Experiment, corpora: list[Corpus]) -> Run:
    """Make the run directory and write what describes the run; the experiment must be resolved."""
    path = Path(path)
    if path.exists() and any(path.iterdir()) and (not is_run(path) or has_checkpoint(path)):
        raise UserError(f"{path}: exists and is not a run", "Choose another --run-dir, or empty it.")
    path.mkdir(parents=True, exist_ok=True)
    corpora[0].tokenizer().save(str(path / "tokenizer"))
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
        "shards": [{"path": shard, "digest": digest} for shard, digest in zip(text_data(run.experiment).shards, run.digests, strict=True)],
        "document_end": run.document_end,
    }
    write_json(run.path / "config.json", stored)


def defaults(experiment: Experiment) -> Experiment:
    """The experiment with every field of its kinds at its default."""
    parts = {
        field.name: type(getattr(experiment, field.name))()
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(getattr(experiment, field.name))
    }
    return Experiment(**parts)


def write_json(path: Path, value) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


def text_data(experiment: Experiment) -> TextData:
    """The experiment's data, which must be text."""
    if not isinstance(experiment.data, TextData):
        raise UserError(f"data: {type(experiment.data).__name__} is no kind of data", "Choose TextData in the config file.")
    return experiment.data


def open_corpora(experiment: Experiment, digests: tuple[str, ...] | None = None) -> list[Corpus]:
    """The shards that the experiment names; with `digests`, those they must have."""
    shards = text_data(experiment).shards
    if not shards:
        raise UserError("data.shards is empty", "Prepare text with `omnia prepare text`, then give its folder: --data.shards DIR.")
    corpora = [Corpus(path) for path in shards]
    if digests is not None:
        if len(digests) != len(corpora):
            raise UserError(
                f"data.shards names {len(corpora)} folders; the run was started with {len(digests)}",
                "Give the same number, in the same order.",
            )
        for corpus, digest in zip(corpora, digests, strict=True):
            if corpus.digest != digest:
                raise UserError(
                    f"{corpus.path}: digest {corpus.digest}, but the run was started on {digest}",
                    "Give the folder it was started with (--data.shards DIR), or start a new run.",
                )
    return corpora


def resolve(experiment: Experiment, corpora: list[Corpus]) -> Experiment:
    """The experiment with what its config leaves open filled in: the vocabulary from the tokenizer, local paths made absolute.

    UserError when the shards hold an id that the model has no row for.
    """
    size, model = corpora[0].tokenizer().size, experiment.model
    if model.vocab_size == 0:
        model = dataclasses.replace(model, vocab_size=-(-size // 64) * 64)
    for corpus in corpora:
        if corpus.ids > model.vocab_size:
            raise UserError(
                f"{corpus.path}: holds token id {corpus.ids - 1}, but model.vocab_size is {model.vocab_size}",
                f"Set --model.vocab-size {size} or more (0 takes the tokenizer's), or prepare with another tokenizer.",
            )
    data = text_data(experiment)
    shards = tuple(path if "://" in path else os.path.abspath(path) for path in data.shards)
    return dataclasses.replace(experiment, model=model, data=dataclasses.replace(data, shards=shards))


def check_resume(stored: Experiment, asked: Experiment) -> None:
    """UserError naming the fields that may not change within a run."""
    before, after = flatten(to_json(stored)), flatten(to_json(asked))
    changed = [name for name in after if before.get(name) != after[name] and not name.startswith(MAY_CHANGE)]
    if changed:
        what = ", ".join(f"{name} is {before.get(name)}, asked {after[name]}" for name in changed)
        raise UserError(f"the run cannot go on with another {what}", "Leave it as it was, or start a new run with another --run-dir.")


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
        before = json.loads((run_dir / "environment.json").read_text())
    except (OSError, ValueError):
        return []
    matters = ("versions", "platform", "device", "devices", "processes", "cores", "compiler_options", "attention_kernels")
    old, new = (flatten({name: json.loads(json.dumps(of.get(name))) for name in matters}) for of in (before, here))
    return [f"{name} was {old.get(name)}, is {value}" for name, value in new.items() if old.get(name) != value]
