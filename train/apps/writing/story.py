"""Stories: texts written to a sheet of facts, which they never contradict, and adventures in a world that the program keeps."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record, check_text
from data.records.rows import digest_of
from model.decoding.sampling import Sampling
from train.apps.answering import DRAWN, ID, drawn, in_place, number_in, sampling_in, truth_in
from train.apps.writing.adventure import State, World, read_world
from train.apps.writing.facts import Facts, closed
from train.kinds import Application, Column, Section
from train.tasks.examples import Example, column
from train.tasks.metrics.diversity import distinct, repeats, self_bleu
from train.tasks.metrics.words import units
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence

MOST = 8
"""Texts that a row may ask for."""
MOST_VALUES, LONGEST = 50, 500
"""Values of a fact that are read, and characters of each, and of a conversation's name and a command."""
CLOSED = 30
"""A fact with at most so many different values, in three sheets each on average, is a choice: another value than a sheet's contradicts
it."""
OTHERWISE = 0.1
"""Of the texts that name a value of a choice, the share that may have sheets with another one. Beyond it the word also means something
else, as `large` in `a Large dragon finds a large chamber`, and tells nothing."""
LOOKED_AT = 2000
"""Texts, from all over those that were learned from, in which is looked for what words mean."""
KEPT = 50
"""Texts that are remembered, for what they have in common."""
GAMES = 1000
"""Adventures that are remembered; the one that stood longest is forgotten."""
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclasses.dataclass(frozen=True)
class Story(SequenceToSequence):
    """Texts with sheets of facts about what they tell."""

    home: ClassVar[str] = ":StoryDataset"
    how_to_get: ClassVar[str] = "Give texts with their facts: --data.files sheets.jsonl --data.controls kind name."
    path_fields = (*SequenceToSequence.path_fields, "world")

    target: str = "text"
    """Column of the text."""
    controls: tuple[str, ...] = ()
    """Columns of the facts, in the order in which a text is told them. A row may lack some."""
    measures: tuple[Measure, ...] = ("rouge",)
    """What texts are scored by: see SequenceToSequence."""
    world: str = ""
    """File of a world for adventures: rooms, things, people, doors. Empty: none. Read anew by each process."""


def sheet_of(record: Record, controls: Sequence[str]) -> dict[str, str]:
    """The facts of a record, as text; UserError for one that is neither text nor number nor a list of them."""
    found = {}
    for name in controls:
        value = record.get(name)
        values = value if isinstance(value, list) else [value]
        if not all(one is None or isinstance(one, str | int | float) for one in values):
            raise UserError(f"{record.where}: {name} is no text", "Give texts, numbers, or lists of them.")
        text = ", ".join(" ".join(str(one)[:LONGEST].split()) for one in values[:MOST_VALUES] if one not in (None, ""))
        if check_text(text, f"{record.where}: {name}"):
            found[name] = text
    return found


class StoryDataset(SequenceDataset):
    options: Story
    own_prompt = "{source}\n\n"
    talks = True
    changeable = ()

    def check(self, sources: list) -> None:
        if not self.options.controls:
            raise UserError("data.controls names no columns of facts", "Name them: --data.controls kind name.")
        super().check(sources)

    def example(self, record: Record) -> Example:
        o = self.options
        sheet = sheet_of(record, o.controls)
        if not sheet:
            raise UserError(f"{record.where}: has none of {', '.join(o.controls)}", "Give facts, or name their columns: --data.controls.")
        fields = {"source": "\n".join(f"{name}: {value}" for name, value in sheet.items())}
        label = (column(record, o.target),) if o.target in record else None
        return Example(fields, label, record.where, tuple(sheet.items()))

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> "Writer":
        from train.apps.answering import Answering

        return Writer(Answering(run, self, step=step, raw=raw))


def choices_of(told: Sequence[tuple[Sequence[tuple[str, str]], str]]) -> dict[str, list[str]]:
    """The values of each fact that is a choice: few, in at least three sheets on average, and words, without a number, that texts do not
    use otherwise.

    told: sheets with their texts.
    """
    few = closed([sheet for sheet, _ in told], CLOSED)
    words = {name: [one for one in own if re.fullmatch(r"(?=.{3,40}$)\D*[^\W\d_]{3}\D*", one)] for name, own in few.items()}
    right, wrong = Counter[str](), Counter[str]()
    for sheet, text in told[:: 1 + len(told) // LOOKED_AT]:
        said = text.casefold()
        right.update(f"{name}: {value.casefold()}" for name, value in sheet if _named(value.casefold(), said))
        wrong.update(contradictions(sheet, words, text))
    kept = {
        name: [one for one in own if wrong[key := f"{name}: {one}"] <= OTHERWISE * (right[key] + wrong[key])] for name, own in words.items()
    }
    return {name: own for name, own in kept.items() if len(few[name]) > 1 and own}


def contradictions(sheet: Sequence[tuple[str, str]], choices: dict[str, list[str]], text: str) -> list[str]:
    """Values of choices that a text names in place of its sheet's. Words that the sheet itself has anywhere are none."""
    said, whole = text.casefold(), " ".join(value for _, value in sheet).casefold()
    return [
        f"{name}: {other}"
        for name, value in sheet
        for other in choices.get(name, ())
        if other != value.casefold() and _named(other, said) and not _named(other, whole)
    ]


def _named(value: str, text: str) -> bool:
    """Whether a text has a value as words of its own; of one in the plural, as `wondrous items`, also the singular."""
    plural = value.endswith("s") and not value.endswith("ss")
    return re.search(rf"(?<!\w){re.escape(value[:-1])}s?(?!\w)" if plural else rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


# ------------------------------------------------------------------------------------------------------------------- the writer


class _Asked(NamedTuple):
    """A sheet to write to, or a command in a game."""

    example: Example
    number: int
    sampling: Sampling
    seed: int
    game: str = ""
    command: str = ""


class Writer(Application):
    """Texts to sheets: of several that are drawn the first one is given which contradicts nothing and runs in no loop; if all contradict,
    without the sentences that do. Not the likeliest one: those are more alike. A sheet that lacks choices is filled first where the row
    says `fill`. In an adventure the program says what happens, and the model what it is like, if that contradicts nothing."""

    at_once = 8

    def __init__(self, answering: Any):
        self._answering, self.reads = answering, answering.reads
        self._options = answering.dataset.options
        self.text = self._options.controls[0]
        self._choices: dict[str, list[str]] = answering.learned(self._learn, of=[*self._options.controls, CLOSED, OTHERWISE])
        self._world: World | None = read_world(self._options.world) if self._options.world else None
        if self._world is not None:  # games are in this world
            self.reads = [*answering.reads, digest_of(self._options.world)]
        self._games: dict[str, State] = {}
        self._counts: Counter[str] = Counter()
        self._texts: list[str] = []

    def _learn(self) -> dict[str, Any]:
        return choices_of([(one.parts, one.label[0]) for one in self._answering.learned_from()])

    @functools.cached_property
    def _facts(self) -> Facts:
        """Which facts go together in the sheets that were learned from. The run's files must be where they were."""
        sheets = [example.parts for example in self._answering.learned_from()]
        choices = closed(sheets, CLOSED)
        return Facts(sheets, {name: choices[name] for name in self._options.controls if name in choices})

    @property
    def columns(self) -> dict[str, Column]:
        told = {
            name: Column(f"A fact, such as {self._choices[name][0]}." if name in self._choices else "A fact.")
            for name in self._options.controls
        }
        told["fill"] = Column("Whether facts that are choices, and are not given, are filled with what goes with the others.", "truth")
        if self._world is not None:
            told["command"] = Column("Instead, what is done in the world, such as: go north.")
            told["conversation"] = Column("With a command: a name that all rows of one adventure have, in their order.")
        return told | DRAWN | ID

    @property
    def example(self) -> dict[str, Any]:
        known = {name: self._choices[name][0] for name in self._options.controls if name in self._choices}
        return known or {self.text: "A short text."}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        return in_place(rows, self._read, self._lines)

    def _lines(self, asked: list[_Asked]) -> list[dict[str, Any]]:
        """Texts are drawn together; moves in a game are made one after another."""
        texts = iter(drawn(self._answering, [one for one in asked if not one.command]))
        return [self._played(one) if one.command else self._written(one, next(texts)) for one in asked]

    def reply(self, turns: Sequence[str]) -> dict[str, Any]:
        """In a world, what happens after all the commands of a conversation; else a text about what is named."""
        with self.forgetting():
            if self._world is None:
                line = self.answers([Record({self.text: turns[-1]}, "message")])[0]
            else:
                self._games.pop("reply", None)
                state = self._world.begin()
                for turn in turns[:-1]:
                    state, _ = self._world.step(state, turn)
                self._games["reply"] = state
                line = self.answers([Record({"command": turns[-1], "conversation": "reply"}, "message")])[0]
        return line | {"answer": line["error"] if "error" in line else line["text"]}

    def _read(self, row: Record) -> _Asked:
        count, seed = int(number_in(row, "n", 4, 1, MOST, whole=True)), int(number_in(row, "seed", 0, 0, 2**31 - 1, whole=True))
        sampling = sampling_in(row, 0.8)
        if "command" in row:
            if self._world is None:
                raise UserError(f"{row.where}: a command, and the run has no world", "Train with --data.world FILE.")
            command, game = column(row, "command")[:LONGEST], row.get("conversation")
            example = Example({"source": ""}, None, row.where)
            return _Asked(example, count, sampling, seed, "" if game is None else str(game)[:LONGEST], command)
        for name, known in self._choices.items():
            given = row.get(name)
            said = {str(one).strip().casefold() for one in given} if isinstance(given, list) else set()
            if len(said & {*known}) > 1 and not any(", " in one for one in known):
                both = " and ".join(sorted(said & {*known}))
                raise UserError(f"{row.where}: {name} is {both}, and can be one alone", "Say which.")
        if truth_in(row, "fill"):
            row = Record({**row, **self._facts.filled(sheet_of(row, self._options.controls), seed)}, row.where)
        return _Asked(self._answering.example_of(row), count, sampling, seed)

    def _written(self, asked: _Asked, texts: Sequence[Any]) -> dict[str, Any]:
        candidates = []
        for one in texts:
            text = one.text.strip()
            words = units(text, self._options.language)
            candidates.append(
                {
                    "text": text,
                    "contradictions": contradictions(asked.example.parts, self._choices, text),
                    "loops": repeats(words),
                    "score": round(float(np.mean(one.log_probs)) if len(one.log_probs) else -99.0, 4),
                }
            )
        self._counts += Counter(
            texts=len(candidates),
            contradicting=sum(bool(one["contradictions"]) for one in candidates),
            looping=sum(one["loops"] for one in candidates),
        )
        best = min(candidates, key=lambda one: (bool(one["contradictions"]), one["loops"], not one["text"]))
        text = best["text"]
        if best["contradictions"]:
            kept = [part for part in SENTENCE.split(text) if not contradictions(asked.example.parts, self._choices, part)]
            text = " ".join(kept)
        self._texts = [*self._texts, *(one["text"] for one in candidates)][-KEPT:]
        return {"text": text, "sheet": dict(asked.example.parts), "candidates": candidates}

    def _played(self, asked: _Asked) -> dict[str, Any]:
        assert self._world is not None
        before = self._games.pop(asked.game, None) or self._world.begin()
        state, outcome = self._world.step(before, asked.command)
        if asked.game:
            self._games[asked.game] = state
            if len(self._games) > GAMES:
                del self._games[next(iter(self._games))]
        example = Example({"source": f"scene: {self._world.described(state)}\nhappens: {outcome.text}"}, None, "game")
        said, refused = "", []
        for one in drawn(self._answering, [asked._replace(example=example)])[0]:
            text = " ".join(SENTENCE.split(one.text.strip())[:2])
            against = self._world.contradictions(state, text)
            refused += against
            if not said and not against and text and text[-1] in '.!?"':
                said = text
        self._counts += Counter(commands=1, done=outcome.done, refused=bool(refused), worded=bool(said))
        text = f"{outcome.text} {said}".strip()
        return {"text": text, "happened": outcome.text, "done": outcome.done, "refused": refused, "state": state.plain()}

    # All rows

    def state(self) -> Any:
        games = {name: one.plain() for name, one in self._games.items()}
        return {"games": games, "counts": dict(self._counts), "texts": self._texts}

    def restore(self, state: Any) -> None:
        self._games = {name: State(one["room"], one["things"], tuple(one["opened"]), one["over"]) for name, one in state["games"].items()}
        self._counts, self._texts = Counter(state["counts"]), list(state["texts"])

    def summary(self) -> dict[str, Any]:
        """Of all texts that were drawn, the shares that contradict their sheet and that run in a loop, and, of the last 50, distinct-2 and
        self-BLEU; of commands, the shares that could be done, for which something was refused, and that were worded."""
        c = self._counts
        found: dict[str, Any] = {}
        if c["texts"]:
            found = {name: c[name] / c["texts"] for name in ("contradicting", "looping")} | {"texts": c["texts"]}
            words = [units(text, self._options.language) for text in self._texts]
            found |= {"distinct_2": distinct(words, 2), "self_bleu": self_bleu(words)} if len(words) > 1 else {}
        if c["commands"]:
            found |= {name: c[name] / c["commands"] for name in ("done", "refused", "worded")} | {"commands": c["commands"]}
        return found

    def sections(self) -> list[Section]:
        values = self.summary_rows()
        known = [[name, ", ".join(own)] for name, own in sorted(self._choices.items())]
        return [
            Section("Stories: what was written", {}, ("", "value"), values),
            Section("Stories: facts that are choices", {}, ("fact", "values"), known),
        ]
