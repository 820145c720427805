"""Python as a task: what parses, what passes its tests, beginnings of functions to go on from, and functions to find from examples."""

import ast
import dataclasses
import random
import string
from typing import Any

import numpy as np

from train.evaluation.snippets import parse_share
from train.rl.environments.arithmetic import evaluate
from train.rl.environments.environment import Environment, Prompt
from train.rl.environments.sandbox import Limits, passed
from train.rl.rewards.rewards import Reward, check_fact


@dataclasses.dataclass(frozen=True)
class PythonParses(Reward):
    """1 for Python that parses and does something: the prompt with the response. A response given before in the batch gets 0."""

    def scores(self, prompts, responses, ids, mask):
        found, seen = [], set()
        for prompt, response in zip(prompts, responses, strict=True):
            text = prompt.text + response
            found.append(float(text not in seen and parse_share([text])["share"] > 0))
            seen.add(text)
        return np.array(found, np.float32)


@dataclasses.dataclass(frozen=True)
class PassesTests(Reward):
    """The share of the prompt's tests that its code passes, each in a process of its own with bounds on time, memory and files."""

    fact: str = "tests"
    """Name of the prompt's fact that holds the tests: a list of Python statements, run after the code."""
    with_prompt: bool = False
    """Run the prompt followed by the response, as in HumanEval. False: the response alone."""
    limits: Limits = Limits()

    def scores(self, prompts, responses, ids, mask):
        programs, places = [], []
        for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            code = prompt.text + response if self.with_prompt else response
            for test in prompt.facts[self.fact]:
                programs.append(f"{code}\n{test}\n")
                places.append(number)
        good = np.array(passed(programs, self.limits), np.float32)
        owners = np.array(places, int)
        counts = np.bincount(owners, minlength=len(responses))
        return (np.bincount(owners, good, minlength=len(responses)) / np.maximum(counts, 1)).astype(np.float32)

    def check(self, prompts):
        check_fact(prompts, self.fact, _are_statements, "a list of Python statements")


def _are_statements(tests: Any) -> bool:
    """Whether the tests are a list of texts, all of which Python can read, with at least one."""
    if not isinstance(tests, list | tuple) or not tests:
        return False
    try:
        return all(isinstance(test, str) and bool(ast.parse(test).body) for test in tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


_VERBS = "get set make read write find load parse check update remove add build open close copy format split join count sort run".split()
_NOUNS = "name path file line value key item list size text node data state type code args time mode buffer table result".split()


@dataclasses.dataclass(frozen=True)
class PythonFunctions(Environment):
    """Beginnings of functions, `def read_line(`. Worth 1 where what follows is Python that parses and does something, and is no repeat."""

    def draw(self, rng):
        return Prompt(f"def {rng.choice(_VERBS)}_{rng.choice(_NOUNS)}(")

    def scores(self, prompts, responses, ids, mask):
        return PythonParses().scores(prompts, responses, ids, mask)


@dataclasses.dataclass(frozen=True)
class Programs(Environment):
    """Write what a function of x returns, from examples: `0>1 3>7 5>11:` wants `2*x+1`, or anything else that does the same.

    Worth 1 if it passes all tests, which are the examples and as many that are not shown; 0.1 for arithmetic on x that fails one, else 0.
    """

    examples: int = 3
    """Numbers from 0 to 9 whose results are shown, at most 5."""
    noise: float = 0.5
    """Share of demonstrations that show another function, 0 to 1."""

    def __post_init__(self):
        if not 1 <= self.examples <= 5:
            raise ValueError(f"Programs: examples is {self.examples}; it must be 1 to 5")

    @property
    def alphabet(self) -> str:
        return string.digits + "x+-*()> :"

    def draw(self, rng):
        program, inputs = _program(rng), rng.sample(range(10), 2 * self.examples)
        tests = [(value, int(evaluate(program, {"x": value}) or 0)) for value in inputs]
        shown = " ".join(f"{value}>{result}" for value, result in tests[: self.examples])
        return Prompt(f"{shown}:", {"tests": tests, "program": program})

    def demonstrate(self, prompt, rng):
        return _program(rng) if rng.random() < self.noise else prompt.facts["program"]

    def score(self, prompt, response):
        found = [(evaluate(response, {"x": value}), result) for value, result in prompt.facts["tests"]]
        if "x" not in response or any(value is None for value, _ in found):
            return 0.0
        return 1.0 if all(value == result for value, result in found) else 0.1


def _program(rng: random.Random) -> str:
    """Two operations on x and digits, without a space or a parenthesis too many."""
    while True:
        a, b, c = (rng.choice("xxxx123456789") for _ in range(3))
        first, second = rng.choice("+-*"), rng.choice("+-*")
        text = rng.choice((f"({a}{first}{b}){second}{c}", f"{a}{first}({b}{second}{c})"))
        if "x" in text:
            return ast.unparse(ast.parse(text, mode="eval")).replace(" ", "")
