"""Corrected texts against their originals and what people made of them."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Additive, Scores, check_pairs, mean_of

ORDER = 4
"""The longest n-grams that GLEU counts."""


def gleu(sources: Sequence[str], references: Sequence[Sequence[str]], predicted: Sequence[str]) -> Scores:
    """GLEU, 0 to 100, of words parted by spaces (Napoles et al. 2015; 2016, without tuning): n-grams that a correction shares with a
    reference, less those that it kept of its source where the reference changed them, times BLEU's penalty for short texts.

    Their program draws one reference for each sentence 500 times and takes the mean of the scores; here what each sentence adds is the mean
    over its references, which is what that mean tends to for many sentences.
    """
    check_pairs(references, predicted)
    check_pairs(sources, predicted)
    parts_NP = np.array([_parts(*one) for one in zip(sources, references, predicted, strict=True)])
    measure = Additive(parts_NP, _gleu)
    return Scores({"gleu": gleu_of(parts_NP.sum(0))}, {}, {"gleu": measure})


def gleu_of(sums: np.ndarray) -> float:
    """GLEU of what sentences add, together. sums: [10], of the rows of `gleu`'s measure."""
    return float(_gleu(sums[None])[0])


def _parts(source: str, references: Sequence[str], predicted: str) -> np.ndarray:
    """Of one sentence, the mean over its references: words written, words of the reference, and for each length n-grams that count and
    those there are."""
    written = predicted.split()
    found = []
    for reference in references:
        true = reference.split()
        parts: list[float] = [len(written), len(true)]
        for length in range(1, ORDER + 1):
            own, right, before = (_grams(words, length) for words in (written, true, source.split()))
            kept = Counter({gram: count for gram, count in before.items() if gram not in right})
            parts += [max((own & right).total() - (own & kept).total(), 0), max(len(written) + 1 - length, 0)]
        found.append(parts)
    return np.mean(found, axis=0)


def _grams(words: Sequence[str], length: int) -> Counter:
    return Counter(tuple(words[place : place + length]) for place in range(len(words) + 1 - length))


def _gleu(sums: np.ndarray) -> np.ndarray:
    """Of sums [R, 10]."""
    counted, there = sums[:, 2::2], sums[:, 3::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where((counted > 0).all(1), np.exp(np.log(counted / there).mean(1)), 0.0)
        short = np.exp(np.minimum(0.0, 1.0 - sums[:, 1] / sums[:, 0]))
    return 100.0 * np.where(sums[:, 0] > 0, precision * short, 0.0)


def edit_scores(proposed: Sequence[set], true: Sequence[Sequence[set]], beta: float = 0.5) -> Scores:
    """Precision, recall and F_beta of edits (Dahlmeier and Ng 2012): of each sentence against that one of its references with which F of
    all sentences so far is highest. proposed, true: edits that can be compared, of each sentence, and of each of its references.

    A sentence without edits has precision 1, and one whose reference has none recall 1, as in their program.
    """
    check_pairs(true, proposed)
    hits = given = wanted = 0
    for own, references in zip(proposed, true, strict=True):
        each = [(hits + len(own & one), given + len(own), wanted + len(one)) for one in references]
        hits, given, wanted = max(each, key=lambda sums: (_f(sums[0], sums[1], sums[2], beta), -sums[2]))
    return Scores(
        {
            "edit_precision": hits / given if given else 1.0,
            "edit_recall": hits / wanted if wanted else 1.0,
            f"edit_f{beta:g}": _f(hits, given, wanted, beta),
        }
    )


def _f(hits: int, given: int, wanted: int, beta: float) -> float:
    precision, recall = hits / given if given else 1.0, hits / wanted if wanted else 1.0
    below = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / below if below else 0.0


def sentence_scores(sources: Sequence[str], targets: Sequence[str], predicted: Sequence[str]) -> Scores:
    """Of spelling, sentence by sentence, as SIGHAN counts it (Tseng et al. 2015): precision, recall and F1 of those corrected, where only
    the whole right sentence counts, and the share of right sentences that were changed."""
    check_pairs(sources, predicted)
    check_pairs(targets, predicted)
    wrong = np.array([source != target for source, target in zip(sources, targets, strict=True)])
    changed = np.array([source != text for source, text in zip(sources, predicted, strict=True)])
    right = np.array([text == target for text, target in zip(predicted, targets, strict=True)])
    hits = float((changed & right & wrong).sum())
    precision = hits / changed.sum() if changed.any() else math.nan
    recall = hits / wrong.sum() if wrong.any() else math.nan
    f1 = 2 * hits / (changed.sum() + wrong.sum()) if changed.any() or wrong.any() else math.nan
    spoiled = mean_of(changed[~wrong]) if (~wrong).any() else None
    return Scores(
        {"sentence_precision": float(precision), "sentence_recall": float(recall), "sentence_f1": float(f1)}
        | ({"spoiled": float(changed[~wrong].mean())} if spoiled else {}),
        {},
        {"spoiled": spoiled} if spoiled else {},
    )
