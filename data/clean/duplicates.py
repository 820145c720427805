"""Which of many texts are copies: exactly, or nearly, by MinHash with every candidate compared (Lee et al. 2022, section 4.2).

Groups are the connected components of pairs that are alike enough. They do not depend on the order of the texts; which of a group stays
does: the first.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LEADERS = 16
"""Texts of a bucket that all others in it are compared with. In buckets of up to so many and one, every pair is."""

Compare = Callable[[np.ndarray], np.ndarray]
"""int64 [n, 2] of texts to their Jaccard similarity, float64 [n]."""


class Copies(NamedTuple):
    """texts: int64, those to remove; kept: the text that stays in place of each; similarity: the greatest with any text of the group."""

    texts: np.ndarray
    kept: np.ndarray
    similarity: np.ndarray


def exact_copies(digests: np.ndarray) -> Copies:
    """Texts with the digest, uint64 [n, 2], of an earlier one."""
    _, first, inverse = np.unique(digests.view([("high", "<u8"), ("low", "<u8")]).ravel(), return_index=True, return_inverse=True)
    original = first[inverse.reshape(-1)]  # np.unique gives the earliest
    later = np.flatnonzero(original != np.arange(len(digests)))
    return Copies(later, original[later], np.ones(len(later)))


def near_copies(bands: Iterable[np.ndarray], size: int, rank: np.ndarray, compare: Compare, threshold: float) -> Copies:
    """Texts that are alike, with Jaccard similarity of at least `threshold`, to an earlier one, or to one that is.

    bands: for each band an array uint64 [size], what it says of each text; 0 for those that take no part. rank: int64 [size], an order of
    the texts that does not depend on their places, by which the leaders of a bucket are chosen.
    """
    first, others = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2), np.int64)]
    for band in bands:
        for number, pairs in enumerate(_pairs(band, rank)):
            (others if number else first).append(pairs)
    one, edges = _compared(np.concatenate(first), compare, threshold)
    rest = np.unique(np.concatenate(others), axis=0)
    label = _components(edges, size)
    two, more = _compared(rest[label[rest[:, 0]] != label[rest[:, 1]]], compare, threshold)  # within a group nothing would change
    edges, similarity = np.concatenate([edges, more]), np.concatenate([one, two])
    label = _components(edges, size)
    earliest = np.full(size, size)
    np.minimum.at(earliest, label, np.arange(size))
    kept = earliest[label]
    later = np.flatnonzero(kept != np.arange(size))
    best = np.zeros(size)
    np.maximum.at(best, edges.ravel(), np.repeat(similarity, 2))
    return Copies(later, kept[later], best[later])


def _pairs(band: np.ndarray, rank: np.ndarray) -> Iterator[np.ndarray]:
    """Of each bucket: all with its first leader, then with its second, and so on."""
    order = np.lexsort((rank, band))
    order = order[band[order] > 0]
    values = band[order]
    begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    counts = np.diff(begins, append=len(values))
    begins, counts = begins[counts > 1], counts[counts > 1]
    for leader in range(LEADERS):
        inside = counts > leader + 1
        begin, rest = begins[inside] + leader, counts[inside] - leader - 1
        if not len(begin):
            return
        leaders = np.repeat(begin, rest)
        followers = leaders + 1 + np.arange(len(leaders)) - np.repeat(np.cumsum(rest) - rest, rest)
        yield np.sort(np.stack([order[leaders], order[followers]], axis=1), axis=1)


def _compared(pairs, compare, threshold):
    pairs = np.unique(pairs, axis=0)
    similarity = compare(pairs) if len(pairs) else np.zeros(0)
    alike = similarity >= threshold
    return similarity[alike], pairs[alike]


def _components(edges, size):
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]
