"""Federated learning, as an experiment chooses it; nothing heavy is imported here."""

import dataclasses
from typing import ClassVar, Literal

from train.kinds import Gradient, check_range

LONGEST = 1e15
"""No update is longer (global norm): squares of such numbers still fit into float32."""


@dataclasses.dataclass(frozen=True)
class Rounds(Gradient):
    """What a client does in a round, and how a server brings updates together, simulated or not."""

    local_batch: int = 8
    """Rows of a local step."""
    local_epochs: int = 1
    """How often a client goes over its rows in a round."""
    local_learning_rate: float = 0.1
    """Rate of the clients' SGD."""
    proximal: float = 0.0
    """Weight of the squared distance from the server's parameters, halved, in each client's loss (FedProx, Li et al. 2020). 0: FedAvg."""
    aggregate: Literal["mean", "median", "trimmed_mean", "krum", "geometric_median"] = "mean"
    """How updates become one. mean: weighted by the clients' weights in the loss. The others bear clients that send anything: median and
    trimmed_mean of each number (Yin et al. 2018), the updates closest to one another (multi-Krum, Blanchard et al. 2017), or the point of
    the least distances (Pillutla et al. 2022)."""
    byzantine: float = 0.2
    """With trimmed_mean and krum: share of clients that they bear, below a half."""
    clip: float = 0.0
    """Longest update of a client (global norm); longer ones are scaled to it. 0: any."""

    def __post_init__(self):
        check_range("gradient.", self, 1, "local_batch", "local_epochs")
        check_range("gradient.", self, 0, "proximal", "clip")
        check_range("gradient.", self, 0, "byzantine", high=0.5)
        if not self.local_learning_rate > 0:
            raise ValueError(f"gradient.local_learning_rate is {self.local_learning_rate}; it must be above 0")


@dataclasses.dataclass(frozen=True)
class Federated(Rounds):
    """Federated learning, simulated (FedAvg, McMahan et al. 2017): a step is a round, and a row of the batch is a client.

    Each client trains by itself from the server's parameters; the mean of what it changed, negated, is the gradient that the experiment's
    optimizer takes (FedOpt, Reddi et al. 2021): SGD with a rate of 1 is FedAvg, and AdamW, Yogi and Adagrad are FedAdam and so on. With
    epsilon or noise_multiplier users are protected as a whole (DP-FedAvg, McMahan et al. 2018).
    """

    home: ClassVar[str] = "train.step.federated.gradient:federated"
    drawing: ClassVar[str] = "train.federated.drawing:ClientDrawing"
    fixes: ClassVar[tuple[str, ...]] = ("batch_size", "faults.spike")

    user: str = ""  # type: ignore[misc]
    """Column of the files that names whose row it is: each user is a client. Empty: each example or document is one."""
    user_rows: int = 32
    """With `user`: rows of a client in a round, drawn anew where it has more."""
    scaffold: bool = False
    """Correct each client's steps by how its gradient differs from that of all (Karimireddy et al. 2020). Keeps a copy of the parameters
    for each client."""
    staleness: int = 0
    """Rounds by which an update may be late: each client begins with parameters up to so many rounds old, and counts less by
    1 / sqrt(1 + age) (FedBuff, Nguyen et al. 2022). 0: all are on time."""
    poisoned: float = 0.0
    """Share of the clients that work against the others, to see what a rule bears."""
    attack: Literal["sign_flip", "noise"] = "sign_flip"
    """What poisoned clients send: ten times the contrary of their update, or noise ten times as large as it."""
    epsilon: float = 0.0
    """What the run may cost each user, for which noise_multiplier is computed. Not read where that is given. 0: no noise, no promise."""
    delta: float = 1e-5
    """Probability with which the promise may fail: well below one over the number of users."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise in units of `clip`. 0: what `epsilon` needs."""
    quantile: float = 0.0
    """Share of the updates that shall be no longer than `clip`, which follows it (Andrew et al. 2021); 0.5 is usual. 0: clip is fixed."""
    expected_batch: int = 0
    """With noise: clients that a round draws on average. 0: as many as batch_size has room for. Without: all that batch_size says."""
    clients: int = 0
    """Clients that there are. 0: as many as the data has."""
    at_once: int = 0
    """Clients that train side by side, over all devices. 0: about four on each."""

    def __post_init__(self):
        super().__post_init__()
        check_range("gradient.", self, 1, "user_rows")
        check_range("gradient.", self, 0, "staleness", "epsilon", "noise_multiplier", "expected_batch", "clients", "at_once")
        check_range("gradient.", self, 0, "poisoned", "quantile", high=1)
        if not 0 < self.delta < 1:
            raise ValueError(f"gradient.delta is {self.delta}; it must be above 0 and below 1")
        if (self.private or self.quantile) and not self.clip:
            raise ValueError("gradient.clip is 0, and noise is measured by it: give the length of a common update, such as 0.1")
        if self.private and (self.aggregate != "mean" or self.scaffold or self.staleness):
            raise ValueError("gradient: the promise of privacy is that of a mean of updates in time: leave the other options out")

    @property
    def private(self) -> bool:
        """Whether noise is added."""
        return self.epsilon > 0 or self.noise_multiplier > 0

    @property
    def unit_rows(self) -> int:
        return self.user_rows if self.user else 1
