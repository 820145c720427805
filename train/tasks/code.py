"""Programs from descriptions, beginnings or programs in another language, judged by running them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from data.errors import UserError
from data.records.record import Record
from train.kinds import Column, check_range
from train.rl.environments.sandbox import Limits, passed
from train.tasks.examples import Example, column
from train.tasks.sequence import Measure, SequenceDataset, SequenceToSequence


@dataclasses.dataclass(frozen=True)
class Programs(SequenceToSequence):
    """Python to write, with tests that it has to pass."""

    home: ClassVar[str] = ":ProgramsDataset"

    source: str = "text"
    """Column of what to write: a description, the beginning of a program, or one in another language."""
    target: str = "code"
    """Column of a program that is right."""
    tests: str = "test_list"
    """Column of the tests, Python that fails where a program is wrong: a text, or a list of statements."""
    setup: str = ""
    """Column of what stands before the tests. Empty: nothing."""
    entry: str = ""
    """Column of the name of the function that `check` in the tests takes, as in HumanEval. Empty: tests run by themselves."""
    with_source: bool = False
    """Run the source before the answer, which completes it."""
    shows_test: bool = True
    """Show the first test, which says what the function is called, where the tests are a list."""
    stops: tuple[str, ...] = ("\n\n\n", "\nif __name__", "\nprint(", "\nassert", "\n# Test")
    """An answer ends before any of these."""
    samples: int = 1
    """Programs written for each description; 1 is written greedily, more are drawn at `temperature`."""
    temperature: float = 0.8
    """Of the draws, above 0."""
    ks: tuple[int, ...] = (1,)
    """pass@k for each of these, at most `samples`."""
    measures: tuple[Measure, ...] = ("exact",)
    """What else answers are scored by: see SequenceToSequence."""
    limits: Limits = Limits()
    """Of one program's run."""

    def __post_init__(self):
        super().__post_init__()
        check_range("data.", self, 1, "samples")
        check_range("data.", self, 1e-3, "temperature")
        if not self.ks or max(self.ks) > self.samples or min(self.ks) < 1:
            raise ValueError(f"data.ks is {self.ks}; each must be from 1 to data.samples, {self.samples}")


class ProgramsDataset(SequenceDataset):
    """Answers are programs, `samples` of them for each example."""

    options: Programs
    label_fields = ("tests",)

    @property
    def row_columns(self) -> dict[str, Column]:
        own = {
            self.options.source: Column("What to write: a description, the beginning of a program, or one in another language."),
            self.options.tests: Column("Tests, of which the first is shown: it says what the function is called.", "list"),
        }
        return self.prompted("source", "test", "shown") | own

    @property
    def row(self) -> dict[str, Any]:
        return {self.options.source: "Write a function that adds two numbers.", self.options.tests: ["assert add(1, 2) == 3"]}

    def examples_of(self, record: Record) -> list[Example]:
        """A row may have tests, of which a prompt shows the first; nothing else is read of them."""
        found, tests = super().example(record), record.get(self.options.tests)
        shown = self.options.shows_test and isinstance(tests, list) and tests and isinstance(tests[0], str)
        test = tests[0].strip() if shown and tests else ""
        return [found._replace(fields=found.fields | {"test": test, "shown": f"\n{test}" if test else ""}, parts=("", ()))]

    def example(self, record: Record) -> Example:
        o = self.options
        found = super().example(record)
        given = record.get(o.tests)
        tests = given if isinstance(given, list) else [given]
        if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
            raise UserError(
                f"{record.where}: {o.tests} holds no tests", "Give Python, a text or a list of them, or name the column: --data.tests."
            )
        test = str(given[0]) if o.shows_test and isinstance(given, list) else ""
        fields = found.fields | {"test": test, "shown": f"\n{test}" if test else ""}
        before = record.get(o.setup) or "" if o.setup else ""
        if o.entry:
            tests = [*tests, f"check({column(record, o.entry)})"]
        return found._replace(fields=fields, parts=(str(before), tuple(tests)))

    def judgeable(self, example: Example) -> bool:
        """By its tests, with or without a program that is right."""
        return True

    @property
    def own_prompt(self) -> str:  # type: ignore[override]
        if self.options.with_source:
            return "{source}"
        return '"""{source}{shown}\n"""\n'

    @property
    def drawn(self) -> int:  # type: ignore[override]
        return self.options.samples

    @property
    def stops(self) -> tuple[str, ...]:
        return self.options.stops

    def answer(self, example: Example) -> str:
        return super().answer(example).replace("\r\n", "\n")

    def runs(self, example: Example, programs: Sequence[str]) -> list[str]:
        """The sources that are run, one for each program."""
        setup, tests = example.parts
        before = example.fields["source"] if self.options.with_source else ""
        return ["\n".join([before + program, setup, *tests]) for program in programs]

    def score(self, examples: Sequence[Example], answers: Sequence[Any]):
        from train.tasks.metrics.programs import program_scores

        runs = [run for example, programs in zip(examples, answers, strict=True) for run in self.runs(example, programs)]
        good, begin, outcomes = passed(runs, self.options.limits), 0, []
        for programs in answers:
            outcomes.append((len(programs), sum(good[begin : begin + len(programs)])))
            begin += len(programs)
        self._failing = {one.where: 1 - right / count for one, (count, right) in zip(examples, outcomes, strict=True)}
        found = program_scores(outcomes, self.options.ks)
        if not all(map(self.labelled, examples)):
            return found
        texts = super().score(examples, [programs[0] for programs in answers])
        return found._replace(values=found.values | texts.values, measures={**found.measures, **texts.measures})

    def loss_of(self, example: Example, answer: list[str]) -> float:
        """The share of programs that fail."""
        return self._failing[example.where]

    def found(self, example: Example, outputs: Any) -> list[str]:
        return [outputs] if isinstance(outputs, str) else list(outputs)

    def shown(self, example: Example, answer: Any) -> dict[str, Any]:
        return {"tests": list(example.parts[1]), "answers": answer}
