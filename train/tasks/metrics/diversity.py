"""Lists whose items differ from one another."""

import numpy as np


def mmr(scores_C: np.ndarray, vectors_CD: np.ndarray, count: int, weight: float) -> list[int]:
    """Places of `count` candidates, each in turn the one with the highest (1 - weight) * relevance - weight * similarity
    (Carbonell and Goldstein 1998; their lambda is 1 - weight).

    relevance: the scores, put between 0 for the worst candidate and 1 for the best one. similarity: the largest cosine to those taken
    before.
    """
    scores = np.asarray(scores_C, np.float64)
    relevance = (scores - scores.min()) / max(scores.max() - scores.min(), 1e-12)
    units = np.asarray(vectors_CD, np.float64)
    units = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    similar, taken = np.zeros(len(scores)), np.zeros(len(scores), bool)
    found: list[int] = []
    while len(found) < min(count, len(scores)):
        value = (1 - weight) * relevance - weight * similar
        best = int(np.where(taken, -np.inf, value).argmax())
        cosines = units @ units[best]
        similar = np.maximum(similar, cosines) if found else cosines
        taken[best] = True
        found.append(best)
    return found
