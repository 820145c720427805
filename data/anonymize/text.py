"""Text with surrogates for what tells who somebody is: whole, or piece by piece as it comes."""

import bisect
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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


Finder = Callable[[Sequence[str]], list[list[Span]]]
"""Finds what has no form, such as names: of each line, the spans that are to be replaced. They may overlap. What it finds in a line must
not depend on the other lines."""


class Anonymizer:
    """Replaces what patterns find, and a finder where one is given. A line is read as a whole, and nothing goes over the end of one, which
    is a line feed."""

    def __init__(self, key: Key, finder: Finder | None = None):
        self.key = key
        self.counts: Counter[str] = Counter()
        self._finder = finder
        self._ahead: dict[str, list[Span]] = {}

    def __call__(self, text: str, changes: list[Change] | None = None) -> str:
        """The text without; changes: gets what was done."""
        lines = text.split("\n")
        found = zip(lines, self._spans_of(lines), strict=True)
        return "\n".join(self._replaced(line, spans, number, changes) for number, (line, spans) in enumerate(found, 1))

    def look_ahead(self, texts: Iterable[str]) -> None:
        """Find what many short texts hold by few calls of the finder; it is kept until the next such call."""
        self._ahead = {}
        if self._finder is not None:
            lines = list(dict.fromkeys(line for text in texts for line in text.split("\n")))
            self._ahead = dict(zip(lines, self._searched(lines), strict=True))

    def found(self, line: str) -> list[Span]:
        """What of a line is replaced, in order, without overlaps."""
        return next(iter(self._spans_of([line])))

    def spans(self, line: str) -> list[Span]:
        """What of a line patterns find, in order, without overlaps."""
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

    def masked(self, text: str) -> str:
        """The text with [KIND] in place of what patterns find."""
        return "\n".join(_with_surrogates(line, [(span, f"[{span.kind}]") for span in self.spans(line)]) for line in text.split("\n"))

    def _spans_of(self, lines: list[str]) -> Iterable[list[Span]]:
        if self._finder is None:
            return map(self.spans, lines)
        unknown = list(dict.fromkeys(line for line in lines if line not in self._ahead))
        found = dict(zip(unknown, self._searched(unknown), strict=True))
        return [found[line] if line in found else self._ahead[line] for line in lines]

    def _searched(self, lines: list[str]) -> list[list[Span]]:
        """What patterns and the finder find in lines, and then in what is left of them, until there is no more.

        A tagger may read a name otherwise once those beside it are gone. So a single search would find more in what was anonymised.
        """
        found: list[list[Span]] = [[] for _ in lines]
        now = dict(enumerate(lines))
        while now:
            folded = [fold(line) for line in now.values()]
            assert self._finder is not None
            changed = {}
            for (number, line), plain, spans in zip(now.items(), folded, self._finder([one.text for one in folded]), strict=True):
                own = [Span(*plain.span(span.start, span.end), span.kind) for span in spans]
                own = merged(self.spans(line) + _outside(line, own))
                if own:
                    found[number] = sorted(found[number] + _in_original(own, self._surrogates(lines[number], found[number])))
                    made = self._surrogates(lines[number], found[number])
                    changed[number] = _with_surrogates(lines[number], made)
            now = changed
        return found

    def _surrogates(self, line: str, spans: list[Span]) -> list[tuple[Span, str]]:
        return [(span, self.key.surrogate(span.kind, line[span.start : span.end])) for span in spans]

    def _replaced(self, line: str, spans: list[Span], number: int, changes: list[Change] | None) -> str:
        if not spans:
            return line
        self.counts.update(span.kind for span in spans)
        made = self._surrogates(line, spans)
        found = _with_surrogates(line, made)
        if changes is not None:
            shift = 0
            for span, surrogate in made:
                at, value = span.start + shift, line[span.start : span.end]
                context = found[max(0, at - AROUND) : at + len(surrogate) + AROUND].strip()
                changes.append(Change(number, span.start + 1, span.kind, surrogate, shape_of(value), context))
                shift += len(surrogate) - len(value)
        return found

    def stream(self) -> "Stream":
        """For text that comes in pieces, cut anywhere: the same result as of the whole."""
        return Stream(self)


def _with_surrogates(line: str, made: list[tuple[Span, str]]) -> str:
    parts, last = [], 0
    for span, surrogate in made:
        parts += [line[last : span.start], surrogate]
        last = span.end
    return "".join([*parts, line[last:]])


def _in_original(spans: list[Span], made: list[tuple[Span, str]]) -> list[Span]:
    """Spans of a line with surrogates, which lie between these, as spans of what it was made of."""
    found, shift, place = [], 0, 0
    for span in spans:
        while place < len(made) and made[place][0].start + shift < span.start:
            before, surrogate = made[place]
            shift += len(surrogate) - (before.end - before.start)
            place += 1
        found.append(Span(span.start - shift, span.end - shift, span.kind))
    return found


def _outside(line: str, spans: list[Span]) -> list[Span]:
    """What of spans lies outside of surrogates and has a letter or digit."""
    done = [match.span() for match in SURROGATE.finditer(line)]
    ends = [end for _, end in done]
    found = []
    for span in merged(spans):
        begin, place = span.start, bisect.bisect_right(ends, span.start)
        while begin < span.end:
            start, end = done[place] if place < len(done) else (span.end, span.end)
            stop = min(start, span.end)
            if any(map(str.isalnum, line[begin:stop])):
                found.append(Span(begin, stop, span.kind))
            begin, place = max(end, stop), place + 1
    return found


AROUND = 24
"""Characters of context on either side, in a review."""


def shape_of(value: str) -> str:
    """What something looks like, without saying it: "138-0013" is "000-0000"."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", value))


class Stream:
    """Holds back what is not yet a whole line."""

    def __init__(self, anonymizer: Anonymizer):
        self._anonymizer, self._held = anonymizer, io.StringIO()

    def feed(self, piece: str) -> str:
        """What can be said now."""
        ready, feed, rest = piece.rpartition("\n")
        if not feed:
            self._held.write(rest)
            return ""
        found = self._anonymizer(self._held.getvalue() + ready) + feed
        self._held = io.StringIO()
        self._held.write(rest)
        return found

    def finish(self) -> str:
        """The rest."""
        ready, self._held = self._held.getvalue(), io.StringIO()
        return self._anonymizer(ready)
