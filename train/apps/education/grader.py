"""What a run that grades says of answers: scores with intervals, the points that an answer has, and when a teacher should look."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from data.records.record import Record, is_number
from data.rows.order import fold
from train.apps.confidence import conformal
from train.apps.education.marking import (
    LONGEST,
    Point,
    Ridge,
    Vectors,
    clauses,
    feedback,
    oddities,
    overlap,
    plain,
    points,
    ridge,
    without_plea,
)
from train.kinds import Application, Column, Section
from train.tasks.examples import Example, column
from train.tasks.metrics.regression import quadratic_kappa

FEWEST = 20
"""Answers held out, from which on it is learned how parts of a score weigh, and how far it can be trusted."""
FOLDS = 5
ENOUGH = 5
"""Answers of a question, from which on agreement on it is measured."""
SHARP = 10.0
"""How much nearer answers of the same question count more: exp(SHARP * cosine)."""
PRIOR = 2
"""Answers of average score that a question is taken to have beside its own."""
LEAST_SPREAD = 0.05
"""Of a score, as a share of the scale."""
KEPT = 20_000
"""Scored rows that the summary is of: the newest."""
SURE = ("blank", "unknown")
"""Oddities that have nothing to score."""


class Part(NamedTuple):
    """A criterion of a row: what is asked for, how much it counts, and what is odd about the answer. example: None for nothing to score."""

    name: str
    weight: float
    reference: str
    answer: str
    example: Example | None
    odd: list[str]


class Asked(NamedTuple):
    """A row. true: the teacher's score, if the row has one; graders: of two; key: of the question."""

    parts: list[Part]
    rubric: bool
    true: float | None
    graders: tuple[float, float] | None
    group: str
    key: str


class Grader(Application):
    """Scores of answers.

    A row has a reference and an answer, and perhaps a question; or `criteria`, a list of {"name", "reference", "weight"} by each of which
    the answer is scored alone. A line has `score`, `low` and `high`, the `points` of the reference (places in it, whether the answer has
    them, and where), `feedback`, and `needs_teacher` with `reasons`.

    The score of an answer to a question of the training files is learned from three things on answers that were held out: the model, a
    linear function of words and vectors, and scores of the answers to the same question that are near. For any other question it is the
    linear function alone: a model that was fine-tuned on few questions knows them by heart, and little of others.
    """

    notice = "A score is an estimate, between `low` and `high`; a teacher should look at those that need one."

    def __init__(self, answering: Any):
        self._answering, self._options, self.reads = answering, answering.dataset.options, answering.reads
        self.text = self._options.pair
        if answering.dataset.experiment.gradient.private:
            raise UserError(
                f"{answering.run.path}: grading reads the answers that were learned from, which a private run promises to tell nothing of",
                "Train with the gradient Exact, or use `omnia evaluate --predictions`, which reads the model alone.",
            )
        self._vectors: Vectors | None = None
        reads: list[Any] = []
        if self._options.encoder:
            from train.generation.embeddings import load_embedder

            embedder = load_embedder(self._options.encoder)
            self._vectors, reads = embedder, embedder.reads
        self._graded(answering.learned_from())
        learned = answering.learned(self._learn, of=[self._options.coverage, *reads])
        self._words = Ridge(**learned["words"])
        self._fused, self._spread, self._within = learned["fused"], learned["spread"], learned["within"]
        self._judged: list[list[Any]] = []
        self._counts: Counter[str] = Counter()

    # What is learned beside the model

    def _graded(self, examples: list[Example]) -> None:
        """The answers that were learned from, by question."""
        self._examples = examples
        self._mean = float(np.mean([example.label for example in examples]))
        vectors = None if self._vectors is None else self._vectors([example.fields["pair"] for example in examples])
        self._by_question: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        places: dict[str, list[int]] = {}
        for place, example in enumerate(examples):
            places.setdefault(_key(example), []).append(place)
        scores_N = np.array([example.label for example in examples])
        for key, mine in places.items():
            self._by_question[key] = (scores_N[mine], None if vectors is None else vectors[mine])

    def _features(self, examples: Sequence[Example]) -> np.ndarray:
        """float64 [N, 8 or 11]: of words, and nearness of vectors."""
        texts = [(one.fields["question"], one.fields["text"], one.fields["pair"]) for one in examples]
        words_NF = np.array([overlap(*three) for three in texts], np.float64).reshape(len(texts), 8)
        if self._vectors is None or not texts:
            return words_NF
        asked_ND, wanted_ND, given_ND = (self._vectors(list(column)) for column in zip(*texts, strict=True))
        near = [(one * other).sum(-1) for one, other in ((wanted_ND, given_ND), (asked_ND, given_ND), (asked_ND, wanted_ND))]
        return np.concatenate([words_NF, np.stack(near, -1)], -1)

    def _neighbours(self, examples: Sequence[Example]) -> np.ndarray:
        """float64 [N, 2]: of the graded answers to the same question the mean score, and that of those that are near."""
        given_ND = None if self._vectors is None or not examples else self._vectors([one.fields["pair"] for one in examples])
        found = []
        for place, example in enumerate(examples):
            scores, vectors = self._by_question[_key(example)]
            mean = (scores.sum() + PRIOR * self._mean) / (len(scores) + PRIOR)
            near = mean
            if vectors is not None and given_ND is not None:
                nearness = np.exp(SHARP * (vectors @ given_ND[place]))
                near = float(nearness @ scores / nearness.sum())
            found.append([mean, near])
        return np.array(found, np.float64).reshape(len(examples), 2)

    def _known(self, example: Example) -> bool:
        return _key(example) in self._by_question

    def _parts_of(self, model_N: np.ndarray, words_N: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
        """float64 [N, 4]: what scores of known questions are learned from."""
        return np.concatenate([np.stack([self._inside(model_N), words_N], -1), self._neighbours(examples)], -1)

    def _inside(self, score_N: np.ndarray) -> np.ndarray:
        return np.clip(np.nan_to_num(np.asarray(score_N, np.float64), nan=0.0), 0, self._options.scale)

    def _learn(self) -> dict[str, Any]:
        learned = self._examples
        x_NF, y_N = self._features(learned), np.array([one.label for one in learned])
        words = ridge(x_NF, y_N)
        # What a question is worth that was never seen: each fold leaves whole questions out.
        names = sorted({_key(one) for one in learned})
        folds = {name: place % FOLDS for place, name in enumerate(names)}
        fold_N = np.array([folds[_key(one)] for one in learned])
        new_N = np.full(len(learned), y_N.mean())
        for number in range(FOLDS):
            if (fold_N != number).any() and (fold_N == number).any():
                new_N[fold_N == number] = self._inside(ridge(x_NF[fold_N != number], y_N[fold_N != number])(x_NF[fold_N == number]))
        held, model = self._answering.validation()
        chosen = [place for place, one in enumerate(held) if self._known(one)]
        held, model_N = [held[place] for place in chosen], np.array([model[place] for place in chosen], np.float64)
        if len(held) < FEWEST:
            raise UserError(
                f"{self._answering.run.path}: {len(held)} answers to known questions were held out, and {FEWEST} are needed",
                "Train with --data.validation 0.1, or validation files.",
            )
        true_N = np.array([one.label for one in held])
        words_N = self._inside(words(self._features(held)))
        parts_NF = self._parts_of(model_N, words_N, held)
        # Held-out answers weigh the parts; how wrong a score is, is told by folds of them that it was not weighed on.
        held_fold_N, out_N = fold(0, np.arange(len(held))) % FOLDS, np.full(len(held), true_N.mean())
        for number in range(FOLDS):
            own_N = held_fold_N == number
            if own_N.any() and not own_N.all():
                out_N[own_N] = self._inside(ridge(parts_NF[~own_N], true_N[~own_N], 10.0)(parts_NF[own_N]))
        spread, within = {}, {}
        for name, given_N, apart_N, right_N, by_N in (
            ("known", out_N, np.abs(parts_NF[:, 0] - words_N), true_N, held_fold_N),
            ("new", new_N, np.zeros(len(learned)), y_N, fold_N),
        ):
            of_NF, errors_N = np.stack([self._options.scale - given_N, apart_N], -1), np.abs(given_N - right_N)
            spread[name] = ridge(of_NF, errors_N, 10.0)._asdict()
            around_N = self._spread_by_folds(of_NF, errors_N, by_N)
            within[name] = min(conformal(errors_N / around_N, self._options.coverage), 1e9)
        fused = ridge(parts_NF, true_N, 10.0)
        return {"words": words._asdict(), "fused": fused._asdict(), "spread": spread, "within": within}

    def _spread_of(self, line: dict[str, Any], of_NF: Any) -> np.ndarray:
        """About how wrong scores are: by how far they are from the best one, and how far their parts are apart."""
        return np.maximum(Ridge(**line)(of_NF), LEAST_SPREAD * self._options.scale)

    def _spread_by_folds(self, of_NF: np.ndarray, errors_N: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
        """The same for errors that it is not fitted to: each fold's is fitted to the others."""
        around_N = self._spread_of(ridge(of_NF, errors_N, 10.0)._asdict(), of_NF)
        for number in range(FOLDS):
            own_N = fold_N == number
            if own_N.any() and not own_N.all():
                around_N[own_N] = self._spread_of(ridge(of_NF[~own_N], errors_N[~own_N], 10.0)._asdict(), of_NF[own_N])
        return around_N

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        from train.apps.answering import ID

        o = self._options
        found = {
            o.question: Column("The question."),
            o.text: Column("What should be said."),
            o.pair: Column("What was said."),
            "criteria": Column('In place of a reference, several that are scored apart: {"name", "reference", "weight"} of each.', "list"),
            o.label: Column("The teacher's score, if it is known: the summary compares.", "number"),
        }
        found |= {name: Column("The score of one of two graders, whose agreement the summary tells.", "number") for name in o.graders}
        return found | ({o.group: Column("The group of the student; the summary compares groups.")} if o.group else {}) | ID

    @property
    def example(self) -> dict[str, Any]:
        from train.apps.answering import legible

        o = self._options
        said = {
            o.question: "What does a stack do?",
            o.text: "It keeps elements in order, and removes the newest element first.",
            o.pair: "It removes what came last.",
        }
        return {name: legible(text, self._answering.tokenizer) for name, text in said.items()}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        from train.apps.answering import in_place

        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> Asked:
        o = self._options
        answer = row.get(o.pair)
        if answer is not None and not isinstance(answer, str | int | float):
            raise UserError(f"{row.where}: {o.pair} is a {type(answer).__name__}", "Give text.")
        answer = "" if answer is None else str(answer)[:LONGEST]
        asked = row.get(o.question)
        question = plain(asked[:LONGEST]) if isinstance(asked, str) else ""
        criteria = row.get("criteria")
        rubric = criteria is not None
        if not rubric:
            criteria = [{"name": "", "reference": column(row, o.text)}]
        if not isinstance(criteria, list) or not criteria or len(criteria) > 50:
            raise UserError(f"{row.where}: criteria is no list of 1 to 50", 'Give objects such as {"name": "style", "reference": "..."}.')
        parts = []
        for one in criteria:
            reference, weight = (one.get("reference"), one.get("weight", 1)) if isinstance(one, dict) else (None, 1)
            if not isinstance(reference, str) or not reference.strip() or not is_number(weight) or not 0 < weight < math.inf:
                raise UserError(f"{row.where}: a criterion has no reference, or a weight that is not above 0", "Give each a text.")
            reference = reference[:LONGEST]
            odd = oddities(question, reference, answer)
            scored = without_plea(answer) if "plea" in odd else answer
            example = None
            if scored.strip() and not {*odd} & {*SURE}:
                example = self._answering.example_of(Record({o.text: reference, o.pair: scored, o.question: question}, row.where))
            parts.append(Part(str(one.get("name", "")), float(weight), reference, answer, example, odd))
        given = [score for name in o.graders if (score := _score_of(row, name)) is not None]
        both = (given[0], given[1]) if len(given) == 2 else None
        return Asked(
            parts, rubric, _score_of(row, o.label), both, str(row.get(o.group, "")) if o.group else "", question or parts[0].reference
        )

    def _lines(self, rows: list[Asked]) -> list[dict[str, Any]]:
        parts = [part for row in rows for part in row.parts if part.example is not None]
        scored = iter(self._scored([part.example for part in parts if part.example is not None]))
        vectors = self._vectors_of(
            {text[start:end] for part in parts for text in (part.reference, part.answer) for start, end in clauses(text)}
        )
        lines = []
        for row in rows:
            found = [self._line(part, next(scored) if part.example is not None else (0.0, 0.0, 0.0), vectors) for part in row.parts]
            line = found[0] if not row.rubric else self._together(row, found)
            self._count(row, line)
            lines.append(line)
        return lines

    def _scored(self, examples: list[Example]) -> list[tuple[float, float, float]]:
        """(score, low, high) of each."""
        if not examples:
            return []
        model_N = self._inside(np.array(self._answering(examples)))
        score_N = self._inside(self._words(self._features(examples)))
        known_N = np.array([self._known(one) for one in examples])
        apart_N = np.where(known_N, np.abs(model_N - score_N), 0.0)
        if known_N.any():
            those = [one for one, known in zip(examples, known_N, strict=True) if known]
            fused = Ridge(**self._fused)(self._parts_of(model_N[known_N], score_N[known_N], those))
            score_N = np.where(known_N, np.zeros(len(examples)), score_N)
            score_N[known_N] = self._inside(fused)
        found = []
        for score, apart, known in zip(score_N.tolist(), apart_N.tolist(), known_N.tolist(), strict=True):
            name = "known" if known else "new"
            around = self._within[name] * float(self._spread_of(self._spread[name], [[self._options.scale - score, apart]])[0])
            found.append((score, max(score - around, 0.0), min(score + around, self._options.scale)))
        return found

    def _vectors_of(self, texts: set[str]) -> Vectors | None:
        """Vectors of these texts, made all at once."""
        if self._vectors is None or not texts:
            return None
        names = sorted(texts)
        found = dict(zip(names, self._vectors(names), strict=True))
        return lambda some: np.stack([found[text] for text in some])

    def _line(self, part: Part, scored: tuple[float, float, float], vectors: Vectors | None) -> dict[str, Any]:
        o = self._options
        score, low, high = scored
        there = points(part.reference, part.answer, vectors) if part.example is not None else points(part.reference, "")
        reasons = list(part.odd)
        if high - low > o.widest * o.scale and part.example is not None:
            reasons.append("wide")
        if part.example is None and not reasons:
            reasons.append("blank")
        return {
            "score": round(self._stepped(score), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "points": [self._point(part, one) for one in there],
            "feedback": feedback(part.reference, part.answer, there, hide=o.hide, odd=part.odd),
            "needs_teacher": bool(reasons),
            "reasons": reasons,
        }

    def _stepped(self, score: float) -> float:
        o = self._options
        return min(round(score / o.step) * o.step, o.scale) if o.step else score

    def _point(self, part: Part, one: Point) -> dict[str, Any]:
        found: dict[str, Any] = {"start": one.start, "end": one.end, "matched": one.matched, "nearness": one.nearness}
        if one.span is not None:
            found["span"] = {"start": one.span[0], "end": one.span[1], "quote": part.answer[one.span[0] : one.span[1]]}
        return found if self._options.hide else found | {"text": part.reference[one.start : one.end]}

    def _together(self, row: Asked, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """One score of all criteria, by their weights; its interval is as wide as if all were wrong together."""
        weights = np.array([part.weight for part in row.parts])
        weights /= weights.max()  # whose sum may be more than a float holds
        share = weights / weights.sum()
        together = {name: float(share @ [line[name] for line in lines]) for name in ("score", "low", "high")}
        together["score"] = self._stepped(together["score"])
        together = {name: round(value, 4) for name, value in together.items()}
        said = [f"{part.name}: {line['feedback']}".removeprefix(": ") for part, line in zip(row.parts, lines, strict=True)]
        reasons = list(dict.fromkeys(reason for line in lines for reason in line["reasons"]))
        criteria = [
            {"name": part.name} | {name: line[name] for name in ("score", "low", "high", "points")}
            for part, line in zip(row.parts, lines, strict=True)
        ]
        return together | {"criteria": criteria, "feedback": "\n".join(said), "needs_teacher": bool(reasons), "reasons": reasons}

    # All rows

    def _count(self, row: Asked, line: dict[str, Any]) -> None:
        self._counts["rows"] += 1
        self._counts["teacher"] += line["needs_teacher"]
        for reason in line["reasons"]:
            self._counts[f"reason {reason}"] += 1
        if row.true is not None:
            within = line["low"] <= row.true <= line["high"]
            length = sum(len(part.answer) for part in row.parts[:1])
            kept = [xxhash.xxh3_64_hexdigest(row.key.encode("utf-8", "replace")), line["score"], row.true, within, length, row.group[:60]]
            self._judged = [*self._judged, kept + (list(row.graders) if row.graders else [])][-KEPT:]

    def state(self) -> Any:
        return {"counts": dict(self._counts), "judged": [*self._judged]}

    def restore(self, state: Any) -> None:
        self._counts, self._judged = Counter(state["counts"]), state["judged"]

    def _agreement(self) -> list[dict[str, Any]]:
        """Of each question with enough answers: quadratic kappa of the scores and the teacher's, each rounded; of two graders too."""
        by_question: dict[str, list[list[Any]]] = {}
        for one in self._judged:
            by_question.setdefault(one[0], []).append(one)
        found = []
        for key, some in by_question.items():
            if len(some) < ENOUGH:
                continue
            line = {"question": key, "answers": len(some), "kappa": quadratic_kappa(self._grades(some, 1), self._grades(some, 2))}
            if all(len(one) == 8 for one in some):
                line["graders"] = quadratic_kappa(self._grades(some, 6), self._grades(some, 7))
            found.append(line)
        return found

    def _grades(self, some: list[list[Any]], place: int) -> np.ndarray:
        """Whole steps, since kappa is of grades: of `step`, or of 1."""
        return np.floor(np.array([one[place] for one in some], np.float64) / (self._options.step or 1.0) + 0.5)

    def summary(self) -> dict[str, Any]:
        """Rows, and the share that a teacher is to see; of rows with a score: correlation, root mean square error, the mean quadratic kappa
        of questions, the share of scores within their intervals; of two graders the same; by group the standardised mean difference, by
        length the correlation of errors with it."""
        found: dict[str, Any] = {"rows": self._counts["rows"]}
        if not found["rows"]:
            return found
        found["needs_teacher"] = self._counts["teacher"] / found["rows"]
        if len(self._judged) < 2:
            return found
        given, true = (np.array([one[place] for one in self._judged], np.float64) for place in (1, 2))
        found |= {"answers": len(given), "r": _correlation(given, true), "rmse": float(np.sqrt(((given - true) ** 2).mean()))}
        found["covered"] = float(np.mean([one[3] for one in self._judged]))
        agreement = self._agreement()
        for name, shown in (("kappa", "quadratic_kappa"), ("graders", "graders_quadratic_kappa")):
            known = [one[name] for one in agreement if name in one and not math.isnan(one[name])]
            found |= {shown: float(np.mean(known))} if known else {}
        found["length_effect"] = _correlation(given - true, np.log1p([one[4] for one in self._judged]))
        both = [one for one in self._judged if len(one) == 8]
        if len(both) > 1:
            found["graders_r"] = _correlation(*(np.array([one[place] for one in both], np.float64) for place in (6, 7)))
        differences = self._differences()
        if differences:
            found["largest_smd"] = max((abs(one["smd"]) for one in differences), default=0.0)
        return {name: value for name, value in found.items() if not (isinstance(value, float) and math.isnan(value))}

    def _differences(self) -> list[dict[str, Any]]:
        """Of each group with enough answers: mean score minus the teachers', over the deviation of all teachers' scores."""
        deviation = float(np.std([one[2] for one in self._judged] or [0.0])) or math.nan
        groups: dict[str, list[float]] = {}
        for one in self._judged:
            if one[5]:
                groups.setdefault(one[5], []).append(one[1] - one[2])
        rows = [{"group": name, "answers": len(some), "smd": float(np.mean(some)) / deviation} for name, some in sorted(groups.items())]
        return [row for row in rows if len(groups[str(row["group"])]) >= ENOUGH]

    def sections(self) -> list[Section]:
        from train.apps.pictures import agreement_picture

        agreement = sorted(self._agreement(), key=lambda one: -one["answers"])
        shown = [[str(one["answers"]), _shown(one["kappa"]), _shown(one.get("graders", math.nan))] for one in agreement[:60]]
        rows = self.summary_rows()
        reasons = [[name.removeprefix("reason "), str(count)] for name, count in sorted(self._counts.items()) if name.startswith("reason ")]
        found = [
            Section("Grading: scores beside a teacher's", {"grading_agreement": agreement_picture(agreement)}, ("measure", "value"), rows),
            Section("Grading: why a teacher is to look", {}, ("reason", "rows"), reasons),
            Section("Grading: agreement by question, quadratic kappa", {}, ("answers", "model and teacher", "two graders"), shown),
        ]
        differences = [[one["group"], str(one["answers"]), f"{one['smd']:+.4f}"] for one in self._differences()]
        if differences:
            found.append(Section("Grading: groups", {}, ("group", "answers", "standardised mean difference"), differences))
        return found


def _key(example: Example) -> str:
    """Of a question and what is asked for: a criterion of a known question is no known one."""
    return f"{example.fields['question']}\n{example.fields['text']}".lower()


def _score_of(row: Record, name: str) -> float | None:
    """None for a row without a finite number there."""
    value = row.get(name)
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # a whole number that no float holds
        return None
    return number if math.isfinite(number) else None


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if np.std(one) > 0 and np.std(other) > 0 else math.nan


def _shown(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"
