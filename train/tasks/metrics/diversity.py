"""How much texts, or the items of a list, differ from one another."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import load


def distinct(texts: Sequence[Sequence[str]], size: int) -> float:
    """Different n-grams over all n-grams of texts, given as words or characters (Li et al. 2016, distinct-n). NaN where there are none."""
    grams = [tuple(text[place : place + size]) for text in texts for place in range(len(text) - size + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """The mean BLEU, 0 to 100, of each text against all others (Zhu et al. 2018): high where a model writes the same again."""
    library = load("sacrebleu.metrics", "sacrebleu")
    if len(texts) < 2:
        return float("nan")
    metric, joined = library.BLEU(tokenize="none", effective_order=True), [" ".join(text) for text in texts]
    return float(np.mean([metric.sentence_score(text, joined[:place] + joined[place + 1 :]).score for place, text in enumerate(joined)]))


def repeats(text: Sequence[str], *, size: int = 4, most: int = 3, within: int = 200) -> bool:
    """Whether an n-gram comes more than `most` times in the first `within` words: a loop."""
    text = text[:within]
    grams = Counter(tuple(text[place : place + size]) for place in range(len(text) - size + 1))
    return max(grams.values(), default=0) > most


def longest_copy(text: Sequence[str], known: Sequence[Sequence[str]], least: int = 2) -> int:
    """Words of the longest part of a text that stands so in one of the known ones; 0 for parts shorter than `least`."""
    found = least - 1
    starts: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, other in enumerate(known):
        for place in range(len(other) - least + 1):
            starts.setdefault(tuple(other[place : place + least]), []).append((number, place))
    for begin in range(len(text) - least + 1):
        for number, place in starts.get(tuple(text[begin : begin + least]), ()):
            other, length = known[number], least
            while begin + length < len(text) and place + length < len(other) and text[begin + length] == other[place + length]:
                length += 1
            found = max(found, length)
    return found if found >= least else 0


def mauve(written_ND: np.ndarray, true_MD: np.ndarray, *, clusters: int = 0, scale: float = 5.0, seed: int = 0) -> float:
    """How near the spread of texts is to that of people's, 0 to 1: the area under the divergence curve of two histograms over clusters of
    their vectors (Pillutla et al. 2021, eq. 2 and 3). It depends on the vectors and the number of texts: compare like with like.

    clusters: 0 takes a tenth of the texts.
    """
    cluster = load("sklearn.cluster", "scikit-learn")
    both = np.concatenate([written_ND, true_MD]).astype(np.float64)
    count = min(clusters or max(2, len(both) // 10), len(both))
    labels = cluster.KMeans(count, n_init=5, random_state=seed).fit_predict(both)
    p, q = (np.bincount(own, minlength=count) + 0.5 for own in (labels[: len(written_ND)], labels[len(written_ND) :]))
    p, q = p / p.sum(), q / q.sum()
    weights_W1 = np.linspace(0.01, 0.99, 99)[:, None]
    mixed_WC = weights_W1 * p + (1 - weights_W1) * q
    x, y = (np.exp(-scale * (one * np.log(one / mixed_WC)).sum(1)) for one in (q, p))
    order = np.lexsort((-y, x))
    x, y = np.concatenate([[0.0], x[order], [1.0]]), np.concatenate([[1.0], y[order], [0.0]])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


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
