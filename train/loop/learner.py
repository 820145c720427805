"""What differs between kinds of experiments. The loop (train/loop/loop.py) knows the rest."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from train.devices.mesh import Mesh
from train.step.state import State, abstract_state, initial_state


class Sample(NamedTuple):
    """A text that the model wrote, to be looked at; its score, where something judges it."""

    prompt: str
    text: str
    score: float | None = None


class Learner(Protocol):
    """Where a step's rows come from, what the step does with them, and what is measured.

    Everything that a step depends on is in the state, or a pure function of it and the experiment: a learner keeps nothing that a resumed
    run would lack.
    """

    parameters: Callable[[Any], Any]
    """Fresh parameters from a random key, boxed with logical axis names."""
    carry: Any
    """The state's carry at the start."""
    optimizer: optax.GradientTransformation
    rate: Callable[[int], Any]
    """The learning rate of a step, counted from 0."""
    validates: bool
    """Whether there is anything to validate with."""

    @property
    def padding_share(self) -> float:
        """Of the rows, as far as it is known before they are made."""

    @property
    def waited_s(self) -> float:
        """Seconds spent in waiting for rows so far."""

    def remarks(self) -> list[str]:
        """What a user should hear of that came up since this was last asked, such as records that had to be left out."""

    @property
    def flops_per_token(self) -> float | None:
        """Of a training step."""

    def adopt(self, params: Any) -> Any:
        """Fresh parameters with those that the run starts from in their place; the same object where it starts from none."""

    def begin(self, cursor: int) -> None:
        """Rows from `cursor` on are asked for next."""

    def __next__(self) -> Any:
        """The rows of the next step."""

    def step(self, state: State, batch: Any) -> tuple[State, dict, int]:
        """The state after a step, its metrics as Means (train/objectives/terms.py), and how many rows it consumed.

        Among the metrics: loss, whose weight counts tokens unless there is one called tokens; gradient_norm; skipped (see make_update).
        """

    def evaluate(self, params, between: Callable[[], None]) -> dict:
        """What is measured of the averaged parameters: `loss`, lower being better, and more.

        `between` is called now and then, and may raise.
        """

    def samples(self, params) -> list[Sample]:
        """Texts of the averaged parameters, the same at every step but for those."""

    def close(self) -> None:
        """Nothing more is asked for."""


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
