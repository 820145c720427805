"""Lists of items as people see them: how varied they are, how far they go beyond what everybody has, and variety that is asked for."""

from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.diversity import mmr
from train.tasks.metrics.ranking import diversity_of, ranking_scores

STEPS = 10
"""Between no diversity and all of it: what is asked for counts in tenths."""


def diverse(scores_C: np.ndarray, vectors_CD: np.ndarray, count: int, diversity: float) -> list[int]:
    """Places of `count` candidates, which stand best first. diversity: 0 to 1, the weight of their similarity in maximal marginal
    relevance.

    Greedy choices do not always become more varied with a larger weight. So of the lists of this weight and of all smaller ones, the most
    varied is taken; of equal ones, that of the smallest weight: 0 changes nothing, and more never makes a list less varied.
    """
    lists = [mmr(scores_C, vectors_CD, count, step / STEPS) for step in range(1, round(diversity * STEPS) + 1)]
    found = list(range(min(count, len(scores_C))))
    for one in lists:
        if variety(vectors_CD[one]) > variety(vectors_CD[found]) + 1e-12:
            found = one
    return found


def variety(vectors_KD: np.ndarray) -> float:
    """The mean of 1 - cosine over the pairs of a list (Ziegler et al. 2005); 0 for fewer than two items."""
    units = np.asarray(vectors_KD, np.float64)
    return diversity_of(units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)) if len(units) > 1 else 0.0


def gini(counts_I: np.ndarray) -> float:
    """How unequally lists are spread over all items: 0 where each is shown as often, near 1 where a few are shown always."""
    counts = np.sort(np.asarray(counts_I, np.float64))
    size, total = len(counts), counts.sum()
    return float(((2 * np.arange(1, size + 1) - size - 1) * counts).sum() / (size * total)) if total else 0.0


def novelty(counts_I: np.ndarray, users: int) -> np.ndarray:
    """float64 [I]: -log2 of the share of users that had an item (Zhou et al. 2010), one that nobody had counting as half a user's."""
    return -np.log2(np.clip(counts_I, 0.5, None) / max(users, 1))


def list_measures(
    lists: Sequence[Sequence[int]], targets: Sequence[int], counts_I: np.ndarray, users: int, varieties: Sequence[float] = ()
) -> dict[str, float]:
    """Of lists over all items, best first: hit@10 and ndcg@10 of the one item that was right, coverage, gini, novelty, and diversity where
    the lists' varieties are given. counts_I: users that had each item, of `users`."""
    found = ranking_scores([{target} for target in targets], lists, ks=(10,), items=len(counts_I)).values
    shown = [item for one in lists for item in one[:10]]
    rarity_I = novelty(counts_I, users)
    measures = {
        "ndcg@10": found["ndcg@10"],
        "hit@10": found["recall@10"],
        "coverage": found["coverage@10"],
        "gini": gini(np.bincount(shown, minlength=len(counts_I))),
        "novelty": float(rarity_I[shown].mean()) if shown else 0.0,
    }
    return measures | ({"diversity": float(np.mean(varieties))} if len(varieties) else {})
