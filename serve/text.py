"""From tokens to text that can be sent: whole characters only, and nothing that may still turn out to be a stop string."""

import codecs
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenShown:
    """A token with its log-probability, None for the first of a prompt, and the likeliest ones in its place: ((id, log_prob), ...)."""

    id: int
    log_prob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()
    begins: bool = False
    """Whether it begins a text that leaves out its first space."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """Text that is now certain, and the tokens that begin in it. ended: a stop string came, and nothing follows."""

    text: str
    tokens: tuple[TokenShown, ...] = ()
    ended: bool = False


class TextWriter:
    """The text of one answer, token by token.

    pieces: bytes of each id. hidden: ids that are no text, such as that of an end. A text ends before the first stop string in it,
    whichever tokens that is made of; what could be the beginning of one is held back until it is not. tokens: whether they are shown
    too; a text alone, without stop strings, is made faster. without_space: one that the text begins with is left out.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        stops: Sequence[str] = (),
        hidden: frozenset[int] = frozenset(),
        tokens: bool = True,
        *,
        without_space: bool = False,
    ):
        self._without_space = without_space
        self._pieces, self._stops, self._hidden = pieces, [stop for stop in stops if stop], hidden
        self._plain = not tokens and not self._stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""  # decoded and not shown yet
        self._shown = 0  # characters shown
        self._tokens: list[tuple[int, TokenShown]] = []  # not shown yet, and where in the text each begins
        self._ended = False
        self.count = 0
        """Tokens of the text, that of its end included."""

    def bytes_of(self, token: int) -> bytes:
        return b"" if token in self._hidden or token >= len(self._pieces) else self._pieces[token]

    def feed(self, ids: Sequence[int], log_probs: Sequence[float], likeliest: Any = None, their_log_probs: Any = None) -> Shown:
        """Tokens that were drawn; those behind a stop string are left out, and not counted."""
        if self._plain:
            self.count += len(ids)
            return Shown(self._decoded(b"".join(map(self.bytes_of, ids))))
        found = Shown("", ended=self._ended)
        for number, (token, log_prob) in enumerate(zip(ids, log_probs, strict=True)):
            if self._ended:
                break
            self.count += 1
            others: tuple[tuple[int, float], ...] = ()
            if likeliest is not None:
                others = tuple(zip(np.asarray(likeliest[number]).tolist(), np.asarray(their_log_probs[number]).tolist(), strict=True))
            if token not in self._hidden:
                begins = self._without_space and self.bytes_of(token).startswith(b" ")
                self._tokens.append((self._shown + len(self._text), TokenShown(token, log_prob, others, begins)))
            self._text += self._decoded(self.bytes_of(token))
            if self._stops:
                found = _joined(found, self._certain())
        return found if self._stops else _joined(found, self._certain())

    def _decoded(self, raw: bytes) -> str:
        if raw and self._without_space:
            raw, self._without_space = raw.removeprefix(b" "), False
        return self._decoder.decode(raw)

    def finish(self) -> Shown:
        """Nothing more comes: all that was held back."""
        if self._ended:
            return Shown("", ended=True)
        self._text += self._decoder.decode(b"", final=True)
        found = self._certain()
        return found if found.ended else _joined(found, self._show(len(self._text)))

    def _certain(self) -> Shown:
        begin = min((place for stop in self._stops if (place := self._text.find(stop)) >= 0), default=-1)
        if begin >= 0:
            self._ended = True
            return dataclasses.replace(self._show(begin), ended=True)
        return self._show(len(self._text) - self._could_begin_a_stop())

    def _could_begin_a_stop(self) -> int:
        """Characters at the end of the text that are the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(self._text)), 0, -1):
            end = self._text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0

    def _show(self, count: int) -> Shown:
        """So many characters more, with the tokens that begin in them."""
        text, self._text = self._text[:count], self._text[count:]
        self._shown += count
        ready = [token for place, token in self._tokens if place < self._shown]
        self._tokens = [(place, token) for place, token in self._tokens if place >= self._shown]
        return Shown(text, tuple(ready))


def _joined(one: Shown, other: Shown) -> Shown:
    return Shown(one.text + other.text, one.tokens + other.tokens, one.ended or other.ended)
