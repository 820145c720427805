"""Whether guesses are worth their time, as measured. No JAX, no threads."""

TRIALS = 4
"""Calls of each way before one is chosen."""
TRY_EVERY = 32
"""Of so many calls one goes the way that was slower."""
RENEWED = 0.2
"""Share of a new measurement in what is known, once there are a few."""


class Pace:
    """Whether a small model's guesses are worth their time, in each width of the bank: what a text gains in a second was measured both
    ways, and the slower is tried again now and then."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], tuple[int, float]] = {}  # how often it was measured, and the rate
        self._calls = 0

    def choose(self, width: int) -> bool:
        self._calls += 1
        (tried, plain), (guessed, drafted) = (self._known.get((width, way), (0, 0.0)) for way in (False, True))
        if min(tried, guessed) < TRIALS:
            return guessed <= tried
        return (drafted >= plain) != (self._calls % TRY_EVERY == 0)

    def measured(self, width: int, guessed: bool, rate: float) -> None:
        """rate: tokens of a text in a second."""
        count, known = self._known.get((width, guessed), (0, 0.0))
        self._known[width, guessed] = count + 1, known + max(RENEWED, 1 / (count + 1)) * (rate - known)
