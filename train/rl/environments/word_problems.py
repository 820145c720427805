"""Word problems of arithmetic, whose numbers are named by their order, as in the works that began with Wang et al. 2017.

`Ann had 22 pens and lost 14 .` with the equation `X=(22.0-14.0)` becomes the prompt `Ann had N0 pens and lost N1 .` and the response
`N0-N1`: what is to be learned is which numbers to put together, not how to copy or divide them.
"""

import dataclasses
import math
import re

import xxhash

from data.errors import UserError
from data.records.record import Record, check_text, lacks
from train.rl.environments.arithmetic import evaluate
from train.rl.environments.environment import Prompt, is_held_out
from train.rl.environments.files import Listed

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclasses.dataclass(frozen=True)
class WordProblems(Listed):
    """Problems from a file. A response is an expression of N0, N1, ... and numbers, worth 1 where it comes to the right answer, else 0.

    Records have the fields of MAWPS (Koncel-Kedziorski et al. 2016): original_text, equation ("X=...") and ans. A record whose equation
    does not come to its answer is left out, and of the validation file what the training file has too.
    """

    path: str = ""
    """JSONL file or JSON list, gzipped or not."""
    validation_path: str = ""
    """Separate file for validation. Empty: hold out an eighth of the problems, by a hash of their text."""
    share: float = 1.0
    """Share of the training problems to use, chosen by a hash of their text: supervised fine-tuning may use fewer than RL."""

    path_fields = ("path", "validation_path")

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"WordProblems: share is {self.share}; it must be above 0, and at most 1")

    @property
    def files(self):
        if not self.path:
            raise UserError("WordProblems: no path", "Give one: --data.environments.0.path FILE.")
        return (self.path, self.validation_path) if self.validation_path else (self.path,)

    def read(self, split):
        """In the order of the file."""
        own = split == "validation" and bool(self.validation_path)
        path = self.files[-1] if own else self.files[0]
        problems = [_problem(record) for record in self.records(path)]
        seen = {prompt.text for prompt in map(_problem, self.records(self.path)) if prompt} if own else set()
        found = []
        for prompt in problems:
            if prompt is None:
                continue
            held = prompt.text not in seen if own else not self.validation_path and is_held_out(prompt.text)
            place = xxhash.xxh3_64_intdigest(prompt.text.encode()) / 2**64
            if held if split == "validation" else not held and place < self.share:
                found.append(prompt)
        if not found:
            wrong = problems.count(None)
            raise UserError(
                f"{path}: has no problems for {split}: {wrong} of {len(problems)} have equations that do not come to their answers",
                "Give a larger file, or --data.environments.0.validation-path FILE.",
            )
        return found

    def remarks(self):
        """How many records are left out."""
        counts = [(path, [_problem(record) for record in self.records(path)]) for path in self.files]
        return [
            f"{path}: {found.count(None)} of {len(found)} problems are left out: their equations do not come to their answers"
            for path, found in counts
            if None in found
        ]

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


def _problem(record: Record) -> Prompt | None:
    """None where the equation does not come to the answer."""
    for name in ("original_text", "equation", "ans"):
        if name not in record:
            raise lacks(record, name, "is not a word problem: ")
    texts = [check_text(record[name], f"{record.where}: is not a word problem: {name}") for name in ("original_text", "equation")]
    text, expression, numbers = named(*texts)
    try:
        answer = float(record["ans"])
    except (TypeError, ValueError, OverflowError):
        answer = math.nan
    if isinstance(record["ans"], bool) or not math.isfinite(answer):
        raise UserError(
            f"{record.where}: is not a word problem: ans {str(record['ans'])[:40]!r} is not a number", "Give the answer as a number."
        )
    value = evaluate(expression, _names(numbers))
    if value is None or not math.isclose(value, answer, rel_tol=1e-4, abs_tol=1e-6):
        return None
    return Prompt(f"{text.strip()}\n", {"numbers": numbers, "answer": answer, "expression": expression}, where=record.where)
