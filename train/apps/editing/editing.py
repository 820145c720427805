"""Editing: sentences with errors, and what people made of them; then texts in, edits out, each as sure as the model is of it."""

import dataclasses
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.files.text_files import read_text
from data.records.record import Record
from train.apps.answering import ID, in_place, legible, number_in
from train.apps.editing.edits import CHARACTER, KINDS, WORD, Comparison, Edit, natural
from train.apps.editing.proposals import Proposals, Proposed, Proposer, believed, fitted, most_believed
from train.apps.editing.sounds import CHINESE
from train.kinds import Application, Column, Section, check_range
from train.tasks.examples import Example, column
from train.tasks.metrics.words import WITHOUT_SPACES
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence

KEPT = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]{1,500}`|\]\([^)\s]{0,500}\)|<[^<>\n]{1,500}>|\b(?:https?|ftp)://\S+|\bwww\.\S+"
    r"|[^\s@]{1,64}@[^\s@]{1,255}|^[ \t]{0,20}\|[^\n]*|\b[^\W\d_]{0,64}[\d_@#/\\]\w*",
    re.DOTALL | re.MULTILINE,
)
"""What is left byte for byte: code, links, tags, addresses, tables, and words with digits or signs in them."""
_VISIBLE, _LETTERS, _DIGITS = "!-~", "A-Za-zＡ-Ｚａ-ｚ", "0-9０-９"
KEPT_WITHOUT_SPACES = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]{1,500}`|\]\([^)\s]{0,500}\)|<[^<>\n]{1,500}>"
    rf"|\b(?:https?|ftp)://[{_VISIBLE}]+|\bwww\.[{_VISIBLE}]+|[!-?A-~]{{1,64}}@[!-?A-~]{{1,255}}"
    rf"|^[ \t]{{0,20}}\|[^\n]*|[{_LETTERS}]{{0,64}}[{_DIGITS}_@#/\\][{_LETTERS}{_DIGITS}_]*",
    re.DOTALL | re.MULTILINE | re.ASCII,
)
"""The same for languages without spaces, in which an address or a number ends where another script begins."""
QUOTED = r"“[^”\n]{1,500}”|„[^“”\n]{1,500}[“”]|«[^»\n]{1,500}»|「[^」\n]{1,500}」|『[^』\n]{1,500}』|(?<![^\s(\[])\"(?=\S)[^\"\n]{1,500}\""
"""What somebody else said. A straight mark that stands behind a word or a number begins nothing: it may be inches."""
SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]{0,3}[ \t]+|(?<=[。！？])|\n+")
"""What parts sentences."""
LONGEST = 100_000
"""Characters of a text."""
MOST_NAMES, LONGEST_NAME = 1000, 100
"""Names that a row may protect, and their characters."""
MARK = re.compile(r"[ \t]*(?:(?:[#>*+-]{1,9}|\d{1,9}[.)])[ \t]+)?")
"""What makes a line a heading, an item or a quotation, or sets it in: no part of its sentence."""
LETTERS = re.compile(rf"[^\W\d_]{{2}}|{CHINESE.pattern}")
CAPITAL = re.compile(r"\b(?![a-zß-ÿ\d_])\w")
FOLDS = 5
FREQUENT = 1000
"""Different edits that are counted for the page; the rarest are forgotten."""
USUAL = 0.5
"""The strength that changes as many right sentences as `spoiled` says."""


@dataclasses.dataclass(frozen=True)
class Editing(SequenceToSequence):
    """Sentences with errors, and the same without."""

    home: ClassVar[str] = ":EditingDataset"
    how_to_get: ClassVar[str] = "Give pairs of sentences, with errors and without: --data.files pairs.jsonl."
    path_fields = (*SequenceToSequence.path_fields, "protect")

    measures: tuple[Measure, ...] = ("exact",)
    """What answers are scored by beside GLEU and F0.5 of edits: see SequenceToSequence."""
    right: float = 0.25
    """Right sentences to learn from, as a share of the pairs: so that what is right is left alone. They are targets of the pairs."""
    spoiled: float = 0.05
    """The share of right sentences that may be changed; held-out ones tell how sure an edit must be for that."""
    quoted: bool = False
    """Whether what stands between quotation marks is corrected, too: it is somebody's words."""
    protect: str = ""
    """File of names, one a line, that are never changed. Read anew by each process."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "right", "spoiled", high=1)


class EditingDataset(SequenceDataset):
    """A model reads and writes sentences as people space them; what it wrote is put into the sentence that was given, with its spaces."""

    options: Editing
    own_prompt = "{source}\nCorrected:\n"
    talks = True

    @property
    def pattern(self) -> re.Pattern:
        """What edits are made of."""
        return CHARACTER if self.options.language in WITHOUT_SPACES else WORD

    def example(self, record: Record) -> Example:
        found = super().example(record)
        given = found.fields["source"]
        return found._replace(fields=found.fields | {"source": self._natural(given), "given": given})

    def _natural(self, text: str) -> str:
        return text if self.pattern is CHARACTER else natural(text)

    def examples(self, sources, split: str) -> list[Example]:
        """To learn from, each pair of a source with one of its targets, and some targets with themselves."""
        found = super().examples(sources, split)
        if split != "train":
            return found
        pairs = [one._replace(label=(target,)) for one in found for target in one.label]
        count = round(self.options.right * len(pairs))
        places = [number * len(pairs) // count for number in range(count)]
        return pairs + [self._right(pairs[place]) for place in places]

    def _right(self, pair: Example) -> Example:
        (target,) = pair.label
        return pair._replace(fields=pair.fields | {"source": self._natural(target), "given": target})

    def right_examples(self, examples: Sequence[Example]) -> list[Example]:
        """Their first targets, for sources."""
        return [self._right(one._replace(label=one.label[:1])) for one in examples]

    def right_beside(self, run: Any) -> list[str]:
        """Right sentences that the run held out beside pairs."""
        return []

    def answer(self, example: Example) -> str:
        return self._natural(example.label[0])

    def found(self, example: Example, outputs: Any) -> Any:
        return Comparison(example.fields["given"], outputs.strip(), self.pattern).applied(lambda edit: True)

    def score(self, examples: Sequence[Example], answers: Sequence[Any]):
        from train.tasks.metrics.corrections import edit_scores, gleu, sentence_scores

        sources, targets = [one.fields["given"] for one in examples], [one.label for one in examples]
        proposed = [self.edits_of(source, answer) for source, answer in zip(sources, answers, strict=True)]
        true = [[self.edits_of(source, target) for target in own] for source, own in zip(sources, targets, strict=True)]
        made = [super().score(examples, answers), edit_scores(proposed, true)]
        if self.pattern is WORD:
            made.append(gleu(sources, targets, answers))
        elif all(len(own) == 1 for own in targets):
            made.append(sentence_scores(sources, [own[0] for own in targets], answers))
        found = made[0]
        for other in made[1:]:
            found = found._replace(values={**found.values, **other.values}, measures={**found.measures, **other.measures})
        return found

    def edits_of(self, text: str, other: str) -> set[tuple[int, int, str]]:
        """The edits between two texts, as they can be compared."""
        return {(edit.start, edit.end, edit.new) for edit in Comparison(text, other, self.pattern).edits}

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Editor":
        from train.apps.answering import Answering

        answering = Answering(run, self, step=step, raw=raw)
        return Editor(answering, self.proposer(answering))

    def proposer(self, answering: Any) -> Proposer:
        return Writer(answering)


# ------------------------------------------------------------------------------------------------------------------ the editor


class _Given(NamedTuple):
    """A row as it is read."""

    text: str
    targets: tuple[str, ...]
    strength: float
    names: tuple[str, ...]


class Writer:
    """Proposes what a model that writes whole sentences changed. names: see `Proposer`; beside how sure the model was, the kind of edit."""

    names: tuple[str, ...] = ("log odds", "log", *KINDS)
    least = 0.0
    reads: tuple[Any, ...] = ()

    def __init__(self, answering: Any):
        self._answering, self._dataset = answering, answering.dataset

    def __call__(self, sentences: Sequence[str]) -> list[Proposals]:
        name = self._dataset.options.source
        examples = {text: self._dataset.example(Record({name: text}, "text")) for text in dict.fromkeys(sentences)}
        examples = {text: one for text, one in examples.items() if self._answering.fits(one)}
        completions = dict(zip(examples, (one[0] for one in self._answering.completions([*examples.values()])), strict=True))
        return [self._proposals(text, completions[text]) if text in completions else Proposals() for text in sentences]

    def _proposals(self, sentence: str, completion: Any) -> Proposals:
        if completion.finish == "length":  # it ran on, and its end is nowhere
            return Proposals()
        ends = np.array([len(self._decoded(completion.ids[: number + 1])) for number in range(len(completion.ids))])
        space = len(completion.text) - len(completion.text.lstrip())
        comparison, found = Comparison(sentence, completion.text.strip(), self._dataset.pattern), []
        for edit in comparison.edits:
            if _loses_name(sentence, edit):
                continue
            begin, stop = edit.begin + space, edit.stop + space
            # A token of which a part stands there; of what was left out, the one that goes on, which may be the end.
            first = min(int(np.searchsorted(ends, begin, side="right")), len(ends) - 1)
            last = max(int(np.searchsorted(ends, stop, side="left")), first)
            found.append(Proposed(edit, _features(edit, math.exp(min(completion.log_probs[first : last + 1], default=-math.inf)))))
        return Proposals(found, comparison.applied)

    def _decoded(self, ids: Sequence[int]) -> str:
        tokenizer = self._answering.tokenizer
        return tokenizer.decode([one for one in ids if one < tokenizer.base_size])


def _features(edit: Edit, sure: float) -> tuple[float, ...]:
    """By which an edit of a model that writes is believed. sure: the probability of its unlikeliest token."""
    sure = min(max(sure, 1e-4), 1 - 1e-4)
    return math.log(sure / (1 - sure)), math.log(sure), *(float(edit.kind == kind) for kind in KINDS)


class Editor(Application):
    """Texts of any length, sentence by sentence. An edit stands if it is likely enough that people would make it, by held-out sentences,
    and touches nothing that is kept: code, links, addresses, tables, quotations, words with digits, names that were given or that have a
    capital within a sentence and would lose it."""

    at_once = 16

    def __init__(self, answering: Any, proposer: Proposer):
        self._answering, self._dataset, self.proposer = answering, answering.dataset, proposer
        self.text = self._dataset.options.source
        keeps = KEPT_WITHOUT_SPACES if self._dataset.pattern is CHARACTER else KEPT
        self._keeps = keeps if self._dataset.options.quoted else re.compile(f"{keeps.pattern}|{QUOTED}", keeps.flags)
        path = self._dataset.options.protect
        self._names = tuple(filter(None, (line.strip() for line in read_text(path).split("\n")))) if path else ()
        self.reads = [*answering.reads, hashlib.blake2b("\n".join(self._names).encode(), digest_size=8).hexdigest()]
        learned = answering.learned(self._learn, of=[self._dataset.options.spoiled, *proposer.names, *proposer.reads])
        self._weights, self._threshold = learned["weights"], learned["threshold"]
        self._kinds: Counter[str] = Counter()
        self._frequent: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._gleu = np.zeros(10)

    def _learn(self) -> dict[str, Any]:
        """From sentences that were held out: what tells edits that people made, too, from others, and how sure an edit has to be so that of
        right sentences at most the share `spoiled` is changed."""
        examples = self._answering.held_out()
        if not examples:
            raise UserError(
                f"{self._answering.run.path}: no sentences were held out", "Train with --data.validation 0.1, or validation files."
            )
        texts = [example.fields["given"] for example in examples]
        right = [example.fields["given"] for example in self._dataset.right_examples(examples)]
        found, unneeded = self._proposed(texts), self._proposed(right)
        people = [
            {edit for target in example.label for edit in self._dataset.edits_of(text, target)}
            for text, example in zip(texts, examples, strict=True)
        ]
        edits = [
            [(one, (one.edit.start, one.edit.end, one.edit.new) in own) for one in sentence.edits] + [(one, False) for one in beside.edits]
            for sentence, own, beside in zip(found, people, unneeded, strict=True)
        ]
        surest, count = [], len(self.proposer.names)
        for fold in range(FOLDS):  # a right sentence is judged by what others taught
            weights = fitted([one for place, own in enumerate(edits) if place % FOLDS != fold for one in own], count)
            surest += [_surest(weights, sentence) for sentence in unneeded[fold::FOLDS]]
        weights = fitted([one for own in edits for one in own], count)
        surest += [_surest(weights, sentence) for sentence in self._proposed(self._dataset.right_beside(self._answering.run))]
        surest.sort(reverse=True)
        allowed = math.floor(self._dataset.options.spoiled * len(surest))
        return {"weights": weights, "threshold": max(surest[allowed] if allowed < len(surest) else 0.0, self.proposer.least)}

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        return {
            self.text: Column("The text that is to be edited."),
            "strength": Column(f"How much is changed: 0 nothing, 1 all that is proposed; {USUAL} by default.", "number"),
            "protect": Column("Names that stay as they are.", "list"),
            self._dataset.options.target: Column("What is right, if it is known, one text or several: the summary compares.", "list"),
        } | ID

    @property
    def example(self) -> dict[str, Any]:
        text = "他再家。" if self._dataset.pattern is CHARACTER else "he go to school every days."
        return {self.text: legible(text, self._answering.tokenizer)}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def reply(self, turns: Sequence[str]) -> dict[str, Any]:
        with self.forgetting():
            line = self.answers([Record({self.text: turns[-1]}, "message")])[0]
        return line | {"answer": line.get("text", turns[-1])}

    def _read(self, row: Record) -> _Given:
        text, target = column(row, self.text), row.get(self._dataset.options.target)
        if len(text) > LONGEST:
            raise UserError(f"{row.where}: {self.text} has {len(text):,} characters", f"Give at most {LONGEST:,}.")
        targets = tuple(target) if isinstance(target, list) else (target,) if target else ()
        if not all(isinstance(one, str) for one in targets):
            raise UserError(f"{row.where}: {self._dataset.options.target} holds no text", "Give a text, or a list of texts.")
        names = row.get("protect") or []
        if (
            not isinstance(names, list)
            or len(names) > MOST_NAMES
            or not all(isinstance(one, str) and len(one) <= LONGEST_NAME for one in names)
        ):
            raise UserError(f"{row.where}: protect is no list of names", f'Give a list such as ["Ann"], of at most {MOST_NAMES:,}.')
        return _Given(text, targets, number_in(row, "strength", USUAL, 0, 1), tuple(filter(None, names)))

    def _lines(self, given: list[_Given]) -> list[dict[str, Any]]:
        pieces = [(row, start, end) for row, one in enumerate(given) for start, end in _sentences(one.text, self._keeps)]
        proposals = self._proposed([given[row].text[start:end] for row, start, end in pieces])
        own: list[list[tuple[int, int, Proposals]]] = [[] for _ in given]
        for (row, start, end), one in zip(pieces, proposals, strict=True):
            own[row].append((start, end, one))
        return [self._line(row, found) for row, found in zip(given, own, strict=True)]

    def _proposed(self, sentences: Sequence[str]) -> list[Proposals]:
        """Nothing for sentences without words."""
        with_words = [text for text in sentences if LETTERS.search(text)]
        proposals = dict(zip(with_words, self.proposer(with_words), strict=True))
        return [proposals.get(text, Proposals()) for text in sentences]

    def _line(self, row: _Given, sentences: list[tuple[int, int, Proposals]]) -> dict[str, Any]:
        kept, least = self._kept(row), self._least(row.strength)
        parts, edits, at = [], [], 0
        for start, end, proposals in sentences:
            taken = {
                edit: confidence
                for edit, confidence in most_believed(self._weights, proposals.edits).items()
                if confidence > least and not _touches(kept, start + edit.start, start + edit.end)
            }
            if taken:
                parts += [row.text[at:start], proposals.applied(taken.__contains__)]
                at = end
            for edit, confidence in taken.items():
                place = {"start": start + edit.start, "end": start + edit.end}
                edits.append(place | {"old": edit.old, "new": edit.new, "kind": edit.kind, "confidence": round(confidence, 4)})
        line = {"text": "".join([*parts, row.text[at:]]), "edits": edits}
        self._count(row, line)
        return line

    def _kept(self, row: _Given) -> bytearray:
        """The places that nothing touches."""
        found = [match.span() for match in self._keeps.finditer(row.text)]
        names = sorted({*self._names, *row.names}, key=len, reverse=True)
        if names:
            pattern = "|".join(map(re.escape, names))
            # Looked for ahead, since one name may begin within another.
            whole = rf"(?=({pattern}))" if self._dataset.pattern is CHARACTER else rf"(?<!\w)(?=((?:{pattern})(?!\w)))"
            found += [match.span(1) for match in re.finditer(whole, row.text)]
        return _places(row.text, found)

    def _least(self, strength: float) -> float:
        """An edit must be surer: 1 at strength 0, the threshold at the usual one, what the proposer says at 1, and on lines between."""
        if strength <= USUAL:
            return 1 + (self._threshold - 1) * strength / USUAL
        return self.proposer.least + (self._threshold - self.proposer.least) * (1 - strength) / (1 - USUAL)

    # All rows

    def _count(self, row: _Given, line: dict[str, Any]) -> None:
        from train.tasks.metrics.corrections import gleu

        self._counts["rows"] += 1
        self._counts["changed"] += line["text"] != row.text
        for edit in line["edits"]:
            self._kinds[edit["kind"]] += 1
            self._frequent[f"{edit['old']} → {edit['new']}"] += 1
        if len(self._frequent) > 2 * FREQUENT:
            self._frequent = Counter(dict(self._frequent.most_common(FREQUENT)))
        if row.targets:
            self._counts["targets"] += 1
            self._counts["right"] += row.text in row.targets
            self._counts["spoiled"] += row.text in row.targets and line["text"] != row.text
            self._counts["exact"] += line["text"] in row.targets
            if self._dataset.pattern is WORD:
                self._gleu += gleu([row.text], [row.targets], [line["text"]]).measures["gleu"].parts_NP[0]  # type: ignore[union-attr]

    def state(self) -> Any:
        return {
            "kinds": dict(self._kinds),
            "frequent": dict(self._frequent),
            "counts": dict(self._counts),
            "gleu": self._gleu.tolist(),
        }

    def restore(self, state: Any) -> None:
        self._kinds, self._frequent, self._counts = (Counter(state[name]) for name in ("kinds", "frequent", "counts"))
        self._gleu = np.array(state["gleu"])

    def summary(self) -> dict[str, Any]:
        """The share of texts that were changed, and edits by kind; where rows had targets GLEU, the share that is one of them, and, of the
        texts that were right, the share that was changed."""
        from train.tasks.metrics.corrections import gleu_of

        c = self._counts
        found: dict[str, Any] = {"changed": c["changed"] / c["rows"]} if c["rows"] else {}
        found |= {kind: self._kinds[kind] for kind in KINDS}
        if c["targets"]:
            found |= {"gleu": gleu_of(self._gleu)} if self._dataset.pattern is WORD else {}
            found["exact"] = c["exact"] / c["targets"]
        return found | ({"spoiled": c["spoiled"] / c["right"]} if c["right"] else {})

    def sections(self) -> list[Section]:
        values = self.summary_rows()
        rows = [[edit, str(count)] for edit, count in self._frequent.most_common(50)]
        return [
            Section("Editing: what was changed", {}, ("", "value"), [*values, ["an edit must be surer than", f"{self._threshold:.4f}"]]),
            Section("Editing: the most frequent edits", {}, ("edit", "times"), rows),
        ]


def _surest(weights: Sequence[float], sentence: Proposals) -> float:
    """How likely the likeliest edit of a sentence is."""
    return max((believed(weights, one) for one in sentence.edits), default=0.0)


def _loses_name(sentence: str, edit: Edit) -> bool:
    """Whether a capital is lost within a sentence, where it begins a name."""
    within = re.search(r"\w", sentence[: edit.start]) is not None
    return within and len(CAPITAL.findall(edit.old)) > len(CAPITAL.findall(edit.new))


def _sentences(text: str, keeps: re.Pattern) -> list[tuple[int, int]]:
    """Where sentences with words begin and end, outside of blocks of code and tables. keeps: what is kept."""
    found, at = [], 0
    blocks = _places(text, [match.span() for match in keeps.finditer(text) if "\n" in match[0] or match[0].lstrip().startswith("|")])
    ends = [(match.start(), match.end()) for match in SENTENCE.finditer(text)]
    for start, end in [*ends, (len(text), len(text))]:
        if (at == 0 or text[at - 1] == "\n") and (mark := MARK.match(text, at, start)):
            at = mark.end()
        if start > at and LETTERS.search(text, at, start) and not _touches(blocks, at, start):
            found.append((at, start))
        at = end
    return found


def _places(text: str, spans: Sequence[tuple[int, int]]) -> bytearray:
    """A byte for each character of a text, 1 within the spans."""
    found = bytearray(len(text))
    for start, end in spans:
        found[start:end] = b"\1" * (end - start)
    return found


def _touches(kept: bytearray, start: int, end: int) -> bool:
    """Whether a part of a text, or what is put in at a place, is within what is kept."""
    return kept.find(1, start, end) >= 0 if end > start else kept[max(start - 1, 0) : start + 1] == b"\1\1"
