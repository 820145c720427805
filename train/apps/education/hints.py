"""Hints to a problem with numbers, from a question back to a worked similar step, and a filter that keeps its solution out of them."""

import functools
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from train.apps.education.marking import function_words
from train.tasks.words import words

# No repetition of these patterns is without a bound, or can be read in two ways: texts come from strangers.
NUMBER = re.compile(r"(?<![\w.,])[-+]?\d{1,3}(?:,\d{3}){1,10}+(?:\.\d{1,40})?|\d{1,40}/\d{1,40}|(?<!\d)\d{0,40}\.\d{1,40}|\d{1,40}")
_NUMBER = r"[$€£]?\d[\d.,]{0,40}+%?"
_OPERATION = r"\s{0,4}+[-+*/x×÷·]\s{0,4}+"
EQUATION = re.compile(
    rf"(?<![\d.,])(?P<left>{_NUMBER}(?:{_OPERATION}\(?{_NUMBER}\)?){{1,20}}+)\s{{0,4}}+=\s{{0,4}}+(?P<right>-?{_NUMBER}(?:/\d{{1,40}})?%?)"
)
OPERATION = re.compile(r"([-+*/x×÷·])")
SENTENCE = re.compile(r"[^.?!\n]+(?:\.\d[^.?!\n]*)*[.?!]*")
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
AS_NUMBERS = (
    {word: Fraction(value) for value, word in enumerate(ONES)}
    | {word: Fraction(10 * value) for value, word in enumerate(TENS, 2)}
    | {"hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6), "dozen": Fraction(12)}
    | {"half": Fraction(1, 2), "twice": Fraction(2)}
)
TIMES = ("dozen", "hundred", "thousand", "million")
"""Words that the number before them is multiplied with."""
SPOKEN = re.compile(r"[a-z]+", re.I)
PHRASE = 4
"""Words in a row, not all of them grammatical, that only the solution has."""
PLACEHOLDER = "___"
EXAMPLES = ((6, 3), (8, 2), (12, 4), (15, 5), (18, 6), (14, 7), (21, 3), (27, 9), (32, 8), (45, 5))
"""Numbers of worked similar steps."""


class Said(NamedTuple):
    """A number of a text: its value, with its sign, and its place."""

    value: Fraction
    start: int
    end: int


def _parts(written: str) -> list[Fraction]:
    """Of 1/2 both numbers, and one half."""
    parts = [Fraction(part) for part in written.replace(",", "").lstrip("+-").split("/")]
    return [*parts, *([parts[0] / parts[1]] if len(parts) == 2 and parts[1] else [])]


def _spoken(text: str) -> list[Said]:
    """The numbers in words, each from its first word to its last: one hundred and twenty-four is one."""
    found: list[Said] = []
    total = below = Fraction(0)  # what is finished by thousands, and what is not
    start, end, room = 0, -1, Fraction(0)  # room: only less than this can be added

    def close() -> None:
        nonlocal end
        if end >= 0:
            found.append(Said(total + below, start, end))
        end = -1

    for match in SPOKEN.finditer(text):
        word = match[0].lower()
        value = AS_NUMBERS.get(word)
        between = text[end : match.start()].strip() if end >= 0 else ""
        if word == "and" and end >= 0 and not between and room >= 100:
            continue
        if value is None:
            close()
            continue
        joined = end >= 0 and between.lower() in ("", "-", "and")
        if joined and word in TIMES and 0 < below < max(value, Fraction(100)):
            if value >= 1000:
                total, below, room = total + below * value, Fraction(0), value
            else:
                below, room = below * value, value
            end = match.end()
        elif joined and 0 < value < room and value.denominator == 1 and word != "twice":
            below, end = below + value, match.end()
            room = Fraction(10) if word in TENS else Fraction(0)
        else:
            close()
            large = word in TIMES and value >= 1000
            total, below = (value, Fraction(0)) if large else (Fraction(0), value)
            start, end, room = match.start(), match.end(), Fraction(10) if word in TENS else value if word in TIMES else Fraction(0)
    close()
    return found


MINUS = re.compile(r"(?:(?<![\w)%])[-−]|\b(?:minus|negative)\s)[$€£]?$", re.I)


def numbers_in_order(text: str) -> list[Said]:
    """In digits or in words, with their signs: a minus that takes a number from another one is none."""
    both = [*(Said(_parts(match[0])[-1], match.start(), match.end()) for match in NUMBER.finditer(text)), *_spoken(text)]
    found: list[Said] = []
    for one in sorted(both, key=lambda one: one.start):
        if found and text[one.start : one.end].lower() in TIMES and not text[found[-1].end : one.start].strip():
            continue  # 60 million is 60, as answers in millions are
        begin = max(0, one.start - 12)
        minus = MINUS.search(text[begin : one.start + (text[one.start] == "-")])
        taken = minus is not None and bool(found) and not text[found[-1].end : begin + minus.start()].strip(" %)")
        found.append(one if minus is None or taken else one._replace(value=-one.value))
    return found


@functools.lru_cache(maxsize=1 << 11)
def numbers(text: str) -> frozenset[Fraction]:
    """The values of the numbers in a text, without signs, in digits or in words: $1,200.00 is twelve hundred, and 1/2 is .5. Also of parts
    of numbers, such as the words of one."""
    found = {part for match in NUMBER.finditer(text) for part in _parts(match[0])} | {one.value for one in _spoken(text)}
    said = SPOKEN.findall(text.lower())
    for word, after in itertools.zip_longest(said, said[1:], fillvalue=""):
        value, next_value = AS_NUMBERS.get(word), AS_NUMBERS.get(after)
        if value is not None:
            found.add(value)
            if next_value is not None and word in TENS and next_value < 10:
                found.add(value + next_value)
            if next_value is not None and next_value >= 100:
                found.add(value * next_value)
    return frozenset(found)


CONCLUDED = re.compile(r"=\s{0,4}[-−]?[$€£]?\s{0,4}$")
DENIED = re.compile(r"(?:\b(?:not|never|cannot|neither|nor)\b|n['’]t\b(?!\s+(?:it|that|this)\b))(?:(?!\bbut\b)[^.,;:!?\n]){0,40}$", re.I)


def concluded(text: str, problem: "Problem") -> bool:
    """Whether the last number of a text is the answer, and not denied; one that stands in the problem too must be what something is equal
    to."""
    said = numbers_in_order(text)
    if not said or {said[-1].value} != problem.final():
        return False
    before = text[max(0, said[-1].start - 60) : said[-1].start]
    given = {one.value for one in numbers_in_order(problem.question)}
    return not DENIED.search(before) and (said[-1].value not in given or bool(CONCLUDED.search(before)))


class Problem(NamedTuple):
    """A problem as a tutor has it."""

    question: str
    solution: str

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.solution.splitlines() if line.strip()]

    def final(self) -> set[Fraction]:
        """The answer: the numbers of the last line, with their signs."""
        return {one.value for one in numbers_in_order(self.lines[-1].rpartition("=")[2])} if self.lines else set()

    def secrets(self, said: Sequence[str]) -> frozenset[Fraction]:
        """Values of the solution that stand neither in the problem nor in what the student said."""
        return numbers(self.solution) - numbers(self.question) - frozenset().union(*map(numbers, said))


@functools.lru_cache(maxsize=1 << 11)
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    said = words(text)
    runs = zip(*(said[place:] for place in range(PHRASE)), strict=False)
    return frozenset(run for run in runs if not function_words().issuperset(run))


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
    had = frozenset().union(*map(numbers, said))
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
    wanted = numbers(step.left) if step else frozenset()
    shared = [len(numbers(one) & wanted) for one in sentences]
    return sentences[shared.index(max(shared))] if max(shared) else sentences[turn % len(sentences)]


def _blanked(text: str, hidden: frozenset[Fraction]) -> str:
    """The text with a blank in place of each number that is hidden."""
    return NUMBER.sub(lambda match: PLACEHOLDER if numbers(match[0]) & hidden else match[0], text)


def _similar(step: Step | None, avoid: frozenset[Fraction], turn: int) -> str:
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
