"""Federated learning with clients on machines of their own, as an experiment chooses it; nothing heavy is imported here."""

import dataclasses
from typing import ClassVar

from train.kinds import check_range
from train.step.federated.options import Rounds


@dataclasses.dataclass(frozen=True)
class Network:
    """Where clients find the server, and how it knows them."""

    address: str = "localhost:8470"
    """Host and port to listen at."""
    folder: str = ""
    """Folder that `omnia federate keys` made: the server's certificate and key, and digests of the clients' tokens. Empty: no encryption
    and no tokens, for clients on this machine alone."""
    least: int = 2
    """Clients that a round needs."""
    seconds: float = 600.0
    """How long a round waits for an answer of a client."""

    def __post_init__(self):
        check_range("gradient.network.", self, 1, "least", "seconds")


@dataclasses.dataclass(frozen=True)
class Gathered(Rounds):
    """Federated learning over a network: a step is a round, in which at most batch_size clients train on data that stays with them. Clients
    run `omnia federate client`."""

    home: ClassVar[str] = "train.federated.server:gathered"
    learner: ClassVar[str] = "train.federated.server:ServerLearner"

    rows: int = 0
    """Rows of a client in a round, drawn anew where it has more. 0: all that it has."""
    most_weight: float = 1024.0
    """A client's weight at most, which it says itself: more rows count as so many."""
    secure: bool = False
    """Add updates unseen (secure aggregation): the server learns their sum alone. Needs `clip`, and `mean`."""
    neighbours: int = 0
    """With secure: clients that each shares masks with; for hundreds of clients some dozens do. 0: all others."""
    network: Network = Network()

    def __post_init__(self):
        super().__post_init__()
        check_range("gradient.", self, 0, "rows", "neighbours")
        if not self.most_weight > 0:
            raise ValueError(f"gradient.most_weight is {self.most_weight}; it must be above 0")
        if self.secure and (not self.clip or self.aggregate != "mean"):
            raise ValueError("gradient.secure adds what it cannot see: give gradient.clip, the longest update, and the mean as aggregate")
        if self.secure and self.network.least < 3:
            raise ValueError(
                "gradient.secure with two clients: each would know the other's update. Set gradient.network.least to 3 or more"
            )
