"""Poisson sampling of units for private steps, the secret that it and the noise come from, and what the steps cost."""

import dataclasses
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.rows.order import fold
from data.rows.poisson import drawn, expected_in, overflow, room_for
from train.devices import hosts
from train.kinds import Section, Units
from train.privacy.accounting import PLD, RDP, Spending, noise_for
from train.runs.directory import PRIVACY
from train.step.private.gradient import SECRET

MOST_RISK = 1e-9
"""Probability with which the units of a step may fill its room."""
COINS = 1
"""Folded with a secret into the coins of units, which are apart from the choice of them."""
KEY = "privacy.key"
"""File of a run: the secret, which never leaves it."""
ASSUMED = "one unit more or less; units drawn by Poisson sampling, whose choice and noise nobody else knows"


class DrawnBatches:
    """Row r of the stream has a place in step r // room, whose units lie at its beginning; the other places are padding.

    What is random of a unit is drawn by its own coins, of a seed, the step and its number: one unit more in a step moves no other.
    """

    remarks: Sequence[str] = ()
    damaged: Sequence = ()
    damage = "examples"

    def __init__(
        self, units: Units, room: int, unit_rows: int, expected: float, draw: Callable[[int], np.ndarray], seed: Callable[[], int]
    ):
        """draw: the numbers of the units of a step, at most `room`; expected: how many on average. seed: of the coins."""
        self._units, self._room, self._unit_rows, self._draw, self._seed = units, room, unit_rows, draw, seed
        self.rows_per_epoch = units.size
        self.padding_share = 1 - expected / room

    def laid(self, first_row: int, count: int, multiple: int) -> tuple[int, Callable[[int, int], Any]]:
        """As of PackedBatches; the rows are those of one step."""
        found = np.full(count, -1, np.int64)
        step = first_row // self._room
        chosen = self._draw(step)
        found[: len(chosen)] = chosen

        def make(first: int, rows: int):
            inside = slice(first // self._unit_rows, -(-(first + rows) // self._unit_rows))
            made, skipped = self.made(found[inside], step), first - inside.start * self._unit_rows
            return jax.tree.map(lambda array: array[skipped : skipped + rows], made)

        return count * self._unit_rows, make

    def made(self, numbers: np.ndarray, step: int) -> Any:
        """The arrays of units of a step."""
        return self._units.make(numbers, fold(self._seed(), COINS, step, numbers))

    def batch(self, first_row: int, count: int) -> Any:
        """The arrays of a step."""
        rows, make = self.laid(first_row, count, 1)
        return make(0, rows)


class PoissonDrawing:
    """Draws the units of each step, each by itself with the same probability."""

    def __init__(self, options: Any, experiment: Any):
        """options: a gradient's, with the fields by which Private says what is drawn and promised."""
        self._options, self._experiment = options, experiment
        self._secret: np.ndarray | None = None
        self._units: Units | None = None
        self._place: Path | None = None

    def _of(self, dataset, sources: list) -> Units:
        if self._units is None:
            self._units = dataset.units(sources, self._options.user, self._options.unit_rows)
        return self._units

    @property
    def expected(self) -> int:
        """Units that a step draws on average."""
        return self._options.expected_batch or expected_in(self._experiment.batch_size)

    def completed(self, dataset, sources: list) -> Any:
        o, count, size = self._options, self._of(dataset, sources).size, self._experiment.batch_size
        what = f"{self._of(dataset, sources).what}s"
        expected = min(self.expected, count)
        if self._risk(expected, count) > MOST_RISK:
            room = f"batch_size {size} has too little room for steps that draw {expected} on average: they may draw more"
            raise UserError(room, f"Give --batch-size {room_for(expected)} or more, or a smaller --gradient.expected-batch.")
        if o.delta >= 1 / count:
            raise UserError(
                f"gradient.delta is {o.delta:g}, and the data has {count:,} {what}: at one over that, a promise is worth nothing",
                f"Set --gradient.delta {0.1 / count:.1g} or less.",
            )
        noise = o.noise_multiplier
        if not noise and o.epsilon:
            noise = noise_for(o.epsilon, o.delta, expected / count, self._experiment.steps, self._risk(expected, count))
        return dataclasses.replace(o, expected_batch=expected, noise_multiplier=noise)

    def _risk(self, expected: int, count: int) -> float:
        return overflow(expected, self._experiment.batch_size - 1) if expected < count else 0.0

    def begin(self, place: Path) -> None:
        """Read the run's secret; make it, where it is not there, if the run has not begun. What was said of fewer steps goes."""
        self._place = place
        path = place / KEY
        if hosts.first():
            (place / PRIVACY).unlink(missing_ok=True)
        if hosts.first() and not path.exists():
            if (place / "checkpoints").is_dir() and any((place / "checkpoints").iterdir()):
                raise UserError(f"{path} is missing, from which the run draws its rows and noise", "Restore it, or start a new run.")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(16))
        hosts.barrier(KEY)
        content = path.read_bytes()
        if len(content) != 16:
            raise UserError(f"{path} is damaged: it has {len(content)} bytes and not 16", "Restore it, or start a new run.")
        self._secret = np.frombuffer(content, "<u4").astype(np.uint32)

    def batches(self, dataset, sources: list) -> DrawnBatches:
        return DrawnBatches(*self._drawn_from(dataset, sources))

    def _drawn_from(self, dataset, sources: list) -> tuple:
        """The arguments of DrawnBatches."""
        units, size = self._of(dataset, sources), self._experiment.batch_size
        expected = min(self.expected, units.size)

        def draw(step: int) -> np.ndarray:
            return drawn(self._seed(), step, units.size, expected / units.size, size)

        return units, size, self._options.unit_rows, expected, draw, self._seed

    def empty(self, dataset) -> Any:
        return dataset.empty(self._experiment.batch_size * self._options.unit_rows)

    def _seed(self) -> int:
        """Of the choice of units and of their coins; the other half of the secret is the key of the noise."""
        assert self._secret is not None, "rows are drawn after `begin`"
        return int(self._secret[2]) << 32 | int(self._secret[3])

    def frozen(self) -> dict[str, Any]:
        return {SECRET: np.zeros(2, np.uint32) if self._secret is None else self._secret[:2]}

    def facts(self, cursor: int) -> dict[str, Any]:
        """What the steps up to here cost; with the noise of none, infinity as None."""
        assert self._units is not None
        o, count, steps = self._options, self._units.size, cursor // self._experiment.batch_size
        spent = Spending(o.noise_multiplier, min(1.0, self.expected / count), steps, self._risk(self.expected, count))
        epsilons = {name: spent.epsilon(o.delta, how) for name, how in (("epsilon_pld", PLD), ("epsilon_rdp", RDP))}
        return {name: value if np.isfinite(value) else None for name, value in epsilons.items()} | {
            "accountants": {"epsilon_pld": PLD, "epsilon_rdp": RDP},
            "delta": o.delta,
            "noise_multiplier": o.noise_multiplier,
            "clip": o.clip,
            "unit": self._units.what,
            "units": count,
            "expected_batch": self.expected,
            "rate": spent.rate,
            "steps": steps,
            "assumes": ASSUMED,
        }

    def shows(self, cursor: int) -> list[Section]:
        o, found = self._options, self.facts(cursor)
        if self._place is not None and hosts.first():
            json_files.write(self._place / PRIVACY, found)
        said = [
            ("epsilon", _shown(found["epsilon_pld"]), f"by {PLD}"),
            ("epsilon", _shown(found["epsilon_rdp"]), f"by {RDP}"),
            ("delta", f"{found['delta']:g}", "probability with which that may fail"),
            ("one unit", found["unit"], f"of {found['units']:,}"),
            ("drawn in a step", f"{found['expected_batch']:,}", f"on average; each with probability {found['rate']:.3g}, by itself"),
            (
                "noise multiplier",
                f"{found['noise_multiplier']:g}",
                f"times the clipping norm {found['clip']:g}{' of the first round' if getattr(o, 'quantile', 0) else ''}",
            ),
            ("steps", f"{found['steps']:,}", "with those that were taken again"),
            ("assumed", ASSUMED, "losses and other measures of training steps are not private"),
        ]
        return [Section("Differential privacy", columns=("", "", ""), rows=[list(row) for row in said])]


def _shown(epsilon: float | None) -> str:
    return "infinite: there is no noise" if epsilon is None else f"{epsilon:.3f}"
