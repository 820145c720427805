"""Training by adapters: an objective on the trained leaves alone."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from model.decoding.quantize import Quantized, quantize
from train.adapters.low_rank import stacked_matrix
from train.adapters.method import Method, overlaid
from train.kinds import Adapters, Bound, realise


def method_of(experiment) -> Method | None:
    """What the adapters of an experiment do; None where it has none."""
    return None if type(experiment.adapters) is Adapters else realise(experiment.adapters, experiment)


@dataclasses.dataclass(frozen=True)
class AdaptedLoss:
    """A loss of the trained leaves. frozen: {"base": the other parameters}, and a teacher's; where the loss reads a reference, it is that
    model without adapters."""

    loss: Callable
    method: Method
    reference: tuple[str, ...]

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        base = frozen["base"]
        whole = self.method.joined(base, params, None if key is None else jax.random.fold_in(key, ADAPTERS))
        more = {name: params for name, params in frozen.items() if name != "base"} | (reference_in(base, self.reference) or {})
        terms, metrics, carry = self.loss(whole, batch, key, frozen=more or None, carry=carry)
        return terms | self.method.terms(params), metrics, carry


ADAPTERS = 0x61646170
"""Folded into the key of a step for what is random in adapters."""


def reporting(update: Callable, method: Method) -> Callable:
    """An update that also gives the metrics of a method."""

    def call(state, frozen, batch):
        state, metrics = update(state, frozen, batch)
        return state, metrics | method.metrics(state.opt_state)

    return call


def reference_in(base, names: tuple[str, ...]):
    """What an objective reads as frozen, given the names of its reference: the base itself, not a copy."""
    return {"reference": {name: base[name] for name in names if name in base}} if names else None


def trained_bound(bound: Bound, method: Method) -> Bound:
    """An objective as it is trained: its parameters are those of the trained leaves alone."""
    if bound.refresh is not None:
        raise UserError("adapters: this objective puts its parameters right now and then, and all of them", "Leave --adapters out.")

    def start(key):
        return fresh_leaves(bound, method, key)

    loss = AdaptedLoss(bound.loss, method, bound.reference)
    return dataclasses.replace(bound, loss=loss, start=start, inherit=None, outputs=None)


def fresh_leaves(bound: Bound, method: Method, key):
    """The trained leaves, boxed with logical axis names: those of adapters, and the others among all fresh parameters."""
    whole = flatten_dict(bound.start(key))
    own = {path: box for path, box in whole.items() if method.trains(path)}
    found = own | method.fresh(key, whole)
    if not found:
        raise UserError(f"adapters: the model has nothing for {type(method.options).__name__} to train", "Choose another kind.")
    return unflatten_dict(found)


def base_in_eight_bits(base):
    """The frozen kernels in eight bits; tables, norms and biases stay. UserError for what cannot be."""
    try:
        return jax.jit(lambda base: quantize(base, tables=False))(base)
    except ValueError as error:
        raise UserError(str(error), "Leave --adapters.int8 out.") from None


def as_rounded(base):
    """What `base_in_eight_bits` stands for, as the plain model has it: the rounded kernels in float32 and in their shapes."""

    def rounded(old, new):
        return stacked_matrix(new, new.shape[-1], stacked=new.values.ndim == 3).reshape(old.shape) if isinstance(new, Quantized) else old

    return jax.tree.map(rounded, base, base_in_eight_bits(base), is_leaf=lambda leaf: not isinstance(leaf, dict))


def joined(method: Method, base, trained):
    """All parameters that the model reads; those of the base are not copied."""
    return overlaid(base, method.compiled_read(base, trained))


def begun_on(method: Method, base, fresh, said: Callable[[str], None]):
    """Fresh trained leaves as they begin on a base: those that the base has are taken from it, as copies. said: is told how many."""
    there = flatten_dict(base)

    def taken(path, leaf):
        value = there.get(path, leaf)
        if isinstance(value, Quantized):  # what is trained is trained in float32
            value = stacked_matrix(value, value.shape[-1], stacked=value.values.ndim == 3).reshape(leaf.shape)
        return jax.device_put(jnp.copy(value), leaf.sharding)

    begun = unflatten_dict({path: taken(path, leaf) for path, leaf in flatten_dict(fresh).items()})
    trained, frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (fresh, base))
    said(f"{type(method.options).__name__} trains {trained:,} parameters beside {frozen:,} ({trained / frozen:.2%})")
    return method.begun(base, begun)
