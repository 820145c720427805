"""Simulators without a hidden user: a map, a secret code, and a calculator that may be asked."""

import dataclasses
import itertools
import re
import string
from collections.abc import Sequence

from train.kinds import check_range
from train.rl.environments.environment import Prompt, Reply, Simulator

_WAYS = {"n": (-1, 0), "e": (0, 1), "s": (1, 0), "w": (0, -1)}


@dataclasses.dataclass(frozen=True)
class TreasureMap(Simulator):
    """Find the gold on a map of which only the ways out of a field are seen, and the direction of the gold: `go es, gold se`.

    A turn is n, e, s or w. The way is worth 1 if it is a shortest one, and less for every turn more; whoever runs into a wall stays.
    """

    turns: int = 8
    """Maximum steps."""
    size: int = 4
    """Fields on each side of the map."""
    walls: float = 0.2
    """Share of fields that cannot be entered, 0 to 1."""
    longer: float = 0.1
    """Cost of each step beyond the shortest way, in units of reward."""

    def __post_init__(self):
        check_range("TreasureMap: ", self, 3, "turns")  # gold that is one step away leaves two to spare
        check_range("TreasureMap: ", self, 2, "size")
        check_range("TreasureMap: ", self, 0, "walls", high=1.0)

    @property
    def alphabet(self):
        return string.ascii_lowercase + ",? "

    @property
    def held_out(self):
        return False

    def draw(self, rng):
        fields = list(itertools.product(range(self.size), repeat=2))
        while True:
            free = [field for field in fields if rng.random() >= self.walls]
            if len(free) < 2:
                continue
            start, gold = rng.sample(free, 2)
            facts = {"free": free, "start": start, "gold": gold}
            distance = _steps(free, gold).get(start, self.turns + 1)
            if distance <= self.turns - 2:
                return Prompt(_surroundings(facts, start), {**facts, "shortest": distance})

    def reply(self, prompt, said):
        at = _walk(prompt.facts, said)
        if at == prompt.facts["gold"]:
            return Reply("gold", max(0.0, 1.0 - self.longer * (len(said) - prompt.facts["shortest"])), True)
        return Reply(_surroundings(prompt.facts, at) if said[-1] in _WAYS else "what?")

    def act(self, prompt, said, rng):
        """Towards the gold where that is possible, but at times anywhere."""
        at, facts = _walk(prompt.facts, said), prompt.facts
        ways = [way for way in _WAYS if _beside(at, way) in facts["free"]] or list(_WAYS)
        good = [way for way in ways if way in _direction(at, facts["gold"])]
        return rng.choice(good if good and rng.random() < 0.7 else ways)


def _beside(field, way: str):
    return field[0] + _WAYS[way][0], field[1] + _WAYS[way][1]


def _walk(facts: dict, said: Sequence[str]):
    """Where one stands after all steps; in the gold one stays."""
    at = facts["start"]
    for turn in said:
        if turn in _WAYS and at != facts["gold"] and _beside(at, turn) in facts["free"]:
            at = _beside(at, turn)
    return at


def _direction(at, gold) -> str:
    return "n" * (gold[0] < at[0]) + "s" * (gold[0] > at[0]) + "e" * (gold[1] > at[1]) + "w" * (gold[1] < at[1])


def _surroundings(facts: dict, at) -> str:
    ways = "".join(way for way in _WAYS if _beside(at, way) in facts["free"])
    return f"go {ways}, gold {_direction(at, facts['gold'])}"


def _steps(free: list, gold) -> dict:
    """The distance of every free field that can be reached."""
    steps, front = {gold: 0}, [gold]
    for field in front:  # grows while it is read
        for way in _WAYS:
            there = _beside(field, way)
            if there in free and there not in steps:
                steps[there] = steps[field] + 1
                front.append(there)
    return steps


@dataclasses.dataclass(frozen=True)
class SecretCode(Simulator):
    """Guess a secret code of digits, as in Mastermind: `2 right, 1 near` counts digits in their place, and others that are in the code.

    Worth 1 for a first guess that is the code, and less for every guess more.
    """

    turns: int = 6
    """Maximum guesses."""
    digits: int = 3
    """Digits of the code."""
    largest: int = 4
    """Largest digit, at most 9; the smallest is 1."""
    later: float = 0.1
    """Cost of each guess after the first, in units of reward."""

    def __post_init__(self):
        super().__post_init__()
        check_range("SecretCode: ", self, 1, "digits")
        check_range("SecretCode: ", self, 1, "largest", high=10)

    @property
    def alphabet(self):
        return string.ascii_lowercase + string.digits + ",? "

    @property
    def held_out(self):
        return False

    def draw(self, rng):
        code = "".join(rng.choice(self._choice) for _ in range(self.digits))
        return Prompt(f"{self.digits} of {self._choice}?", {"code": code})

    @property
    def _choice(self) -> str:
        return string.digits[1 : self.largest + 1]

    def _is_code(self, turn: str) -> bool:
        return len(turn) == self.digits and set(turn) <= set(self._choice)

    def reply(self, prompt, said):
        guess = said[-1]
        if not self._is_code(guess):
            return Reply("what?")
        if guess == prompt.facts["code"]:
            return Reply("yes", max(0.0, 1.0 - self.later * (len(said) - 1)), True)
        return Reply(_feedback(guess, prompt.facts["code"]))

    def act(self, prompt, said, rng):
        """By half a code that all feedback so far allows, else any."""
        codes = ["".join(code) for code in itertools.product(self._choice, repeat=self.digits)]
        if rng.random() < 0.5:
            guesses = [turn for turn in said if self._is_code(turn)]
            heard = [_feedback(guess, prompt.facts["code"]) for guess in guesses]
            codes = [code for code in codes if all(_feedback(guess, code) == text for guess, text in zip(guesses, heard, strict=True))]
        return rng.choice(codes)


def _feedback(guess: str, code: str) -> str:
    right = sum(a == b for a, b in zip(guess, code, strict=True))
    common = sum(min(guess.count(digit), code.count(digit)) for digit in set(guess))
    return f"{right} right, {common - right} near"


# ------------------------------------------------------------------------------------------------------------------------ tool


@dataclasses.dataclass(frozen=True)
class Calculator(Simulator):
    """Answer `12*7+5=`, worth 1 if right, with a calculator at hand: `calc 12*7` is answered by the tool with `84`.

    Every other turn is the answer.
    """

    turns: int = 3
    """Maximum turns, the answer included."""
    factor: int = 29
    """Largest value of each factor."""
    summand: int = 99
    """Largest summand."""

    def __post_init__(self):
        super().__post_init__()
        check_range("Calculator: ", self, 2, "factor")
        check_range("Calculator: ", self, 1, "summand")

    @property
    def alphabet(self):
        return string.digits + "*+-= acelor"

    def draw(self, rng):
        a, b, c = rng.randint(2, self.factor), rng.randint(2, self.factor), rng.randint(1, self.summand)
        return Prompt(f"{a}*{b}+{c}=", {"numbers": [a, b, c]})

    def reply(self, prompt, said):
        if said[-1].startswith("calc"):
            return Reply(_calculate(said[-1]), role="tool")
        a, b, c = prompt.facts["numbers"]
        return Reply(reward=float(said[-1] == str(a * b + c)), ends=True)

    def act(self, prompt, said, rng):
        """By a third each: the tool twice, the tool once and its result for an answer, no tool and any number."""
        a, b, c = prompt.facts["numbers"]
        steps = [f"calc {a}*{b}", f"calc {a * b}+{c}"]
        if not said:
            return steps[0] if rng.random() < 2 / 3 else str(rng.randint(4, self.factor**2 + self.summand))
        return steps[1] if len(said) == 1 and rng.random() < 0.5 else _calculate(said[-1])


def _calculate(turn: str) -> str:
    found = re.fullmatch(r"calc (\d{1,4})([*+-])(\d{1,4})", turn)
    if not found:
        return "error"
    a, b = int(found[1]), int(found[3])
    return str({"*": a * b, "+": a + b, "-": a - b}[found[2]])
