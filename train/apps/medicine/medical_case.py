"""A medical case: a text, values and an image to an outcome. For research, not for care."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.records.record import Record, is_number
from train.apps.medicine.cases import SOURCES, Case, Scales, Value, parse_value, read_image, read_value
from train.kinds import check_range
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, TaskFile, column, content_hash
from train.tasks.packing import Item, Piece

YES, NO = {"1", "true", "yes", "y", "right"}, {"0", "false", "no", "n", "wrong"}


@dataclasses.dataclass(frozen=True)
class MedicalCase(Classification):
    """Medical cases with an outcome: the text of a record, values and an image, any of them missing. For research, not for care."""

    home: ClassVar[str] = ":CaseDataset"
    how_to_get: ClassVar[str] = "Give cases with their outcomes: --data.files cases.jsonl --data.label OUTCOME."
    path_fields = (*Classification.path_fields, "images", "knowledge")

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
    groups: tuple[str, ...] = ()
    """Columns, such as a site, by whose values the page tells answers apart, beside those of `values` that have names. Nothing in them is
    masked."""
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
        said = [remark for _, remark in read if remark]
        remarks = tuple(_MASKS.masked(remark) for remark in said) if o.anonymize else tuple(said)
        case = Case(values, image, remarks, self._judged(record) if label is not None else None)
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
        if self.options.patient and gradient.private and gradient.user != self.options.patient:
            raise UserError(
                f"gradient.user is {gradient.user!r}, and a patient may have several cases: more is learned of one than is promised",
                f"Set --gradient.user {self.options.patient}.",
            )
        held = {one.fields.get(self.options.patient) for source in sources[len(self.options.files) :] for one in source.examples}
        both = held & {one.fields.get(self.options.patient) for one in self.examples(sources, "train")}
        if self.options.patient and both:
            raise UserError(
                f"data.validation_files: cases of {len(both)} patients, such as {min(map(str, both))}, are also in data.files",
                "Give cases of a patient in one of them, or leave data.validation_files out: patients are then kept from learning whole.",
            )
        if self.options.positive and self.options.positive not in self.label_names:
            raise UserError(f"data.positive is {self.options.positive!r}", f"It must be one of {', '.join(self.label_names)}.")
        if self.options.recall and len(self.label_names) != 2:
            raise UserError(f"data.recall is for two labels, and there are {len(self.label_names)}", "Leave it at 0.")
        from train.apps.medicine.diagnosis import read_knowledge

        read_knowledge(self.options.knowledge, self.label_names)

    def check_way(self) -> None:
        if self.way != "head":
            raise UserError("MedicalCase needs an encoder: a model that writes reads no values and no images", "Start from an encoder.")
        super().check_way()

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> Any:
        from train.apps.answering import Answering
        from train.apps.medicine.diagnosis import Medical

        return Medical(Answering(run, self, step=step, raw=raw))


def patient_name(given: Any) -> str:
    """The same for 1 and 1.0, and with spaces around it; "" for nobody."""
    if isinstance(given, str):
        return given.strip()
    if not is_number(given):
        return ""
    return str(int(given) if given == int(given) else given)
