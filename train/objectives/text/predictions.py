"""What a pass of a model predicts over the vocabulary, so that another model can learn from it."""

from typing import Any, NamedTuple

from model.heads import Head, Scores, score_tokens


class Predicted(NamedTuple):
    """Predictions at K places of each row: their head, the right tokens int32 [B, K], and weights float32 [B, K], 0 for places without a
    loss. output: what else a loss makes of the pass."""

    head: Head
    targets_BK: Any
    weights_BK: Any
    output: Any = None


def vocabulary_divergence(own: Predicted, theirs: Predicted, temperature: float, softcap: float, shards: int, symmetric: bool = False):
    """(sum over places of KL(theirs || own) at a temperature, in nats; the number of places): Hinton et al. 2015, sec. 2. symmetric: of
    both ways together."""
    how: dict[str, Any] = {"softcap": softcap, "temperature": temperature, "shards": shards, "counted_BT": own.weights_BK > 0}
    ways = ("reverse_kl", "kl") if symmetric else ("reverse_kl",)
    scores = score_tokens(own.head, own.targets_BK, want=ways, other=theirs.head, **how)
    return sum((getattr(scores, way) * own.weights_BK).sum() for way in ways), own.weights_BK.sum()


def smoothed(scores: Scores, smoothing: float):
    """Nats per token [B, T] of targets of which a share is spread over the vocabulary (Vaswani et al. 2017, sec. 5.4). scores: nll, and
    mean_nll where smoothing is not 0."""
    if not smoothing:
        return scores.nll
    assert scores.nll is not None and scores.mean_nll is not None
    return (1.0 - smoothing) * scores.nll + smoothing * scores.mean_nll
