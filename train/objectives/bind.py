"""From an experiment to its objective, bound to its model; and to the state that trains it."""

import dataclasses
import math
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from data.errors import UserError
from data.files.text_files import is_whole
from train.adapters.options import Tuning
from train.adapters.training import base_in_eight_bits, method_of, reference_in, reporting, trained_bound
from train.devices.mesh import parameter_shardings, row_shards
from train.experiment import Experiment
from train.kinds import Bound, home_of, realise
from train.optimizers.build import frozen_leaves, optimizer_of, without_gradient
from train.sources.drawing import drawing_of
from train.step.state import State, abstract_state
from train.step.update import make_update


@dataclasses.dataclass(frozen=True)
class PartlyFrozen:
    """A loss some of whose parameters are constants."""

    loss: Any
    names: tuple[str, ...]

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        return self.loss(without_gradient(params, self.names), batch, key, frozen=frozen, carry=carry)


def bind(experiment: Experiment, mesh: Mesh | None = None) -> Bound:
    """The objective that an experiment names, on all parameters of its model. mesh: whose devices rows are spread over; UserError where
    the model cannot run on it."""
    if mesh is not None:
        attention_kernels(experiment, mesh)
    bound = realise(experiment.objective, experiment, 1 if mesh is None else row_shards(mesh))
    return dataclasses.replace(bound, loss=PartlyFrozen(bound.loss, experiment.frozen)) if experiment.frozen else bound


def bind_trained(experiment: Experiment, mesh: Mesh | None = None) -> Bound:
    """The objective as it is trained: with adapters, on their leaves alone, frozen["base"] being the other parameters."""
    bound, method = bind(experiment, mesh), method_of(experiment)
    trained = bound if method is None else trained_bound(bound, method)
    begun = getattr(realise(experiment.gradient, experiment, experiment.objective.unit), "carry", None)
    if begun is None:
        return trained
    if trained.carry is not None:
        what = f"gradient {type(experiment.gradient).__name__}: {type(experiment.objective).__name__} hands something from step to step"
        raise UserError(what, "Train with the gradient Exact, or choose another objective.")
    return dataclasses.replace(trained, carry=begun)


def update_of(experiment: Experiment, bound: Bound, optimizer, *, spike: float = 0.0, rows: int = 0):
    """update(state, frozen, batch) -> state, metrics, with the experiment's gradient and average; spike, rows: see make_update. bound: as
    it is trained."""
    gradient, method = realise(experiment.gradient, experiment, experiment.objective.unit), method_of(experiment)
    how: dict[str, Any] = {"gradient": gradient, "ema_decay": experiment.ema_decay, "spike": spike, "rows": rows}
    update = make_update(bound.loss, optimizer, seed=experiment.seed, **how)
    return update if method is None else reporting(update, method)


def attention_kernels(experiment: Experiment, mesh: Mesh) -> list[str]:
    """The attention kernels that training uses on a mesh; UserError when the one asked for cannot."""
    if not experiment.objective.uses_model:
        return []
    try:
        return realise(experiment.model).kernels(mesh.devices.flat[0].platform, split_positions=mesh.shape["context"] > 1)
    except ValueError as error:
        raise UserError(str(error)) from None


def flops_of(experiment: Experiment) -> float | None:
    """FLOPs per token of a training step; None where tokens do not tell, or some kernels have no gradient."""
    objective, counted = experiment.objective, home_of(experiment.data).counts_tokens  # type: ignore[attr-defined]
    if isinstance(experiment.adapters, Tuning) or objective.teacher or not objective.uses_model or not counted:
        return None
    return realise(experiment.model).training_flops_per_token(experiment.model.context_length)


def check_frozen(experiment: Experiment) -> None:
    """UserError where a name in `frozen` is that of no parameter, adapters find nothing to adapt, or nothing would be trained."""
    if isinstance(experiment.adapters, Tuning):
        jax.eval_shape(bind_trained(experiment).start, jax.random.key(0))
    if not experiment.frozen:
        return
    params = nn.unbox(jax.eval_shape(bind(experiment).start, jax.random.key(0)))
    for name in experiment.frozen:
        stack, colon, count = name.partition(":")
        if colon and (not is_whole(count) or stack.split("/")[-1] != "layers"):
            raise UserError(f"frozen: {name} says no number of layers", "Give the number of the lowest ones, as in layers:4.")
        if not any(jax.tree.leaves(frozen_leaves(params, (name,)))):
            raise UserError(f"frozen: no parameter's name begins with {name}", f"Parts of the model are {', '.join(sorted(params))}.")
        layers = [leaf.shape[0] for leaf, of in zip(*map(jax.tree.leaves, (params, frozen_leaves(params, (name,)))), strict=True) if of]
        if colon and int(count) >= min(layers):
            raise UserError(f"frozen: {name} is not below the {min(layers)} layers that there are", f"To freeze all, give {stack}.")
    if all(count == math.inf for count in jax.tree.leaves(frozen_leaves(params, experiment.frozen))):
        raise UserError("frozen: nothing would be trained", "Leave some of the names out.")


def whole_shapes(experiment: Experiment, mesh: Mesh):
    """All parameters of an experiment's objective, as shapes, types and places."""
    boxed = jax.eval_shape(bind(experiment).start, jax.random.key(0))
    places = parameter_shardings(mesh, boxed)
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), nn.unbox(boxed), places)


def frozen_shapes(experiment: Experiment, mesh: Mesh, *, reads_reference: bool):
    """What a step reads and does not train, as shapes, types and places, in eight bits without places; None for nothing."""
    whole, bound = whole_shapes(experiment, mesh), bind(experiment)
    taught = {} if bound.teacher is None else {"teacher": whole_shapes(bound.teacher, mesh)}
    if isinstance(experiment.adapters, Tuning):
        return {"base": jax.eval_shape(base_in_eight_bits, whole) if experiment.adapters.int8 else whole} | taught | _drawn_by(experiment)
    return ((reference_in(whole, bound.reference) or {} if reads_reference else {}) | taught | _drawn_by(experiment)) or None


def _drawn_by(experiment: Experiment) -> dict:
    """What a gradient that draws its rows reads beside them, as shapes and types."""
    drawing = drawing_of(experiment)
    return {} if drawing is None else jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), drawing.frozen())


def state_of(experiment: Experiment, mesh: Mesh, *, ema: bool | None = None, carry: bool = True) -> State:
    """The state that trains an experiment, as shapes, types and places. ema: whether an average is kept, by default as the experiment
    says. carry: False for parameters alone."""
    bound = bind_trained(experiment)
    ema = experiment.ema_decay > 0 if ema is None else ema
    return abstract_state(bound.start, optimizer_of(experiment), mesh, ema=ema, carry=bound.carry if carry else None)
