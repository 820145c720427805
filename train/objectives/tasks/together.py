"""Several tasks on one model: an encoder that reads once, with a head for each."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from train.experiment import Experiment
from train.kinds import Bound, home_of, realise
from train.objectives.tasks.options import SupervisedTogether
from train.objectives.tasks.supervised import TASK_HEAD, HeadLoss
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys

HEADS = "task_heads"
"""Parameters of the heads, by the names of their tasks."""


def with_head(params, name: str):
    """The parameters as the loss of one task has them."""
    return {part: value for part, value in params.items() if part != HEADS} | {"task_head": params[HEADS][name]}


@dataclasses.dataclass(frozen=True)
class TogetherLoss:
    """batch: TogetherBatch. Terms `NAME/loss`, each as of the task's HeadLoss, times the task's share. Metrics: `loss`, their sum; the
    accuracy of each; tokens. Parameters: the encoder's, and beside them task_heads/NAME."""

    losses: tuple[HeadLoss, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...]

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = None if key is None else row_keys(key, batch.rows)[1]
        hidden_BTD = self.losses[0].read(params, batch, keys_B)
        terms: dict[str, Term] = {}
        metrics, loss = {"tokens": tokens_of(batch)}, jnp.float32(0)
        for number, (own, name, share) in enumerate(zip(self.losses, self.names, self.shares, strict=True)):
            its = batch.of(number)
            logits = own.logits(with_head(params, name), hidden_BTD, its, keys_B)
            found, measured = own.judge(logits, its, 0.0 if key is None else own.options.label_smoothing)
            terms |= {f"{name}/{part}": term._replace(coefficient=share * term.coefficient) for part, term in found.items()}
            metrics |= {f"{name}/{part}": mean for part, mean in measured.items() if part != "tokens"}
            loss += share * found["loss"].total / jnp.maximum(found["loss"].weight, 1e-8)
        return terms, metrics | {"loss": Mean(loss, jnp.float32(1))}, carry


def bind(options: SupervisedTogether, experiment: Experiment, shards: int) -> Bound:
    dataset: Any = home_of(experiment.data)(experiment.data, experiment)
    bounds = [realise(one.experiment.objective, one.experiment, shards) for one in dataset.each]
    first = bounds[0]
    if dataset.way != "head":  # all tasks are texts to write
        return first

    def start(key):
        heads = [bound.start(jax.random.fold_in(key, number))["task_head"] for number, bound in enumerate(bounds)]
        encoder = {name: part for name, part in first.start(key).items() if name != "task_head"}
        return encoder | {HEADS: dict(zip(dataset.names, heads, strict=True))}

    parts, heads = first.parts, []
    for bound, name in zip(bounds, dataset.names, strict=True):
        own = next(part for part, path in bound.parts.items() if path == TASK_HEAD)
        parts = {part: path for part, path in parts.items() if path != TASK_HEAD} | {f"{name}: {own}": (HEADS, name)}
        heads.append((HEADS, name))
    loss = TogetherLoss(tuple(bound.loss for bound in bounds), dataset.names, dataset.shares)
    return Bound(loss, start=start, parts=parts, heads=tuple(heads))
