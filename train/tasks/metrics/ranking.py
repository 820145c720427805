"""Lists of items, best first: of a search, or of recommendations."""

import functools
from collections.abc import Collection, Sequence

import numpy as np

from data.rows.order import fold
from train.tasks.metrics.scores import Additive, Scores, check_pairs, mean_of, ratio_of


def ranking_scores(
    relevant: Sequence[Collection[int]],
    ranked: Sequence[Sequence[int]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    items: int = 0,
    vectors: np.ndarray | None = None,
) -> Scores:
    """recall@k, ndcg@k and mrr@k, means over lists; coverage@k and, with vectors, diversity@k. All from 0 to 1 (diversity: to 2).

    relevant: the true items of each list, at least one. ranked: items, best first, none twice. items: how many there are in all; 0: no
    coverage. vectors: [items, D] of what each item is. recall: found ones over true ones. ndcg (Järvelin and Kekäläinen 2002): true ones
    count 1, over the best possible list. mrr: 1 / the place of the first true one. coverage: the share of all items that are in some list.
    diversity: the mean of 1 - cosine over the pairs of a list (Ziegler et al. 2005).
    """
    check_pairs(relevant, ranked)
    if any(len(set(order)) != len(order) for order in ranked) or not all(map(len, relevant)):
        raise ValueError("an item stands twice in a list, or nothing is relevant to one")
    each = [list_scores(order, true, ks) for order, true in zip(ranked, relevant, strict=True)]
    measures: dict[str, Additive] = {name: mean_of([one[name] for one in each]) for name in each[0]}
    found = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    for k in ks if items else ():
        found[f"coverage@{k}"] = len({item for order in ranked for item in order[:k]}) / items
    if vectors is not None:
        units = np.asarray(vectors, np.float64)
        units = units / np.maximum(np.linalg.norm(units, axis=-1, keepdims=True), 1e-12)
        for k in ks:
            there = np.array([len(order[:k]) > 1 for order in ranked])
            if there.any():
                each_of = np.array([diversity_of(units[list(order[:k])]) if one else 0.0 for order, one in zip(ranked, there, strict=True)])
                found[f"diversity@{k}"] = float(each_of[there].mean())
                measures[f"diversity@{k}"] = ratio_of(each_of, there)
    return Scores(found, {}, measures)


def list_scores(order: Sequence[int], true: Collection[int], ks: Sequence[int]) -> dict[str, float]:
    """recall@k, ndcg@k and mrr@k of one list."""
    hits = np.array([item in true for item in order], np.float64)
    gains = 1 / np.log2(np.arange(2, max(max(ks), len(order)) + 2))
    found = {}
    for k in ks:
        top = hits[:k]
        first = np.flatnonzero(top)
        found[f"recall@{k}"] = float(top.sum() / len(true))
        found[f"ndcg@{k}"] = float((top * gains[: len(top)]).sum() / gains[: min(k, len(true))].sum())
        found[f"mrr@{k}"] = 1 / (first[0] + 1) if len(first) else 0.0
    return found


def diversity_of(units_KD: np.ndarray) -> float:
    """Over pairs of different items: the sum of all cosines is the square of the sum's length."""
    k = len(units_KD)
    pairs = (units_KD.sum(0) ** 2).sum() - (units_KD**2).sum()
    return float(1 - pairs / (k * (k - 1)))


def unseen(scores_I: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Scores in which items that a user has had are -inf."""
    found = np.array(scores_I, np.float32)
    found[seen] = -np.inf
    return found


def best(scores_I: np.ndarray, count: int) -> list[int]:
    """The items with the highest scores, best first, without those of -inf. Of equal ones a hash decides: the order of a file may tell
    which are liked."""
    ties = _ties(len(scores_I))
    order = ties[np.argsort(-scores_I[ties], kind="stable")[:count]]
    return order[np.isfinite(scores_I[order])].tolist()


@functools.lru_cache(maxsize=4)
def _ties(items: int) -> np.ndarray:
    return np.argsort(fold(0, np.arange(items)), kind="stable")
