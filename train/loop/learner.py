"""The state that a learner trains (train/kinds.py)."""

import dataclasses

import jax
import jax.numpy as jnp

from train.devices.mesh import Mesh
from train.kinds import Learner, learner_class
from train.runs.directory import Run
from train.step.state import State, abstract_state, initial_state


def learner_of(run: Run, sources: list, mesh: Mesh) -> Learner:
    """What takes the steps of a run."""
    return learner_class(run.experiment)(run, sources, mesh)


def fresh_state(learner: Learner, mesh: Mesh, seed: int, *, ema: bool) -> State:
    """The state that a run begins with."""
    state = initial_state(learner.parameters, learner.optimizer, mesh, seed, ema=ema, carry=learner.carry)
    params = learner.adopt(state.params)
    if params is state.params:
        return state
    places = jax.tree.map(lambda leaf: leaf.sharding, state.opt_state)
    opt_state = jax.jit(learner.optimizer.init, out_shardings=places)(params)
    return dataclasses.replace(state, params=params, opt_state=opt_state, ema=jax.tree.map(jnp.copy, params) if ema else None)


def state_to_restore(learner: Learner, mesh: Mesh, *, ema: bool) -> State:
    """Its shapes and places, without the arrays."""
    return abstract_state(learner.parameters, learner.optimizer, mesh, ema=ema, carry=learner.carry)
