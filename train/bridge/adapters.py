"""Adapters, saved alone: a folder with adapter_config.json and adapter_model.safetensors, as PEFT has them; and read back onto a base.

What PEFT has a place for (train/bridge/peft.py) is written under its names. All else (bottlenecks, biases, what was trained beside) is
written under our names, in the same two files, with "OMNIA" as its type. The weights carry the digest of the base, and the task.
"""

import dataclasses
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from data.files import json_files
from train.adapters.options import AdaLoRA, Tuning
from train.adapters.training import fresh_leaves, method_of
from train.bridge.beside import built_beside
from train.bridge.importing import save_parameters
from train.bridge.peft import Read, of_peft, to_peft, why_not
from train.bridge.task_heads import fitting
from train.checkpoints.checkpointer import load_parameters, load_trained
from train.devices.mesh import make_mesh
from train.experiment import AdamW, Experiment, MeshShape
from train.kinds import Data, Objective
from train.objectives.bind import bind
from train.objectives.distillation import Distillation
from train.objectives.tasks.options import Supervised, SupervisedTogether
from train.runs.classes import KEPT, finder
from train.runs.directory import CHAT, START, Run, keep_start, open_run, write_run
from train.runs.serialize import from_json, to_json
from train.tasks.task import Task
from train.tasks.together import Together

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIGEST, TASK = "base_digest", "task"
"""Where the digest of the base, and the task that was learned, stand among the metadata of the weights."""
OURS = "OMNIA"
"""The type of adapters under our names."""


# -------------------------------------------------------------------------------------------------------------------- writing


def export_adapters(run: Run, output: Path, *, step: int | None = None, raw: bool = False, said: Callable[[str], None] = print) -> None:
    """Write the folder, whole or not at all. UserError for a run without adapters."""
    from safetensors.numpy import save_file

    options, method = run.experiment.adapters, method_of(run.experiment)
    if method is None:
        raise UserError(f"{run.path}: was trained without adapters", "Choose --format hf or gguf.")
    assert isinstance(options, Tuning)
    if output.exists():
        raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    begun = open_run(run.path / START, said=lambda line: None)
    base = load_parameters(begun, mesh)[0]
    digest = digest_of(base)
    trained = load_trained(run, mesh, step=step, raw=raw)[0]
    why = why_not(run.experiment, trained)
    if why:
        said(f"{output}: under our names, which PEFT does not read: {why}")
        tensors = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(trained).items()}
        config: dict[str, Any] = {"peft_type": OURS, "adapters": to_json(options)}
    else:
        read = jax.device_get(method.compiled_read(base, trained)) if isinstance(options, AdaLoRA) else jax.device_get(trained)
        config, tensors = to_peft(run.experiment, options, read, base)
    config["base_model_name_or_path"] = run.experiment.start
    with built_beside(output) as folder:
        folder.mkdir()
        json_files.write(folder / CONFIG, config)
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt", DIGEST: digest} | _task_of(run.experiment))
        (folder / WEIGHTS).chmod(0o644)  # their library makes weights that only their owner can read
    said(f"{output}: {type(options).__name__}, {sum(tensor.size for tensor in tensors.values()):,} parameters, base {digest}")


def _task_of(experiment: Experiment) -> dict[str, str]:
    """What was learned, without the files that it was learned from, if it was a task."""
    if not isinstance(experiment.data, Task | Together):
        return {}
    objective = experiment.objective.of if isinstance(experiment.objective, Distillation) else experiment.objective
    return {TASK: json_files.dumps({"data": to_json(experiment.data.without_files()), "objective": to_json(objective)})}


def digest_of(params) -> str:
    """Of parameters, by their names, shapes and values: 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for path, leaf in sorted(flatten_dict(params).items()):
        digest.update(f"{'/'.join(path)} {leaf.shape} {leaf.dtype};".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------------------- reading


def import_adapters(folder: Path, base: Run, run_dir: Path, said: Callable[[str], None] = print) -> Run:
    """Make a run in `run_dir` that has the adapters of a folder and started from the run `base`. UserError for adapters of another base,
    as far as a digest says, or that do not fit it by name and shape."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir}: exists", "Choose another --run-dir, or empty it.")
    config = json_files.read(folder / CONFIG, "Give a folder of adapters, as PEFT or `omnia export --format adapters` writes it.")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: has no {WEIGHTS}", "Save the adapters as safetensors; pickles are not read.")
    tensors = load_file(folder / WEIGHTS)
    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    params = load_parameters(base, mesh)[0]
    with safe_open(folder / WEIGHTS, "numpy") as file:
        said_of = file.metadata() or {}
    digest = said_of.get(DIGEST)
    if digest and digest != digest_of(params):
        raise UserError(f"{folder}: belongs to another base than {base.path}", f"Give the run that it was trained on: digest {digest}.")
    known = finder(str(base.path), None, print)
    try:
        read = _ours(config, tensors, known) if config.get("peft_type") == OURS else of_peft(base.experiment, config, tensors)
        task = _task_in(said_of[TASK], known) if TASK in said_of else read.task
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, re.error) as error:
        what = f"{CONFIG} has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{folder}: {what}", "Only adapters of the same model can be read.") from None
    options, leaves = read.options, read.leaves
    changes: dict[str, Any] = {"name": folder.resolve().name, "start": str(base.path.absolute()), "frozen": (), "ema_decay": 0.0}
    if task is not None:
        data = task[0]
        changes |= {"data": fitting(data, base.experiment.model) if isinstance(data, Task) else data, "objective": task[1]}
    experiment = dataclasses.replace(base.experiment, **changes, adapters=options, optimizer=AdamW())
    _check_fits(folder, experiment, leaves)
    with built_beside(run_dir) as path:
        path.mkdir()
        base.tokenizer().save(str(path / "tokenizer"))
        keep_start(path / START, base)
        for name in (CHAT, KEPT):
            if (base.path / name).is_file():
                shutil.copy(base.path / name, path)
        run = Run(path, experiment, base.digests if task is None else (), base.document_end, secrets.token_hex(8), base.config)
        write_run(run)
        save_parameters(run, unflatten_dict(leaves))
    said(f"{run_dir}: {type(options).__name__}, {sum(leaf.size for leaf in leaves.values()):,} parameters beside {base.path}")
    return dataclasses.replace(run, path=run_dir)


def _ours(config: dict[str, Any], tensors, known) -> Read:
    return Read(from_json(Tuning, config["adapters"], "adapters", known), {tuple(name.split("/")): leaf for name, leaf in tensors.items()})


def _task_in(said: str, known) -> tuple[Data, Objective]:
    found = json_files.parse(said)
    data, objective = from_json(Data, found["data"], "data", known), from_json(Objective, found["objective"], "objective", known)
    if not isinstance(data, Task | Together) or not isinstance(objective, Supervised | SupervisedTogether):
        raise ValueError(f"says that {type(data).__name__} was learned by {type(objective).__name__}, which is no task")
    return data.without_files(), objective


def _check_fits(folder: Path, experiment: Experiment, leaves) -> None:
    """UserError unless the leaves are those that the experiment trains, in their shapes."""
    method = method_of(experiment)
    assert method is not None
    shapes = jax.eval_shape(lambda key: fresh_leaves(bind(experiment), method, key), jax.random.key(0))
    expected = {path: jax.tree.leaves(box)[0].shape for path, box in flatten_dict(shapes).items()}
    there = {path: leaf.shape for path, leaf in leaves.items()}
    for path in sorted(expected.keys() | there.keys()):
        if expected.get(path) != there.get(path):
            what = f"is {there.get(path, 'missing')} here, and {expected.get(path, 'nothing')} in {experiment.start}"
            raise UserError(f"{folder}: {'/'.join(path)} {what}", "Only adapters of the same model can be read.")
