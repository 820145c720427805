"""Coherence of dialogues, measured: does each turn follow from what was said, and does none contradict it."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record, check_text, lacks
from data.records.rows import iter_records
from train.apps.dialogue.planted import KINDS, plant_one
from train.kinds import Application, Column, Section, check_range
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, TaskFile, content_hash

CONTRADICTS, ELSEWHERE, FOLLOWS = LABELS = ("contradicts", "elsewhere", "follows")
_CONTRADICTS, _, _FOLLOWS = range(len(LABELS))
SPEAKER = re.compile(r"\s*(#?[^\W\d_]\w{0,29}#?):(?=\s)")
"""Who says a turn: a word before a colon and a space."""
MOST = 1000
"""Turns of a dialogue."""
WORST = 30
"""Turns on the page."""


@dataclasses.dataclass(frozen=True)
class Coherence(Classification):
    """Dialogues, of which it is learned what follows. Labels are made: the turn that was said; one of another place or another dialogue;
    and something said before, changed so that it contradicts. Beside each of those it stands unchanged, too, so that to say something again
    is no contradiction (Welleck et al. 2019 have people's labels for what is planted here)."""

    home: ClassVar[str] = ":CoherenceDataset"
    how_to_get: ClassVar[str] = "Give dialogues: --data.files dialogues.jsonl, with a list of turns each."
    path_fields = (*Classification.path_fields, "encoder")

    pair: str = "turn"
    """Name of a turn beside `text`, which is what was said before it; no column."""
    turns: str = "turns"
    """Column of the dialogue: a list of texts, or of {"role", "content"}, or a text with a turn a line. Speakers take turns, or are named
    by `role`, or before a colon."""
    before: int = 6
    """Turns before one that are read. What does not fit into `length` is cut, the oldest first."""
    planted: tuple[str, ...] = tuple(KINDS)
    """How contradictions are planted: number, date, negation, opposite."""
    encoder: str = ""
    """Run of a text encoder, whose vectors say how near each turn is to what was said before. Empty: none."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 1, "before")
        if not self.planted or {*self.planted} - {*KINDS}:
            raise ValueError(f"data.planted is {self.planted}; choose among {', '.join(KINDS)}")
        if self.several or self.label_noise:
            raise ValueError("data: labels of dialogues are made; leave data.several and data.label_noise out")


class Turn(NamedTuple):
    speaker: str
    text: str


def turns_of(record: Record, name: str, *, numbered: bool = False) -> list[Turn]:
    """The turns of a dialogue, without empty ones. UserError for what is none, or has fewer than two. numbered: their numbers will be
    named, so that none may be empty."""
    if record.get(name) in (None, ""):
        raise lacks(record, name)
    given = record[name]
    if not isinstance(given, str | list):
        raise UserError(f"{record.where}: {name} is no dialogue", "Give a list of texts, or a text with a turn a line.")
    lines = [line for line in given.split("\n") if line.strip()] if isinstance(given, str) else given
    if len(lines) > MOST:
        raise UserError(f"{record.where}: {name} has {len(lines)} turns", f"Give at most {MOST}.")
    found = []
    for place, one in enumerate(lines):
        if isinstance(one, dict) and isinstance(one.get("content"), str):
            found.append(Turn(str(one.get("role", place % 2)), one["content"].strip()))
        elif isinstance(one, str):
            named = SPEAKER.match(one)
            found.append(Turn(named[1], one[named.end() :].strip()) if named else Turn(str(place % 2), one.strip()))
        else:
            raise UserError(f"{record.where}: a turn of {name} is no text", 'Give texts, or {"role", "content"}.')
    empty = [place for place, turn in enumerate(found) if not check_text(turn.text, f"{record.where}: a turn of {name}")]
    if empty and numbered:
        raise UserError(f"{record.where}: turn {empty[0]} of {name} is empty", "Leave it out.")
    found = [turn for turn in found if turn.text]
    if len(found) < 2:
        raise UserError(f"{record.where}: {name} has fewer than two turns", "Give dialogues of two turns and more.")
    return found


def read_before(turns: Sequence[Turn], speaker: str) -> str:
    """What a model reads of the turns before one, the newest first, so that the oldest are cut; `speaker` says the turn itself."""
    return " ".join(f"{'I' if turn.speaker == speaker else 'you'}: {turn.text}" for turn in turns[::-1])


class CoherenceDataset(ClassificationDataset):
    options: Coherence
    changeable = ()  # type: ignore[assignment]

    def read(self, source: TaskFile) -> list[Example]:
        """Examples of all dialogues of a file, two to four for each turn."""
        o, dialogues = self.options, []
        for record in iter_records(source.path, left_out=source.left_out if o.leave_out else None):
            with self.usable(source, record.where):
                dialogues.append((turns_of(record, o.turns), record.where))
        if len(dialogues) < 2:
            raise UserError(f"{source.path}: has fewer than two dialogues", "Give more: what does not follow is taken from others.")
        return [example for place in range(len(dialogues)) for example in self._examples(dialogues, place)]

    def _examples(self, dialogues: list[tuple[list[Turn], str]], place: int) -> list[Example]:
        turns, where = dialogues[place]
        rng = np.random.default_rng(content_hash(turns))
        found = []
        for number in range(1, len(turns)):
            own = turns[number]
            found.append(self.pair(turns, number, own, where, FOLLOWS))
            other, theirs = self._other(dialogues, place, number, rng)
            if other not in [turn.text for turn in turns[number - 1 : number + 2]]:
                found.append(self.pair(turns, number, own._replace(text=other), where, ELSEWHERE)._replace(parts=(turns, theirs)))
            near = self._before(turns, number)
            made = plant_one([turn.text for turn in near], self.options.planted, rng)
            if made is not None and made[1] not in [turn.text for turn in turns]:
                said = near[made[0]]
                found.append(self.pair(turns, number, said, where, FOLLOWS))
                found.append(self.pair(turns, number, said._replace(text=made[1]), where, CONTRADICTS))
        return found

    def _before(self, turns: Sequence[Turn], number: int) -> Sequence[Turn]:
        """The turns before one that are read."""
        return turns[max(number - self.options.before, 0) : number]

    def _other(self, dialogues: list[tuple[list[Turn], str]], place: int, number: int, rng: np.random.Generator) -> tuple[str, list[Turn]]:
        """(a turn that was said elsewhere, its dialogue): in half of the cases another one, else later or much earlier in the same."""
        turns = dialogues[place][0]
        far = [other for other in range(len(turns)) if other < number - self.options.before or other > number + 1]
        if far and rng.random() < 0.5:
            return turns[far[rng.integers(len(far))]].text, turns
        others = dialogues[(place + 1 + rng.integers(len(dialogues) - 1)) % len(dialogues)][0]
        return others[rng.integers(len(others))].text, others

    def pair(self, turns: Sequence[Turn], number: int, turn: Turn, where: str, label: str | None = None) -> Example:
        """A turn, or another in its place, behind what was said before."""
        return Example({"text": read_before(self._before(turns, number), turn.speaker), "pair": turn.text}, label, where, (turns, turns))

    def identity(self, example: Example) -> Any:
        """The dialogue: its turns are learned from, or kept, together."""
        return example.parts[0]

    def examples(self, sources, split: str) -> list[Example]:
        """To learn from, none whose turn was said in a dialogue that is held out."""
        found = super().examples(sources, split)
        if split != "train" or self.options.validation_files:
            return found
        held = {self.key(one) for one in super().examples(sources, "validation")}
        return [one for one in found if one.parts[1] is one.parts[0] or content_hash(one.parts[1]) not in held]

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return LABELS

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Judge":
        from train.apps.answering import Answering

        return Judge(Answering(run, self, step=step, raw=raw))


# ------------------------------------------------------------------------------------------------------------------- the judge


def load_judge(path: str) -> "Judge":
    """Of a run of Coherence data; UserError for any other."""
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    run = open_run(path)
    if not isinstance(run.experiment.data, Coherence):
        raise UserError(f"{path}: is no run that judges dialogues", "Train one: omnia train configs/apps/coherence.py.")
    dataset = dataset_of(run.experiment)
    assert isinstance(dataset, CoherenceDataset)
    dataset.place = run.path
    return dataset.application(run)


class Judge(Application):
    """Of a dialogue, how well each turn follows from those before, 0 to 1, how likely it contradicts them, and, with an encoder, how near
    it is to the last two. Its coherence is the mean of the first. Turns are counted from 0."""

    at_once = 32
    notice = "It tells contradictions of the kinds that it learned, and tells badly in which order turns stand: look at nearness, too."

    def __init__(self, answering: Any):
        self._answering, self.reads = answering, answering.reads
        self.text = answering.dataset.options.turns
        self._encoder = None
        if answering.dataset.options.encoder:
            from train.generation.embeddings import load_embedder

            self._encoder = load_embedder(answering.dataset.options.encoder)
        self._counts: Counter[str] = Counter()
        self._sums = {"coherence": 0.0, "nearness": 0.0}
        self._worst: list[list[Any]] = []

    @property
    def columns(self) -> dict[str, Column]:
        from train.apps.answering import ID

        turns = 'What was said, in order; "Name:" before a turn says by whom. Or {"role", "content"} of each turn.'
        return {self.text: Column(turns, "list")} | ID

    @property
    def example(self) -> dict[str, Any]:
        from train.apps.answering import legible

        said = ("Ann: Shall we meet at six?", "Ben: At six I am at work.", "Ann: Then let us meet at eight.")
        return {self.text: [legible(one, self._answering.tokenizer) for one in said]}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        from train.apps.answering import in_place

        return in_place(rows, lambda row: turns_of(row, self.text, numbered=True), self._lines)

    def _lines(self, dialogues: list[list[Turn]]) -> list[dict[str, Any]]:
        dataset = self._answering.dataset
        examples = [dataset.pair(turns, number, turns[number], "row") for turns in dialogues for number in range(1, len(turns))]
        answers = iter(self._answering(examples))
        return [self._line(turns, [next(answers) for _ in turns[1:]]) for turns in dialogues]

    def last(self, dialogues: Sequence[list[Turn]]) -> np.ndarray:
        """Of each dialogue's last turn, how well it follows and how likely it contradicts, [N, 2]."""
        dataset = self._answering.dataset
        answers = self._answering([dataset.pair(turns, len(turns) - 1, turns[-1], "row") for turns in dialogues])
        return np.stack(answers)[:, [_FOLLOWS, _CONTRADICTS]]

    def _line(self, turns: list[Turn], answers: list[np.ndarray]) -> dict[str, Any]:
        found = [
            {"turn": number, FOLLOWS: round(float(one[_FOLLOWS]), 4), CONTRADICTS: round(float(one[_CONTRADICTS]), 4)}
            for number, one in enumerate(answers, 1)
        ]
        line: dict[str, Any] = {"coherence": round(float(np.mean([one[_FOLLOWS] for one in answers])), 4)}
        if self._encoder is not None:
            near = self._near(turns)
            found = [one | {"near": round(value, 4)} for one, value in zip(found, near, strict=True)]
            line["nearness"] = round(float(np.mean(near)), 4)
        line |= {"contradictions": [one["turn"] for one in found if one[CONTRADICTS] > 0.5], "turns": found}
        self._count(turns, line)
        return line

    def _near(self, turns: list[Turn]) -> list[float]:
        """The cosine of each turn but the first with the two before it, together."""
        assert self._encoder is not None
        earlier = [" ".join(turn.text for turn in turns[max(number - 2, 0) : number]) for number in range(1, len(turns))]
        vectors_ND = self._encoder([*(turn.text for turn in turns[1:]), *earlier])
        return (vectors_ND[: len(earlier)] * vectors_ND[len(earlier) :]).sum(-1).tolist()

    def _count(self, turns: list[Turn], line: dict[str, Any]) -> None:
        self._counts += Counter({"dialogues": 1, "turns": len(turns) - 1, "contradictions": len(line["contradictions"])})
        for name in self._sums:
            self._sums[name] += line.get(name, 0.0)
        self._worst += [[one[FOLLOWS], turns[one["turn"] - 1].text[:200], turns[one["turn"]].text[:200]] for one in line["turns"]]
        self._worst = sorted(self._worst, key=lambda one: one[0])[:WORST]

    def state(self) -> Any:
        return {"counts": dict(self._counts), "sums": dict(self._sums), "worst": list(self._worst)}

    def restore(self, state: Any) -> None:
        self._counts, self._sums, self._worst = Counter(state["counts"]), dict(state["sums"]), state["worst"]

    def summary(self) -> dict[str, Any]:
        """Mean coherence of dialogues, and nearness if there is an encoder, and the share of turns that contradict what was said."""
        c = self._counts
        if not c["dialogues"]:
            return {"dialogues": 0}
        found = {name: total / c["dialogues"] for name, total in self._sums.items() if name == "coherence" or self._encoder is not None}
        return {"dialogues": c["dialogues"], **found, "contradicting": c["contradictions"] / c["turns"]}

    def sections(self) -> list[Section]:
        rows = [[f"{follows:.3f}", said, then] for follows, said, then in self._worst]
        return [Section("Coherence: turns that follow least", {}, ("follows", "said before", "the turn"), rows)]
