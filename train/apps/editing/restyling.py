"""Restyling: texts of several styles, which nobody has in pairs; then a text that is in one of them, told in another.

What marks a style is taken out of a text, and a model that learned to put such marks back, for each style its own, tells the rest in the
style that is wanted (delete, and generate: Li et al. 2018).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record
from model.decoding.sampling import Sampling
from train.apps.answering import DRAWN, ID, in_place, legible, number_in, sampling_in
from train.apps.editing.edits import CHARACTER, WORD, Comparison
from train.kinds import Application, Column, Section
from train.tasks.examples import Example, column
from train.tasks.metrics.spans import overlap
from train.tasks.metrics.words import WITHOUT_SPACES, units
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence
from train.tasks.writing import AT_ONCE

GAP = "…"
"""What stands where marks were taken out."""
MOST = 8
"""Texts that a row may have drawn."""
LONGEST_MARK = 3
"""Words."""
LOOKED_AT = 100_000
"""Texts, from all over those that were learned from, in which marks are counted."""
LEAST = 2
"""How often words stand in them that may be marks, or tell a style."""
STRONG = 1.5
"""How many times as frequent as in others words are in a style that they mark, at least: also "of" may differ by more than chance."""
PRIOR = 0.5
"""Added to each count."""
SHOWN = 30
"""Marks of a style that the page shows."""


@dataclasses.dataclass(frozen=True)
class Restyling(SequenceToSequence):
    """Texts, each with the style that it is in."""

    home: ClassVar[str] = ":RestylingDataset"
    how_to_get: ClassVar[str] = "Give texts with their styles: --data.files texts.jsonl --data.source text --data.style style."

    source: str = "text"
    """Column of the text."""
    target: str = ""
    """Is the text itself: leave it empty."""
    style: str = "style"
    """Column of the style that a text is in; of rows that are restyled, the one that is wanted."""
    measures: tuple[Measure, ...] = ("bleu",)
    """What held-out texts are scored by that the model tells again, without their marks, in their own style: see SequenceToSequence."""
    salience: float = 2.0
    """How many standard deviations beyond others' the frequency of words has to be in a style, as log-odds, for them to be its marks
    (Monroe et al. 2008, eq. 22). Smaller: more is told anew."""

    def __post_init__(self):
        super().__post_init__()
        if self.target:
            raise ValueError(f"data.target is {self.target!r}; here a text is its own target, so leave it empty")
        if self.salience <= 0:
            raise ValueError(f"data.salience is {self.salience}; it must be above 0")


class Marks:
    """What words say of styles.

    counted: `styles` [S], `words` [K], up to LONGEST_MARK of them in a row, how often each stands in texts of a style, `counts` [S, K], and
    how often all do, `totals` [S].
    """

    def __init__(self, counted: Mapping[str, np.ndarray], salience: float):
        self.styles: tuple[str, ...] = tuple(counted["styles"].tolist())
        words, counts_SK, totals_S1 = counted["words"].tolist(), counted["counts"], counted["totals"][:, None]
        others_SK, rest_S1 = counts_SK.sum(0) - counts_SK, totals_S1.sum() - totals_S1
        odds_SK = np.log((counts_SK + PRIOR) / (totals_S1 - counts_SK + PRIOR)) - np.log(
            (others_SK + PRIOR) / (rest_S1 - others_SK + PRIOR)
        )
        deviations_SK = odds_SK / np.sqrt(1 / (counts_SK + PRIOR) + 1 / (others_SK + PRIOR))
        self._odds = dict(zip(words, odds_SK.T, strict=True))
        likely_SK = (deviations_SK >= salience) & (odds_SK >= np.log(STRONG))
        self._of = {
            style: _least({words[place]: float(deviations_K[place]) for place in np.flatnonzero(likely_K)})
            for style, deviations_K, likely_K in zip(self.styles, deviations_SK, likely_SK, strict=True)
        }

    def strongest(self, style: str) -> list[str]:
        own = self._of[style]
        return sorted(own, key=lambda words: (-own[words], words))[:SHOWN]

    def places(self, text: str, styles: Sequence[str], pattern: re.Pattern) -> list[tuple[int, int]]:
        """Where a text has marks of some styles, longer ones first, those beside one another together: (start, end)."""
        words = [*pattern.finditer(text)]
        gone = [False] * len(words)
        for length in range(LONGEST_MARK, 0, -1):
            for place in range(len(words) - length + 1):
                part = slice(place, place + length)
                if not any(gone[part]) and any(_key(words[part]) in self._of.get(style, ()) for style in styles):
                    gone[part] = [True] * length
        found = list[tuple[int, int]]()
        for place, word in enumerate(words):
            if gone[place] and place and gone[place - 1]:
                found[-1] = found[-1][0], word.end()
            elif gone[place]:
                found.append(word.span())
        return found

    def nearest(self, text: str, pattern: re.Pattern) -> str:
        """The style that the words of a text tell: its log-odds, added up (naive Bayes of each style against the others)."""
        return self.styles[
            int(sum((self._odds[one] for one in _parts(text, pattern) if one in self._odds), np.zeros(len(self.styles))).argmax())
        ]


def _least(marks: Mapping[str, float]) -> dict[str, float]:
    """Without those that have another one within them, which is why they are any: to "truly dull" is added nothing by "is truly dull"."""
    found = dict[str, float]()
    for mark in sorted(marks, key=lambda mark: mark.count(" ")):
        words = mark.split(" ")
        parts = (" ".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1))
        if not any(part in found for part in parts):
            found[mark] = marks[mark]
    return found


def _key(words: Sequence[re.Match]) -> str:
    return " ".join(word[0] for word in words).casefold()


def _parts(text: str, pattern: re.Pattern) -> Iterator[str]:
    """Words, and so many in a row as a mark may have."""
    words = [*pattern.finditer(text)]
    for length in range(1, LONGEST_MARK + 1):
        for place in range(len(words) - length + 1):
            yield _key(words[place : place + length])


def without(text: str, places: Sequence[tuple[int, int]]) -> str:
    """A text with GAP at some places."""
    parts, at = [], 0
    for start, end in places:
        parts += [text[at:start], GAP]
        at = end
    return "".join([*parts, text[at:]])


class RestylingDataset(SequenceDataset):
    """A model reads what is left of a text without the marks of its style, and that style, and writes the text."""

    options: Restyling
    own_prompt = "{source}\nThe same, {style}:\n"
    label_option: ClassVar[str] = ""
    changeable = ()

    @property
    def pattern(self) -> re.Pattern:
        """What marks are made of."""
        return CHARACTER if self.options.language in WITHOUT_SPACES else WORD

    def elsewhere(self, paths: tuple[str, ...]) -> Restyling:
        """With the files to learn from, in which marks are counted."""
        return dataclasses.replace(self.options, validation_files=paths)

    def example(self, record: Record) -> Example:
        text = column(record, self.options.source)
        return Example({"source": text, "style": column(record, self.options.style).strip()}, (text,), record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        return {
            self.options.source: Column("The text to tell otherwise."),
            self.options.style: Column("The style in which it is wanted."),
        }

    def check(self, sources: list) -> None:
        super().check(sources)
        styles = sorted({one.fields["style"] for one in super().examples(sources, "train")})
        if self.options.files and len(styles) < 2:
            said = f"data: all texts are in one style, {styles[0]}" if styles else "data: no text is learned from"
            raise UserError(said, "Give texts of two styles at least.")

    def occurrences(self, learned: Sequence[Example]) -> dict[str, np.ndarray]:
        """See Marks."""
        counts: dict[str, Counter[str]] = {}
        for one in learned[:: 1 + len(learned) // LOOKED_AT]:
            counts.setdefault(one.fields["style"], Counter()).update(_parts(one.label[0], self.pattern))
        styles = sorted(counts)
        together = sum(counts.values(), Counter[str]())
        words = sorted(word for word, times in together.items() if times >= LEAST and re.search(r"\w", word))
        return {
            "styles": np.array(styles, np.str_),
            "words": np.array(words, np.str_),
            "counts": np.array([[counts[style][word] for word in words] for style in styles], np.int64).reshape(len(styles), len(words)),
            "totals": np.array([counts[style].total() for style in styles], np.int64),
        }

    def marks(self, counted: Mapping[str, np.ndarray]) -> Marks:
        return Marks(counted, self.options.salience)

    def examples(self, sources, split: str) -> list[Example]:
        learned = super().examples(sources, "train")
        found = learned if split == "train" else super().examples(sources, split)
        marks = self.marks(self.occurrences(learned))
        return [self.bare(one, marks.places(one.fields["source"], (one.fields["style"],), self.pattern)) for one in found]

    def bare(self, example: Example, places: Sequence[tuple[int, int]]) -> Example:
        """An example that is read without what stands at some places."""
        return example._replace(fields=example.fields | {"source": without(example.fields["source"], places)})

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Restyler":
        from train.apps.answering import Answering

        return Restyler(Answering(run, self, step=step, raw=raw))


class _Asked(NamedTuple):
    """text, style: as they were given. places: of the marks that are taken out. example: what is left, as the model reads it."""

    text: str
    style: str
    places: list[tuple[int, int]]
    example: Example
    number: int
    sampling: Sampling
    seed: int


class Restyler(Application):
    """Texts in another style. Several are drawn; of those whose words tell the style that is wanted, that one is given which shares most
    words with the text. A text without marks of other styles stays as it is."""

    at_once = 8

    def __init__(self, answering: Any):
        self._answering, self._dataset, self.reads = answering, answering.dataset, answering.reads
        self.text, self._style = self._dataset.options.source, self._dataset.options.style
        counted = answering.counted(lambda: self._dataset.occurrences(answering.learned_from()), of=[LONGEST_MARK, LEAST, LOOKED_AT])
        self._marks: Marks = self._dataset.marks(counted)
        self._counts: Counter[str] = Counter()
        self._shared = 0.0

    @property
    def columns(self) -> dict[str, Column]:
        styles = ", ".join(self._marks.styles)
        return self._dataset.row_columns | {self._style: Column(f"The style in which it is wanted: {styles}.")} | DRAWN | ID

    @property
    def example(self) -> dict[str, Any]:
        style, other = self._marks.styles[:2]
        marks = self._marks.strongest(other)
        return {self.text: legible(marks[0] if marks else "A text.", self._answering.tokenizer), self._style: style}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> _Asked:
        given = self._dataset.example(row)
        text, style = given.label[0], given.fields["style"]
        if style not in self._marks.styles:
            known = ", ".join(self._marks.styles)
            raise UserError(f"{row.where}: {self._style} is {style[:40]!r}; known are {known}", "Give one of them.")
        others = [one for one in self._marks.styles if one != style]
        places = self._marks.places(text, others, self._dataset.pattern)
        example = self._answering.checked(self._dataset.bare(given, places))
        count, seed = int(number_in(row, "n", 4, 1, MOST, whole=True)), int(number_in(row, "seed", 0, 0, 2**31 - 1, whole=True))
        return _Asked(text, style, places, example, count, sampling_in(row, 0.8), seed)

    def _lines(self, asked: list[_Asked]) -> list[dict[str, Any]]:
        """Texts are drawn together where they are drawn in the same way."""
        drawn: dict[int, list[Any]] = {}
        for sampling in dict.fromkeys(one.sampling for one in asked if one.places):
            wanted = [
                (place, number)
                for place, one in enumerate(asked)
                if one.places and one.sampling == sampling
                for number in range(one.number)
            ]
            for first in range(0, len(wanted), AT_ONCE):
                part = wanted[first : first + AT_ONCE]
                found = self._answering.continued(
                    [asked[place].example for place, _ in part],
                    sampling=sampling,
                    draws=[(asked[place].seed, number) for place, number in part],
                )
                for (place, _), one in zip(part, found, strict=True):
                    drawn.setdefault(place, []).append(one)
        return [self._line(one, drawn.get(place, [])) for place, one in enumerate(asked)]

    def _line(self, asked: _Asked, drawn: Sequence[Any]) -> dict[str, Any]:
        language = self._dataset.options.language
        words = units(asked.text, language)
        candidates = list[dict[str, Any]]()
        for one in drawn:
            text = one.text.strip()
            candidates.append(
                {
                    "text": text,
                    "told": self._marks.nearest(text, self._dataset.pattern),
                    "shared": round(overlap(units(text, language), words), 4),
                    "score": round(float(np.mean(one.log_probs)) if len(one.log_probs) else -99.0, 4),
                }
            )
        usable = [one for one in candidates if one["text"]]
        best = max(usable, key=lambda one: (one["told"] == asked.style, one["shared"], one["score"]), default=None)
        text = best["text"] if best else asked.text
        told, shared = self._marks.nearest(text, self._dataset.pattern), best["shared"] if best else 1.0
        line: dict[str, Any] = {
            "text": text,
            "style": asked.style,
            "told": told,
            "shared": shared,
            "marks": [{"start": start, "end": end, "quote": asked.text[start:end]} for start, end in asked.places],
            "edits": [
                {"start": edit.start, "end": edit.end, "old": edit.old, "new": edit.new}
                for edit in Comparison(asked.text, text, self._dataset.pattern).edits
            ],
            "candidates": candidates,
        } | ({} if self._answering.fits(asked.example) else {"cut": True})
        self._counts += Counter(rows=1, changed=text != asked.text, told=told == asked.style)
        self._shared += shared
        return line

    # All rows

    def state(self) -> Any:
        return {"counts": dict(self._counts), "shared": self._shared}

    def restore(self, state: Any) -> None:
        self._counts, self._shared = Counter(state["counts"]), state["shared"]

    def summary(self) -> dict[str, Any]:
        """The shares of texts that were changed and whose words tell the style that was wanted, and what they share with those that were
        given (F1 of words, a mean)."""
        c = self._counts
        return {"changed": c["changed"] / c["rows"], "told": c["told"] / c["rows"], "shared": self._shared / c["rows"]} if c["rows"] else {}

    def sections(self) -> list[Section]:
        marks = [[style, ", ".join(self._marks.strongest(style))] for style in self._marks.styles]
        return [
            Section("Restyling: what was told otherwise", {}, ("", "value"), self.summary_rows()),
            Section("Restyling: the strongest marks", {}, ("style", "words"), marks),
        ]
