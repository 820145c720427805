"""A medical case: a text, values and an image to an outcome. For research, not for care."""

import dataclasses
import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.records.record import Record, is_number
from data.records.rows import read_records
from train.apps.cases import Case, Scales, Value, image_of, parse_value, read_image, read_value
from train.apps.confidence import NEVER, coverage, temperature, tempered, threshold
from train.apps.shortcuts import NAMES, binned, mean_area, probe
from train.kinds import Application, Section, check_range
from train.step.private.options import Private
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, TaskFile, column, content_hash
from train.tasks.metrics.binary import auc
from train.tasks.packing import Item, Piece

NOTICE = "for research, not for care"
SOURCES = ("text", "table", "image")
LEAST = 0.5
"""An answer that is not likelier than all others together is held back, however easy the held-out cases were."""
CONFIDENT = 0.8
"""Probability from which on a source by itself is sure of its answer."""
FEW = 50
"""Held-out cases from whose temperature half counts, by its logarithm; more count more."""
ODD = 1.5
"""An image is odd that lies so many times as far from those learned from as the farthest of those held out."""
WORDS, TOLD, GRID = 60, 3, 4
"""With `explain`: words of a text that are left out one by one, how many of them are told, and patches of an image by rows and columns."""
QUOTED = 5
"""Sentences of a section of the report, at most."""
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
WORD = re.compile(r"\w+")
FINDINGS = re.compile(
    r"\b(x-?rays?|radiograph\w*|films?|ct|scans?|tomograph\w*|opaci\w*|consolidat\w*|infiltrat\w*|effusions?|lobes?|shadows?|heart size)\b",
    re.IGNORECASE,
)
COURSE = re.compile(
    r"\b(admitted|admission|transferred|treated|therapy|given|started|ventilat\w*|intubat\w*|discharg\w*|died|death|recover\w*|improv\w*"
    r"|worsen\w*|deteriorat\w*|days? later|follow-?up)\b",
    re.IGNORECASE,
)
YES, NO = {"1", "true", "yes", "y", "right"}, {"0", "false", "no", "n", "wrong"}


@dataclasses.dataclass(frozen=True)
class MedicalCase(Classification):
    """Medical cases with an outcome: the text of a record, values and an image, any of them missing. For research, not for care."""

    home: ClassVar[str] = ":CaseDataset"
    how_to_get: ClassVar[str] = "Give cases with their outcomes: --data.files cases.jsonl --data.label OUTCOME."

    sources: tuple[str, ...] = SOURCES
    """What is read of a case: text, table, image. A case needs one of them."""
    values: tuple[str, ...] = ()
    """Columns of the table: NAME, 'NAME: LOW..HIGH' for numbers that are believed between these, or 'NAME: ONE|OTHER' for names."""
    image: str = "image"
    """Column of the image: a path, or data:image/...;base64."""
    images: str = ""
    """Folder that paths of images are relative to. Empty: that of the file. No path leads out of it."""
    standardise: bool = True
    """Standardise numbers by the cases to learn from. Off: by the ranges of `values`, as a promise of privacy needs."""
    source_dropout: float = 0.2
    """Probability with which each source of a case is left out in training, though never all, 0 to below 1."""
    hidden: int = 0
    """Units by which values and images are encoded, beside the numbers themselves. 0: none, as is best for few cases."""
    patient: str = ""
    """Column that says whose case it is: those of one patient are learned from or held out together. Empty: there is none."""
    judged: str = ""
    """Column that says whether the answer in the column of the label was right, by a physician. Cases where it is empty have labels that
    are simply true. Empty: there is none."""
    given: str = "probability"
    """With `judged`: column of the probability with which the answer was given, above 0 and at most 1."""
    clip: float = 10.0
    """With `judged`: the most that an answer counts that is likelier now than when it was given, in ratios of its probability."""
    precision: float = 0.9
    """Answers are given from the confidence on at which so many of those to held-out cases were right."""
    positive: str = ""
    """Of two labels, the one whose cases must not be missed."""
    recall: float = 0.0
    """With `positive`: the share of its held-out cases that must be found; answers are then by a threshold, none held back. 0: off."""
    knowledge: str = ""
    """File of treatment lines: id, label, text. Nothing else is ever said of treatment. Read anew by each process."""
    anonymize: bool = True
    """Mask what tells who somebody is in texts, before they are read, in training too."""
    explain: bool = False
    """Also tell which words, values and patches of the image an answer rests on; reads each case some eighty times."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "source_dropout", high=1)
        check_range("data.", self, 0, "hidden")
        if self.several or self.pair:
            raise ValueError("data: a case has one outcome and no pair")
        if not self.sources or len(set(self.sources)) < len(self.sources) or {*self.sources} - {*SOURCES}:
            raise ValueError(f"data.sources {self.sources}: name some of {', '.join(SOURCES)}, each once")
        if not (0 <= self.precision <= 1 and 0 <= self.recall <= 1):
            raise ValueError("data.precision and data.recall are shares between 0 and 1")
        if self.recall and not self.positive:
            raise ValueError("data.recall says how many of which label must be found: name it, data.positive")
        if not self.clip > 0:
            raise ValueError(f"data.clip is {self.clip}; it must be above 0")
        names = [value.name for value in self.columns]
        if len(set(names)) < len(names) or {self.label, self.text, self.judged, self.given if self.judged else ""} & {*names}:
            raise ValueError(f"data.values {names}: a column is there twice, or is the label or the text")

    @functools.cached_property
    def columns(self) -> tuple[Value, ...]:
        return tuple(map(parse_value, self.values))

    def with_paths(self, change: Callable[[str], str]) -> "MedicalCase":
        changed = {name: change(path) for name in ("images", "knowledge") if (path := getattr(self, name))}
        found = super().with_paths(change)
        assert isinstance(found, MedicalCase)
        return dataclasses.replace(found, **changed)  # type: ignore[arg-type]


_MASKS = Anonymizer(Key(b"masks say only what kind it was"))


class CaseDataset(ClassificationDataset):
    """Answers are probabilities, float32 [V]. An example's `parts` is a Case."""

    options: MedicalCase

    def example(self, record: Record) -> Example:
        o = self.options
        text = record.get(o.text)
        text = column(record, o.text) if text is not None and str(text).strip() else ""
        kept = ("text", o.text, o.image, o.label, o.patient)
        fields = {"text": _MASKS.masked(text) if o.anonymize else text}
        fields |= {name: value for name, value in record.items() if isinstance(value, str) and name not in kept}
        if o.patient and (patient := patient_name(record.get(o.patient))):
            fields[o.patient] = patient
        read = [read_value(value, record.get(value.name)) for value in self.columns]
        image = read_image(record, o.image, o.images) if "image" in o.sources else None
        values = tuple(value for value, _ in read)
        label = None if record.get(o.label) in (None, "") else column(record, o.label).strip()
        case = Case(values, image, tuple(said for _, said in read if said), self._judged(record) if label is not None else None)
        example = Example(fields, label, record.where, case)
        if not self.seen(example):
            raise UserError(f"{record.where}: has none of {', '.join(o.sources)}", "Give a case with one of them at least.")
        return example

    def check_usable(self, source: TaskFile, example: Example) -> None:
        super().check_usable(source, example)
        if self.options.patient and source.path in self.options.files and self.options.patient not in example.fields:
            raise UserError(f"{example.where}: {self.options.patient} names no patient", "Say whose case it is.")

    def case_of(self, example: Example) -> Case:
        """What stands beside the text: nothing, where an example is a text alone, as that of `omnia explain`."""
        return example.parts or Case((None,) * len(self.options.columns), None)

    def _judged(self, record: Record) -> tuple[float, float] | None:
        """(1 for right or -1 for wrong, the probability)."""
        o = self.options
        said = record.get(o.judged) if o.judged else None
        if said is None or str(said).strip() == "":
            return None
        word, probability = str(said).strip().lower(), record.get(o.given)
        if isinstance(probability, str):
            try:
                probability = float(probability)
            except ValueError:
                probability = None
        if word not in YES | NO:
            raise UserError(f"{record.where}: {o.judged} is {word[:40]!r}", "Write true or false.")
        if not is_number(probability) or not 0 < probability <= 1:  # type: ignore[operator]
            raise UserError(f"{record.where}: {o.given} is no probability above 0", "Give that with which the answer was given.")
        return (1.0 if word in YES else -1.0), float(probability)  # type: ignore[arg-type]

    def seen(self, example: Example) -> tuple[str, ...]:
        """The sources that a case has."""
        case = self.case_of(example)
        there = {
            "text": bool(example.fields["text"].strip()),
            "table": any(value is not None for value in case.values),
            "image": case.image is not None,
        }
        return tuple(name for name in self.options.sources if there[name])

    def only(self, example: Example, sources: Sequence[str]) -> Example:
        """A case without its other sources."""
        case = self.case_of(example)
        fields = example.fields if "text" in sources else example.fields | {"text": ""}
        values = case.values if "table" in sources else (None,) * len(case.values)
        return example._replace(fields=fields, parts=case._replace(values=values, image=case.image if "image" in sources else None))

    def identity(self, example: Example) -> Any:
        """Also of a case whose answer was marked and the same with its true label, which are never apart."""
        if self.options.patient and self.options.patient in example.fields:
            return example.fields[self.options.patient]
        case = self.case_of(example)
        image = None if case.image is None else content_hash(case.image.tobytes().hex())
        return [example.fields["text"], case.values, image]

    def examples(self, sources, split: str) -> list[Example]:
        """Answers that were judged are only learned from."""
        found = super().examples(sources, split)
        return found if split == "train" else [example for example in found if example.parts.judged is None]

    def counted_labels(self, example: Example) -> tuple[str, ...]:
        """Answers that were judged say nothing of how frequent labels are."""
        return () if self.case_of(example).judged is not None else super().counted_labels(example)

    @property
    def columns(self) -> tuple[Value, ...]:
        """Of the table, if it is read."""
        return self.options.columns if "table" in self.options.sources else ()

    # What models read

    @functools.cached_property
    def scales(self) -> Scales:
        columns, objective = self.columns, self.experiment.objective
        fitted = getattr(objective, "fitted", ()) or getattr(getattr(objective, "of", None), "fitted", ())
        return Scales.of(fitted, columns) if fitted and self.options.standardise else Scales.usual(columns)

    def fitted_to(self, examples: Sequence[Example]) -> tuple[float, ...]:
        if not self.options.standardise:
            return ()
        return Scales.measured(self.columns, [self.case_of(example) for example in examples]).flat()

    def fusion(self) -> Any:
        from train.objectives.tasks.fusion import Fusion

        columns = "\n".join("|".join((value.name, *value.names)) for value in self.columns)
        return Fusion(self._widths, self.options.source_dropout, self.options.hidden, columns)

    @property
    def _widths(self) -> tuple[tuple[str, int], ...]:
        widths = {"text": 0, "table": sum(value.width for value in self.columns), "image": len(self.scales.waves_W2)}
        return tuple((name, widths[name]) for name in self.options.sources)

    @property
    def beside(self) -> int:  # type: ignore[override]
        return sum(1 + width for _, width in self._widths)

    @property
    def empty_label(self) -> np.ndarray:  # type: ignore[override]
        return np.zeros(3, np.float32) if self.options.judged else np.zeros((), np.int32)

    def head(self):
        from train.objectives.tasks.heads import Classes, JudgedClasses

        count = len(self.label_names)
        return JudgedClasses(count, clip=self.options.clip) if self.options.judged else Classes(count)

    def pieces(self, example: Example, labelled: bool) -> Item:
        if not example.parts and not self.seen(example):
            raise UserError(f"{example.where}: a case of {', '.join(self.options.sources)} is no text", "Give a whole case: omnia apply.")
        text = example.fields["text"] if "text" in self.options.sources else ""
        ids, types = self.wrapped(self.tokens.encode(text) if text.strip() else np.zeros(0, np.int32))
        label: Any = self.empty_label
        if labelled:
            label = self.place_of(example.label, example)
            if self.options.judged:
                label = np.array([label, *(self.case_of(example).judged or (0.0, 0.0))], np.float32)
        return (Piece(ids, types, label, beside=self._numbers(example)),)

    def _numbers(self, example: Example) -> np.ndarray:
        case, seen = self.case_of(example), self.seen(example)
        found: list[np.ndarray] = []
        for name, width in self._widths:
            found.append(np.array([name in seen], np.float32))
            if name == "table":
                found.append(self.scales.table(self.columns, case))
            elif width:
                found.append(np.zeros(width, np.float32) if case.image is None else self.scales.waves(case.image))
        return np.concatenate(found)

    def check(self, sources: list) -> None:
        super().check(sources)
        if "table" in self.options.sources and not self.options.columns:
            raise UserError("data.sources names the table, and data.values no column of it", "Name some: --data.values 'age: 0..120'.")
        wide = [value.name for value in self.columns if not value.names and value.high == math.inf]
        if wide and not self.options.standardise:
            raise UserError(
                f"data.values {wide[0]!r} has no range, and without data.standardise numbers are scaled by it",
                f"Give '{wide[0]}: LOW..HIGH'.",
            )
        gradient = self.experiment.gradient
        if self.options.patient and isinstance(gradient, Private) and gradient.user != self.options.patient:
            raise UserError(
                f"gradient.user is {gradient.user!r}, and a patient may have several cases: more is learned of one than is promised",
                f"Set --gradient.user {self.options.patient}.",
            )
        if self.options.positive and self.options.positive not in self.label_names:
            raise UserError(f"data.positive is {self.options.positive!r}", f"It must be one of {', '.join(self.label_names)}.")
        if self.options.recall and len(self.label_names) != 2:
            raise UserError(f"data.recall is for two labels, and there are {len(self.label_names)}", "Leave it at 0.")
        read_knowledge(self.options.knowledge, self.label_names)

    def check_way(self) -> None:
        if self.way != "head":
            raise UserError("MedicalCase needs an encoder: a model that writes reads no values and no images", "Start from an encoder.")
        super().check_way()

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Medical":
        from train.apps.answering import Answering

        return Medical(Answering(run, self, step=step, raw=raw))


def read_knowledge(path: str, labels: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The treatment lines of each label. UserError for two of one id, and for a label that is not known."""
    found: dict[str, list[dict[str, str]]] = {}
    ids = set()
    for record in read_records(path) if path else ():
        name, label, text = column(record, "id"), column(record, "label"), column(record, "text")
        if name in ids:
            raise UserError(f"{record.where}: a second line {name!r}", "Give each an id of its own.")
        if labels and label not in labels:
            raise UserError(f"{record.where}: no label {label!r}", f"They are {', '.join(labels)}.")
        ids.add(name)
        found.setdefault(label, []).append({"id": name, "text": text})
    return found


def recall_threshold(positive_N: np.ndarray, recall: float) -> float:
    """The highest probability from which on at least this share of the positives is found. positive_N: theirs; 0 where there are none."""
    ordered = np.sort(positive_N)[::-1]
    return float(ordered[max(int(np.ceil(recall * len(ordered) - 1e-9)), 1) - 1]) if len(ordered) else 0.0


def patient_name(given: Any) -> str:
    """The same for 1 and 1.0, and with spaces around it; "" for nobody."""
    if isinstance(given, str):
        return given.strip()
    if not is_number(given):
        return ""
    return str(int(given) if given == int(given) else given)


def _known(area: float) -> float | None:
    """To be kept as JSON. None where cases have one label alone."""
    return None if math.isnan(area) else round(area, 4)


def log_odds(p: Any) -> Any:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.log(p) - np.log1p(-p)


# ------------------------------------------------------------------------------------------------------------------- at work


class Medical(Application):
    """Lines with a differential, what each source contributed, and a report of the record's own sentences.

    contributions: by how much the log-odds of the likeliest label fall without a source, in nats. contradiction: what each source answers
    by itself, where they are sure and differ. Values that cannot be believed are told in `remarks`, and missing.
    """

    def __init__(self, answering: Any):
        self._answering, self._dataset = answering, answering.dataset
        o = self._options = answering.dataset.options
        self.text, self.reads, self._names = o.text, answering.reads, answering.dataset.label_names
        self._knowledge = read_knowledge(o.knowledge, self._names)
        learned = answering.learned(self._learn, of=[o.precision, o.positive, o.recall])
        self._temperature, self._threshold, self._curve = learned["temperature"], learned["threshold"], learned["coverage"]
        self._odd, self._shortcuts, self._held = learned["odd"], learned["shortcuts"], learned["held"]
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, float] = defaultdict(float)
        """Of contributions, without their signs, by source, value and patch."""
        self._ranks = np.zeros((2, 101), np.int64)
        """Rows by whether they are positive, and the percent of that probability."""
        self._sure = np.zeros((10, 3))
        """By tenths of confidence: rows, right ones, and the sum of confidence."""

    def _learn(self) -> dict[str, Any]:
        """From the cases that were held out: the temperature, from which confidence or probability on is answered, how odd an image may be;
        and what single columns tell."""
        o, dataset = self._options, self._dataset
        examples, answers = self._answering.validation()
        if not examples:
            raise UserError(f"{self._answering.run.path}: no cases were held out", "Train with --data.validation 0.2, or validation files.")
        labels = np.array([dataset.place_of(example.label, example) for example in examples])
        # Cases that all happen to be right are no reason for more confidence than the model has, and few that are wrong none for doubt.
        by = max(temperature(np.stack(answers), labels), 1.0) ** (len(labels) / (len(labels) + FEW))
        probabilities_NV = tempered(np.stack(answers), by)
        confidence, right = probabilities_NV.max(-1), probabilities_NV.argmax(-1) == labels
        share, precise = coverage(confidence, right)
        points = np.unique(np.linspace(0, len(share) - 1, 101).astype(int))
        if o.recall:
            place = self._names.index(o.positive)
            at = recall_threshold(probabilities_NV[labels == place, place], o.recall)
        else:
            at = max(threshold(confidence, right, o.precision), LEAST)
        oddness = [dataset.scales.oddness(example.parts.image) for example in examples if example.parts.image is not None]
        return {
            "temperature": by,
            "threshold": at,
            "coverage": [[float(share[point]), float(precise[point])] for point in points],
            "odd": ODD * max(oddness, default=2.0),
            "held": {"cases": len(examples), "area": _known(mean_area(probabilities_NV, labels))},
            # Which is measured of cases that were learned from, of whom a private run promises to tell nothing so exact.
            "shortcuts": [] if isinstance(dataset.experiment.gradient, Private) else self._probed(),
        }

    def _probed(self) -> list[list[Any]]:
        """[what, area] of single columns, of the absence of each, and of all that is absent, the most telling first."""
        dataset, sources = self._dataset, self._answering.run.corpora()
        learned = [one for one in dataset.examples(sources, "train") if one.parts.judged is None]
        examples = learned + [one for one in dataset.examples(sources, "validation") if dataset.labelled(one)]
        labels = np.array([dataset.place_of(one.label, one) for one in examples])
        owners = [dataset.key(one) for one in examples]
        columns: dict[str, list[Any]] = {}
        for place, value in enumerate(dataset.columns):
            numbers = [one.parts.values[place] for one in examples]
            columns[value.name] = numbers if value.names else binned(numbers)
        absent = {f"absence of {name}": [entry in (None, -1) for entry in entries] for name, entries in columns.items()}
        for source in self._options.sources:
            absent[f"absence of {source}"] = [source not in dataset.seen(one) for one in examples]
        others = {name for one in examples for name in one.fields} - {
            *columns,
            "text",
            self._options.patient,
            self._options.judged,
            self._options.given,
        }
        for name in sorted(others):
            entries = [one.fields.get(name, "") for one in examples]
            if 2 <= len(set(entries)) <= NAMES:
                columns[name] = entries
        absent = {name: marks for name, marks in absent.items() if len(set(marks)) > 1}
        told = {name: probe([entries], labels, owners, len(self._names)) for name, entries in (columns | absent).items()}
        if absent:
            told["all that is absent"] = probe([*absent.values()], labels, owners, len(self._names))
        areas = {name: _known(area) for name, area in told.items()}
        return [[name, area] for name, area in sorted(areas.items(), key=lambda one: -(one[1] or 0.0))]

    # Rows

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        from train.apps.answering import in_place

        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> Example:
        return self._answering.example_of(row, labelled=True)

    def _lines(self, examples: list[Example]) -> list[dict[str, Any]]:
        asked: list[Example] = []
        views = [self._views(example) for example in examples]
        for view in views:
            asked += view.values()
        answers = iter(tempered(np.stack(self._answering(asked)), self._temperature)) if asked else iter(())
        lines = []
        for example, view in zip(examples, views, strict=True):
            lines.append(self._line(example, {name: next(answers) for name in view}))
        return lines

    def _views(self, example: Example) -> dict[Any, Example]:
        """What is asked of a case: by the sources that are kept, or by what else is taken away."""
        dataset, seen = self._dataset, self._dataset.seen(example)
        kept = {seen: example}
        for source in seen if len(seen) > 1 else ():
            for sources in (tuple(one for one in seen if one != source), (source,)):
                kept[sources] = dataset.only(example, sources)
        return kept | (self._parts_left_out(example, seen) if self._options.explain else {})

    def _parts_left_out(self, example: Example, seen: tuple[str, ...]) -> dict[Any, Example]:
        """A case without each of its words, its values, and patches of its image, in whose place is what images have there on average."""
        case, dataset = example.parts, self._dataset
        views: dict[Any, Example] = {}
        if "text" in seen:
            text = example.fields["text"]
            for word in list(WORD.finditer(text))[:WORDS]:
                without = text[: word.start()] + text[word.end() + text.startswith(" ", word.end()) :]
                if without.strip():
                    views["word", word.start(), word[0]] = example._replace(fields=example.fields | {"text": without})
        if "table" in seen:
            for place, value in enumerate(dataset.columns):
                if case.values[place] is not None:
                    values = (*case.values[:place], None, *case.values[place + 1 :])
                    views["value", place, value.name] = example._replace(parts=case._replace(values=values))
        if "image" in seen:
            usual, size = image_of(dataset.scales.waves_W2[:, 0]), len(case.image) // GRID
            for row, column_ in np.ndindex(GRID, GRID):
                image, patch = case.image.copy(), (slice(row * size, (row + 1) * size), slice(column_ * size, (column_ + 1) * size))
                image[patch] = usual[patch]
                views["patch", row, column_] = example._replace(parts=case._replace(image=image))
        return {name: view for name, view in views.items() if dataset.seen(view)}

    def _line(self, example: Example, answers: dict[Any, np.ndarray]) -> dict[str, Any]:
        o, seen, case = self._options, self._dataset.seen(example), example.parts
        probability_V = answers[seen]
        order = np.argsort(-probability_V, kind="stable")
        place, held_back = int(order[0]), False
        if o.recall:
            positive = self._names.index(o.positive)
            place = positive if probability_V[positive] >= self._threshold else 1 - positive
        else:
            held_back = bool(probability_V[place] < self._threshold)

        def lost(without_V: np.ndarray) -> float:
            return round(float(log_odds(probability_V[place]) - log_odds(without_V[place])), 4)

        contributions = {one: lost(answers[tuple(other for other in seen if other != one)]) for one in seen} if len(seen) > 1 else {}
        remarks = list(case.remarks)
        if case.image is not None and self._dataset.scales.oddness(case.image) > self._odd:
            remarks.append("the image is unlike those learned from: another body part, inverted, or of another scale")
        line: dict[str, Any] = {
            "answer": None if held_back else self._names[place],
            "abstained": held_back,
            "differential": [{"label": self._names[int(one)], "probability": round(float(probability_V[one]), 4)} for one in order],
            "contributions": contributions,
            "contradiction": self._contradiction(seen, answers),
            "missing": [one for one in o.sources if one not in seen],
            "remarks": remarks,
            "text": example.fields["text"],
            "report": self._report(example, probability_V, order),
            "treatment": [] if held_back else self._knowledge.get(self._names[place], []),
            "audit": {
                "run": self.reads[0],
                "checkpoint": self.reads[1],
                "sources": list(seen),
                "threshold": self._threshold if self._threshold < NEVER else None,
                "anonymized": o.anonymize,
            },
            "notice": NOTICE,
        }
        if o.explain:
            line["because"] = self._because({name: lost(found) for name, found in answers.items() if name and name[0] not in SOURCES})
        self._count(example, place, held_back, probability_V, line)
        return line

    def _contradiction(self, seen: tuple[str, ...], answers: dict[Any, np.ndarray]) -> dict[str, str] | None:
        alone = {one: answers[(one,)] for one in seen if (one,) in answers}
        sure = {one: self._names[int(found.argmax())] for one, found in alone.items() if found.max() >= CONFIDENT}
        return sure if len(set(sure.values())) > 1 else None

    def _because(self, lost: dict[Any, float]) -> dict[str, Any]:
        """The words with the largest contributions, each value, and a map of the image."""
        words = sorted(((name, found) for name, found in lost.items() if name[0] == "word"), key=lambda one: -abs(one[1]))[:TOLD]
        found: dict[str, Any] = {"words": [{"word": name[2], "start": name[1], "contribution": one} for name, one in words]}
        found["values"] = {name[2]: one for name, one in lost.items() if name[0] == "value"}
        patches = {name[1:]: one for name, one in lost.items() if name[0] == "patch"}
        found["image"] = [[patches[row, column_] for column_ in range(GRID)] for row in range(GRID)] if patches else None
        return found

    def _report(self, example: Example, probability_V: np.ndarray, order: np.ndarray) -> list[dict[str, Any]]:
        """Sections: sentences of the record with their places, and sentences of templates about values and the answer."""
        sections: dict[str, list[dict[str, Any]]] = {"History": [], "Findings": [], "Course": []}
        text, begin = example.fields["text"], 0
        for end in [*(found.start() for found in SENTENCE.finditer(text)), len(text)]:
            start = begin + len(text[begin:end]) - len(text[begin:end].lstrip())
            quote = text[start:end].rstrip()
            name = "Findings" if FINDINGS.search(quote) else "Course" if COURSE.search(quote) else "History"
            if quote:
                sections[name].append({"start": start, "end": start + len(quote), "quote": quote})
            begin = end
        found: list[dict[str, Any]] = [{"section": name, "quotes": quotes[:QUOTED]} for name, quotes in sections.items() if quotes]
        columns = self._dataset.columns
        said = [
            f"{value.name}: {value.names[int(given)] if value.names else f'{given:g}'}"
            for value, given in zip(columns, example.parts.values, strict=True)
            if given is not None
        ]
        unknown = [value.name for value, given in zip(columns, example.parts.values, strict=True) if given is None]
        if columns:
            stated = "; ".join(said) if said else "None is known"
            found.append({"section": "Values", "text": f"{stated}." + (f" Not known: {', '.join(unknown)}." if unknown else "")})
        likely = ", ".join(f"{self._names[int(one)]} {probability_V[one]:.2f}" for one in order[:3])
        return [*found, {"section": "Assessment", "text": f"{self._options.label}: {likely} ({NOTICE})."}]

    # All rows

    def _count(self, example: Example, place: int, held_back: bool, probability_V: np.ndarray, line: dict[str, Any]) -> None:
        c = self._counts
        c["cases"] += 1
        c["abstained"] += held_back
        c["contradictions"] += line["contradiction"] is not None
        for source, lost in line["contributions"].items():
            self._sums[source] += abs(lost)
            c[f"with {source}"] += 1
        because = line.get("because") or {}
        for name, lost in because.get("values", {}).items():
            self._sums[f"value {name}"] += abs(lost)
            c[f"with value {name}"] += 1
        if because.get("image"):
            c["maps"] += 1
            for (row, column_), lost in np.ndenumerate(np.array(because["image"])):
                self._sums[f"patch {row} {column_}"] += abs(float(lost))
        if example.label not in self._names or example.parts.judged is not None:
            return
        right = self._names[place] == example.label
        c["labelled"] += 1
        c["right"] += right
        c["given"] += not held_back
        c["given_right"] += right and not held_back
        confidence = float(probability_V.max())
        tenth = min(int(confidence * 10), 9)
        self._sure[tenth] += (1, self._names[int(probability_V.argmax())] == example.label, confidence)
        if positive := self._options.positive:
            true = example.label == positive
            c["positive"] += true
            c["missed"] += true and not right
            c["alarms"] += not true and not right
            self._ranks[int(true), round(100 * float(probability_V[self._names.index(positive)]))] += 1

    def state(self) -> Any:
        return {
            "counts": dict(self._counts),
            "sums": dict(self._sums),
            "ranks": self._ranks.tolist(),
            "sure": self._sure.tolist(),
        }

    def restore(self, state: Any) -> None:
        self._counts, self._sums = Counter(state["counts"]), defaultdict(float, state["sums"])
        self._ranks, self._sure = np.array(state["ranks"], np.int64), np.array(state["sure"], float)

    def summary(self) -> dict[str, Any]:
        """Cases, how many were held back, and in how many sources contradict each other. Where cases have outcomes: accuracy of all, how
        many are given and right, and the error of confidence; with `positive` its area under the ROC curve (to a percent of the
        probability), its cases that were missed, and the share of others that were taken for it."""
        c = self._counts
        found: dict[str, Any] = {name: c[name] for name in ("cases", "abstained", "contradictions")}
        if c["labelled"]:
            found |= {"accuracy": c["right"] / c["labelled"], "answered": c["given"] / c["labelled"]}
            found |= {"precision": c["given_right"] / c["given"]} if c["given"] else {}
            found["ece"] = float(np.abs(self._sure[:, 1] - self._sure[:, 2]).sum() / c["labelled"])
        if c["positive"] and c["positive"] < c["labelled"]:
            scores, true = np.tile(np.arange(101), 2), np.repeat([False, True], 101)
            counts = self._ranks.reshape(-1)
            found |= {"auc": auc(np.repeat(true, counts), np.repeat(scores, counts))}
            found |= {"misses": c["missed"] / c["positive"], "false_alarms": c["alarms"] / (c["labelled"] - c["positive"])}
        return found

    def sections(self) -> list[Section]:
        from train.apps.pictures import coverage_picture, patches_picture

        o, c = self._options, self._counts
        numbers = self.summary_rows()
        if o.recall:
            rule = f"{o.positive} from a probability of {self._threshold:.3f} on"
        else:
            rule = "never" if self._threshold >= NEVER else f"from a confidence of {self._threshold:.3f} on"
        pictures = {"medical_coverage": coverage_picture(self._curve, o.precision, "cases")}
        title = f"Medical case ({NOTICE}): "
        mean = [
            [name.removeprefix("value "), f"{total / c[f'with {name}']:.4f}"]
            for name, total in sorted(self._sums.items(), key=lambda one: -one[1])
            if not name.startswith("patch ")
        ]
        maps: dict[str, bytes] = {}
        if c["maps"]:
            values = [[self._sums[f"patch {row} {column_}"] / c["maps"] for column_ in range(GRID)] for row in range(GRID)]
            maps = {"medical_patches": patches_picture(values)}
        areas = [["the run, held-out cases", self._held["area"]], *self._shortcuts]
        shortcuts = [[name, "none" if area is None else f"{area:.3f}"] for name, area in areas]
        return [
            Section(f"{title}answers", pictures, ("measure", "value"), [*numbers, ["an answer is given", rule]]),
            Section(f"{title}what answers rest on", maps, ("source or value", "mean change of the log-odds without it"), mean),
            Section(f"{title}shortcuts", {}, ("what alone tells the outcome", "area under the ROC curve, mean of the labels"), shortcuts),
        ]
