"""Practice: what a student knows, from answers so far, and which exercises should come next."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record, is_number
from data.records.rows import read_records
from train.apps.answering import ID, Answering, in_place, number_in
from train.apps.bm25 import WordIndex
from train.apps.education.marking import LONGEST
from train.kinds import Application, Column, Section, check_range
from train.tasks.examples import column
from train.tasks.tracing import BEFORE, BEGIN, GOES_ON, AnswerRows, Tracing, TracingDataset, answers_of
from train.tasks.words import words

TOP, MOST = 5, 100
"""Skills that are named where a row asks for no number, and at most."""
CANDIDATES = 12
"""Skills whose gain is looked at, or twice as many as are asked for."""
WIDTH = 0.15
"""Standard deviation of how near to the target a probability is good."""
LAST = 5
"""Answers of a skill that a reason tells of."""
BINS = 10


@dataclasses.dataclass(frozen=True)
class Practice(Tracing):
    """Answers of students, and, where there are some, texts of skills or courses and what they need."""

    home: ClassVar[str] = ":PracticeDataset"
    path_fields = (*Tracing.path_fields, "texts", "prerequisites", "encoder")

    texts: str = ""
    """File of skills or courses with texts: skill, text. Read anew by each process; those that no answers are about may be among them."""
    prerequisites: str = ""
    """File of what a skill needs: skill, needs (a list, or names with | between them). Read anew, too."""
    encoder: str = ""
    """Run of a text encoder whose vectors find skills for an interest, beside their words. Empty: words alone."""
    target: float = 0.7
    """Probability of a right answer that the next exercise should have: neither too easy nor too hard."""
    mastered: float = 0.7
    """Probability from which on a skill that another needs is there."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 0, "target", "mastered", high=1)


class PracticeDataset(TracingDataset):
    options: Practice

    def check(self, sources: list) -> None:
        super().check(sources)
        read_texts(self.options.texts)
        read_needs(self.options.prerequisites)

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Practising":
        return Practising(Knowing(run, self, step=step, raw=raw))


# ------------------------------------------------------------------------------------------------------------------ files


def read_texts(path: str) -> dict[str, str]:
    """The text of each skill. UserError for two of one."""
    found: dict[str, str] = {}
    for record in read_records(path) if path else ():
        skill = column(record, "skill").strip()
        if skill in found:
            raise UserError(f"{record.where}: a second text of {skill!r}", "Give each skill one.")
        found[skill] = column(record, "text").strip()
    return found


def read_needs(path: str) -> dict[str, tuple[str, ...]]:
    """What each skill needs. UserError for skills that need one another in a circle."""
    found: dict[str, tuple[str, ...]] = {}
    for record in read_records(path) if path else ():
        skill, needs = column(record, "skill").strip(), record.get("needs") or ""
        names = needs if isinstance(needs, list) else str(needs).split("|")
        found[skill] = tuple(dict.fromkeys([*found.get(skill, ()), *(name for one in names if (name := str(one).strip()))]))
    open_ = {skill: {one for one in needs if one in found} for skill, needs in found.items()}
    while ready := [skill for skill, needs in open_.items() if not needs]:
        open_ = {skill: needs - {*ready} for skill, needs in open_.items() if skill not in ready}
    if open_:
        raise UserError(f"{path}: {', '.join(sorted(open_)[:5])} need one another in a circle", "Take one of the needs away.")
    return found


# ------------------------------------------------------------------------------------------------------------------ the model's view


class Knowing(Answering):
    """What a run's model expects of answers."""

    def expected(self, histories: Sequence[Sequence[tuple[str, bool]]], *, mean: bool = False) -> np.ndarray:
        """float64 [N, S]: the probability that the next answer is right, of each skill of the run, the first standing for all others;
        with `mean` over the skills, [N]."""
        length, places = self.dataset.length, self.dataset.places

        def batch(first: int, count: int):
            made = self.dataset.empty(count)
            for row, number in enumerate(range(first, min(first + count, len(histories)))):
                mine = histories[number][-(length - 1) :]
                tokens = [BEFORE + 2 * places.get(skill, 0) + right for skill, right in mine]
                made.tokens[row, : 1 + len(mine)] = [GOES_ON if len(mine) < len(histories[number]) else BEGIN, *tokens]
                made.segments[row, : 1 + len(mine)], made.positions[row, : 1 + len(mine)] = 1, np.arange(1 + len(mine))
            return made

        found = [np.zeros(0 if mean else (0, len(places)), np.float64)]

        def collect(outputs: dict) -> None:
            every_BS = np.asarray(outputs["every"], np.float64)
            found.append(every_BS.mean(1) if mean else every_BS)

        self._evaluator.outputs(self._params, batch, len(histories), collect)
        return np.concatenate(found)[: len(histories)]

    def held_out_answers(self) -> tuple[np.ndarray, np.ndarray]:
        """(probability, whether it was right) of each answer of the students that the run kept from learning."""
        rows = AnswerRows(self.dataset, self.dataset.sequences("validation"), training=False)
        given, true = [np.zeros(0)], [np.zeros(0)]

        def collect(outputs: dict) -> None:
            counted = np.asarray(outputs["weights"]) > 0
            given.append(np.asarray(outputs["probability"], np.float64)[counted])
            true.append(np.asarray(outputs["correct"], np.float64)[counted])

        self._evaluator.outputs(self._params, rows.batch, rows.rows_per_epoch, collect)
        return np.concatenate(given), np.concatenate(true)


class Asked(NamedTuple):
    """A row: answers so far, in their order, what the student likes and how well each skill goes with it, how many skills are asked for,
    and which may not come."""

    history: list[tuple[str, bool]]
    interest: str
    match: dict[str, float]
    top: int
    exclude: frozenset[str]


class Practising(Application):
    """What a student knows, and what comes next.

    A row has answers so far, as two lists of equal length by the columns of the options (none: a new student), and perhaps `interest`, a
    text; `top`; `exclude`, a list of skills. A line has `mastery`, the probability of a right answer of each skill tried, and `next`, the
    best skills to practise: those whose probability is near the target, weighed by the predicted gain, the rise of the mean over all skills
    that the model expects of one answer, and by how well their text matches the interest. One that needs what is not mastered is named in
    `waiting` instead. All of it is prediction: no experiment has shown that who follows it learns more.
    """

    text = "interest"
    notice = "What is recommended is prediction: no experiment has shown that who follows it learns more."

    def __init__(self, knowing: Any):
        self._knowing, self._options, self.reads = knowing, knowing.dataset.options, knowing.reads
        o = self._options
        self._places: dict[str, int] = knowing.dataset.places
        self._texts, self._needs = read_texts(o.texts), read_needs(o.prerequisites)
        self._names = [name for name in dict.fromkeys([*list(self._places)[1:], *self._texts, *self._needs]) if name]
        self._encoder = None
        if o.encoder and self._texts:
            from train.generation.embeddings import load_embedder

            self._encoder = load_embedder(o.encoder)
            self._texts_ND = self._encoder([self._texts.get(name, name) for name in self._names])
        self._index = WordIndex([f"{name} {self._texts.get(name, '')}" for name in self._names])
        self._bins = knowing.learned(self._learn)["bins"]
        self._counts: Counter[str] = Counter()
        self._sums = {"probability": 0.0, "gain": 0.0}

    def _learn(self) -> dict[str, Any]:
        """Of answers that were held out: by tenths of the probability its mean, how many were right, and how many there were."""
        given_N, true_N = self._knowing.held_out_answers()
        bin_N = np.minimum((given_N * BINS).astype(int), BINS - 1)
        some = [bin_N == number for number in range(BINS) if (bin_N == number).any()]
        return {"bins": [[float(given_N[one].mean()), float(true_N[one].mean()), int(one.sum())] for one in some]}

    # Rows

    @property
    def columns(self) -> dict[str, Column]:
        o = self._options
        return {
            o.skill: Column("The skills of the answers so far, in their order. None: a new student.", "list"),
            o.correct: Column("Whether each of these answers was right: 1 or 0.", "list"),
            "interest": Column("What the student likes."),
            "top": Column(f"How many skills are named, 1 to {MOST}; {TOP} by default.", "number"),
            "exclude": Column("Skills that may not be named.", "list"),
        } | ID

    @property
    def example(self) -> dict[str, Any]:
        tried = [name for name in self._places if name][:2]
        return {self._options.skill: [*tried, *tried[:1]], self._options.correct: [1, 0, 1][: len(tried) + 1]} if tried else {"top": TOP}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> Asked:
        o = self._options
        history = [(skill, right) for skill, right, _ in answers_of(row, o)] if o.skill in row or o.correct in row else []
        top, exclude, interest = int(number_in(row, "top", TOP, 1, MOST, whole=True)), row.get("exclude") or [], row.get("interest") or ""
        if not isinstance(exclude, list) or not all(isinstance(one, str) or is_number(one) for one in exclude):
            raise UserError(f"{row.where}: exclude is no list of skills", "Give names.")
        if not isinstance(interest, str):
            raise UserError(f"{row.where}: interest is a {type(interest).__name__}", "Give text.")
        interest = interest.strip()[:LONGEST]
        return Asked(history, interest, self._match(interest), top, frozenset(map(str, exclude)))

    def _lines(self, rows: list[Asked]) -> list[dict[str, Any]]:
        if not rows:
            return []
        expected_RS = self._knowing.expected([row.history for row in rows])
        chosen = [self._chosen(*both) for both in zip(rows, expected_RS, strict=True)]
        # No more than what the model reads is copied: `length` answers, of which it leaves out the first.
        read = [row.history[-(self._knowing.dataset.length - 1) :] for row in rows]
        further = [[*mine, (name, right)] for mine, some in zip(read, chosen, strict=True) for name in some for right in (True, False)]
        after = iter(self._knowing.expected(further, mean=True).reshape(-1, 2).tolist())
        lines = []
        for row, expected_S, some in zip(rows, expected_RS, chosen, strict=True):
            gain = {}
            for name in some:
                right, wrong = next(after)
                likely = self._of(expected_S, name)
                gain[name] = likely * right + (1 - likely) * wrong - float(expected_S.mean())
            lines.append(self._line(row, expected_S, gain))
        return lines

    def _of(self, expected_S: np.ndarray, name: str) -> float:
        return float(expected_S[self._places.get(name, 0)])

    def _match(self, interest: str) -> dict[str, float]:
        """0 to 1 of each skill: how well it goes with an interest; {} for none, and for one that goes with nothing, which would make all
        skills worth nothing alike."""
        if not interest:
            return {}
        share_N = self._index.shares(interest)
        if self._encoder is not None:
            share_N = (np.clip(self._texts_ND @ self._encoder([interest])[0], 0, 1) + share_N / 2) / 1.5
        return dict(zip(self._names, share_N.tolist(), strict=True)) if share_N.any() else {}

    def _missing(self, expected_S: np.ndarray, name: str) -> list[str]:
        """What a skill needs and is not mastered; what nobody's answers are about, of which nothing is known, is missing too."""
        needs, mastered = self._needs.get(name, ()), self._options.mastered
        return [one for one in needs if one not in self._places or self._of(expected_S, one) < mastered]

    def _near(self, expected_S: np.ndarray, name: str) -> float:
        return float(np.exp(-0.5 * ((self._of(expected_S, name) - self._options.target) / WIDTH) ** 2))

    def _chosen(self, row: Asked, expected_S: np.ndarray) -> list[str]:
        """The skills whose gain is looked at."""
        worth = {name: self._near(expected_S, name) * row.match.get(name, 1.0) for name in self._names if name not in row.exclude}
        open_ = [name for name in worth if not self._missing(expected_S, name)]
        return sorted(open_, key=lambda name: (-worth[name], name))[: max(CANDIDATES, 2 * row.top)]

    def _line(self, row: Asked, expected_S: np.ndarray, gain: dict[str, float]) -> dict[str, Any]:
        most = max([*gain.values(), 1e-12])
        scored = {
            name: self._near(expected_S, name) * (1 + max(value, 0) / most) / 2 * row.match.get(name, 1.0) for name, value in gain.items()
        }
        best = sorted(scored, key=lambda name: (-scored[name], name))[: row.top]
        tried = list(dict.fromkeys(skill for skill, _ in row.history))
        blocked = [name for name in self._names if self._missing(expected_S, name)]
        blocked.sort(key=lambda name: -row.match.get(name, 0.0))
        self._counts["students"] += 1
        self._counts["new"] += not row.history
        if best:
            self._counts["advised"] += 1
            self._sums["probability"] += self._of(expected_S, best[0])
            self._sums["gain"] += gain[best[0]]
        return {
            "mastery": {skill: round(self._of(expected_S, skill), 4) for skill in tried},
            "next": [self._next(row, expected_S, name, gain[name], scored[name]) for name in best],
            "waiting": [{"skill": name, "needs": self._missing(expected_S, name)} for name in blocked[: row.top]],
            "new": not row.history,
        }

    def _next(self, row: Asked, expected_S: np.ndarray, name: str, gain: float, score: float) -> dict[str, Any]:
        likely, mine = self._of(expected_S, name), [right for skill, right in row.history if skill == name]
        last = mine[-LAST:]
        said = [f"{sum(last)} of the last {len(last)} right" if mine else "not tried yet"]
        said.append(f"a right answer is expected with {likely:.2f}, and {self._options.target:.2f} is the aim")
        if self._places.get(name, 0) == 0:
            said.append("nobody's answers to it are known")
        if self._needs.get(name):
            said.append(f"what it needs is there: {', '.join(self._needs[name])}")
        shared = [word for word in dict.fromkeys(words(row.interest)) if word in {*words(f"{name} {self._texts.get(name, '')}")}]
        if shared:
            said.append(f"like your interest it is about {', '.join(shared[:5])}")
        found: dict[str, Any] = {
            "skill": name,
            "probability": round(likely, 4),
            "gain": round(gain, 6),
            "score": round(score, 4),
            "reason": "; ".join(said),
        }
        found |= {"match": round(row.match[name], 4)} if row.match else {}
        return found | ({"text": self._texts[name]} if name in self._texts else {})

    # All rows

    def state(self) -> Any:
        return {"counts": dict(self._counts), "sums": dict(self._sums)}

    def restore(self, state: Any) -> None:
        self._counts, self._sums = Counter(state["counts"]), dict(state["sums"])

    def summary(self) -> dict[str, Any]:
        """Students, those without a history, and of what is named first the mean probability and the mean predicted gain."""
        found: dict[str, Any] = {"students": self._counts["students"], "new": self._counts["new"]}
        if self._counts["advised"]:
            found |= {name: value / self._counts["advised"] for name, value in self._sums.items()}
        return found

    def sections(self) -> list[Section]:
        from train.apps.pictures import expected_picture

        rows = [[f"{given:.3f}", f"{right:.3f}", f"{count:,}"] for given, right, count in self._bins]
        return [
            Section(
                "Practice: whether answers are right as often as expected",
                {"practice_expected": expected_picture(self._bins)},
                ("expected", "right", "answers"),
                rows,
            ),
            Section("Practice: students", {}, ("", ""), [[name, f"{value:.4g}"] for name, value in self.summary().items()]),
        ]
