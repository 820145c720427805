"""Small tasks whose prompts are made on the spot: walks, letters, sums, reviews, facts."""

import dataclasses
import functools
import itertools
import math
import random
import re
import string
from typing import Literal

from train.kinds import check_range
from train.rl.environments.environment import Environment, Prompt


@dataclasses.dataclass(frozen=True)
class RandomWalks(Environment):
    """Find a short way to node `a` of a directed graph, having seen random walks alone (the task of trlx's first example).

    A prompt is a node. A response is the nodes that follow. Its worth is 1 for a shortest way to `a` and falls linearly with its length to
    0 beyond `longest`; a step that is no edge, or never reaching `a`, is worth 0.
    """

    nodes: int = 21
    """Nodes of the graph, at most 26."""
    longest: int = 10
    """Maximum nodes of a walk, the first one included."""
    edges: float = 0.1
    """Probability of each edge."""
    graph: int = 0
    """Seed of the graph's edges."""

    def __post_init__(self):
        if not 2 <= self.nodes <= 26 or self.longest < 2:
            raise ValueError(f"a random walk needs 2 to 26 nodes and at least 2 steps; nodes is {self.nodes}, longest {self.longest}")
        if not any(0 < distance < self.longest for distance in _distances(self)):
            raise ValueError(f"graph {self.graph} has no way to node a; choose another")

    @property
    def alphabet(self) -> str:
        return string.ascii_lowercase[: self.nodes]

    @property
    def held_out(self) -> bool:
        return False

    def draw(self, rng):
        reachable = [node for node, distance in enumerate(_distances(self)) if 0 < distance < self.longest]
        return Prompt(string.ascii_lowercase[rng.choice(reachable)])

    def demonstrate(self, prompt, rng):
        """A random walk, which ends where it meets `a`."""
        walk = [ord(prompt.text) - ord("a")]
        while len(walk) < self.longest and walk[-1] != 0:
            walk.append(rng.choice(_edges(self)[walk[-1]]))
        return "".join(string.ascii_lowercase[node] for node in walk[1:])

    def score(self, prompt, response):
        walk = [ord(letter) - ord("a") for letter in prompt.text + response]
        legal = all(there in _edges(self)[here] if 0 <= here < self.nodes else False for here, there in itertools.pairwise(walk))
        if not legal or 0 not in walk or walk.index(0) != len(walk) - 1 or len(walk) > self.longest:
            return 0.0
        shortest = _distances(self)[walk[0]] + 1
        return (self.longest + 1 - len(walk)) / (self.longest + 1 - shortest)


@functools.lru_cache
def _edges(walks: RandomWalks) -> tuple[tuple[int, ...], ...]:
    """The nodes that follow each node, at least one."""
    rng = random.Random(walks.graph)
    edges = [[there for there in range(walks.nodes) if there != here and rng.random() < walks.edges] for here in range(walks.nodes)]
    return tuple(tuple(out or [rng.randrange(walks.nodes)]) for out in edges)


@functools.lru_cache
def _distances(walks: RandomWalks) -> tuple[int, ...]:
    """Of each node to node 0, by breadth-first search; -1 where there is no way."""
    distance = [-1] * walks.nodes
    front, steps = [0], 0
    while front:
        for here in front:
            distance[here] = steps
        steps += 1
        front = [here for here in range(walks.nodes) if distance[here] < 0 and any(there in front for there in _edges(walks)[here])]
    return tuple(distance)


@dataclasses.dataclass(frozen=True)
class Letters(Environment):
    """Sort, copy or reverse some digits: `3172>` wants `1237`."""

    task: Literal["sort", "copy", "reverse"] = "sort"
    """What to do with the digits."""
    length: int = 6
    """Digits of a prompt."""
    partial: bool = True
    """Score is the share of digits in their place. False: 1 if all are, else 0."""

    def __post_init__(self):
        check_range("Letters: ", self, 1, "length")

    @property
    def alphabet(self) -> str:
        return string.digits + ">"

    def draw(self, rng):
        digits = "".join(rng.choice(string.digits) for _ in range(self.length))
        return Prompt(digits + ">", {"answer": {"sort": "".join(sorted(digits)), "copy": digits, "reverse": digits[::-1]}[self.task]})

    def demonstrate(self, prompt, rng):
        return prompt.facts["answer"]

    def score(self, prompt, response):
        answer = prompt.facts["answer"]
        if not self.partial:
            return float(response == answer)
        return sum(a == b for a, b in zip(answer, response, strict=False)) / max(len(answer), len(response))


@dataclasses.dataclass(frozen=True)
class Addition(Environment):
    """Add two numbers: `27+85=` wants `112`. Worth 1 if right, else 0."""

    digits: int = 2
    """Maximum digits of each number."""
    modulus: int = 0
    """Take sums modulo this. 0: plain sums."""

    def __post_init__(self):
        check_range("Addition: ", self, 1, "digits")
        check_range("Addition: ", self, 0, "modulus")

    @property
    def alphabet(self) -> str:
        return string.digits + "+="

    def draw(self, rng):
        a, b = rng.randrange(10**self.digits), rng.randrange(10**self.digits)
        return Prompt(f"{a}+{b}=", {"answer": str((a + b) % self.modulus if self.modulus else a + b)})

    def demonstrate(self, prompt, rng):
        return prompt.facts["answer"]

    def score(self, prompt, response):
        return float(response == prompt.facts["answer"])


@dataclasses.dataclass(frozen=True)
class Countdown(Environment):
    """Reach a number with + and - from three others, each used once: `3,14,9=20:` wants `14+9-3` (as in TinyZero).

    Worth 1 if it does, 0.1 for a formula of the given numbers that comes to another, else 0.
    """

    largest: int = 20
    """Largest of the three numbers."""
    noise: float = 0.5
    """Share of demonstrations that are random formulas of the numbers, right or wrong, 0 to 1."""

    def __post_init__(self):
        check_range("Countdown: ", self, 1, "largest", high=1000)  # a term of a response has three digits at most

    @property
    def alphabet(self) -> str:
        return string.digits + ",=:+-"

    def draw(self, rng):
        numbers = [rng.randint(1, self.largest) for _ in range(3)]
        target, formula = _formula(rng, numbers)
        while target < 0:
            target, formula = _formula(rng, numbers)
        return Prompt(f"{','.join(map(str, numbers))}={target}:", {"numbers": numbers, "target": target, "formula": formula})

    def demonstrate(self, prompt, rng):
        return _formula(rng, prompt.facts["numbers"])[1] if rng.random() < self.noise else prompt.facts["formula"]

    def score(self, prompt, response):
        if not re.fullmatch(r"\d{1,3}([+-]\d{1,3}){2}", response):
            return 0.0
        terms = [int(term) for term in re.findall(r"[+-]?\d+", response)]
        if sorted(map(abs, terms)) != sorted(prompt.facts["numbers"]):
            return 0.0
        return 1.0 if sum(terms) == prompt.facts["target"] else 0.1


def _formula(rng: random.Random, numbers: list[int]) -> tuple[int, str]:
    """The numbers in some order with signs between them, and what that comes to."""
    a, b, c = rng.sample(numbers, 3)
    first, second = rng.choice("+-"), rng.choice("+-")
    return a + (b if first == "+" else -b) + (c if second == "+" else -c), f"{a}{first}{b}{second}{c}"


_SUBJECTS = ("the film", "the plot", "this book", "the music", "the hotel", "our guide", "the food", "her voice")
_VERBS = ("was", "seemed", "felt", "became", "looked")
_GOOD = ("great", "lovely", "bright", "warm", "clever", "superb", "kind", "fresh")
_BAD = ("awful", "dull", "cold", "noisy", "rude", "stale", "weak", "grim")
_PLAIN = ("long", "new", "quiet", "small", "usual", "red", "late", "plain")
_RUDE = ("damn", "bloody", "stupid")


@dataclasses.dataclass(frozen=True)
class Reviews(Environment):
    """Go on with a review that a small grammar makes. Worth counts words on a list: sentiment, or rude ones that should not be there."""

    criterion: Literal["sentiment", "rudeness"] = "sentiment"
    """What the score counts. sentiment: good words minus bad ones. rudeness: -1 for each rude word."""
    sentences: int = 3
    """Sentences of a review after the first."""
    rude: float = 0.2
    """Share of sentences with a rude word, 0 to 1."""

    def __post_init__(self):
        check_range("Reviews: ", self, 1, "sentences")

    @property
    def alphabet(self) -> str:
        return string.ascii_lowercase + " ."

    @property
    def held_out(self) -> bool:
        return False

    def draw(self, rng):
        return Prompt(f"{self._sentence(rng)} {rng.choice(_SUBJECTS)}")

    def demonstrate(self, prompt, rng):
        rest = (self._sentence(rng) for _ in range(self.sentences - 1))
        return " ".join([f" {rng.choice(_VERBS)} {self._words(rng)}.", *rest])

    def _sentence(self, rng: random.Random) -> str:
        return f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {self._words(rng)}."

    def _words(self, rng: random.Random) -> str:
        words = [rng.choice(rng.choice((_GOOD, _BAD, _PLAIN)))]
        if rng.random() < self.rude:
            words.insert(0, rng.choice(_RUDE))
        return " ".join(words)

    def score(self, prompt, response):
        words = re.findall(r"[a-z]+", response)
        if self.criterion == "rudeness":
            return -float(sum(word in _RUDE for word in words))
        return float(sum((word in _GOOD) - (word in _BAD) for word in words))


@dataclasses.dataclass(frozen=True)
class Bandit(Environment):
    """One prompt, one token: every letter has a fixed worth. What is best at a price for leaving the reference is known in closed form."""

    arms: int = 5
    """Letters to choose from."""

    def __post_init__(self):
        check_range("Bandit: ", self, 1, "arms", high=len(string.ascii_lowercase) + 1)

    @property
    def alphabet(self) -> str:
        return string.ascii_lowercase[: self.arms]

    @property
    def held_out(self) -> bool:
        return False

    @property
    def worth(self) -> tuple[float, ...]:
        """Of each letter, between -1 and 1."""
        return tuple(math.cos(3.0 * arm) for arm in range(self.arms))

    def draw(self, rng):
        return Prompt("a")

    def demonstrate(self, prompt, rng):
        return rng.choice(self.alphabet)

    def score(self, prompt, response):
        return self.worth[ord(response) - ord("a")] if len(response) == 1 and response in self.alphabet else 0.0


@dataclasses.dataclass(frozen=True)
class KeyFacts(Environment):
    """Summarise a record: `ann,37,rome,baker;` has four facts. Worth is the share of them that a response names, less 0.01 a character."""

    @property
    def alphabet(self) -> str:
        return string.ascii_lowercase + string.digits + " ,;."

    def draw(self, rng):
        facts = [
            rng.choice(("ann", "bob", "cleo", "dan", "eve", "finn", "gus", "hal")),
            str(rng.randint(18, 79)),
            rng.choice(("rome", "oslo", "lima", "kyiv", "cairo", "paris", "delhi", "quito")),
            rng.choice(("baker", "nurse", "pilot", "judge", "miner", "poet", "smith", "vet")),
        ]
        return Prompt(",".join(facts) + ";", {"facts": facts})

    def demonstrate(self, prompt, rng):
        """A sentence about some of the facts, wordy and in no particular order, with a wrong one at times."""
        facts = rng.sample(prompt.facts["facts"], rng.randint(1, 4))
        if rng.random() < 0.3:
            facts[0] = self.draw(rng).facts["facts"][rng.randrange(4)]
        return rng.choice(("well, it is ", "there is ", "we know ", "")) + " and ".join(facts) + "."

    def score(self, prompt, response):
        words = set(re.findall(r"[a-z0-9]+", response))
        return sum(fact in words for fact in prompt.facts["facts"]) / 4 - 0.01 * len(response)
