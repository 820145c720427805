"""The run that another starts from: its parameters are kept in the new run, which so needs nothing but itself.

<run>/start/ is a run in small: config.json, tokenizer/, and of one checkpoint the parameters alone, with their digests.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from train.checkpoints.checkpointer import load_parameters
from train.runs.parts import DECODER, HEAD, get, parts_of, put
from train.runs.parameters import critic_of
from train.rl.options import PolicyGradient, PreferenceLearning
from train.runs.runs import START, Run, open_run


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
    source = load_parameters(begun, mesh)[0]
    there, here = parts_of(begun.experiment), parts_of(run.experiment)
    offered = {here[name]: get(source, there[name]) for name in here.keys() & there.keys()}
    if isinstance(run.experiment.objective, PolicyGradient):
        critic: dict[str, Any] = critic_of(run.experiment).like_policy(source)
        if critic and HEAD in there:
            critic |= {"value": get(source, there.pop(HEAD))}
        offered |= {(name,): part for name, part in critic.items() if offered.get((name,)) is None}
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
    objective = run.experiment.objective
    needs = isinstance(objective, PreferenceLearning) and objective.loss != "orpo"
    needs |= isinstance(objective, PolicyGradient) and objective.kl_coefficient > 0
    if not needs:
        return None
    reference = start_parameters(run, mesh)
    if reference is None:
        raise UserError(
            "objective: a policy is held near the one it starts from, but the run starts from none",
            "Give one: --start RUN_DIR, or set --objective.kl-coefficient 0 where there is such a field.",
        )
    return {"reference": {name: reference[name] for name in DECODER if name in reference}}


class Reference:
    """The policy that a PolicyGradient's KL is to: parameters of a frozen copy, kept as the objective says.

    Calling it gives them on the mesh; None where there is no KL. A policy that has its reference in itself, such as one with adapters that
    can be switched off, gives those parameters in the same way.
    """

    def __init__(self, run: Run, mesh):
        objective = run.experiment.objective
        assert isinstance(objective, PolicyGradient)
        self._frozen, self._places = frozen_of(run, mesh), None
        if self._frozen is not None and objective.reference == "bfloat16":
            self._frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), self._frozen)
        if self._frozen is not None and objective.reference == "host":
            self._places = jax.tree.map(lambda x: x.sharding, self._frozen)
            self._frozen = jax.device_get(self._frozen)

    def __call__(self):
        if self._frozen is None:
            return None
        return (self._frozen if self._places is None else jax.device_put(self._frozen, self._places))["reference"]
