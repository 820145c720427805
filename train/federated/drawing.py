"""Which clients take part in a simulated round."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from data.rows.order import fold
from train.kinds import Section
from train.privacy.drawing import DrawnBatches, PoissonDrawing
from train.step.federated.gradient import FromClients


class ClientBatches(DrawnBatches):
    """With each row goes the number of its client."""

    def made(self, numbers: np.ndarray, step: int) -> FromClients:
        return FromClients(super().made(numbers, step), np.repeat(numbers, self._unit_rows).astype(np.int32))


class ClientDrawing(PoissonDrawing):
    """With noise each client is drawn by itself, as privacy needs it; else as many as the batch has room for, of all a fair choice."""

    def completed(self, dataset, sources: list) -> Any:
        count = self._of(dataset, sources).size
        found = super().completed(dataset, sources) if self._options.private else self._options
        return dataclasses.replace(found, clients=count)

    def begin(self, place: Path) -> None:
        if self._options.private:
            super().begin(place)

    def batches(self, dataset, sources: list) -> ClientBatches:
        if self._options.private:
            return ClientBatches(*self._drawn_from(dataset, sources))
        units, size = self._of(dataset, sources), self._experiment.batch_size

        def draw(step: int) -> np.ndarray:
            order = np.argsort(fold(self._experiment.seed, step, np.arange(units.size)), kind="stable")
            return np.sort(order[:size])

        return ClientBatches(units, size, self._options.unit_rows, min(size, units.size), draw, lambda: self._experiment.seed)

    def empty(self, dataset) -> FromClients:
        rows = super().empty(dataset)
        return FromClients(rows, np.full(self._experiment.batch_size * self._options.unit_rows, -1, np.int32))

    def frozen(self) -> dict[str, Any]:
        return super().frozen() if self._options.private else {}

    def shows(self, cursor: int) -> list[Section]:
        return super().shows(cursor) if self._options.private else []
