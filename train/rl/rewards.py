"""What a response is worth, from its text: plain Python, named in configs by these classes.

A reward is called as scores(prompts, responses, ids, mask) and gives float [B], or [B, T] with a reward for each token. A run's own is any
subclass of Reward in its config file.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from train.rl.environments import Environment, Prompt, Simulator


@dataclasses.dataclass(frozen=True)
class Reward:
    """Judges responses one by one, by `score`, or all of a batch, by `scores`."""

    def score(self, prompt: Prompt, response: str) -> float:
        raise NotImplementedError

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str], ids, mask) -> np.ndarray:
        """float32 [B]. ids int32, mask float32 [B, T]: of the responses, as they were drawn."""
        return np.array([self.score(prompt, response) for prompt, response in zip(prompts, responses, strict=True)], np.float32)


@dataclasses.dataclass(frozen=True)
class Answer(Reward):
    """1 where the last number of the response equals that of the fact, whatever their notation: 0.5, 1/2 and 50e-2 are one number."""

    fact: str = "answer"
    """Which of a prompt's facts holds the right answer."""

    def score(self, prompt, response):
        found, right = last_number(response), last_number(str(prompt.facts[self.fact]))
        return float(found is not None and found == right)


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?")


def last_number(text: str) -> Fraction | None:
    """The last number of a text, commas between thousands left out; None where there is none."""
    found = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
    if not found:
        return None
    top, _, bottom = found[-1].partition("/")
    below = int(bottom) if bottom else 1
    return Fraction(top.strip()) / below if below else None


@dataclasses.dataclass(frozen=True)
class Format(Reward):
    """1 where the whole response has a form, a regular expression."""

    pattern: str = r".*"
    """Of the whole response; a dot matches ends of lines too."""

    def score(self, prompt, response):
        return float(re.fullmatch(self.pattern, response, re.DOTALL) is not None)


@dataclasses.dataclass(frozen=True)
class Lexicon(Reward):
    """The number of good words less that of bad ones."""

    good: tuple[str, ...] = ()
    """Words worth 1, in lower case."""
    bad: tuple[str, ...] = ()
    """Words worth -1, in lower case."""

    def score(self, prompt, response):
        words = re.findall(r"\w+", response.lower())
        return float(sum((word in self.good) - (word in self.bad) for word in words))


@dataclasses.dataclass(frozen=True)
class Similarity(Reward):
    """1 less the edit distance to a reference over the longer length: minimum-risk training (Shen et al. 2016) with it as the risk."""

    fact: str = "answer"
    """Which of a prompt's facts is the reference."""

    def score(self, prompt, response):
        reference = str(prompt.facts[self.fact])
        return 1.0 - edit_distance(response, reference) / max(len(response), len(reference), 1)


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
    """Characters that cost nothing."""
    unit: int = 100
    """Characters more that cost 1."""

    def score(self, prompt, response):
        return -max(0, len(response) - self.most) / self.unit


@dataclasses.dataclass(frozen=True)
class Repetition(Reward):
    """Minus the share of a response's n-grams of words that occurred in it before: 0 to -1."""

    words: int = 3
    """Of an n-gram."""

    def score(self, prompt, response):
        words = response.split()
        grams = Counter(tuple(words[i : i + self.words]) for i in range(len(words) - self.words + 1))
        return -(1.0 - len(grams) / grams.total()) if grams else 0.0


@dataclasses.dataclass(frozen=True)
class Sum(Reward):
    """A weighted sum of rewards."""

    rewards: tuple[Reward, ...] = ()
    """The parts."""
    weights: tuple[float, ...] = ()
    """Of each. Empty: 1."""

    def __post_init__(self):
        if not self.rewards or (self.weights and len(self.weights) != len(self.rewards)):
            raise ValueError(f"a sum of {len(self.rewards)} rewards has {len(self.weights)} weights; give one for each, or none")

    def scores(self, prompts, responses, ids, mask):
        weights = self.weights or (1.0,) * len(self.rewards)
        parts = [weight * reward.scores(prompts, responses, ids, mask) for weight, reward in zip(weights, self.rewards, strict=True)]
        if any(part.ndim == 2 for part in parts):  # a score of the whole stands at its last token
            last = np.maximum(np.asarray(mask).sum(1).astype(int) - 1, 0)[:, None] == np.arange(mask.shape[1])
            parts = [part if part.ndim == 2 else part[:, None] * last for part in parts]
        return functools.reduce(np.add, parts).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class RewardModel(Reward):
    """The scalar of a trained reward model: (score - mean) / deviation, both of its validation responses (Ziegler et al. 2019, sec. 2.1).

    The model reads text with its own tokenizer, which need not be the policy's.
    """

    run: str = ""
    """Run directory of a RewardModelling experiment; its newest checkpoint."""

    @property
    def files(self) -> tuple[str, ...]:
        """What the run holds is known by these: the journal has the digests of the weights."""
        journal = sorted((Path(self.run) / "checkpoints" / "journal").glob("*.json"), key=lambda path: int(path.name.split("-")[0]))
        return (f"{self.run}/config.json", *(str(path) for path in journal[-1:]))

    def scores(self, prompts, responses, ids, mask):
        return SCORERS[self.run](prompts, responses)


SCORERS: dict[str, Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]] = {}
"""Reward models that are loaded, by the folders of their runs; `train.rl.scoring` loads them. This file knows nothing of models."""


@dataclasses.dataclass(frozen=True)
class Judged(Environment):
    """The prompts of one environment, judged by a reward in place of its own, which then is the gold standard to evaluate with."""

    environment: Environment = Environment()
    """Where prompts come from."""
    reward: Reward = Reward()
    """What a policy learns from."""

    def __post_init__(self):
        if isinstance(self.environment, Simulator):
            raise ValueError(f"Judged: {type(self.environment).__name__} answers, and judges each turn itself; name it without Judged")

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

    def scores(self, prompts, responses, ids, mask):
        return self.reward.scores(prompts, responses, ids, mask)

    def gold(self, prompts, responses, ids, mask):
        """What the responses are really worth: by the environment itself."""
        return self.environment.scores(prompts, responses, ids, mask)
