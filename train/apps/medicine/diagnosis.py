"""What is said of a case: a differential with what each source contributes, and a report of the record's own sentences."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.errors import UserError
from data.records.record import Record
from data.records.rows import read_records
from train.apps.confidence import NEVER, Calibration, log_odds, tempered, threshold
from train.apps.medicine.cases import SOURCES, TURNED, Value, image_of
from train.apps.medicine.shortcuts import NAMES, binned, mean_area, probe
from train.kinds import Application, Column, Section
from train.tasks.examples import Example, column
from train.tasks.metrics.binary import auc

NOTICE = "for research, not for care"
GREY = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
"""An image of one place."""
LEAST = 0.5
"""An answer that is not likelier than all others together is held back, however easy the held-out cases were."""
CONFIDENT = 0.8
"""Probability from which on a source by itself is sure of its answer."""
FEW = 50
"""Held-out cases from whose temperature half counts, by its logarithm; more count more."""
ODD = 1.5
"""An image is odd that lies so many times as far from those learned from as the farthest of those held out."""
SELDOM, ENOUGH = 0.05, 20
"""An image is said to be turned if at most this share of the held-out images, so many at least, would be: there are images that look the
same whichever way they stand."""
GROUPS = 8
"""Values of a column by which answers are told apart on the page, at most."""
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


def _known(area: float) -> float | None:
    """To be kept as JSON. None where cases have one label alone."""
    return None if math.isnan(area) else round(area, 4)


def _column_of(value: Value) -> Column:
    if value.names:
        return Column(f"One of {', '.join(value.names)}.")
    return Column(f"A number from {value.low:g} to {value.high:g}." if value.high < math.inf else "A number.", "number")


# ------------------------------------------------------------------------------------------------------------------- at work


class Medical(Application):
    """Lines with a differential, what each source contributed, and a report of the record's own sentences.

    contributions: by how much the log-odds of the likeliest label fall without a source, in nats. contradiction: what each source answers
    by itself, where they are sure and differ. Values that cannot be believed are told in `remarks`, and missing.
    """

    notice = f"{NOTICE.capitalize()}: nothing here was tried on patients, and no answer is advice."

    def __init__(self, answering: Any):
        self._answering, self._dataset = answering, answering.dataset
        o = self._options = answering.dataset.options
        self.text, self.reads, self._names = o.text, answering.reads, answering.dataset.label_names
        self._knowledge = read_knowledge(o.knowledge, self._names)
        learned = answering.learned(self._learn, of=[o.precision, o.positive, o.recall, [*TURNED]])
        self._temperature, self._threshold, self._curve = learned["temperature"], learned["threshold"], learned["coverage"]
        self._odd, self._turned = learned["odd"], learned["turned"]
        self._shortcuts, self._held = learned["shortcuts"], learned["held"]
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, float] = defaultdict(float)
        """Of contributions, without their signs, by source, value and patch."""
        self._slices: dict[str, dict[str, list[int]]] = defaultdict(dict)
        """Of each column with names, of each name: rows with an outcome, right ones, and positives that were missed."""
        self._ranks = np.zeros((2, 101), np.int64)
        """Rows by whether they are positive, and the percent of that probability."""
        self._sure = np.zeros((10, 3))
        """By tenths of confidence: rows, right ones, and the sum of confidence."""

    def _learn(self) -> dict[str, Any]:
        """From the cases that were held out: the temperature, from which confidence or probability on is answered, how odd an image may be
        and how it may have been turned; and what single columns tell."""
        o, dataset = self._options, self._dataset
        examples, answers = self._answering.validation()
        if not examples:
            raise UserError(f"{self._answering.run.path}: no cases were held out", "Train with --data.validation 0.2, or validation files.")
        labels = np.array([dataset.place_of(example.label, example) for example in examples])
        held = Calibration.of(answers, labels, few=FEW)
        if o.recall:
            place = self._names.index(o.positive)
            at = recall_threshold(held.probabilities_NV[labels == place, place], o.recall)
        else:
            at = max(threshold(held.confidence_N, held.right_N, o.precision), LEAST)
        images = [example.parts.image for example in examples if example.parts.image is not None]
        oddness = [dataset.scales.oddness(image) for image in images]
        turned = {name: sum(dataset.scales.turned(image, [name]) == name for image in images) for name in TURNED}
        return {
            "temperature": held.temperature,
            "threshold": at,
            "coverage": held.curve,
            "odd": ODD * max(oddness, default=2.0),
            "turned": [name for name, count in turned.items() if len(images) >= ENOUGH and count <= SELDOM * len(images)],
            "held": {"cases": len(examples), "area": _known(mean_area(held.probabilities_NV, labels))},
            # Which is measured of cases that were learned from, of whom a private run promises to tell nothing so exact.
            "shortcuts": [] if dataset.experiment.gradient.private else self._probed(),
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

    @property
    def columns(self) -> dict[str, Column]:
        from train.apps.answering import ID

        o = self._options
        found = {o.text: Column("The record.")} | {value.name: _column_of(value) for value in self._dataset.columns}
        if "image" in o.sources:
            found[o.image] = Column("An image, such as an X-ray.", "image")
        if o.patient:
            found[o.patient] = Column("Whose case it is.")
        found[o.label] = Column("The outcome, if it is known: the summary counts how often it is found.")
        if o.judged:
            found[o.judged] = Column("Whether that outcome was an answer, and right or wrong: the summary does not count such cases.")
            found[o.given] = Column("The probability with which it was given.", "number")
        return found | ID

    @property
    def example(self) -> dict[str, Any]:
        from train.apps.answering import legible

        text = "A cough and fever for three days. The film shows an opacity on the left."
        found: dict[str, Any] = {self.text: legible(text, self._answering.tokenizer)} if "text" in self._options.sources else {}
        for value in self._dataset.columns:
            if value.names:
                found[value.name] = value.names[0]
            elif value.high < math.inf:
                found[value.name] = round((value.low + value.high) / 2, 1)
        return found or {self._options.image: GREY}

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
            remarks.append("the image is unlike those learned from")
        if case.image is not None and (turned := self._dataset.scales.turned(case.image, self._turned)):
            remarks.append(f"the image seems to be {turned}, or of something else")
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
        missed = bool(self._options.positive) and example.label == self._options.positive and not right
        for name, value in self._groups_of(example):
            if value in self._slices[name] or len(self._slices[name]) < GROUPS:
                self._slices[name][value] = [
                    a + b for a, b in zip(self._slices[name].get(value, [0, 0, 0]), (1, right, missed), strict=True)
                ]
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

    def _groups_of(self, example: Example) -> list[tuple[str, str]]:
        """Of a case its values that are names, such as a sex, and what columns of groups say."""
        given = zip(self._dataset.columns, self._dataset.case_of(example).values, strict=True)
        named = {value.name: value.names[int(one)] for value, one in given if value.names and one is not None}
        return [*(named | {name: example.fields[name][:60] for name in self._options.groups if name in example.fields}).items()]

    def state(self) -> Any:
        return {
            "slices": {name: dict(own) for name, own in self._slices.items()},
            "counts": dict(self._counts),
            "sums": dict(self._sums),
            "ranks": self._ranks.tolist(),
            "sure": self._sure.tolist(),
        }

    def restore(self, state: Any) -> None:
        self._counts, self._sums = Counter(state["counts"]), defaultdict(float, state["sums"])
        self._slices = defaultdict(dict, {name: dict(own) for name, own in state["slices"].items()})
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
        slices = [
            [name, value, f"{rows:,}", f"{right / rows:.3f}", f"{missed:,}" if o.positive else ""]
            for name, own in sorted(self._slices.items())
            if 1 < len(own) < GROUPS  # more are no groups, but names
            for value, (rows, right, missed) in sorted(own.items())
        ]
        return [
            Section(f"{title}answers", pictures, ("measure", "value"), [*numbers, ["an answer is given", rule]]),
            Section(f"{title}what answers rest on", maps, ("source or value", "mean change of the log-odds without it"), mean),
            Section(f"{title}groups", {}, ("column", "value", "cases", "right", "positives missed"), slices),
            Section(f"{title}shortcuts", {}, ("what alone tells the outcome", "area under the ROC curve, mean of the labels"), shortcuts),
        ]
