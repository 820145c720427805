"""The option of private gradients. Nothing heavy is imported here."""

import dataclasses
from typing import ClassVar, Literal

from train.kinds import Gradient, check_range


@dataclasses.dataclass(frozen=True)
class Private(Gradient):
    """Differentially private gradients (DP-SGD, Abadi et al. 2016, algorithm 1), with any optimizer.

    Each step draws units at random, takes the gradient of each by itself, clips it, adds noise to the sum, and divides by the number that
    is drawn on average. batch_size is the room that a step has for units. A unit is an example, a document or, with `user`, a person.
    """

    home: ClassVar[str] = "train.step.private.gradient:private"
    drawing: ClassVar[str] = "train.privacy.drawing:PoissonDrawing"
    fixes: ClassVar[tuple[str, ...]] = ("batch_size", "faults.spike")

    epsilon: float = 8.0
    """What the run may cost, for which noise_multiplier is computed. Not read where that is given. 0: no noise, and no privacy."""
    delta: float = 1e-5
    """Probability with which the promise may fail: well below one over the number of units."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise in units of `clip`. 0: what `epsilon` needs."""
    clip: float = 1.0
    """Longest gradient of a unit (global norm); longer ones are scaled to it."""
    expected_batch: int = 0
    """Units that a step draws on average. 0: as many as batch_size has room for, all but never too few."""
    user: str = ""  # type: ignore[misc]
    """Column of the files that names whose row it is: each user is a unit. Empty: each example or document is one."""
    user_rows: int = 8
    """With `user`: rows of a user in a step, drawn anew each time; their mean gradient is the user's."""
    way: Literal["vmap", "two_pass"] = "vmap"
    """How gradients of units are clipped: vmap keeps those of a micro-batch at once; two_pass finds their norms without making them
    (Goodfellow 2015; Li et al. 2022, sec. 4), then takes one weighted gradient."""
    micro_batch: int = 0
    """Units at once, over all devices. 0: about four on each. Micro-batches without units are passed over."""

    def __post_init__(self):
        check_range("gradient.", self, 0, "epsilon", "noise_multiplier", "expected_batch", "micro_batch")
        check_range("gradient.", self, 1, "user_rows")
        if not 0 < self.delta < 1:
            raise ValueError(f"gradient.delta is {self.delta}; it must be above 0 and below 1")
        if not self.clip > 0:
            raise ValueError(f"gradient.clip is {self.clip}; it must be above 0")

    @property
    def private(self) -> bool:
        return True

    @property
    def unit_rows(self) -> int:
        return self.user_rows if self.user else 1
