"""What a pass of a model predicts over the vocabulary, so that another model can learn from it."""

from typing import Any, NamedTuple

from model.heads import Head, score_tokens


class Predicted(NamedTuple):
    """Predictions at K places of each row: their head, the right tokens int32 [B, K], and weights float32 [B, K], 0 for places without a
    loss. output: what else a loss makes of the pass."""

    head: Head
    targets_BK: Any
    weights_BK: Any
    output: Any = None


def vocabulary_divergence(own: Predicted, theirs: Predicted, temperature: float, softcap: float, shards: int):
    """(sum over places of KL(theirs || own) at a temperature, in nats; the number of places): Hinton et al. 2015, sec. 2."""
    how: dict[str, Any] = {"softcap": softcap, "temperature": temperature, "shards": shards, "counted_BT": own.weights_BK > 0}
    scores = score_tokens(own.head, own.targets_BK, want=("reverse_kl",), other=theirs.head, **how)
    return (scores.reverse_kl * own.weights_BK).sum(), own.weights_BK.sum()
