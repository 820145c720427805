"""What would stop a run, or never happen in it, found before its first step."""

from data.errors import UserError
from train.devices.mesh import check_batch, divide_cpu, make_mesh
from train.experiment import Experiment, Scaling
from train.kinds import learner_class
from train.objectives.bind import check_frozen
from train.optimizers.build import optimizer_of
from train.sources.dataset import check_reads


def check(experiment: Experiment, corpora: list, devices: list | None = None) -> None:
    """UserError for what would stop the run before its first step. devices: to train on; None: all."""
    check_options(experiment)
    check_reads(experiment)
    divide_cpu(experiment)
    mesh = make_mesh(experiment.mesh, devices)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    optimizer_of(experiment)
    check_frozen(experiment)
    learner_class(experiment).check(experiment, corpora, mesh)


def check_options(experiment: Experiment) -> None:
    """UserError for what is asked for and would never happen."""
    evaluation, checkpoints = experiment.evaluation, experiment.checkpoints
    for name, asked in {"evaluation.patience": evaluation.patience, "checkpoints.keep_best": checkpoints.keep_best}.items():
        if asked and not evaluation.every:
            raise UserError(f"{name} is {asked}, and evaluation.every 0: nothing is measured before the end", "Set --evaluation.every N.")
    for name, asked in {"keep_best": checkpoints.keep_best, "keep_every": checkpoints.keep_every}.items():
        if asked and not checkpoints.every:
            raise UserError(f"checkpoints.{name} is {asked}, and checkpoints.every 0: only the end is saved", "Set --checkpoints.every N.")
    if checkpoints.keep_every and checkpoints.keep_every % checkpoints.every:
        raise UserError(
            f"checkpoints.keep_every {checkpoints.keep_every} is no multiple of checkpoints.every {checkpoints.every}: "
            "most of these steps are not saved",
            "Choose a multiple.",
        )


def check_unvalidated(experiment: Experiment) -> None:
    """UserError where something of the run depends on validation, and there is nothing to validate with."""
    needs = {
        "evaluation.patience": experiment.evaluation.patience > 0,
        "checkpoints.keep_best": experiment.checkpoints.keep_best > 0,
        "a scaling study": isinstance(experiment, Scaling),
    }
    for name, needed in needs.items():
        if needed:
            raise UserError(f"{name} needs validation, and the data has nothing for it", "Prepare with --validation 0.1, or leave it out.")
