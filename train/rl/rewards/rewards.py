"""What a response is worth, from its text: plain Python, named in configs by these classes.

A reward is called as scores(prompts, responses, ids, mask) and gives float [B], or [B, T] with a reward for each token. A run's own is any
subclass of Reward in its config file. Before a run, `check` sees its prompts, and refuses those that could never earn anything. Responses
may be anything at all: what cannot be read is worth as much as a wrong answer, and raises nothing.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.records.record import is_number
from train.kinds import check_range
from train.rl.environments.environment import Environment, Prompt, Simulator, check_scores, lacking, numbers_of


@dataclasses.dataclass(frozen=True)
class Reward:
    """Scores responses one by one, by `score`, or all of a batch, by `scores`."""

    def score(self, prompt: Prompt, response: str) -> float:
        raise lacking(self, "score", "does not say what a response is worth")

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str], ids, mask) -> np.ndarray:
        """float32 [B]. ids int32, mask float32 [B, T]: of the responses, as they were drawn."""
        return numbers_of(self.score, prompts, responses)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """UserError for prompts whose facts do not say what a right response is."""


def check_fact(prompts: Sequence[Prompt], fact: str, is_good: Callable[[Any], bool], needs: str) -> None:
    """UserError unless the fact of every prompt is good: what it needs to be, in words."""
    bad = [prompt for prompt in prompts if fact not in prompt.facts or not is_good(prompt.facts[fact])]
    if bad:
        facts = bad[0].facts
        count = f" ({len(bad)} of {len(prompts)} prompts)"
        if fact in facts:
            raise UserError(
                f"{bad[0].name}: {fact} is {str(facts[fact])[:40]!r}, and not {needs}{count}", "Correct it, or choose another reward."
            )
        raise UserError(
            f"{bad[0].name}: has no {fact!r}, which has to be {needs}{count}",
            f"It has: {', '.join(map(str, facts)) or 'nothing'}. Add it, or name another with the reward's field fact.",
        )


def is_written(value: Any) -> bool:
    """Whether a fact is a text that says something, or a finite number."""
    return isinstance(value, str) and bool(value.strip()) or is_number(value)


@dataclasses.dataclass(frozen=True)
class Answer(Reward):
    """1 where the last number of the response equals that of the fact, whatever their notation: 0.5, 1/2 and 50e-2 are one number."""

    fact: str = "answer"
    """Name of the prompt's fact that holds the right answer."""

    def score(self, prompt, response):
        found, right = last_number(response), last_number(str(prompt.facts[self.fact]))
        return float(found is not None and found == right)

    def check(self, prompts):
        check_fact(prompts, self.fact, lambda fact: is_written(fact) and last_number(str(fact)) is not None, "a number, or text with one")


_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?")
_DIGITS = 1000
"""Of a number, and of ten to its exponent: more are no number. Python's own bound on digits is 4,300, and it raises."""


def last_number(text: str) -> Fraction | None:
    """The last number of a text, commas between thousands left out; None where there is none, or one beyond all measure."""
    found = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
    if not found or len(found[-1]) > _DIGITS:
        return None
    top, _, bottom = found[-1].partition("/")
    exponent = top.lower().partition("e")[2].strip()
    below = int(bottom) if bottom else 1
    return Fraction(top.strip()) / below if below and abs(int(exponent or "0")) < _DIGITS else None


@dataclasses.dataclass(frozen=True)
class Format(Reward):
    """1 where the whole response has a form, a regular expression."""

    pattern: str = r".*"
    """Regular expression that the whole response must match; a dot matches newlines too."""

    def __post_init__(self):
        try:
            re.compile(self.pattern, re.DOTALL)
        except re.error as error:
            raise ValueError(f"Format: pattern {self.pattern!r} is not a regular expression: {error}") from None

    def score(self, prompt, response):
        return float(re.fullmatch(self.pattern, response, re.DOTALL) is not None)


@dataclasses.dataclass(frozen=True)
class Lexicon(Reward):
    """The number of good words less that of bad ones."""

    good: tuple[str, ...] = ()
    """Words worth 1; case does not matter."""
    bad: tuple[str, ...] = ()
    """Words worth -1; case does not matter."""

    def __post_init__(self):
        for word in (*self.good, *self.bad):
            if not re.fullmatch(r"\w+", word):
                raise ValueError(f"Lexicon: {word!r} is not a single word, and would never match")

    def score(self, prompt, response):
        good, bad = ({word.lower() for word in words} for words in (self.good, self.bad))
        words = re.findall(r"\w+", response.lower())
        return float(sum((word in good) - (word in bad) for word in words))

    def check(self, prompts):
        if not self.good and not self.bad:
            raise UserError("Lexicon has no words: every response would score 0", "Name some: good, bad.")


@dataclasses.dataclass(frozen=True)
class Similarity(Reward):
    """1 less the edit distance to a reference over the longer length: minimum-risk training (Shen et al. 2016) with it as the risk."""

    fact: str = "answer"
    """Name of the prompt's fact that holds the reference."""

    def score(self, prompt, response):
        reference = str(prompt.facts[self.fact])
        return 1.0 - edit_distance(response, reference) / max(len(response), len(reference), 1)

    def check(self, prompts):
        check_fact(prompts, self.fact, is_written, "text or a number")


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions and substitutions that make one of the other (Levenshtein 1966), by rows in NumPy."""
    x, row = np.array([ord(character) for character in b]), np.arange(len(b) + 1)
    steps = np.arange(len(b) + 1)
    for number, character in enumerate(a, 1):
        best = np.concatenate([[number], np.minimum(row[1:] + 1, row[:-1] + (x != ord(character)))])
        row = np.minimum.accumulate(best - steps) + steps  # an insertion costs 1 more than what is to the left
    return int(row[-1])


@dataclasses.dataclass(frozen=True)
class Length(Reward):
    """-1 for every so many characters beyond a limit."""

    most: int = 200
    """Characters without a penalty."""
    unit: int = 100
    """Characters beyond that which cost 1."""

    def __post_init__(self):
        check_range("Length: ", self, 0, "most")
        check_range("Length: ", self, 1, "unit")

    def score(self, prompt, response):
        return -max(0, len(response) - self.most) / self.unit


@dataclasses.dataclass(frozen=True)
class Repetition(Reward):
    """Minus the share of a response's n-grams of words that occurred in it before: 0 to -1."""

    words: int = 3
    """Words in an n-gram."""

    def __post_init__(self):
        check_range("Repetition: ", self, 1, "words")

    def score(self, prompt, response):
        words = response.split()
        grams = Counter(tuple(words[i : i + self.words]) for i in range(len(words) - self.words + 1))
        return -(1.0 - len(grams) / grams.total()) if grams else 0.0


@dataclasses.dataclass(frozen=True)
class Sum(Reward):
    """A weighted sum of rewards."""

    rewards: tuple[Reward, ...] = ()
    """Rewards to add up."""
    weights: tuple[float, ...] = ()
    """Weight of each reward. Empty: 1 each."""

    def __post_init__(self):
        if not self.rewards or (self.weights and len(self.weights) != len(self.rewards)):
            raise ValueError(f"a sum of {len(self.rewards)} rewards has {len(self.weights)} weights; give one for each, or none")
        if not all(map(math.isfinite, self.weights)):
            raise ValueError(f"Sum: weights {self.weights} are not all finite")

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for reward in self.rewards for file in getattr(reward, "files", ()))

    def check(self, prompts):
        for reward in self.rewards:
            reward.check(prompts)

    def scores(self, prompts, responses, ids, mask):
        weights = self.weights or (1.0,) * len(self.rewards)
        scores = [
            weight * check_scores(reward.scores(prompts, responses, ids, mask), len(prompts), np.shape(mask)[-1], type(reward).__name__)
            for weight, reward in zip(weights, self.rewards, strict=True)
        ]
        if any(score.ndim == 2 for score in scores):  # a score of the whole stands at its last token
            last = np.maximum(np.asarray(mask).sum(1).astype(int) - 1, 0)[:, None] == np.arange(mask.shape[1])
            scores = [score if score.ndim == 2 else score[:, None] * last for score in scores]
        return functools.reduce(np.add, scores).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RewardModel(Reward):
    """The scalar of a trained reward model: (score - mean) / deviation, both of its validation responses (Ziegler et al. 2019, sec. 2.1).

    The model reads text with its own tokenizer, which need not be the policy's.
    """

    run: str = ""
    """Run directory of a RewardModelling experiment, whose newest checkpoint is used."""

    path_fields = ("run",)

    @property
    def files(self) -> tuple[str, ...]:
        """What the run holds is known by these: the journal has the digests of the weights."""
        if not self.run:
            raise UserError("a reward model needs a run", "Give one: RewardModel(run=DIR) in the config file, or the field reward.run.")
        journal = sorted((Path(self.run) / "checkpoints" / "journal").glob("*.json"), key=lambda path: int(path.name.split("-")[0]))
        return (f"{self.run}/config.json", *(str(path) for path in journal[-1:]))

    def scores(self, prompts, responses, ids, mask):
        return SCORERS[self.run](prompts, responses)


SCORERS: dict[str, Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]] = {}
"""Reward models that are loaded, by the folders of their runs; `train.rl.rewards.scoring` loads them. This file knows nothing of models."""


@dataclasses.dataclass(frozen=True)
class Judged(Environment):
    """The prompts of one environment, scored by another reward; its own becomes the gold standard that evaluations report."""

    environment: Environment = Environment()
    """Source of the prompts."""
    reward: Reward = Reward()
    """Reward that a policy is trained on."""

    def __post_init__(self):
        if isinstance(self.environment, Simulator):
            raise ValueError(f"Judged: {type(self.environment).__name__} replies, and scores each turn itself; use it without Judged")

    @property
    def alphabet(self):
        return self.environment.alphabet

    @property
    def files(self):
        return (*self.environment.files, *getattr(self.reward, "files", ()))

    def prompt(self, seed, row, split="train"):
        return self.environment.prompt(seed, row, split)

    def demonstration(self, prompt, seed, row):
        return self.environment.demonstration(prompt, seed, row)

    def examined(self, seed, split):
        return self.environment.examined(seed, split)

    def check(self, prompts):
        self.reward.check(prompts)
        self.environment.check(prompts)

    def remarks(self):
        return self.environment.remarks()

    def scores(self, prompts, responses, ids, mask):
        return self.reward.scores(prompts, responses, ids, mask)

    def gold(self, prompts, responses, ids, mask):
        """What the responses are really worth: by the environment itself."""
        return self.environment.scores(prompts, responses, ids, mask)
