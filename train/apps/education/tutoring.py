"""Tutoring: a teacher's next move in a dialogue about a problem, and a hint that does not give the solution away."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from data.errors import UserError
from data.records.record import Record
from data.records.rows import iter_records, read_records
from train.apps.bm25 import WordIndex
from train.apps.education.hints import DONE, PLACEHOLDER, RUNGS, SAFE, TALKING, Problem, concluded, ladder, leaks, numbers
from train.apps.education.marking import LONGEST, content
from train.kinds import Application, Column, Section
from train.tasks.classification import Classification, ClassificationDataset
from train.tasks.examples import Example, TaskFile, column

TEACHER, STUDENT = "teacher", "student"
RUNG_OF = {"probing": "question", "focus": "focus", "telling": "blank"}
"""Where on the ladder a move begins."""
PATIENCE = 2
"""Hints of one rung without a new result of the student, after which the next rung is tried."""
MATCH = 0.3
"""Share of a problem's words from which on it is the one that a student writes of."""
TURNS = 60
"""Of a dialogue, the last ones that are read."""
TOKENS = 48
"""Of a hint that a model words."""
ASK_PROBLEM = "Which problem are you working on? Please copy its text."
WORDED = "You are a kind tutor. Say this to a pupil in one or two short sentences of your own, and add nothing: {hint}"


@dataclasses.dataclass(frozen=True)
class Tutoring(Classification):
    """Dialogues of teachers and students about problems: a row has a problem, its solution, and turns with who spoke, moves and texts."""

    home: ClassVar[str] = ":TutoringDataset"
    how_to_get: ClassVar[str] = "Give dialogues: --data.files dialogues.jsonl."
    path_fields = (*Classification.path_fields, "problems", "writer")

    text: str = "text"
    """Name of the teacher's text in a turn."""
    label: str = "move"
    """Name of the move in a turn of the teacher."""
    question: str = "question"
    """Column of the problem."""
    solution: str = "ground_truth"
    """Column of its solution, whose last line is the answer."""
    turns: str = "turns"
    """Column of the turns: a list of {"who": "teacher" or "student", "text"}."""
    reads: Literal["before", "text"] = "before"
    """What a move is told from: the dialogue before it, to choose the next one; or the teacher's own text, to name what was done."""
    problems: str = ""
    """File of problems, by the columns of question and solution, that a student on the chat page may bring. Read anew by each process."""
    writer: str = ""
    """Run of a chat model that words hints. Empty: they are said as they stand."""

    def __post_init__(self):
        super().__post_init__()
        if self.several or self.pair:
            raise ValueError("data: a turn has one move, and data.pair is filled in by the dialogue")


class Turn(NamedTuple):
    who: str
    text: str
    move: str | None


class TutoringDataset(ClassificationDataset):
    options: Tutoring

    @property
    def talks(self) -> bool:  # type: ignore[override]
        return self.options.reads == "before"

    def turns_of(self, record: Record) -> list[Turn]:
        """The last TURNS of a dialogue. UserError for turns that are none."""
        value, found = record.get(self.options.turns), []
        for one in value[-TURNS:] if isinstance(value, list) else [None]:
            one = one if isinstance(one, dict) else {}
            who, text = one.get("who"), one.get(self.options.text)
            if who not in (TEACHER, STUDENT) or not isinstance(text, str):
                raise UserError(
                    f"{record.where}: {self.options.turns} is no list of turns",
                    f'Give objects such as {{"who": "student", "{self.options.text}": "..."}}.',
                )
            move = one.get(self.options.label)
            found.append(Turn(who, text[:LONGEST], move if isinstance(move, str) and move else None))
        return found

    def problem_of(self, record: Record) -> Problem:
        return Problem(column(record, self.options.question)[:LONGEST], column(record, self.options.solution)[:LONGEST])

    def carried(self, record: Record) -> dict[str, str]:
        """Fields of an example that no model reads, such as whose dialogue it is."""
        o = self.options
        read = (o.text, o.label, o.question, o.solution, o.turns, "text", "pair", "question")
        return {name: value for name, value in record.items() if isinstance(value, str) and name not in read}

    def state(self, problem: Problem, turns: list[Turn], move: str | None, record: Record) -> Example:
        """A dialogue so far as a model reads it: how far it is, what was done, whether the answer was said, and the last turns."""
        teacher = [turn for turn in turns if turn.who == TEACHER]
        last = next((turn.text for turn in reversed(turns) if turn.who == STUDENT), "")
        done = "answer found" if concluded(last, problem) else "answer not found"
        moves = " ".join(turn.move or "?" for turn in teacher[-2:]) or "begin"
        said = f"{len(teacher)}. {moves}. {done}. {teacher[-1].text if teacher else ''}"
        fields = {"text": said, "pair": last or problem.question, "question": problem.question}
        return Example(self.carried(record) | fields, move, record.where)

    def example(self, record: Record) -> Example:
        """Of one move: that of `text`, or the next one of a dialogue."""
        if self.options.reads == "text":
            return super().example(record)
        move = record.get(self.options.label)
        return self.state(self.problem_of(record), self.turns_of(record), move if isinstance(move, str) and move else None, record)

    def moves(self, record: Record) -> list[Example]:
        """Of each turn of the teacher in a dialogue that has a move."""
        problem, turns, found = self.problem_of(record), self.turns_of(record), []
        for place, turn in enumerate(turns):
            if turn.who != TEACHER or turn.move is None:
                continue
            if self.options.reads == "text":
                fields = {"text": turn.text or " ", "question": problem.question}
                found.append(Example(self.carried(record) | fields, turn.move, record.where))
            else:
                found.append(self.state(problem, turns[:place], turn.move, record))
        return found

    def read(self, source: TaskFile) -> list[Example]:
        found = []
        for record in iter_records(source.path, left_out=source.left_out if self.options.leave_out else None):
            with self.usable(source, record.where):
                some = self.moves(record)
                for example in some:
                    self.check_usable(source, example)
                found += some
        if not found:
            raise UserError(f"{source.path}: holds no move of a teacher", "Give dialogues whose turns have moves.")
        return found

    def identity(self, example: Example) -> Any:
        """Dialogues about one problem are never apart."""
        return [example.fields["question"]] if "question" in example.fields else super().identity(example)

    def pieces(self, example: Example, labelled: bool) -> Any:
        from train.tasks.packing import Piece

        second = self.tokens.encode(example.fields["pair"]) if "pair" in example.fields else None
        ids, types = self.wrapped(self.tokens.encode(example.fields["text"]), second)
        return (Piece(ids, types, self._label(example) if labelled else self.empty_label),)

    def application(self, run: Any, *, step: int | None = None, raw: bool = False) -> Application:
        from train.apps.answering import Answering, TaskApplication

        answering = Answering(run, self, step=step, raw=raw)
        return Tutor(answering) if self.options.reads == "before" else TaskApplication(answering)


def read_problems(path: str, options: Tutoring) -> list[Problem]:
    found = [(column(record, options.question), column(record, options.solution)) for record in read_records(path)] if path else []
    return [*dict.fromkeys(Problem(question[:LONGEST], solution[:LONGEST]) for question, solution in found)]


# ------------------------------------------------------------------------------------------------------------------ the tutor


class Asked(NamedTuple):
    problem: Problem
    turns: list[Turn]
    example: Example


class Tutor(Application):
    """The next turn of a teacher.

    A row has a problem, its solution, and the turns so far. A line has the `move` and its probability, the `rung` of the ladder (a question
    back, focus on a part, a step with a blank, a worked similar step), the `answer`, and `held_back`, how many hints were not said because
    they held a number or words of the solution that the student has not said.
    """

    def __init__(self, answering: Any):
        self._answering, self._options, self.reads = answering, answering.dataset.options, answering.reads
        self._dataset: TutoringDataset = answering.dataset
        self._names = self._dataset.label_names
        self._problems = read_problems(self._options.problems, self._options)
        self._index = WordIndex([problem.question for problem in self._problems])
        self._writer = None
        if self._options.writer:
            from train.generation.text import load_generator
            from train.runs.directory import open_run

            run = open_run(self._options.writer)
            self._writer = (load_generator(run), run)
        self._counts: Counter[str] = Counter()

    @property
    def columns(self) -> dict[str, Column]:
        from train.apps.answering import ID

        o = self._options
        return {
            o.question: Column("The problem."),
            o.solution: Column("Its solution, with the answer in the last line."),
            o.turns: Column(f'What was said so far: {{"who": "{TEACHER}" or "{STUDENT}", "{o.text}"}} of each turn.', "list"),
            o.label: Column("The teacher's next move, if it is known: the summary counts how often it is chosen."),
        } | ID

    @property
    def example(self) -> dict[str, Any]:
        o = self._options
        said = {"who": STUDENT, o.text: "It is 2."}
        return {o.question: "What is 1 + 2?", o.solution: "1 + 2 = 3\n3", o.turns: [said]}

    def answers(self, rows: Sequence[Record]) -> list[dict[str, Any]]:
        from train.apps.answering import in_place

        return in_place(rows, self._read, self._lines)

    def _read(self, row: Record) -> Asked:
        problem, turns = self._dataset.problem_of(row), self._dataset.turns_of(row)
        return Asked(problem, turns, self._answering.example_of(row, labelled=True))

    def _lines(self, rows: list[Asked]) -> list[dict[str, Any]]:
        lines = []
        for row, probability_V in zip(rows, self._answering([row.example for row in rows]), strict=True):
            line = self._turn(row, np.asarray(probability_V))
            lines.append(line)
            self._counts["rows"] += 1
            self._counts[f"rung {line['rung']}"] += 1
            self._counts["held back"] += line["held_back"]
            if row.example.label is not None:
                self._counts["labelled"] += 1
                self._counts["right"] += row.example.label == line["move"]
        return lines

    def _turn(self, row: Asked, probability_V: np.ndarray) -> dict[str, Any]:
        best = int(probability_V.argmax())
        move = self._names[best]
        said = [turn.text for turn in row.turns if turn.who == STUDENT]
        turn = sum(one.who == TEACHER for one in row.turns)
        found = {"move": move, "confidence": round(float(probability_V[best]), 4)}
        if said and concluded(said[-1], row.problem):
            return found | {"rung": "done", "answer": DONE, "held_back": 0}
        if move not in RUNG_OF or not said:
            return found | {"rung": "talk", "answer": TALKING[turn % len(TALKING)], "held_back": 0}
        first = min(RUNGS.index(RUNG_OF[move]) + self._stuck(row) // PATIENCE, len(RUNGS) - 1)
        candidates = [(rung, ladder(row.problem, said, rung, turn)) for rung in RUNGS[first::-1]]
        if self._writer is not None:
            candidates = [(candidates[0][0], self._worded(candidates[0][1])), *candidates]
        safe = [(rung, text) for rung, text in candidates if text and not leaks(text, row.problem, said)]
        rung, text = safe[0] if safe else ("talk", SAFE)
        held = next((place for place, one in enumerate(candidates) if one == (rung, text)), len(candidates))
        return found | {"rung": rung, "answer": text, "held_back": held}

    def _stuck(self, row: Asked) -> int:
        """Hints since the student last said a result of the solution."""
        results, had, count = numbers(row.problem.solution) - numbers(row.problem.question), set(), 0
        for turn in row.turns:
            if turn.who == STUDENT:
                new = numbers(turn.text) & results - had
                count, had = 0 if new else count, had | new
            else:
                count += turn.move in RUNG_OF or turn.move is None
        return count

    def _worded(self, hint: str) -> str:
        """The hint in words of a chat model; the same for the same hint."""
        from model.decoding.sampling import Sampling

        assert self._writer is not None
        generator, run = self._writer
        (made,) = generator.generate([_prompt(run, WORDED.format(hint=hint))], tokens=TOKENS, sampling=Sampling(temperature=0.0), seed=0)
        text = " ".join(made.text.split())
        if made.finish == "length":  # its last sentence has no end
            text = text[: max(text.rfind(mark) for mark in ".?!") + 1]
        return text if says_the_same(text, hint) else ""

    # Talking

    def reply(self, turns: Sequence[str]) -> dict[str, Any]:
        """The first of a student's turns says which problem it is about; the tutor's own turns are made again."""
        share_N = self._index.shares(turns[0][:LONGEST]) if turns and self._problems else np.zeros(0)
        if not len(share_N) or share_N.max() < MATCH:
            return {"move": "generic", "rung": "talk", "answer": ASK_PROBLEM, "held_back": 0}
        problem, counts = self._problems[int(share_N.argmax())], Counter(self._counts)
        o = self._options
        so_far: list[dict[str, Any]] = [{"who": TEACHER, o.text: TALKING[0], o.label: "generic"}]
        line: dict[str, Any] = {"move": "generic", "rung": "talk", "answer": TALKING[0], "held_back": 0}
        try:
            for turn in turns[1:][-TURNS:]:
                so_far.append({"who": STUDENT, o.text: turn})
                row = {o.question: problem.question, o.solution: problem.solution, o.turns: so_far}
                (line,) = self.answers([Record(row, "message")])
                if "error" in line:
                    break
                so_far.append({"who": TEACHER, o.text: line["answer"], o.label: line["move"]})
        finally:
            self._counts = counts
        return line

    # All rows

    def state(self) -> Any:
        return {"counts": dict(self._counts)}

    def restore(self, state: Any) -> None:
        self._counts = Counter(state["counts"])

    def summary(self) -> dict[str, Any]:
        """Rows, those of each rung, hints that were held back a row, and where rows say the teacher's move, how often it was chosen."""
        c = self._counts
        found: dict[str, Any] = {"rows": c["rows"]} | {
            name.removeprefix("rung "): c[name] for name in sorted(c) if name.startswith("rung ")
        }
        if c["rows"]:
            found["held_back"] = c["held back"] / c["rows"]
        return found | ({"accuracy": c["right"] / c["labelled"]} if c["labelled"] else {})

    def sections(self) -> list[Section]:
        from train.apps.pictures import counts_picture

        rungs = [(name, self._counts[f"rung {name}"]) for name in ("talk", *RUNGS, "done")]
        rows = self.summary_rows()
        picture = counts_picture(rungs, "hints", "Rungs of the ladder")
        return [Section("Tutoring: what was said", {"tutoring_rungs": picture}, ("", ""), rows)]


def says_the_same(text: str, hint: str) -> bool:
    """Whether a hint in other words has its numbers, and no others, its blanks, and half of its words."""
    wanted = {*content(hint)}
    same = numbers(text) == numbers(hint) and text.count(PLACEHOLDER) == hint.count(PLACEHOLDER)
    return same and len({*content(text)} & wanted) >= len(wanted) / 2


def _prompt(run: Any, text: str) -> list[int]:
    """Ids of a message to a chat model, up to its reply."""
    from train.generation.chat import load_chat

    return load_chat(run.path).encode([{"role": "user", "content": text}], run.tokenizer())
