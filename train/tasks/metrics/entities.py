"""Entities in sentences."""

import warnings
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Scores, check_pairs, load, ratio_of


def entity_scores(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Precision, recall and F1 of entities, as CoNLL counts them (Tjong Kim Sang and De Meulder 2003): right are those with both ends and
    the type right. And the accuracy of tags.

    truth, predicted: tags of each sentence in IOB2. Strict, as in seqeval: what does not begin with B- is no entity. Table: `per_type`.
    """
    check_pairs(truth, predicted)
    for true, given in zip(truth, predicted, strict=True):
        check_pairs(true, given)
    metrics, schemes = load("seqeval.metrics.v1", "seqeval"), load("seqeval.scheme", "seqeval")
    both = [list(map(list, truth)), list(map(list, predicted))]
    found = [[{one.to_tuple()[1:] for one in sentence} for sentence in schemes.Entities(tags, schemes.IOB2).entities] for tags in both]
    types = sorted({kind for side in found for sentence in side for kind, _, _ in sentence})
    rows, totals = [], (0.0, 0.0, 0.0)
    if types:  # seqeval refuses to score none
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types without a prediction, whose precision is 0
            options = {"scheme": schemes.IOB2, "zero_division": 0}
            columns = metrics.precision_recall_fscore_support(*both, average=None, **options)
            totals = metrics.precision_recall_fscore_support(*both, average="micro", **options)[:3]
        rows = [
            {"type": kind, "precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
            for kind, p, r, f, n in zip(types, *columns, strict=True)
        ]
    right = np.array([sum(a == b for a, b in zip(*tags, strict=True)) for tags in zip(*both, strict=True)])
    tokens = np.array(list(map(len, truth)))
    values = dict(zip(("precision", "recall", "f1"), map(float, totals), strict=True)) | {
        "token_accuracy": float(right.sum() / tokens.sum())
    }
    hits = np.array([len(a & b) for a, b in zip(*found, strict=True)])
    true_count, given_count = (np.array(list(map(len, side))) for side in found)
    measures = {
        "precision": ratio_of(hits, given_count),
        "recall": ratio_of(hits, true_count),
        "f1": ratio_of(2 * hits, true_count + given_count),
        "token_accuracy": ratio_of(right, tokens),
    }
    return Scores(values, {"per_type": rows}, measures)
