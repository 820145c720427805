"""Several adapters on one base in one batch: each row chooses its own."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from train.adapters.low_rank import NAME
from train.adapters.method import at, found_at
from train.kinds import Path


def side_by_side(adapters: Sequence):
    """One tree that holds all adapters: terms of rank r1, r2, ... as one of rank r1 + r2 + ..., and whose each column is, as `owner`.

    adapters: what each of them lays over the base (`Method.read`); they may differ in rank and in what they adapt. ValueError for adapters
    that are more than terms of low rank.
    """
    parts: dict[Path, list] = {}
    for number, tree in enumerate(adapters):
        if others := [path for path in flatten_dict(tree) if path[-2:] not in ((NAME, "a"), (NAME, "b"))]:
            raise ValueError(f"adapter {number} has {'/'.join(others[0])}, and only terms of low rank can stand side by side")
        for path, leaf in found_at(tree, NAME).items():
            owner = jnp.full((*leaf["a"].shape[:-2], leaf["a"].shape[-1]), number, jnp.int32)
            parts.setdefault(path, []).append((leaf["a"], leaf["b"], owner))
    whole = {}
    for path, found in parts.items():
        for name, leaves, axis in zip(("a", "b", "owner"), zip(*found, strict=True), (-1, -2, -1), strict=True):
            whole[*path, NAME, name] = jnp.concatenate(leaves, axis)
    return unflatten_dict(whole)


def for_rows(together, adapter_B):
    """The tree of `side_by_side`, for a batch whose rows use the adapters of these numbers; a number of none leaves a row to the base.

    The rows of what the model reads must be those of the batch, in its order.
    """

    def masked(leaf):
        rows = (leaf["owner"][..., None, :] == jnp.asarray(adapter_B)[:, None]).astype(jnp.float32)
        return {"a": leaf["a"], "b": leaf["b"], "rows": rows}

    return at(together, NAME, masked)
