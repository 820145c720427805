"""Edits that a model proposes, and how likely it is that people would make them."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from train.apps.editing.edits import Edit
from train.tasks.metrics.scores import load


class Proposed(NamedTuple):
    """An edit, and by what it is believed: first how sure the model is of it, as log odds."""

    edit: Edit
    features: tuple[float, ...]


class Proposals(NamedTuple):
    """What is proposed for a sentence; several edits may be of one place. applied(accepts): the sentence after the edits that are
    accepted, of each place at most one."""

    edits: Sequence[Proposed] = ()
    applied: Callable[[Callable[[Edit], bool]], str] = lambda accepts: ""


class Proposer(Protocol):
    """What proposes edits of sentences."""

    names: tuple[str, ...]
    """Of the features of an edit."""
    least: float
    """An edit must be surer than that, whatever the strength. 0: at full strength all stand."""
    reads: tuple[Any, ...]
    """Numbers that decide what is proposed: what was learned with others is learned anew."""

    def __call__(self, sentences: Sequence[str]) -> list[Proposals]:
        """None for a sentence that it cannot read."""


def fitted(edits: Sequence[tuple[Proposed, bool]], count: int) -> list[float]:
    """Of a logistic regression on whether people made an edit, too: the weights of `count` features, and a bias; without edits of both
    sorts, how sure the model was, alone."""
    if len({right for _, right in edits}) < 2:
        return [1.0, *[0.0] * count]
    model = load("sklearn.linear_model", "scikit-learn").LogisticRegression(max_iter=1000)
    model.fit([one.features for one, _ in edits], [right for _, right in edits])
    return [*map(float, model.coef_[0]), float(model.intercept_[0])]


def believed(weights: Sequence[float], one: Proposed) -> float:
    """The probability that people make the edit, too."""
    *slopes, bias = weights
    return 1 / (1 + math.exp(-bias - sum(slope * value for slope, value in zip(slopes, one.features, strict=True))))


def most_believed(weights: Sequence[float], edits: Iterable[Proposed]) -> dict[Edit, float]:
    """With its probability, of each place the edit that is likeliest, in the order of places."""
    best: dict[tuple[int, int], tuple[Edit, float]] = {}
    for one in edits:
        place, sure = (one.edit.start, one.edit.end), believed(weights, one)
        if place not in best or sure > best[place][1]:
            best[place] = one.edit, sure
    return dict(best.values())
