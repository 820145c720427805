"""The train state, and the one table of what randomness is for."""

import enum
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from train.devices.mesh import parameter_shardings
from train.step.anomalies import History, no_history

Parameters = Callable[[Any], Any]
"""From a random key to a tree of parameters, boxed with their logical axis names."""


class Purpose(enum.IntEnum):
    """What a random key is for. All randomness of a run is fold_in(fold_in(key(seed), step or row), purpose); never renumber."""

    PARAMETERS = 0
    OBJECTIVE = 1
    SAMPLES = 2
    ROLLOUT = 3
    SHUFFLE = 4
    VALIDATION = 5


def random_key(seed: int, when, purpose: Purpose):
    """The key of a purpose at a step (or for a row)."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), when), int(purpose))


@flax.struct.dataclass
class State:
    """All that one step hands to the next; with the experiment it is all that a run needs to go on.

    step: updates done. cursor: rows consumed, which alone decides the next batch. history: of the loss, by which bad steps are told.
    ema: averaged parameters, or None. carry: what the objective hands itself, or None.
    """

    step: Any
    cursor: Any
    params: Any
    opt_state: Any
    history: History
    ema: Any = None
    carry: Any = None

    @property
    def averaged(self):
        """The parameters that evaluation, generation and export use."""
        if self.ema is not None:
            return self.ema
        free = schedule_free(self.opt_state)
        return self.params if free is None else _average(free, self.params)


_average = jax.jit(schedule_free_eval_params)


def schedule_free(opt_state) -> ScheduleFreeState | None:
    """The part of an optimizer's state that averages, when it is ScheduleFree's; the parameters beside it are not the average."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, ScheduleFreeState))
    return next((part for part in parts if isinstance(part, ScheduleFreeState)), None)


def _maker(parameters: Parameters, optimizer: optax.GradientTransformation, *, ema: bool, carry):
    """seed -> a fresh state whose leaves keep their logical axis names. Jitted, so that the shapes and the program need one trace."""

    def make(seed) -> State:
        params = parameters(random_key(seed, 0, Purpose.PARAMETERS))
        average = jax.tree.map(jnp.copy, params) if ema else None
        handed = carry(params) if callable(carry) else carry
        return State(jnp.int32(0), jnp.int32(0), params, optimizer.init(params), no_history(), average, handed)

    return jax.jit(make)


def _abstract(make, mesh: Mesh) -> State:
    boxed = jax.eval_shape(make, 0)
    shardings = parameter_shardings(mesh, boxed)
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), nn.unbox(boxed), shardings)


def abstract_state(parameters: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool, carry=None) -> State:
    """Shapes, types and shardings of the state, without allocating it. Restoring and ahead-of-time compilation start from it."""
    return _abstract(_maker(parameters, optimizer, ema=ema, carry=carry), mesh)


def initial_state(
    parameters: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, *, ema: bool, carry=None
) -> State:
    """A fresh state, made where it will live: no device ever holds more than its share."""
    make = _maker(parameters, optimizer, ema=ema, carry=carry)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, _abstract(make, mesh))
    # It runs once: on a CPU, whose compiler takes half a second for each random array, compiling it well costs more than it could save.
    options = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else None
    return jax.jit(lambda seed: nn.unbox(make(seed)), out_shardings=shardings, compiler_options=options)(seed)
