"""What the loop measures of itself: metrics, tokens and seconds."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import jax

from train.kinds import Learner
from train.loop.telemetry import Silence, Telemetry
from train.objectives.terms import means


class Meter:
    """Metrics and timing. A logged step's metrics are read one step late, while the device works on the next.

    schedule: the learning rate of a step, counted from 0. tokens: trained on before this process.
    """

    def __init__(self, telemetry: Telemetry | Silence, schedule: Callable[[int], Any], tokens: int):
        self._telemetry, self._schedule = telemetry, schedule
        self.logged_tokens = tokens
        self._weights: list = []
        self._pending: tuple | None = None
        self._loss: tuple | None = None
        self.seconds: dict[str, float] = {}
        self._restart()

    def next_batch(self, incoming: Learner):
        """The next batch. Waiting for it counts only where the device had nothing left to do."""
        before = incoming.waited_s
        batch = next(incoming)
        if self._loss is None or self._loss[1].total.is_ready():
            self._waited += incoming.waited_s - before
        return batch

    def forget(self) -> None:
        """The run goes back: what was not written yet will not be."""
        self._pending, self._weights = None, []
        self._restart()

    def started(self, seconds: float) -> None:
        """The first step is done, `seconds` after the start: compilation is not counted as throughput."""
        self.seconds["first_step"] = seconds
        self._restart()

    def record(self, step: int, metrics: dict, *, log: bool) -> None:
        self.flush()
        self._weights.append(metrics.get("tokens", metrics["loss"]).weight)
        if self._loss is not None:  # no more than two steps are under way: a longer queue gains nothing and only holds memory
            jax.block_until_ready(self._loss[1])
        self._loss = (step, metrics["loss"])
        if log:
            self._pending, self._weights = (step, metrics, self._weights), []
            if metrics["loss"].total.is_ready():  # nothing runs that could hide the reading, as after a step that waits for its responses
                self.flush()

    def flush(self) -> None:
        """Write the pending row, if there is one."""
        if self._pending is None:
            return
        step, metrics, weights = self._pending
        self._pending = None
        shown = {name: mean for name, mean in metrics.items() if name not in ("skipped", "tokens")}
        values = means(jax.device_get(shown))
        tokens = _count(weights)
        elapsed = max(time.monotonic() - self._since, 1e-9)
        self.logged_tokens += tokens
        self._telemetry.train(
            step,
            values
            | {
                "learning_rate": float(self._schedule(step - 1)),
                "tokens": self.logged_tokens,
                "tokens_per_second": tokens / elapsed,
                "data_wait": min(1.0, self._waited / elapsed),
                "step_ms": 1000 * elapsed / len(weights),
            },
        )
        self._restart()

    def tokens(self) -> int:
        """Tokens trained on since the start of the run, those of steps not logged yet included."""
        return self.logged_tokens + _count(self._weights)

    @contextlib.contextmanager
    def pause(self, name: str):
        """Time what is not training apart from it."""
        self.flush()
        begin = time.monotonic()
        yield
        spent = time.monotonic() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._since += spent

    def _restart(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0


def _count(weights: list) -> int:
    """Tokens of several steps; the weights of bad ones may be anything."""
    return int(sum(weight for weight in map(float, jax.device_get(weights)) if math.isfinite(weight)))
