"""Restyling (text style transfer): texts of several styles, which nobody has in pairs; then a text that is in one of them, in another.

Words that mark a style are taken out of a text, and a model that learned to put such words back, those of each style, writes the text in
the style that is wanted (delete, and generate: Li et al. 2018).
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
from train.apps.answering import DRAWN, ID, drawn, in_place, legible, number_in, sampling_in
from train.apps.editing.editing import LONGEST
from train.apps.editing.edits import CHARACTER, WORD, Comparison
from train.kinds import Application, Column, Section, Units
from train.tasks.examples import Example, column
from train.tasks.metrics.words import WITHOUT_SPACES, units
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence

GAP = "…"
"""What stands where marks were taken out. A text's own are read as three full stops."""
MOST = 8
"""Texts that a row may have drawn."""
MOST_STYLES = 20
LONGEST_MARK, LETTERS = 3, 60
"""Words, and characters, of a mark at most."""
LOOKED_AT = 20_000
"""Texts of a style in which marks are counted."""
STRONG = 1.5
"""How many times as likely a word has to be in a style as in others to mark it: of many texts even "of" differs by more than chance."""
PRIOR = 0.5
"""Added to each count."""
SHOWN = 30
"""Marks of a style that the page shows."""
_HELD = "held out"


@dataclasses.dataclass(frozen=True)
class Restyling(SequenceToSequence):
    """Texts, each with the style that it is in."""

    home: ClassVar[str] = ":RestylingDataset"
    how_to_get: ClassVar[str] = "Give texts with their styles: --data.files texts.jsonl --data.source text --data.style style."

    source: str = "text"
    """Column of the text."""
    target: str = ""
    """Nothing: a text is its own target."""
    style: str = "style"
    """Column of the style that a text is in; in rows to restyle, of the style that is wanted."""
    measures: tuple[Measure, ...] = ("bleu",)
    """How held-out texts are scored, which are written again in their own style from what is left of them: see SequenceToSequence."""
    min_z_score: float = 2.0
    """Words mark a style if their log-odds of being in it rather than in others are so many standard deviations above 0 (Monroe et al.
    2008, eq. 22). Smaller: more of a text is written anew."""

    def __post_init__(self):
        super().__post_init__()
        if self.target:
            raise ValueError(f"data.target is {self.target!r}; here a text is its own target, so leave it empty")
        if self.min_z_score <= 0:
            raise ValueError(f"data.min_z_score is {self.min_z_score}; it must be above 0")


class Marks:
    """Words that mark styles. odds: of each (style, words) the log-odds of the words in texts of that style against those of others."""

    def __init__(self, odds: Mapping[tuple[str, str], float]):
        self.of: dict[str, dict[str, float]] = {}
        for (style, words), one in odds.items():
            self.of.setdefault(style, {})[words] = one

    @property
    def styles(self) -> list[str]:
        return sorted(self.of)

    def strongest(self, style: str) -> list[str]:
        own = self.of[style]
        return sorted(own, key=lambda words: (-own[words], words))[:SHOWN]

    @staticmethod
    def places(text: str, marks: Mapping[str, Any], pattern: re.Pattern) -> list[tuple[int, int]]:
        """Where a text has some marks: (start, end). Longer ones come first, and those beside one another are one."""
        words = [*pattern.finditer(text)]
        gone = [False] * len(words)
        for length in range(LONGEST_MARK, 0, -1):
            for place in range(len(words) - length + 1):
                part = slice(place, place + length)
                if not any(gone[part]) and _key(words[part]) in marks:
                    gone[part] = [True] * length
        found = list[tuple[int, int]]()
        for place, word in enumerate(words):
            if gone[place] and place and gone[place - 1]:
                found[-1] = found[-1][0], word.end()
            elif gone[place]:
                found.append(word.span())
        return found

    def odds(self, text: str, pattern: re.Pattern) -> dict[str, float]:
        """What the marks in a text say for each style: the sum of their log-odds."""
        said = dict.fromkeys(self.styles, 0.0)
        for words in parts_of(text, pattern):
            for style in said:
                said[style] += self.of[style].get(words, 0.0)
        return said


def clearest(odds: Mapping[str, float]) -> str:
    """The style for which the marks of a text speak most; "" where they speak for none. odds: of each."""
    best = max(odds, key=lambda style: odds[style])
    return best if odds[best] > 0 else ""


def marks_in(counts: Mapping[str, Counter[str]], min_z_score: float) -> dict[tuple[str, str], float]:
    """See Marks. counts: of each style, how often each word, and each few in a row, stands in its texts."""
    totals = {style: own.total() for style, own in counts.items()}
    together = Counter[str]()
    for own in counts.values():
        together.update(own)
    words = [one for one, times in together.items() if times > 1 and re.search(r"\w", one)]
    found = dict[tuple[str, str], float]()
    for style, own in counts.items():
        here = np.array([own[one] for one in words], np.float64)
        there, rest = np.array([together[one] for one in words]) - here, sum(totals.values()) - totals[style]
        odds = np.log((here + PRIOR) / (totals[style] - here + PRIOR)) - np.log((there + PRIOR) / (rest - there + PRIOR))
        z_scores = odds / np.sqrt(1 / (here + PRIOR) + 1 / (there + PRIOR))
        likely = {words[place]: float(odds[place]) for place in np.flatnonzero((z_scores >= min_z_score) & (odds >= np.log(STRONG)))}
        found |= {(style, one): likely[one] for one in shortest(likely)}
    return found


def shortest(marks: Mapping[str, Any]) -> list[str]:
    """Marks that hold no other one: where "dull" is one, "so dull" is one because of it."""
    found = dict[str, None]()
    for mark in sorted(marks, key=lambda mark: (mark.count(" "), mark)):
        words = mark.split(" ")
        parts = (" ".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1))
        if not any(part in found for part in parts):
            found[mark] = None
    return [*found]


def _key(words: Sequence[re.Match]) -> str:
    return " ".join(word[0] for word in words).casefold()


def parts_of(text: str, pattern: re.Pattern) -> Iterator[str]:
    """The words of a text, and so many in a row as a mark may have."""
    words = [*pattern.finditer(text)]
    for length in range(1, LONGEST_MARK + 1):
        for place in range(len(words) - length + 1):
            if words[place + length - 1].end() - words[place].start() <= LETTERS:
                yield _key(words[place : place + length])


def without(text: str, places: Sequence[tuple[int, int]]) -> str:
    """A text with a GAP at each of some places."""
    parts, at = [], 0
    for start, end in places:
        parts += [text[at:start].replace(GAP, "..."), GAP]
        at = end
    return "".join([*parts, text[at:].replace(GAP, "...")])


class RestylingDataset(SequenceDataset):
    """A model reads the style of a text and what is left of it without the marks of that style, and writes the text.

    Marks are counted in the examples to learn from when a run is made, and kept in it as its labels, "STYLE<tab>WORDS", whose `fitted` are
    their log-odds.
    """

    options: Restyling
    own_prompt = "{source}\nThe same, {style}:\n"
    label_option: ClassVar[str] = ""
    changeable = ()
    _known: Marks | None = None

    @property
    def pattern(self) -> re.Pattern:
        """What marks are made of."""
        return CHARACTER if self.options.language in WITHOUT_SPACES else WORD

    def example(self, record: Record) -> Example:
        text, style = column(record, self.options.source), column(record, self.options.style).strip()
        if re.search(r"[\t\n\0]", style) or len(style) > LETTERS:
            raise UserError(f"{record.where}: {self.options.style} is no name of a style", f"Give one of at most {LETTERS} characters.")
        fields = {name: value for name, value in record.items() if isinstance(value, str)}
        return Example(fields | {"source": text, "style": style}, (text,), record.where)

    def identity(self, example: Example) -> Any:
        """The whole text, in whatever style."""
        return example.label

    @property
    def row_columns(self) -> dict[str, Column]:
        return self.prompted("source", "style") | {
            self.options.source: Column("The text to restyle."),
            self.options.style: Column("The style in which it is wanted."),
        }

    def units(self, sources: list, user: str = "", rows: int = 1) -> Units:
        if self.experiment.gradient.private:
            raise UserError(
                "Restyling counts words in the texts that it learns from, of which a private run promises to tell nothing",
                "Train with the gradient Exact.",
            )
        return super().units(sources, user, rows)

    # Marks

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple("\t".join(mark) for mark in self._counted(examples))

    def fitted_to(self, examples: Sequence[Example]) -> tuple[float, ...]:
        return tuple(round(odds, 4) for odds in self._counted(examples).values())

    def _counted(self, examples: Sequence[Example]) -> dict[tuple[str, str], float]:
        """Of those that are not held out. UserError where nothing marks a style."""
        texts: dict[str, dict[str, None]] = {}
        for one in examples:
            if one.parts != _HELD:
                texts.setdefault(one.fields["style"], {})[one.label[0]] = None
        if not 1 < len(texts) <= MOST_STYLES:
            said = ", ".join(sorted(texts)[:3])
            raise UserError(
                f"data: the texts to learn from are in {len(texts)} styles" + f" ({said}{' ...' if len(texts) > 3 else ''})" * bool(texts),
                f"Give texts of 2 to {MOST_STYLES} styles, and name the column that says which: --data.style.",
            )
        counts = {style: Counter[str]() for style in sorted(texts)}
        for style, own in texts.items():
            for text in [*own][:: -(-len(own) // LOOKED_AT)]:
                counts[style].update(parts_of(text, self.pattern))
        found = marks_in(counts, self.options.min_z_score)
        if bare := [style for style in counts if not any(style == own for own, _ in found)]:
            raise UserError(
                f"data: no words mark the style {bare[0]}", "Give more texts, or ask for less certainty by a smaller --data.min-z-score."
            )
        return dict(sorted(found.items()))

    @property
    def marks(self) -> Marks:
        """Those of the run. UserError for a model that learned none."""
        if self._known is None:
            if not self.label_names:
                raise UserError("the model learned no styles", "Ask a run that was trained on Restyling data.")
            names = (tuple(name.split("\t", 1)) for name in self.label_names)
            self._known = Marks(dict(zip(names, self.experiment.objective.fitted, strict=True)))  # type: ignore[arg-type, attr-defined]
        return self._known

    def check_known(self, example: Example) -> None:
        """UserError for a style that the run did not learn."""
        if (style := example.fields["style"]) not in self.marks.of:
            known = ", ".join(self.marks.styles)
            raise UserError(f"{example.where}: {self.options.style} is {style!r}; the run learned {known}", "Give one of them.")

    def examples(self, sources, split: str) -> list[Example]:
        found = super().examples(sources, split)
        if split != "train":
            found = [one._replace(parts=_HELD) for one in found]
        if not self.label_names:  # a new run, whose marks are about to be counted
            return found
        return [self.bare(one, self.marks.places(one.fields["source"], self.marks.of[one.fields["style"]], self.pattern)) for one in found]

    def bare(self, example: Example, places: Sequence[tuple[int, int]]) -> Example:
        """An example that is read without what stands at some places."""
        return example._replace(fields=example.fields | {"source": without(example.fields["source"], places)})

    def prompt_text(self, example: Example) -> str:
        self.check_known(example)
        return super().prompt_text(example)

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Restyler":
        from train.apps.answering import Answering

        return Restyler(Answering(run, self, step=step, raw=raw))


# -------------------------------------------------------------------------------------------------------------- the application


class _Asked(NamedTuple):
    """text: as it was given. places: of the marks that are taken out, if any are. example: what is left, as the model reads it, in the
    style that is wanted. fits: whether the model reads it whole."""

    text: str
    places: list[tuple[int, int]]
    example: Example
    fits: bool
    number: int
    sampling: Sampling
    seed: int

    @property
    def style(self) -> str:
        return self.example.fields["style"]

    @property
    def to_write(self) -> bool:
        return bool(self.places) and self.fits


class Restyler(Application):
    """Texts in another style. Several are drawn. Of those whose marks speak for the style that is wanted, that one is given in which they
    speak clearest and which has most of the words that were left, one times the other; if there are none, the one that has most of these. A
    text without marks of another style stays as it is, and so does one that is too long to be read or written whole, whose line says
    `cut`."""

    at_once = 8

    def __init__(self, answering: Any):
        self._answering, self._dataset, self.reads = answering, answering.dataset, answering.reads
        self.text, self._style = self._dataset.options.source, self._dataset.options.style
        self._marks: Marks = self._dataset.marks
        self._counts: Counter[str] = Counter()
        self._kept = 0.0

    @property
    def columns(self) -> dict[str, Column]:
        known = ", ".join(self._marks.styles)
        return self._dataset.row_columns | {self._style: Column(f"The style in which it is wanted: {known}.")} | DRAWN | ID

    @property
    def example(self) -> dict[str, Any]:
        style, other = self._marks.styles[:2]
        own = dict.fromkeys(self._dataset.row_columns, "A short text.")
        return own | {self.text: legible(self._marks.strongest(other)[0], self._answering.tokenizer), self._style: style}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> _Asked:
        given = self._dataset.example(row)
        self._dataset.check_known(given)
        text = given.label[0]
        if len(text) > LONGEST:
            raise UserError(f"{row.where}: {self.text} has {len(text):,} characters", f"Give at most {LONGEST:,}.")
        places = self._places(text, given.fields["style"])
        example = self._answering.checked(self._dataset.bare(given, places))
        count, seed = int(number_in(row, "n", 4, 1, MOST, whole=True)), int(number_in(row, "seed", 0, 0, 2**31 - 1, whole=True))
        return _Asked(text, places, example, self._answering.fits(example), count, sampling_in(row, 0.8), seed)

    def _places(self, text: str, style: str) -> list[tuple[int, int]]:
        """Of the marks of the style that a text is in, as far as they do not mark the one that is wanted."""
        pattern = self._dataset.pattern
        own = clearest({other: odds for other, odds in self._marks.odds(text, pattern).items() if other != style})
        kept = self._marks.of[style]
        return self._marks.places(text, {words: 0 for words in self._marks.of[own] if words not in kept}, pattern) if own else []

    def _lines(self, asked: list[_Asked]) -> list[dict[str, Any]]:
        texts = iter(drawn(self._answering, [one for one in asked if one.to_write]))
        return [self._line(one, next(texts) if one.to_write else []) for one in asked]

    def _line(self, asked: _Asked, texts: Sequence[Any]) -> dict[str, Any]:
        left = self._words(without(asked.text, asked.places).replace(GAP, " "))
        candidates = [self._candidate(asked.style, left, one) for one in texts if one.finish != "length"]

        def worth(one: dict[str, Any]) -> tuple[bool, float, float]:
            there = one["style"] == asked.style
            return there, one["kept"] * (one["clear"] if there else 1), one["score"]

        as_it_is: dict[str, Any] = {"text": asked.text, "style": clearest(self._marks.odds(asked.text, self._dataset.pattern)), "kept": 1.0}
        best = max((one for one in candidates if one["text"]), key=worth, default=as_it_is)
        edits = Comparison(asked.text, best["text"], self._dataset.pattern).edits if candidates else []
        self._counts += Counter(rows=1, changed=best["text"] != asked.text, in_style=best["style"] == asked.style)
        self._kept += best["kept"]
        return {
            "text": best["text"],
            "style": best["style"],
            "kept": best["kept"],
            "marks": [{"start": start, "end": end, "quote": asked.text[start:end]} for start, end in asked.places],
            "edits": [{"start": edit.start, "end": edit.end, "old": edit.old, "new": edit.new} for edit in edits],
            "candidates": candidates,
        } | ({"cut": True} if asked.places and (not asked.fits or len(candidates) < len(texts)) else {})

    def _words(self, text: str) -> Counter[str]:
        return Counter(units(text, self._dataset.options.language))

    def _candidate(self, wanted: str, left: Counter[str], written: Any) -> dict[str, Any]:
        """style: for which its marks speak, "" for none. clear: how much more for the wanted one than for others, in log-odds. kept: the
        share that it has of the words that were left. score: the mean log-probability of its tokens."""
        text = written.text.strip()
        said = self._marks.odds(text, self._dataset.pattern)
        return {
            "text": text,
            "style": clearest(said),
            "clear": round(said[wanted] - max(odds for style, odds in said.items() if style != wanted), 4),
            "kept": round((left & self._words(text)).total() / left.total(), 4) if left else 1.0,
            "score": round(float(np.mean(written.log_probs)) if len(written.log_probs) else -99.0, 4),
        }

    # All rows

    def state(self) -> Any:
        return {"counts": dict(self._counts), "kept": self._kept}

    def restore(self, state: Any) -> None:
        self._counts, self._kept = Counter(state["counts"]), state["kept"]

    def summary(self) -> dict[str, Any]:
        """The shares of texts that were changed, and whose marks speak for the style that was wanted; and of words that were left the share
        that was kept, a mean over texts."""
        c = self._counts
        return (
            {"changed": c["changed"] / c["rows"], "in_style": c["in_style"] / c["rows"], "kept": self._kept / c["rows"]}
            if c["rows"]
            else {}
        )

    def sections(self) -> list[Section]:
        marks = [[style, ", ".join(self._marks.strongest(style))] for style in self._marks.styles]
        return [
            Section("Restyling: texts in another style", {}, ("", "value"), self.summary_rows()),
            Section("Restyling: the strongest marks of each style", {}, ("style", "words"), marks),
        ]
