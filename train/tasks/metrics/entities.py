"""Entities in sentences."""

import warnings
from collections.abc import Sequence

from train.tasks.metrics.scores import Scores, check_pairs, load


def entities(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 of entities, as CoNLL counts them (Tjong Kim Sang and De Meulder 2003): right are those with both ends and
    the type right. And the accuracy of tags.

    truth, predicted: tags of each sentence in IOB2. Strict, as in seqeval: what does not begin with B- is no entity. Table: `per_type`.
    """
    check_pairs(truth, predicted)
    for true, given in zip(truth, predicted, strict=True):
        check_pairs(true, given)
    metrics, scheme = load("seqeval.metrics.v1", "seqeval"), load("seqeval.scheme", "seqeval").IOB2
    both = [list(map(list, truth)), list(map(list, predicted))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types without a prediction, whose precision is 0
        reader = load("seqeval.scheme", "seqeval").Entities
        types = sorted({entity.tag for tags in both for sentence in reader(tags, scheme).entities for entity in sentence})
        if not types:
            rows, totals = [], (0.0, 0.0, 0.0)
        else:
            columns = metrics.precision_recall_fscore_support(*both, average=None, scheme=scheme, zero_division=0)
            rows = [
                {"type": kind, "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
                for kind, p, r, f, n in zip(types, *columns, strict=True)
            ]
            totals = metrics.precision_recall_fscore_support(*both, average="micro", scheme=scheme, zero_division=0)[:3]
    pairs = [pair for sentence in zip(*both, strict=True) for pair in zip(*sentence, strict=True)]
    values = dict(zip(("precision", "recall", "f1"), map(float, totals), strict=True))
    return Scores(values | {"token_accuracy": sum(a == b for a, b in pairs) / len(pairs)}, {"per_type": rows})
