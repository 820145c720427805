"""Text with surrogates for what tells who somebody is: whole, or piece by piece as it comes."""

import bisect
import re
from collections import Counter
from typing import NamedTuple

from data.anonymize.folding import fold
from data.anonymize.patterns import Span, find, merged
from data.anonymize.surrogates import SURROGATE, Key


class Change(NamedTuple):
    """line, column: where in the original, from 1 on. shape: of what was there, digits as 0 and letters as a. context: the text around it,
    as it is now."""

    line: int
    column: int
    kind: str
    surrogate: str
    shape: str
    context: str


class Anonymizer:
    """Replaces what patterns find. A line is read as a whole, and nothing goes over the end of one, which is a line feed."""

    def __init__(self, key: Key):
        self.key = key
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str, changes: list[Change] | None = None) -> str:
        """The text without; changes: gets what was done."""
        return "\n".join(self._line(line, number, changes) for number, line in enumerate(text.split("\n"), 1))

    def spans(self, line: str) -> list[Span]:
        """What of a line is replaced, in order, without overlaps."""
        folded = fold(line)
        found = [Span(*folded.span(span.start, span.end), span.kind) for span in find(folded.text)]
        if not found:
            return []
        # What was replaced before stays: an anonymised text does not change again.
        done = [match.span() for match in SURROGATE.finditer(line)]
        ends = [end for _, end in done]
        kept = []
        for span in merged(found):
            place = bisect.bisect_right(ends, span.start)
            if place == len(done) or done[place][0] >= span.end:
                kept.append(span)
        return kept

    def _line(self, line: str, number: int, changes: list[Change] | None) -> str:
        parts, last, length, made = [], 0, 0, []
        for span in self.spans(line):
            value = line[span.start : span.end]
            surrogate = self.key.surrogate(span.kind, value)
            parts += [line[last : span.start], surrogate]
            made.append((span, surrogate, length + span.start - last, value))
            length, last = length + span.start - last + len(surrogate), span.end
            self.counts[span.kind] += 1
        if not made:
            return line
        found = "".join([*parts, line[last:]])
        if changes is not None:
            for span, surrogate, at, value in made:
                context = found[max(0, at - AROUND) : at + len(surrogate) + AROUND].strip()
                changes.append(Change(number, span.start + 1, span.kind, surrogate, shape_of(value), context))
        return found

    def stream(self) -> "Stream":
        """For text that comes in pieces, cut anywhere: the same result as of the whole."""
        return Stream(self)


AROUND = 24
"""Characters of context on either side, in a review."""


def shape_of(value: str) -> str:
    """What something looks like, without saying it: "138-0013" is "000-0000"."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", value))


class Stream:
    """Holds back what is not yet a whole line."""

    def __init__(self, anonymizer: Anonymizer):
        self._anonymizer, self._held = anonymizer, ""

    def feed(self, piece: str) -> str:
        """What can be said now."""
        ready, feed, self._held = (self._held + piece).rpartition("\n")
        return self._anonymizer(ready) + feed if feed else ""

    def finish(self) -> str:
        """The rest."""
        ready, self._held = self._held, ""
        return self._anonymizer(ready)
