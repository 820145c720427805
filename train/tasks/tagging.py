"""A label for each word: named entities and other spans, as IOB2 tags."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record, check_text
from data.records.sentences import read_sentences
from train.kinds import Column
from train.tasks.examples import Example, TaskFile, column
from train.tasks.packing import Item, Piece
from train.tasks.task import Task, TaskDataset
from train.tasks.words import WordEncoder, spaces, windows_of, word_spans

OUTSIDE = "O"


@dataclasses.dataclass(frozen=True)
class Tagging(Task):
    """Sentences whose words have IOB2 tags, in CoNLL files or JSON lines."""

    home: ClassVar[str] = ":TaggingDataset"

    how_to_get: ClassVar[str] = "Give sentences with tags: --data.files train.conll."

    words: str = ""
    """Column of the words, counted from 0, or its name in JSON lines. Empty: the first, or tokens."""
    tags: str = ""
    """Column of the tags, counted from 0, or its name in JSON lines. Empty: the last, or tags."""


class Reading(NamedTuple):
    """Words that a row reads. own: [first, end) of those whose tags count, the others being there to be seen; None: all. before: the word
    that they stand behind, which is not read; "" at the beginning of a sentence. places: of each word in the text; (): words are joined by
    spaces."""

    words: tuple[str, ...]
    own: tuple[int, int] | None = None
    before: str = ""
    places: tuple[tuple[int, int], ...] = ()

    @property
    def kept(self) -> slice:
        return slice(None) if self.own is None else slice(*self.own)


class TaggingDataset(TaskDataset):
    """Answers are tags, one a word, that are valid IOB2. A sentence that is too long for a row is read in overlapping parts, each an
    example."""

    options: Tagging
    by_token, writes, in_parts, label_fields = True, False, True, ("tags",)

    def read(self, source: TaskFile) -> list[Example]:
        o, found = self.options, []
        where: dict[str, Any] = {"words": o.words, "tags": o.tags, "left_out": source.left_out if o.leave_out else None}
        self.tokens = source.tokenizer()
        for one in read_sentences(source.path, **where):
            words, tags = tuple(one.tokens), tuple(one.tags)
            example = Example({"text": " ".join(words)}, tags, one.where[0], Reading(words))
            with self.usable(source, example.where):
                self.check_usable(source, example)
                found += self._parts_of(example)
        if not found:
            raise UserError(f"{source.path}: holds no sentence that can be used", "Give one with some.")
        return found

    def _parts_of(self, example: Example) -> list[Example]:
        """A sentence as rows can read it: itself, or overlapping parts of it."""
        words, places = example.parts.words, example.parts.places
        sizes = [len(ids) for ids in self.encoded(example.parts)] if self.way == "head" else []
        if sum(sizes) <= self.options.length - 2:
            return [example]
        found = []
        for first, end, own in windows_of(words, sizes, self.options.length - 2):
            before = words[first - 1] if first else ""
            part = Reading(words[first:end], (own[0] - first, own[1] - first), before, places[first:end])
            found.append(example._replace(label=example.label and example.label[first:end], parts=part))
        return found

    @property
    def _words(self) -> str:
        """Column of the words of a row."""
        return self.options.words if self.options.words and not self.options.words.isdigit() else "tokens"

    @property
    def row_columns(self) -> dict[str, Column]:
        return {
            "text": Column("The text, which is cut into words and single marks."),
            self._words: Column("Its words, in place of the text.", "list"),
        }

    @property
    def row(self) -> dict[str, Any]:
        return {"text": "Ann lives in Berlin."}

    def examples_of(self, record: Record) -> list[Example]:
        """A row has its words, or a text."""
        name = self._words
        if record.get(name) is not None:
            words = record[name]
            if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
                raise UserError(f"{record.where}: {name} is no list of words", "Give words, or a text.")
            for word in words:
                check_text(word, f"{record.where}: a word of {name}")
            return self._parts_of(Example({"text": " ".join(words)}, None, record.where, Reading(tuple(words))))
        text = column(record, "text")
        places = tuple(word_spans(text))
        if not places:
            raise UserError(f"{record.where}: text has no word", "Give a text, or its words as tokens.")
        return self._parts_of(Example({"text": text}, None, record.where, Reading(tuple(text[a:b] for a, b in places), places=places)))

    def check_known(self, example: Example) -> None:
        for tag in example.label:
            self._place(tag, example)

    def names_of(self, example: Example) -> tuple[str, ...]:
        return (example.label or ())[example.parts.kept]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        found = {tag for example in examples for tag in example.label}
        entities = sorted({tag.partition("-")[2] for tag in found} - {""})
        if not entities:
            raise UserError(f"{examples[0].where}: no word of the file has a tag but {OUTSIDE}", "Give sentences with entities.")
        return (OUTSIDE, *(f"{mark}-{entity}" for entity in entities for mark in "BI"))

    @property
    def kinds(self) -> list[str]:
        """Of entities, that its labels name."""
        return sorted({label.partition("-")[2] for label in self.label_names} - {""})

    def head(self):
        from train.objectives.tasks.heads import Classes

        return Classes(len(self.label_names), by_token=True)

    def identity(self, example: Example) -> Any:
        """The sentence, in however many parts."""
        return [example.fields]

    def encoded(self, reading: Reading) -> list[np.ndarray]:
        """The ids of each word, as the whole sentence has them."""
        if getattr(self, "_encoder", None) is None:
            self._encoder = WordEncoder(self.tokens)
        words = [*([reading.before] if reading.before else []), *reading.words]
        return self._encoder(words, spaces(words))[bool(reading.before) :]

    def _firsts(self, encoded: list[np.ndarray]) -> np.ndarray:
        """Where the first piece of each word stands in the row; 0 for a word that has none there."""
        ends = np.cumsum([len(ids) for ids in encoded])
        begins = 1 + ends - [len(ids) for ids in encoded]
        return np.where((ends + 1 < self.options.length) & (begins < ends + 1), begins, 0)

    def pieces(self, example: Example, labelled: bool) -> Item:
        encoded = self.encoded(example.parts)
        ids, types = self.wrapped(np.concatenate(encoded))
        label, learned = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
        firsts = self._firsts(encoded)
        if labelled:
            places = [self._place(tag, example) for tag in example.label]
            label[firsts[firsts > 0]] = np.array(places)[firsts > 0]
        own = firsts[example.parts.kept]
        learned[own[own > 0]] = 1.0
        return (Piece(ids, types, label, learned=learned),)

    def _place(self, tag: str, example: Example) -> int:
        if tag not in self.label_names:
            raise UserError(f"{example.where}: tag {tag!r} is none of the run's", f"They are {', '.join(self.label_names)}.")
        return self.label_names.index(tag)

    def found(self, example: Example, outputs: list[np.ndarray]) -> np.ndarray:
        """Log-probabilities [own words, tags]; a word that no token stands for is outside."""
        firsts = self._firsts(self.encoded(example.parts))[example.parts.kept]
        outside = np.array([0.0 if name == OUTSIDE else -np.inf for name in self.label_names])
        scores = np.log(np.maximum(outputs[0][firsts], 1e-30))
        return np.where((firsts > 0)[:, None], scores, outside)

    def joined(self, examples: list[Example], answers: list[Any]) -> tuple[list[Example], list[Any]]:
        """Sentences with all their words, and the likeliest valid tags of the scores of all parts."""
        found: list[Example] = []
        held: list[list[np.ndarray]] = []
        for example, scores in zip(examples, answers, strict=True):
            own, parts = example.parts.kept, example.parts
            part = example._replace(label=example.label and example.label[own], parts=Reading(parts.words[own], places=parts.places[own]))
            if example.parts.own is not None and found and found[-1].where == example.where:
                before = found[-1]
                label = before.label and before.label + part.label
                whole = Reading(before.parts.words + part.parts.words, places=before.parts.places + part.parts.places)
                found[-1] = before._replace(label=label, parts=whole)
                held[-1].append(scores)
            else:
                found.append(part)
                held.append([scores])
        return found, [best_tags(np.concatenate(one), self.label_names) for one in held]

    def score(self, examples: Sequence[Example], answers: Sequence[list[str]]):
        from train.tasks.metrics.entities import entity_scores

        return entity_scores([example.label for example in examples], answers)

    def loss_of(self, example: Example, answer: list[str]) -> float:
        """The share of words with a wrong tag."""
        return sum(tag != true for tag, true in zip(answer, example.label, strict=True)) / max(len(answer), 1)

    def shown(self, example: Example, answer: list[str]) -> dict[str, Any]:
        """entities: their kind, and their place in the text."""
        tags = None if example.label is None else list(example.label)
        return {"words": list(example.parts.words), "tags": tags, "answer": answer, "entities": self.entities(example, answer)}

    def entities(self, example: Example, tags: Sequence[str]) -> list[dict[str, Any]]:
        ends = np.cumsum([len(word) + 1 for word in example.parts.words]).tolist()
        places = example.parts.places or [(end - len(word) - 1, end - 1) for word, end in zip(example.parts.words, ends, strict=True)]
        found: list[dict[str, Any]] = []
        for (start, end), tag in zip(places, tags, strict=True):
            mark, _, kind = tag.partition("-")
            if mark == "B":
                found.append({"kind": kind, "start": start, "end": end})
            elif mark == "I":
                found[-1]["end"] = end
        return [one | {"text": example.fields["text"][one["start"] : one["end"]]} for one in found]


def open_tagger(run_dir: str) -> tuple[Any, TaggingDataset]:
    """A run that tags words, and its dataset. UserError for any other."""
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    run = open_run(run_dir)
    dataset = dataset_of(run.experiment)
    if not isinstance(dataset, TaggingDataset):
        raise UserError(f"{run_dir}: was not trained to tag words", "Give a run of Tagging, such as one of configs/tasks/tagging.py.")
    dataset.place = run.path
    return run, dataset


def best_tags(scores: np.ndarray, names: Sequence[str]) -> list[str]:
    """The likeliest sequence of tags that is valid IOB2, by dynamic programming (Viterbi 1967): I-X follows B-X or I-X alone.

    scores: log-probabilities [words, tags].
    """
    if not len(scores):
        return []
    inside = [name.partition("-")[2] if name.startswith("I-") else "" for name in names]
    entity = [name.partition("-")[2] for name in names]
    allowed = np.array([[not after or after == before for after in inside] for before in entity])
    total = np.where([not one for one in inside], scores[0], -np.inf)
    came = np.zeros(scores.shape, np.int64)
    for word in range(1, len(scores)):
        steps = np.where(allowed, total[:, None], -np.inf)
        came[word] = steps.argmax(0)
        total = steps.max(0) + scores[word]
    path = [int(total.argmax())]
    for word in range(len(scores) - 1, 0, -1):
        path.append(int(came[word, path[-1]]))
    return [names[tag] for tag in reversed(path)]
