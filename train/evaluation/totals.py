"""Evaluation: an objective without randomness, totalled over rows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from data.errors import UserError
from train.devices.mesh import put_batch, row_shards
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.terms import means
from train.step.update import compiler_options, on_mesh


class Evaluator:
    """Totals of a bound objective over rows, and the metrics of an experiment that are no sums. Programs are compiled once."""

    def __init__(self, bound: Bound, experiment: Experiment, mesh, frozen=None):
        """frozen: what the objective reads and does not train."""
        self.bound, self.experiment, self.mesh, self._frozen = bound, experiment, mesh, frozen
        self._metrics = self._fresh_metrics()
        size = experiment.batch_size // experiment.micro_batches
        self.rows = -(-size // row_shards(mesh)) * row_shards(mesh)
        """Rows at once: those of a micro-batch, or a few more, so that they divide over the devices."""

    def _compiled(self, function):
        options = compiler_options(self.mesh.devices.flat[0].platform)
        return on_mesh(jax.jit(function, compiler_options=options), self.mesh)

    @functools.cached_property
    def _evaluate(self):
        def evaluate(params, frozen, batch, carry):
            terms, metrics, carry = self.bound.loss(params, batch, None, frozen=frozen, carry=carry)
            found = {name: (term.total, term.weight) for name, term in terms.items()} | {
                name: tuple(mean) for name, mean in metrics.items()
            }
            return found, carry

        return self._compiled(evaluate)

    @functools.cached_property
    def _outputs(self):
        return self._compiled(self.bound.outputs)

    def __call__(self, params, batch) -> dict[str, tuple]:
        """{name: (total, weight)} of one batch on the mesh."""
        return self._evaluate(params, self._frozen, batch, None)[0]

    def totals(
        self,
        params,
        batch: Callable[[int, int], Any],
        count: int,
        *,
        between: Callable[[], None] = lambda: None,
        collect: Callable[[dict], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """{name: (total, weight)} over rows 0 to count - 1. batch(first, rows): any of them, those past the end included. collect: gets
        the outputs of each batch, as metrics do."""
        found: dict[str, np.ndarray] = {}
        carry = self.bound.evaluation_carry(self.rows) if self.bound.evaluation_carry else None
        for first in range(0, count, self.rows):

            def make(start, rows, first=first):
                made = batch(first + start, rows)
                inside = (first + start + np.arange(rows) < count).astype(np.float32)  # the last batch may reach past the rows asked for
                name = "counts" if hasattr(made, "counts") else "weights"
                weights = getattr(made, name)
                return made._replace(**{name: weights * inside.reshape(-1, *(1,) * (weights.ndim - 1))})

            placed = put_batch(self.mesh, make, self.rows)
            totals, after = self._evaluate(params, self._frozen, placed, carry)
            carry = None if carry is None else after
            for name, (total, weight) in jax.device_get(totals).items():
                found[name] = found.get(name, np.zeros(2)) + np.array([total, weight], np.float64)
            if self._metrics or collect:
                outputs = multihost_utils.process_allgather(self._outputs(params, placed), tiled=True)
                for metric in self._metrics:
                    metric.add(outputs)
                if collect:
                    collect(outputs)
            between()
        return found

    def outputs(self, params, batch: Callable[[int, int], Any], count: int, collect: Callable[[dict], None]) -> None:
        """The outputs alone, of rows 0 to count - 1; batch and collect as of `totals`."""
        for first in range(0, count, self.rows):
            placed = put_batch(self.mesh, lambda start, rows, first=first: batch(first + start, rows), self.rows)
            collect(multihost_utils.process_allgather(self._outputs(params, placed), tiled=True))

    def result(self, totals: dict[str, np.ndarray]) -> dict[str, float]:
        """Means, and what the metrics come to since the last call; {} where nothing was measured."""
        metrics, self._metrics = self._metrics, self._fresh_metrics()
        if not totals or not totals["loss"][1]:
            return {}
        found = means(totals)
        for options, metric in zip(self.experiment.evaluation.metrics, metrics, strict=True):
            result = metric.result()
            for name, value in result.items() if isinstance(result, dict) else [("", result)]:
                if not name or name in found or not isinstance(value, int | float | np.number):
                    what = f"{name!r}, which is there already" if name in found else f"{name or 'a result'} {value!r}, which is no number"
                    raise UserError(
                        f"evaluation.metrics: {type(options).__name__} gives {what}", "Give {name: number}, with names of its own."
                    )
                found[name] = float(value)
        return found

    def _fresh_metrics(self) -> list:
        return [realise(metric) for metric in self.experiment.evaluation.metrics]
