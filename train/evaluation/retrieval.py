"""What an aligned space is good for: finding one side of a pair by the other, and naming classes that were never trained on."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from data.media.batches import MediaBatch
from data.tokenizer import Tokenizer
from model.media.towers import Texts
from train.objectives.media.alignment import AlignmentLoss, unit
from train.objectives.media.views import OnRows

RECALLS = (1, 5, 10)


def embed(objective: OnRows, params, batches: Iterable[MediaBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [pairs, E] of the left and the right sides of all pairs."""
    whole = objective.objective
    assert isinstance(whole, AlignmentLoss)

    @jax.jit
    def both(params, batch):
        pairs = objective.view(batch)
        towers = ((whole.left, params["left"], pairs.left), (whole.right, params["right"], pairs.right))
        return *(unit(tower(own, side, None)) for tower, own, side in towers), pairs.valid

    found = []
    for batch in batches:
        left, right, valid = jax.device_get(both(params, batch))
        found.append((left[valid > 0], right[valid > 0]))
    left, right = zip(*found, strict=True)
    return np.concatenate(left), np.concatenate(right)


def recalls(left_NE: np.ndarray, right_NE: np.ndarray) -> dict[str, float]:
    """recall@k both ways: how often the other side of a pair is among the k nearest of all; what is as near counts against it."""
    cosine_NN = left_NE @ right_NE.T
    found = {}
    for name, cosine in (("right", cosine_NN), ("left", cosine_NN.T)):
        own = np.diagonal(cosine)[:, None]
        nearer = (cosine >= own).sum(1) - 1
        found |= {f"{name}_recall@{k}": float((nearer < k).mean()) for k in RECALLS}
    return found


def embed_texts(objective: OnRows, params, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Unit vectors [texts, E] of the right tower, which must read text."""
    ids = [[*tokenizer.encode(text).tolist(), tokenizer.specials["document_end"]] for text in texts]
    width = max(map(len, ids))
    tokens, segments = np.zeros((len(ids), width), np.int32), np.zeros((len(ids), width), np.int32)
    for row, one in enumerate(ids):
        tokens[row, : len(one)], segments[row, : len(one)] = one, 1
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape)
    right: Callable = objective.objective.right
    vectors_NSE = jax.jit(lambda params: right(params, Texts(tokens, segments, positions), None))(params["right"])
    return np.asarray(unit(vectors_NSE[:, 0]))


def zero_shot(left_NE: np.ndarray, classes_KE: np.ndarray, labels_N: np.ndarray) -> float:
    """Share of left sides whose nearest class is their own."""
    return float(((left_NE @ classes_KE.T).argmax(1) == labels_N).mean())
