"""Steps that changed nothing because their loss or gradient was not sound, and where a run goes back to after too many of them."""

import collections
import math

import jax

from data.errors import UserError
from train.experiment import Experiment
from train.loop.exits import Exit
from train.loop.telemetry import Silence, Telemetry
from train.objectives.terms import means

SOUNDNESS = ("skipped", "loss", "gradient_norm", "unsound")
"""Metrics by which a step is told to be a bad one; the last is of objectives that have more to say (Objective.unsound)."""


class Diverged(UserError):
    """Bad steps went on after every rewind that is allowed."""

    code = Exit.DIVERGED


class BadSteps:
    """Reads from the metrics which steps changed nothing, one step late, and says so."""

    def __init__(self, telemetry: Telemetry | Silence, experiment: Experiment):
        self._telemetry, self._experiment = telemetry, experiment
        self._unread: collections.deque = collections.deque()
        self.in_a_row = 0

    def record(self, step: int, before: int, cursor: int, metrics: dict) -> None:
        """before, cursor: rows consumed before and after the step."""
        self._unread.append((step, before, cursor, {name: metrics[name] for name in SOUNDNESS if name in metrics}))

    def examine(self, *, newest: bool) -> tuple[int, int] | None:
        """(step, cursor) at which the run has to go back, or None. Without `newest` the device is still busy with the last step.

        It also has to when the very last step is bad: what is kept for good shall have worked once. The answer does not
        depend on when it is asked for, only on the steps: a resumed run goes back at the same place.
        """
        while len(self._unread) > (0 if newest else 1):
            step, before, cursor, metrics = self._unread.popleft()
            self.in_a_row = int(metrics["skipped"].total)
            if not self.in_a_row:
                continue
            found = means(jax.device_get(metrics))
            loss, norm = found.get("loss", math.nan), found["gradient_norm"]
            rows = [before, cursor - 1]
            values = {"cursor": cursor, "rows": rows, "loss": loss, "gradient_norm": norm, "action": "skip"}
            self._telemetry.anomaly(step, values)
            limit = self._experiment.faults.skips
            which = f"rows {rows[0]} to {rows[1]}; {self.in_a_row} in a row of {limit}"
            unsound = float(metrics["unsound"].total) if "unsound" in metrics else 0
            cause = f", {unsound:g} {self._experiment.objective.unsound}" if unsound else ""
            self._telemetry.message(f"step {step}: loss {loss:g}, gradient {norm:g}{cause}: nothing was updated ({which})")
            if self.in_a_row >= limit or step == self._experiment.steps:
                self._unread.clear()
                return step, cursor
        return None

    def rewound(self, bad_step: int, step: int, cursor: int) -> None:
        self.in_a_row = 0
        self._telemetry.anomaly(bad_step, {"cursor": cursor, "action": "rewind", "to": step})
        self._telemetry.message(f"step {bad_step}: back to step {step}, and on from there with row {cursor}")

    def diverged(self, bad_step: int, target: int | None) -> tuple[str, str]:
        rewinds, stands = self._experiment.faults.rewinds, f"checkpoint {target} stands" if target is not None else "nothing was saved"
        return (
            f"training has diverged: bad steps up to {bad_step}, also after going back {rewinds} times (faults.rewinds); {stands}",
            "Start anew with a lower --optimizer.learning-rate, or look at the rows that were named with `omnia inspect RUN --row N`.",
        )


def rewind_target(good: list[int], before: int, last: int | None) -> int | None:
    """The checkpoint to go back to: the newest good one of a step up to `before`, but none that the run has just gone back to in vain.

    good: steps of checkpoints, ascending. last: where the run went back to before, if it did. None: to the start.
    """
    vain = last == before
    candidates = [step for step in good if step <= before and not (vain and step >= before)]
    return candidates[-1] if candidates else None
