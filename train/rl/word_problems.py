"""Word problems of arithmetic, whose numbers are named by their order, as in the works that began with Wang et al. 2017.

`Ann had 22 pens and lost 14 .` with the equation `X=(22.0-14.0)` becomes the prompt `Ann had N0 pens and lost N1 .` and the response
`N0-N1`: what is to be learned is which numbers to put together, not how to copy or divide them.
"""

import dataclasses
import functools
import math
import re

import xxhash

from data.errors import UserError
from train.rl.arithmetic import evaluate
from train.rl.environments import Prompt, is_held_out
from train.rl.examples import read_records
from train.rl.files import Listed

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclasses.dataclass(frozen=True)
class WordProblems(Listed):
    """Problems from a file. A response is an expression of N0, N1, ... and numbers, worth 1 where it comes to the right answer, else 0.

    Records have the fields of MAWPS (Koncel-Kedziorski et al. 2016): original_text, equation ("X=...") and ans. A record whose equation
    does not come to its answer is left out, and of the validation file what the training file has too.
    """

    path: str = ""
    """JSONL, or a JSON list, gzipped or not."""
    validation_path: str = ""
    """A file of its own for validation. Empty: an eighth of the problems, by a hash of their text."""
    share: float = 1.0
    """Of the training file's problems, by a hash of their text: fewer to imitate than to be rewarded for."""

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"WordProblems: share is {self.share}; it must be above 0, and at most 1")

    @property
    def files(self):
        return tuple(path for path in (self.path, self.validation_path) if path)

    def listed(self, split):
        return _problems(self, split)

    def demonstration(self, prompt, seed, row):
        return prompt.facts["expression"]

    def score(self, prompt, response):
        found = evaluate(response, _names(prompt.facts["numbers"]))
        return float(found is not None and math.isclose(found, prompt.facts["answer"], rel_tol=1e-4, abs_tol=1e-6))


def named(text: str, equation: str) -> tuple[str, str, list[float]]:
    """The text and the right side of the equation with names for the text's numbers, equal ones sharing the first's name; the numbers."""
    numbers: list[float] = []

    def name(found: re.Match) -> str:
        value = float(found[0])
        if value not in numbers:
            numbers.append(value)
        return f"N{numbers.index(value)}"

    text = _NUMBER.sub(name, text)
    right = equation.partition("=")[2].replace(" ", "")
    expression = _NUMBER.sub(lambda found: f"N{numbers.index(float(found[0]))}" if float(found[0]) in numbers else found[0], right)
    return text, _without_outer(expression), numbers


def _names(numbers: list[float]) -> dict[str, float]:
    return {f"N{place}": number for place, number in enumerate(numbers)}


def _without_outer(expression: str) -> str:
    """Without parentheses around the whole."""
    while expression.startswith("(") and expression.endswith(")"):
        depth = 0
        for place, character in enumerate(expression):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0 and place < len(expression) - 1:
                return expression
        expression = expression[1:-1]
    return expression


@functools.lru_cache
def _problems(source: WordProblems, split: str) -> list[Prompt]:
    """Those of a split, in the order of the file."""
    if not source.path:
        raise UserError("WordProblems: no path", "Give one: --data.environments.0.path FILE.")
    own = split == "validation" and bool(source.validation_path)
    seen = {prompt.text for prompt in _read(source.path)} if own else set()
    found = []
    for prompt in _read(source.validation_path if own else source.path):
        held = prompt.text not in seen if own else not source.validation_path and is_held_out(prompt.text)
        place = xxhash.xxh3_64_intdigest(prompt.text.encode()) / 2**64
        if held if split == "validation" else not held and place < source.share:
            found.append(prompt)
    if not found:
        raise UserError(f"{source.path}: has no problems for {split}", "Give a larger file, or --data.environments.0.validation-path FILE.")
    return found


@functools.lru_cache
def _read(path: str) -> list[Prompt]:
    found = []
    for number, record in enumerate(read_records(path), 1):
        try:
            text, expression, numbers = named(record["original_text"], record["equation"])
            answer = float(record["ans"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: record {number} is no word problem: {type(error).__name__} {error}", "Give original_text, equation and ans."
            ) from None
        value = evaluate(expression, _names(numbers))
        if value is not None and math.isclose(value, answer, rel_tol=1e-4, abs_tol=1e-6):
            facts = {"numbers": numbers, "answer": answer, "expression": expression}
            found.append(Prompt(f"{text.strip()}\n", facts))
    return found
