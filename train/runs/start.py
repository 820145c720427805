"""The run that another starts from: its parameters are kept in the new run, which so needs nothing but itself.

<run>/start/ is a run in small: config.json, tokenizer/, and of one checkpoint the parameters alone, with their digests.
"""

from collections.abc import Callable

from data.errors import UserError
from train.adapters.options import Tuning
from train.adapters.training import base_in_eight_bits, reference_in
from train.checkpoints.checkpointer import load_parameters
from train.objectives.bind import bind
from train.runs.directory import START, TEACHER, Run, open_run
from train.runs.inherit import base_of, inherited


def started_from(run: Run) -> Run | None:
    """What the run started from, as it is kept in it; None where it began with fresh parameters."""
    return open_run(run.path / START, said=lambda line: None) if run.experiment.start else None


def start_parameters(run: Run, mesh):
    """The parameters that the run started from, on a mesh; None where it began with fresh ones, or with some of the layers."""
    source = started_from(run)
    return None if source is None or run.experiment.start_layers else load_parameters(source, mesh)[0]


def adopt(run: Run, mesh, params, said: Callable[[str], None] = print):
    """Fresh parameters, with those that the run starts from in their place as far as both have them, in the same shapes.

    A line is said where parts begin anew, or are left behind. Returns `params` itself where the run starts from nothing.
    """
    begun = started_from(run)
    if begun is None:
        return params
    found, anew, left = inherited(run.experiment, begun.experiment, load_parameters(begun, mesh)[0], params)
    _say(run, anew, left, said)
    return found


def _say(run: Run, anew: list[str], left: list[str], said: Callable[[str], None]) -> None:
    parts = [f"{what} {', '.join(names)}" for what, names in (("begins anew:", anew), ("is left behind:", left)) if names]
    if parts:
        said(f"started from {run.experiment.start}; what {' and what '.join(parts)}")


def frozen_of(run: Run, mesh, said: Callable[[str], None] = print):
    """What the run's step reads and does not train: {"base": parameters} with adapters, {"reference": parameters}, {"teacher": parameters}
    of a student, or None."""
    bound = bind(run.experiment)
    taught = {} if bound.teacher is None else {"teacher": _teacher_of(run, bound.teacher, mesh)}
    return (_begun_of(run, mesh, bound.reference, said) | taught) or None


def _teacher_of(run: Run, teacher, mesh):
    """The parameters of a student's teacher."""
    kept = open_run(run.path / TEACHER, said=lambda line: None)
    params, lacking, _ = base_of(teacher, kept.experiment, load_parameters(kept, mesh)[0], mesh)
    if lacking:
        raise UserError(f"objective.teacher: {run.experiment.objective.teacher} has no {', '.join(lacking)}", "Choose another teacher.")
    return params


def _begun_of(run: Run, mesh, names: tuple[str, ...], said: Callable[[str], None]) -> dict:
    """The base of adapters, or the reference, of what the run started from."""
    adapters = run.experiment.adapters
    if isinstance(adapters, Tuning):
        begun = started_from(run)
        assert begun is not None  # `resolve` refuses adapters without
        base, anew, left = base_of(run.experiment, begun.experiment, load_parameters(begun, mesh)[0], mesh)
        _say(run, anew, left, said)
        return {"base": base_in_eight_bits(base) if adapters.int8 else base}
    if not names:
        return {}
    reference = start_parameters(run, mesh)
    if reference is None:
        raise UserError(
            "objective: a policy needs the run that it starts from as its reference, but `start` is empty",
            "Give one, with all its layers: --start RUN_DIR, or set --objective.kl-coefficient 0 where there is such a field.",
        )
    return reference_in(reference, names) or {}
