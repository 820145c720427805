"""Programs that pass their tests."""

from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Scores, mean_of


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate that one of k programs is right, where `correct` of `samples` are (Chen et al. 2021, eq. 1)."""
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {correct} right ones among {samples}")
    return float(1 - np.prod(1 - k / np.arange(samples - correct + 1, samples + 1)))  # a factor is 0 where k take in a right one surely


def program_scores(outcomes: Sequence[tuple[int, int]], ks: Sequence[int] = (1, 10)) -> Scores:
    """pass@k, the mean over tasks of (samples, right ones), for each k of which all tasks have samples enough."""
    fewest = min(samples for samples, _ in outcomes)
    each = {f"pass@{k}": [pass_at_k(*outcome, k) for outcome in outcomes] for k in ks if k <= fewest}
    return Scores({name: float(np.mean(one)) for name, one in each.items()}, {}, {name: mean_of(one) for name, one in each.items()})
