"""Vectors of texts by their words, for items whose texts no encoder reads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from train.tasks.words import words

ROUNDS = 2
"""Of power iteration: each makes the subspace more exact."""
SHARED = 0.006
"""Directions are weighed by s / sqrt(s² + SHARED · I), s being their singular value. Chosen with recall of new papers in sight."""
SPARE = 16
"""Directions more than are kept, which make those that are kept more exact."""


def word_vectors(texts: Sequence[str]) -> Any:
    """Sparse float32 [I, D]: unit vectors of the words of texts, each weighed by how rare it is (TF-IDF). Zeros for texts without words."""
    numbers: dict[str, int] = {}
    each = [np.unique([numbers.setdefault(word, len(numbers)) for word in words(text)] or np.zeros(0, np.int64)) for text in texts]
    ends = np.cumsum([0, *map(len, each)])
    columns = np.concatenate([np.zeros(0, np.int64), *each])
    found_ID = sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(texts), max(len(numbers), 1)))
    rarity_D = np.log((1 + len(texts)) / (1 + np.bincount(columns, minlength=found_ID.shape[1]))) + 1
    found_ID = found_ID.multiply(rarity_D.astype(np.float32)).tocsr()
    length_I = np.sqrt(found_ID.multiply(found_ID).sum(1))
    return found_ID.multiply(1 / np.maximum(length_I, 1e-9)[:, None]).tocsr().astype(np.float32)


def latent_words(vectors_ID: Any, width: int) -> np.ndarray:
    """float32 [I, E], E at most `width`: sparse vectors along the directions in which they differ most (latent semantic analysis,
    Deerwester et al. 1990), those that texts share most being shrunk, by a randomised decomposition (Halko et al. 2011, alg. 4.4) of a
    fixed seed. Unit vectors; zeros stay zeros."""
    size = min(width, *vectors_ID.shape)
    drawn_DK = np.random.default_rng(0).normal(size=(vectors_ID.shape[1], size + SPARE)).astype(np.float32)
    basis_IK = _orthogonal(vectors_ID @ drawn_DK)[0]
    for _ in range(ROUNDS):
        basis_IK = _orthogonal(vectors_ID @ _orthogonal(vectors_ID.T @ basis_IK)[0])[0]
    _, turned_KK, singular_K = _orthogonal(vectors_ID.T @ basis_IK)
    found_IE = (basis_IK @ (turned_KK * (singular_K / np.sqrt(singular_K**2 + SHARED * vectors_ID.shape[0]))))[:, :size]
    found_IE[np.diff(vectors_ID.indptr) == 0] = 0
    length_I = np.linalg.norm(found_IE, axis=1, keepdims=True)
    return (found_IE / np.maximum(length_I, 1e-9)).astype(np.float32)


def _orthogonal(x_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The left and right singular vectors of a matrix with few columns, and its singular values, the largest first. By its Gram matrix,
    which takes a tenth of the time of a QR decomposition; what is below the rounding of that has vectors of zeros."""
    squares_K, right_KK = np.linalg.eigh((x_NK.T @ x_NK).astype(np.float64))
    squares_K, right_KK = squares_K[::-1], right_KK[:, ::-1]
    there_K = squares_K > squares_K[0] * 1e-6
    singular_K = np.sqrt(np.where(there_K, squares_K, 0))
    left_NK = x_NK @ (right_KK * np.where(there_K, 1 / np.maximum(singular_K, 1e-30), 0)).astype(np.float32)
    return left_NK, right_KK.astype(np.float32), singular_K.astype(np.float32)
