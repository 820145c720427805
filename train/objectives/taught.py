"""What a loss offers those that compare two passes: a teacher's with its student's, or two of one model."""

from typing import Any, Protocol

from train.objectives.terms import Mean, Term


class Taught(Protocol):
    """A loss whose passes can be compared."""

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None) -> Any:
        """A pass of the model; without a key, without dropout. streams: a list that takes the residual stream behind every layer."""

    def judged(self, params, batch, own, training: bool = True) -> tuple[dict[str, Term], dict[str, Mean]]:
        """Terms and metrics of a pass. training: whether labels are smoothed."""

    def divergence(self, own, theirs, batch, temperature: float = 1.0, symmetric: bool = False) -> tuple[Any, Any]:
        """(total, weight): the Kullback-Leibler divergence of the predictions of another pass from one's own, nats; symmetric: of both ways
        together."""
