"""LoRA: a trained term of low rank beside each frozen kernel."""

import math

import jax
import jax.numpy as jnp

from model.adapters import column_norms, matrix_of
from train.adapters.method import FLOAT, Method, at, found_at, key_of, projections
from train.adapters.options import LoRA
from train.runs.parts import get, put, without

NAME = "low_rank"
"""Under which its leaves stand beside a kernel."""


class Factored(Method):
    """What all methods with terms of low rank share: how the terms are merged."""

    def merged(self, base, trained):
        return merged(self.joined(base, trained))


class LowRankTerms(Factored):
    """LoRA (Hu et al. 2021): W + scale * a b, a [inputs, rank] being drawn and b [rank, outputs] zero at the start.

    DoRA (Liu et al. 2024) has a `magnitude` [outputs] beside them, which begins as the norms of the kernel's columns.
    """

    options: LoRA

    @property
    def scale(self) -> float:
        return self.options.alpha / (math.sqrt(self.options.rank) if self.options.rs else self.options.rank)

    def fresh(self, key, boxed):
        found, rank = {}, self.options.rank
        for one in projections(boxed, self.options.targets):
            place, (into, out) = (*one.path[:-1], NAME), one.names[-2:]
            # Uniform, as in PEFT, so that learning rates carry over.
            bound = one.inputs**-0.5
            a = jax.random.uniform(key_of(key, one.path), (*one.stack, one.inputs, rank), FLOAT, -bound, bound)
            found[*place, "a"] = one.box(a, into, None)
            found[*place, "b"] = one.box(jnp.zeros((*one.stack, rank, one.outputs), FLOAT), None, out)
            if self.options.dora:
                found[*place, "magnitude"] = one.box(jnp.ones((*one.stack, one.outputs), FLOAT), out)
        return found

    def begun(self, base, trained):
        if not self.options.dora:
            return trained
        for path, leaf in found_at(trained, NAME).items():
            norms = column_norms(stacked_matrix(get(base, (*path, "kernel")), leaf["a"].shape[-2], stacked=leaf["a"].ndim == 3))
            trained = put(trained, (*path, NAME, "magnitude"), jax.device_put(norms, leaf["magnitude"].sharding))
        return trained

    def read(self, base, trained, key=None):
        found = at(trained, NAME, lambda leaf: leaf | {"b": self.scale * leaf["b"]})
        if key is None or not self.options.dropout:
            return found
        for path, leaf in found_at(found, NAME).items():
            kept = jax.random.bernoulli(key_of(key, path), 1.0 - self.options.dropout, leaf["a"].shape[:-1])
            found = put(found, (*path, NAME, "a"), jnp.where(kept[..., None], leaf["a"] / (1.0 - self.options.dropout), 0))
        return found


def merged(whole):
    """Parameters with every term of low rank added to its kernel, float32, and gone."""
    for path, leaf in found_at(whole, NAME).items():
        kernel = get(whole, (*path, "kernel"))
        matrix = stacked_matrix(kernel, leaf["a"].shape[-2], stacked=leaf["a"].ndim == 3) + leaf["a"] @ leaf["b"]
        if "magnitude" in leaf:
            matrix *= (leaf["magnitude"] / column_norms(matrix))[..., None, :]
        whole = put(without(whole, (*path, NAME)), (*path, "kernel"), matrix.reshape(kernel.shape))
    return whole


def stacked_matrix(kernel, inputs: int, *, stacked: bool):
    """A kernel, quantized or not, as float32 [layers, inputs, outputs], or [inputs, outputs] where it is not stacked."""
    return jax.vmap(lambda one: matrix_of(one, inputs))(kernel) if stacked else matrix_of(kernel, inputs)
