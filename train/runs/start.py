"""The run that another starts from: its parameters are kept in the new run, which so needs nothing but itself.

<run>/start/ is a run in small: config.json, tokenizer/, and of one checkpoint the parameters alone, with their digests.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from train.checkpoints.checkpointer import load_parameters
from train.kinds import Path
from train.objectives.bind import bind
from train.runs.directory import START, Run, open_run
from train.runs.parts import get, put


def started_from(run: Run) -> Run | None:
    """What the run started from, as it is kept in it; None where it began with fresh parameters."""
    return open_run(run.path / START, said=lambda line: None) if run.experiment.start else None


def start_parameters(run: Run, mesh):
    """The parameters that the run started from, on a mesh; None where it began with fresh ones."""
    source = started_from(run)
    return None if source is None else load_parameters(source, mesh)[0]


def adopt(run: Run, mesh, params, said: Callable[[str], None] = print):
    """Fresh parameters, with those that the run starts from in their place as far as both have them, in the same shapes.

    A critic that is not taken over begins as the trunk of the policy, with the scalar head of that trunk, if it has one: that of a reward
    model, or of a critic on the policy's own hidden states. A line is said where parts begin anew, or are left behind. Returns `params`
    itself where the run starts from nothing.
    """
    begun = started_from(run)
    if begun is None:
        return params
    source, own = load_parameters(begun, mesh)[0], bind(run.experiment)
    there, here = dict(bind(begun.experiment).parts), own.parts
    offered: dict[Path, Any] = {here[name]: get(source, there[name]) for name in here.keys() & there.keys()}
    if own.inherit is not None:
        offered |= {path: part for path, part in own.inherit(source, there).items() if offered.get(path) is None}
    found, anew = params, []
    for name, path in here.items():
        part, old = offered.get(path), get(params, path)
        if old is None:
            continue
        if part is not None and _agree(part, old):
            found = put(found, path, _placed(part, old))
        else:
            anew.append(name)
    left = [name for name, path in there.items() if name not in here and get(source, path) is not None]
    parts = [f"{what} {', '.join(names)}" for what, names in (("begins anew:", anew), ("is left behind:", left)) if names]
    if parts:
        said(f"started from {run.experiment.start}; what {' and what '.join(parts)}")
    return found


def _agree(part, old) -> bool:
    """Whether both trees have the same leaves, in the same shapes."""
    shapes = [[(path, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)] for tree in (part, old)]
    return shapes[0] == shapes[1]


def _placed(part, old):
    """A copy of it, where the old one lies."""
    return jax.device_put(jax.tree.map(jnp.copy, part), jax.tree.map(lambda leaf: leaf.sharding, old))


def frozen_of(run: Run, mesh):
    """What the run's objective reads and does not train: {"reference": parameters}, or None."""
    names = bind(run.experiment).reference
    if not names:
        return None
    reference = start_parameters(run, mesh)
    if reference is None:
        raise UserError(
            "objective: a policy needs the run that it starts from as its reference, but `start` is empty",
            "Give one: --start RUN_DIR, or set --objective.kl-coefficient 0 where there is such a field.",
        )
    return {"reference": {name: reference[name] for name in names if name in reference}}
