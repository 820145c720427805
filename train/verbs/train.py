"""`omnia train`: a new run from a config file, or a run that goes on."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from data.errors import UserError
from train.experiment import Experiment, Scaling
from train.runs.classes import allow
from train.runs.directory import Run, create_run, has_checkpoint, is_run, open_corpora, open_run, reached, with_config, write_run
from train.runs.resolve import check_resume, resolve
from train.verbs.arguments import parse, start_jax, value_of
from train.verbs.config_files import KindsByName, load_config, with_kinds


@dataclasses.dataclass(frozen=True)
class Train(KindsByName):
    """Train an experiment, or resume a run: the same command continues from its last checkpoint."""

    run_dir: str
    """Folder of the run."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()


def train(arguments: list[str]) -> int:
    command, stored = _command(arguments)
    if stored is None and isinstance(command.experiment, Scaling):
        return _train_scaling(Path(command.run_dir), command.experiment)
    start_jax(devices=False)
    from train.devices import hosts

    hosts.join()
    found = _run_to_train(command, stored)
    if found is None:
        return 0
    from train.loop.loop import train as loop

    run, corpora = found
    summary = loop(run, corpora=corpora)
    if hosts.first():
        _print_summary(summary, run.path / "report.html")
    return summary["exit"]


def _command(arguments: list[str]) -> tuple[Train, Run | None]:
    """What is asked for, and the run to go on with, if it is there."""
    target, rest = (None, arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    if target is None and not {"-h", "--help"} & set(rest):
        raise UserError(
            "omnia train: no config", "Give one: omnia train configs/shakespeare.py --run-dir DIR ..., or a run directory to go on with."
        )
    run_dir = value_of("--run-dir", rest)
    if target and is_run(Path(target)):
        if run_dir is not None and Path(run_dir).absolute() != Path(target).absolute():
            raise UserError(
                f"omnia train: {target} is a run, and --run-dir names another folder, {run_dir}",
                f"Leave --run-dir out to go on with {target}; to begin a new run with its parameters: CONFIG.py --start {target}.",
            )
        rest, target = rest if run_dir is not None else ["--run-dir", target, *rest], None
        run_dir = value_of("--run-dir", rest)
    if target and run_dir and is_run(Path(run_dir)):
        allow(target.partition(":")[0])  # it is read only if the run has classes of it
    stored = open_run(run_dir) if run_dir and is_run(Path(run_dir)) else None
    if stored and not has_checkpoint(stored.path) and target:
        stored = None  # nothing was trained: the run is made again, and any mistake in it can be mended
    if run_dir and stored:  # the file is not run again: the run alone decides
        if target and stored.config is None:
            print(f"{run_dir} is a run: going on with it as it is stored; {target} is not read")
        return parse(Train, "train", rest, Train(run_dir, with_kinds(stored.experiment, rest))), stored
    experiment = with_kinds(load_config(target) if target else Experiment(), rest)
    return parse(Train, f"train {target or 'CONFIG.py'}", rest, Train(tyro.MISSING, experiment)), None


def _run_to_train(command: Train, stored: Run | None) -> tuple[Run, list] | None:
    """The run, checked and written down, and its data; None where it has taken its steps already. Every process of a job calls this."""
    from train.devices import hosts
    from train.loop.checks import check

    corpora = open_corpora(command.experiment, stored)
    experiment = resolve(command.experiment, corpora, stored)
    check(experiment, corpora)
    if stored:
        check_resume(stored.experiment, experiment)
        if (done := reached(stored)) > experiment.steps:
            print(
                f"{stored.path}: has taken {done} steps, and {experiment.steps} are asked for: nothing is trained, and nothing undone "
                "(--step N of evaluate and generate takes an earlier checkpoint)"
            )
            return None
        run = with_config(dataclasses.replace(stored, experiment=experiment))
        if run != stored and hosts.first():
            write_run(run)
    elif hosts.first():
        run = create_run(command.run_dir, experiment, corpora)
    hosts.barrier("the run directory is there")
    if not hosts.first() and not stored:
        run = open_run(command.run_dir)
    return run, corpora


def _print_summary(summary: dict, report: Path) -> None:
    if found := summary["validation"]:
        if "bits_per_byte" in found:
            print(f"validation: {found['loss']:.4f} nats per token, {found['bits_per_byte']:.4f} bits per byte")
        else:
            print("validation: " + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items()))
    if report.is_file():
        print(f"report: {report}")


def _train_scaling(folder: Path, scaling: Scaling) -> int:
    """A ladder of sizes, each a run in `folder`; the same command again goes on with what is not finished."""
    start_jax(devices=False)
    from train.planning.scaling import study

    found = study(folder, scaling)
    if found is None:
        return 130
    predicted, measured = found["prediction"]["loss"], found["measured"]["loss"]
    print(f"predicted {predicted:.4f}, measured {measured:.4f} nats per token: {found['error']:+.2%}")
    print(folder / "scaling.png")
    return 0
