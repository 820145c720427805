"""Python as a task: what parses, what passes its tests, and beginnings of functions to go on from."""

import dataclasses

import numpy as np

from train.rl.environments import Environment, Prompt
from train.rl.rewards import Reward
from train.rl.sandbox import Limits, passed
from train.snippets import parse_share


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
    """Which of a prompt's facts holds the tests: a list of Python statements, run after the code."""
    with_prompt: bool = False
    """The code is the prompt with the response, as in HumanEval. False: the response alone."""
    limits: Limits = Limits()

    def scores(self, prompts, responses, ids, mask):
        programs, owners = [], []
        for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            code = prompt.text + response if self.with_prompt else response
            for test in prompt.facts[self.fact]:
                programs.append(f"{code}\n{test}\n")
                owners.append(number)
        good = np.array(passed(programs, self.limits), np.float32)
        counts = np.bincount(owners, minlength=len(responses))
        return (np.bincount(owners, good, minlength=len(responses)) / np.maximum(counts, 1)).astype(np.float32)


_VERBS = "get set make read write find load parse check update remove add build open close copy format split join count sort run".split()
_NOUNS = "name path file line value key item list size text node data state type code args time mode buffer table result".split()


@dataclasses.dataclass(frozen=True)
class PythonFunctions(Environment):
    """Beginnings of functions, `def read_line(`. Worth 1 where what follows is Python that parses and does something, and is no repeat."""

    def draw(self, rng):
        return Prompt(f"def {rng.choice(_VERBS)}_{rng.choice(_NOUNS)}(")

    def scores(self, prompts, responses, ids, mask):
        return PythonParses().scores(prompts, responses, ids, mask)
