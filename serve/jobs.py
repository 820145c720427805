"""What the engine is asked and what it answers: one text to continue, and its tokens as they are drawn."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from model.decoding.sampling import Sampling
from model.decoding.slots import Scores


class Full(Exception):
    """The queue has no room. seconds: after which it may have."""

    def __init__(self, seconds: float):
        super().__init__(f"the queue is full; try again in {seconds:.0f} s")
        self.seconds = seconds


class Piece(NamedTuple):
    """What one call of the engine drew for a job. likeliest and their_log_probs: [n, L] where the job asks for them. finish: "" while the
    job goes on, "stop" or "length", "cancelled", or "error"."""

    ids: list[int]
    log_probs: list[float]
    likeliest: np.ndarray | None = None
    their_log_probs: np.ndarray | None = None
    finish: str = ""


class Prompt(NamedTuple):
    """Ids of a prompt, as a slot holds them. whole: what is read in one piece with them, by a `PromptReader`. source: ids of a text that is
    read first and lies in no slot."""

    ids: list[int]
    whole: Any = None
    source: Sequence[int] = ()

    @property
    def tokens(self) -> list[int]:
        """Ids that count as the prompt: the source's, where there is one."""
        return list(self.source or self.ids)


class PromptReader(Protocol):
    """What makes the prompts of a model that reads each in one piece."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of media that parts of messages may hold."""

    @property
    def examples(self) -> tuple[Any, ...]:
        """Something to read in each of the shapes that there are programs for."""

    def prompt(self, parts: Sequence[dict[str, Any]], param: str) -> Prompt:
        """Of the parts of messages, in their order, as OpenAI has them. Refused for what cannot be read."""

    def of_ids(self, ids: Sequence[int], param: str) -> Prompt:
        """Of a text's ids."""

    def read(self, model: Any, params: Any, rows: Any, row: Any, whole: Any, count: Any) -> Any:
        """Read a prompt of `count` ids into a row, as `read_chunk` does a part of a text: (rows, float32 [V])."""


class Grammar:
    """What a text may be, token by token. Not thread-safe: the engine's thread alone uses it."""

    def allowed(self) -> np.ndarray | None:
        """bool [V]: ids that may come next; None where that would take too long to find."""
        raise NotImplementedError

    def take(self, token: int) -> bool:
        """Go on behind a token; whether the text is complete."""
        raise NotImplementedError

    def copy(self) -> "Grammar":
        """The same, at the same place, for another text."""
        raise NotImplementedError


@dataclasses.dataclass(eq=False)
class Job:
    """One text to continue.

    ids: the prompt. owner: whose queue it waits in, and whose prefixes it shares. seed: the same request with the same seed draws the same
    tokens, which are those of `omnia generate`. The engine's thread puts pieces at the end of `pieces`, and then calls `wake` once for all
    jobs of a call.
    """

    ids: list[int]
    sampling: Sampling
    seed: int
    most: int
    """Tokens to draw at most; 0: the prompt is only read."""
    choice: int = 0
    """Which of several answers to one request it is: each draws by itself."""
    owner: str = ""
    whole: Any = None
    """As of Prompt."""
    source: Sequence[int] = ()
    adapter: int = -1
    """Number of the adapter that the model reads and draws with; -1 for none."""
    likeliest: bool = False
    """Whether the likeliest tokens are wanted beside those drawn."""
    scored: bool = False
    """Whether it is wanted what the model thinks of the prompt's own tokens."""
    scores: list[Scores] = dataclasses.field(default_factory=list)
    """That, chunk by chunk, from the second token on; there before the first piece is."""
    grammar: Grammar | None = None
    cancelled: bool = False
    """Set by any thread, once."""
    why: str = "cancelled"
    """What it is counted as, where it was given up: also what an answer does that needs no more of it."""
    drawn: int = 0
    """Tokens drawn so far."""
    longest: int = 0
    """Tokens that its text may have by now: the engine knows only later where it has ended."""
    cached: int = 0
    """Tokens of the prompt that were in the prefix store, once it is read."""
    pieces: collections.deque[Piece] = dataclasses.field(default_factory=collections.deque)
    signal: Any = None
    """Whoever waits for pieces: what `wake` is to set."""
    times: dict[str, float] = dataclasses.field(default_factory=dict)
    """When it was queued, begun, first and last answered: seconds of a monotonic clock."""

    pairs: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    """Tokens that stand behind one another, where that is noted."""
    repeats: bool = False
    """Whether its last two stood so before."""
    last: int = -1
    """The last that was noted."""

    def note(self, ids: Sequence[int]) -> None:
        """More of the text is known."""
        for id_ in ids:
            pair = self.last, id_
            self.repeats = pair in self.pairs
            self.pairs.add(pair)
            self.last = id_

    @property
    def places(self) -> int:
        """Of a slot that it may take."""
        return len(self.ids) + self.most

    @property
    def prompt_tokens(self) -> int:
        return len(self.source or self.ids)

    @property
    def cost(self) -> int:
        """Tokens that it may make the model read and draw."""
        return self.prompt_tokens + self.most
