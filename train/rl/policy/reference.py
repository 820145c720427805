"""The reference policy of the KL penalty."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from train.adapters.training import reference_in
from train.objectives.bind import bind
from train.rl.options import PolicyGradient
from train.runs.directory import Run
from train.runs.start import frozen_of


class Reference:
    """The reference policy of a PolicyGradient's KL penalty: a frozen copy of its parameters, kept as `objective.reference` says.

    Calling it gives them on the mesh; None where there is no KL. A policy with adapters has its reference in itself: `base`, the model
    without them, of which no copy is made. A teacher takes the place of the run that the policy started from.
    """

    def __init__(self, run: Run, mesh, said: Callable[[str], None] = print):
        objective = run.experiment.objective
        assert isinstance(objective, PolicyGradient)
        found, self._places = frozen_of(run, mesh, said) or {}, None
        self.base = found.pop("base", None)
        self._name = "teacher" if "teacher" in found else "reference"
        self._frozen = found or None
        if self.base is not None and not found:
            self._frozen = reference_in(self.base, bind(run.experiment).reference)
        if self._frozen is not None and objective.reference == "bfloat16":
            self._frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), self._frozen)
        if self._frozen is not None and objective.reference == "host":
            self._places = jax.tree.map(lambda x: x.sharding, self._frozen)
            self._frozen = jax.device_get(self._frozen)

    def __call__(self):
        if self._frozen is None:
            return None
        return (self._frozen if self._places is None else jax.device_put(self._frozen, self._places))[self._name]

    def frozen(self, reference, *, reads: bool):
        """What the update reads and does not train, given what calling this gave. reads: whether the objective runs the reference."""
        found = {self._name: reference} if reads and (self.base is None or self._name == "teacher") else {}
        return (found if self.base is None else found | {"base": self.base}) or None
