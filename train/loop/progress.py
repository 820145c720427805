"""The loop's own bookkeeping, saved with every checkpoint."""

import dataclasses
import math
from typing import Any

from train.tasks.metrics.scores import LOWER_IS_BETTER

STORED_NAMES = {"finished_step": "looked"}
"""Names in checkpoints that differ from those of the fields."""


LOSSES = frozenset({"loss", "nll", "perplexity", "bits_per_byte", "kl"})
"""Measures of which less is better, beside the metrics of tasks that are errors; of all others more is."""


def cost(name: str, value: float) -> float:
    """A measure as a number of which less is better: itself, or its negative. name: also with a source behind a slash, or a task before
    one."""
    if math.isnan(value):  # no evaluation is worse
        return math.inf
    parts = name.split("/")
    return value if {parts[0], parts[-1]} & (LOSSES | LOWER_IS_BETTER) else -value


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is, beside its state."""

    tokens: int = 0
    """Tokens trained on up to this save."""
    seconds: float = 0.0
    """Seconds trained up to this save, those of earlier processes included."""
    best_loss: float | None = None
    """The best evaluation's loss, or `cost` of what evaluation.best names."""
    best_step: int = 0
    worse_evaluations: int = 0
    """Evaluations since the best one."""
    loss: float | None = None
    """The same of the evaluation at this very step."""
    finished_step: int = 0
    """The last step whose evaluation and samples are complete."""
    rewinds: int = 0
    """Times that the run went back since a good save of a later step than rewound_from."""
    rewound_from: int = 0
    """Step at which the run last went back."""
    rewound_to: int | None = None
    """Step that it went back to."""

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Progress":
        """What `to_json` wrote. A field that is missing takes its default; names that are not known are left out."""
        names = {field.name: STORED_NAMES.get(field.name, field.name) for field in dataclasses.fields(cls)}
        return cls(**{name: stored[key] for name, key in names.items() if key in stored})

    def to_json(self) -> dict[str, Any]:
        return {STORED_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}

    def evaluated(self, step: int, loss: float) -> "Progress":
        """After an evaluation at `step`. loss: what is compared, less being better."""
        if self.best_loss is None or loss < self.best_loss:
            return dataclasses.replace(self, loss=loss, best_loss=loss, best_step=step, worse_evaluations=0)
        return dataclasses.replace(self, loss=loss, worse_evaluations=self.worse_evaluations + 1)
