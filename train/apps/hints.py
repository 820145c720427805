"""Hints to a problem with numbers, from a question back to a worked similar step, and a filter that keeps its solution out of them."""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from train.apps.bm25 import words
from train.apps.marking import content

NUMBER = re.compile(r"(?<![\w.,])[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+/\d+|\d*\.\d+|\d+")
EQUATION = re.compile(
    r"(?P<left>[$€£]?\d[\d.,]*%?(?:\s*[-+*/x×÷·]\s*\(?[$€£]?\d[\d.,]*%?\)?)+)\s*=\s*(?P<right>[$€£]?\d[\d.,]*(?:/\d+)?%?)"
)
OPERATION = re.compile(r"\s*([-+*/x×÷·])\s*")
SENTENCE = re.compile(r"[^.?!\n]+(?:\.\d[^.?!\n]*)*[.?!]*")
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
AS_NUMBERS = (
    {word: Fraction(value) for value, word in enumerate(ONES)}
    | {word: Fraction(10 * value) for value, word in enumerate(TENS, 2)}
    | {"hundred": Fraction(100), "thousand": Fraction(1000), "half": Fraction(1, 2), "twice": Fraction(2), "dozen": Fraction(12)}
)
PHRASE = 4
"""Words in a row, not all of them grammatical, that only the solution has."""
FEWEST = 5
"""Words of a sentence of the problem that is pointed at: shorter ones are often the rest of a name with a stop in it."""
PLACEHOLDER = "___"
EXAMPLES = ((6, 3), (8, 2), (12, 4), (15, 5), (18, 6), (14, 7), (21, 3), (27, 9), (32, 8), (45, 5))
"""Numbers of worked similar steps."""


def numbers(text: str) -> set[Fraction]:
    """The values of the numbers in a text, in digits or in words: $1,200.00 is twelve hundred, and 1/2 is .5."""
    found = set()
    for match in NUMBER.finditer(text):
        parts = [Fraction(part) for part in match[0].replace(",", "").lstrip("+-").split("/")]
        found |= {*parts, *([parts[0] / parts[1]] if len(parts) == 2 and parts[1] else [])}
    said = re.findall(r"[a-z]+", text.lower())
    for place, word in enumerate(said):
        value = AS_NUMBERS.get(word)
        if value is not None:
            found.add(value)
            after = AS_NUMBERS.get(said[place + 1]) if place + 1 < len(said) else None
            if after is not None and word in TENS and after < 10:
                found.add(value + after)
            if after is not None and after >= 100:
                found.add(value * after)
    return found


CONCLUDED = re.compile(r"=\s*[$€£]?\s*$")


def concluded(text: str, problem: "Problem") -> bool:
    """Whether the last number of a text is the answer; one that stands in the problem too must be what something is equal to."""
    matches = [*NUMBER.finditer(text)]
    if not matches:
        return bool(problem.final()) and numbers(text) == problem.final() and not problem.final() & numbers(problem.question)
    last = matches[-1]
    value = numbers(last[0])
    if numbers(text[last.end() :]):
        return False
    return value == problem.final() and (not value & numbers(problem.question) or bool(CONCLUDED.search(text[: last.start()])))


class Problem(NamedTuple):
    """A problem as a tutor has it."""

    question: str
    solution: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.solution.splitlines() if line.strip()]

    def final(self) -> set[Fraction]:
        """The answer: the numbers of the last line."""
        return numbers(self.lines[-1].rpartition("=")[2]) if self.lines else set()

    def secrets(self, said: Sequence[str]) -> set[Fraction]:
        """Values of the solution that stand neither in the problem nor in what the student said."""
        return numbers(self.solution) - numbers(self.question) - set().union(*map(numbers, said))


def _runs(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {run for place in range(len(said) - PHRASE + 1) if content(" ".join(run := tuple(said[place : place + PHRASE])))}


def leaks(text: str, problem: Problem, said: Sequence[str]) -> list[str]:
    """What of the solution a text gives away that the student has not said: numbers, and runs of words. [] for nothing."""
    found = [str(value) for value in sorted(numbers(text) & problem.secrets(said))]
    known = _runs(problem.question).union(*map(_runs, said))
    return found + [" ".join(run) for run in sorted((_runs(text) & _runs(problem.solution)) - known)]


# ------------------------------------------------------------------------------------------------------------------ the ladder


class Step(NamedTuple):
    """An equation of the solution."""

    left: str
    right: str


def steps(problem: Problem) -> list[Step]:
    return [Step(match["left"].strip(), match["right"].strip()) for match in EQUATION.finditer(problem.solution)]


def next_step(problem: Problem, said: Sequence[str]) -> Step | None:
    """The first whose result the student has not said; of those whose numbers are all known, if there are such."""
    had = set().union(*map(numbers, said)) if said else set()
    known = had | numbers(problem.question)
    open_ = [step for step in steps(problem) if not numbers(step.right) & had]
    ready = [step for step in open_ if numbers(step.left) <= known]
    return next(iter(ready or open_), None)


def _asked(problem: Problem) -> str:
    """The sentence that asks."""
    sentences = [match[0].strip() for match in SENTENCE.finditer(problem.question) if match[0].strip()]
    return next((one for one in reversed(sentences) if one.endswith("?")), sentences[-1] if sentences else problem.question)


def _about(problem: Problem, step: Step | None, turn: int) -> str:
    """The sentence of the problem that has most of a step's numbers; where none does, one after the other."""
    sentences = [
        match[0].strip() for match in SENTENCE.finditer(problem.question) if match[0].strip() and not match[0].strip().endswith("?")
    ]
    if not sentences:
        return _asked(problem)
    wanted = numbers(step.left) if step else set()
    shared = [len(numbers(one) & wanted) for one in sentences]
    return sentences[shared.index(max(shared))] if max(shared) else sentences[turn % len(sentences)]


def _blanked(text: str, hidden: set[Fraction]) -> str:
    """The text with a blank in place of each number that is hidden."""
    return NUMBER.sub(lambda match: PLACEHOLDER if numbers(match[0]) & hidden else match[0], text)


def _similar(step: Step | None, avoid: set[Fraction], turn: int) -> str:
    """A step of the same kind with other numbers, none of which are to be avoided."""
    operation = (OPERATION.search(step.left) if step else None) or OPERATION.search("1 + 1")
    sign = {"x": "*", "×": "*", "·": "*", "÷": "/"}.get(operation[1], operation[1]) if operation else "+"
    done = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a // b}[sign]
    for first, second in itertools.islice(itertools.cycle(EXAMPLES), turn % len(EXAMPLES), turn % len(EXAMPLES) + len(EXAMPLES)):
        if not {Fraction(first), Fraction(second), Fraction(done(first, second))} & avoid:
            return f"{first} {sign} {second} = {done(first, second)}"
    return ""


RUNGS = ("question", "focus", "blank", "similar")
"""Of the ladder, each telling more than the one before."""
ASKING = (
    'The problem asks: "{asked}" What do you need to know before you can answer that?',
    'Say in your own words what is asked for here: "{asked}"',
    'What would a sensible answer look like to this: "{asked}"',
)
FOCUSING = (
    'Read this part once more: "{about}" What does it tell you, and where did you use it?',
    'Check your work against this: "{about}"',
    'Which number in your work comes from here: "{about}"',
)
TALKING = (
    "Please tell me how you came to your answer, step by step.",
    "Thank you. What did you do next?",
    "Take your time. What is your next step?",
)
SAFE = "Please explain your last step once more, and why you did it."
DONE = "Yes, that is it. How could you check it in another way?"


def ladder(problem: Problem, said: Sequence[str], rung: str, turn: int) -> str:
    """The hint of a rung, of templates and parts of the problem; turn: chooses the words. It is not filtered yet."""
    step = next_step(problem, said)
    if rung == "question":
        return ASKING[turn % len(ASKING)].format(asked=_asked(problem))
    if rung == "focus":
        return FOCUSING[turn % len(FOCUSING)].format(about=_about(problem, step, turn))
    secrets = problem.secrets(said)
    if rung == "blank":
        if step is None:
            return ladder(problem, said, "focus", turn)
        return f"Fill in what is missing: {_blanked(step.left, secrets)} = {PLACEHOLDER}"
    similar = _similar(step, secrets | numbers(problem.question), turn)
    return f"Here is a step of the same kind: {similar}. Do the same with the numbers of your problem." if similar else SAFE


def told(problem: Problem, said: Sequence[str]) -> str:
    """What a tutor without a filter would say on the upper rungs: the step with its result."""
    step = next_step(problem, said)
    return f"Look: {step.left} = {step.right}." if step else SAFE
