"""`omnia doctor`: checks the machine, and an experiment on it."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from data.errors import UserError
from data.files import json_files
from train.experiment import Experiment
from train.verbs.arguments import parse, start_jax
from train.verbs.config_files import KindsByName, load_config, with_kinds


@dataclasses.dataclass(frozen=True)
class Doctor(KindsByName):
    """Check devices and versions, and for a config or a run also its mesh, memory, data and disk, before you train."""

    json: bool = False
    """Print one line of JSON."""
    run_dir: str = "."
    """Folder for checkpoints; its disk must have room for them."""
    compile: bool = False
    """Compile the training step and report the memory the compiler plans for it."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()


def doctor(arguments: list[str]) -> int:
    from train.runs.directory import is_run, open_run

    target, rest = (None, arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    experiment = None
    if target is not None:
        experiment = with_kinds(open_run(target).experiment if is_run(Path(target)) else load_config(target), rest)
    run_dir = target if target and is_run(Path(target)) else "."
    options = parse(Doctor, "doctor", rest, Doctor(run_dir=run_dir, experiment=experiment or Experiment()))
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    if target is None and (others := [name for name in given if name not in ("--json", "--no-json")]):
        raise UserError(
            f"omnia doctor: {others[0]} is of an experiment, and none is given", "Give one: omnia doctor CONFIG.py ..., or a run directory."
        )
    start_jax(devices=False)  # an experiment may divide a CPU first
    from train.planning.doctor import examine, print_examination

    found = examine(options.experiment if experiment is not None else None, Path(options.run_dir), options.compile)
    print(json_files.dumps(found)) if options.json else print_examination(found)
    return 0 if found["healthy"] else 2
