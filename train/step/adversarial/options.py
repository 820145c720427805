"""The options of adversarial gradients. Nothing heavy is imported here.

A perturbation is added to the vectors of tokens, and all that is said of its size is of one segment of a row, that is, of one text.
"""

import dataclasses
from typing import ClassVar

from train.kinds import Gradient, check_range


@dataclasses.dataclass(frozen=True)
class FGM(Gradient):
    """The gradient of the loss plus that of the loss one step against it, at epsilon g / |g| (Miyato et al. 2017, eq. 6-7)."""

    home: ClassVar[str] = "train.step.adversarial.fgm:fgm"

    epsilon: float = 0.2
    """Length of the perturbation of a text, in the units of token vectors. If it is too long, all texts get one answer."""
    weight: float = 1.0
    """Of the perturbed loss, beside the loss itself."""

    def __post_init__(self):
        check_range("gradient.", self, 0, "epsilon", "weight")


@dataclasses.dataclass(frozen=True)
class FreeLB(Gradient):
    """The mean gradient of the loss at several perturbations, each a step of ascent from the one before (Zhu et al. 2020, algorithm 1)."""

    home: ClassVar[str] = "train.step.adversarial.freelb:freelb"

    steps: int = 3
    """Perturbations, each of which costs a forward and a backward pass."""
    step_size: float = 0.1
    """Length of a step of ascent, in the units of token vectors."""
    magnitude: float = 0.1
    """Expected size of the random perturbation to begin with: each number is uniform within magnitude / sqrt(tokens * width)."""
    epsilon: float = 0.0
    """Longest perturbation of a text. 0: any."""

    def __post_init__(self):
        check_range("gradient.", self, 1, "steps")
        check_range("gradient.", self, 0, "step_size", "magnitude", "epsilon")


@dataclasses.dataclass(frozen=True)
class SMART(Gradient):
    """The gradient of the loss plus how far answers move under the worst small perturbation (Jiang et al. 2020, eq. 3, without the
    proximal term). Not symmetric, it is virtual adversarial training (Miyato et al. 2018, eq. 7). For supervised tasks, without
    mixup."""

    home: ClassVar[str] = "train.step.adversarial.smart:smart"

    epsilon: float = 0.2
    """Length of the perturbation of a text, in the units of token vectors."""
    steps: int = 1
    """Power iterations towards the worst direction, each of which costs a forward and a backward pass."""
    probe: float = 1e-2
    """Length of the perturbations by which the direction is found."""
    weight: float = 1.0
    """Of the divergence, beside the loss."""
    symmetric: bool = True
    """Count the divergence both ways. Off: from the clean answers, which are constants, to the perturbed ones."""

    def __post_init__(self):
        check_range("gradient.", self, 0, "epsilon", "weight")
        check_range("gradient.", self, 1, "steps")
        if not self.probe > 0:
            raise ValueError(f"gradient.probe is {self.probe}; it must be above 0")
