"""Whether an explanation depends on what a model has learned: the parameter randomisation test of Adebayo et al. (2018, sec. 3)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from train.explain.subject import Subject

DRAWS = 3
"""Times that parameters are drawn anew."""


def sanity_check(subject: Subject, attributions: np.ndarray, method: Callable[[Subject], np.ndarray], seed: int = 0) -> dict[str, float]:
    """{"rank_correlation", "chance"}: Spearman's correlation of absolute attributions with those of the same answer when all parameters are
    drawn anew, the mean over DRAWS; and the standard deviation of such a mean where explanations have nothing to do with each other.

    Near 1 the method would explain a model that has learned nothing alike. Drawing anew only the head and some layers below it, as the
    paper also does, would say as much of the model as of the method: where embeddings decide, little changes. method: gives the
    attributions of a subject. UserError for a single token.
    """
    count = int(subject.free_T.sum())
    if count < 2:
        raise UserError("--sanity-check compares orders of tokens, and there is one", "Give a longer text, or leave it out.")
    found = []
    for draw in range(DRAWS):
        params = drawn_anew(subject.params, jax.random.fold_in(jax.random.key(seed), draw))
        other = method(dataclasses.replace(subject, params=params))
        found.append(rank_correlation(*(np.abs(one[subject.free_T]) for one in (attributions, other))))
    return {"rank_correlation": float(np.mean(found)), "chance": 1 / math.sqrt(DRAWS * (count - 1))}


def drawn_anew(params, key) -> Any:
    """Parameters of which nothing that was learned is left but their scale: each array is drawn from the normal distribution with its own
    mean and standard deviation. Those of a start would not do: some heads start from zeros, and all explanations are alike there."""
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten([_drawn(jnp.asarray(leaf), key) for leaf, key in zip(leaves, jax.random.split(key, len(leaves)), strict=True)])


def _drawn(leaf, key):
    return jax.device_put(leaf.mean() + leaf.std() * jax.random.normal(key, leaf.shape, leaf.dtype), leaf.sharding)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, of two arrays [N]; equal values share their mean rank. 0 where all of one are equal, 1 where all of both are."""
    ranks = [_ranks(one) for one in (first, second)]
    spread = [float(np.square(one).sum()) for one in ranks]
    if not all(spread):
        return float(not any(spread))
    return float(ranks[0] @ ranks[1] / math.sqrt(spread[0] * spread[1]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Their mean is 0."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place] - (len(values) - 1) / 2
