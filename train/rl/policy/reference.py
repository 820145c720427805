"""The reference policy of the KL penalty."""

import jax
import jax.numpy as jnp

from train.rl.options import PolicyGradient
from train.runs.directory import Run
from train.runs.start import frozen_of


class Reference:
    """The reference policy of a PolicyGradient's KL penalty: a frozen copy of its parameters, kept as `objective.reference` says.

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
