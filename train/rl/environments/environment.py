"""Where prompts come from, and what a response to one is worth. Plain Python on text; a config names these classes.

A prompt is a pure function of (seed, row, split), so a run resumes at any row. Rows of `train` and `validation` never share a prompt where
there are enough to go round: a hash of its text says on which side it is.
"""

import contextlib
import dataclasses
import random
import string
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xxhash

from data.errors import UserError

EXAMINED = 256
"""Prompts of an environment that are examined before a run, where it has no list of all."""
DRAWS = 10_000
"""Prompts that are drawn in search of one for a split, before the search is given up."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text to respond to, and what its environment needs to score the response.

    messages: a conversation instead, as (role, text) with the roles user, assistant, system and tool; `text` is then what people see of it.
    where: the file and the line that it comes from, where there is one.
    """

    text: str
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    messages: tuple[tuple[str, str], ...] = ()
    where: str = ""

    @property
    def name(self) -> str:
        """What an error calls it."""
        return self.where or f"prompt {self.text[:60]!r}"

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a tokenizer has to read of it."""
        return tuple(text for _, text in self.messages) or (self.text,)


@contextlib.contextmanager
def blaming(who: str, where: str = "") -> Iterator[None]:
    """Around what a user's class does: whatever it raises becomes a UserError with its name, the place, and the line of the user's file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a class of the user's can raise
        said = str(error).strip().partition("\n")[0][:200]
        line = _own_line(traceback.extract_tb(error.__traceback__))
        what = ": ".join(part for part in (who, where, type(error).__name__, said) if part)
        raise UserError(f"{what} ({line.filename}, line {line.lineno})", "Correct the class, or its input.") from error


def lacking(option, method: str, what: str) -> UserError:
    """For what only a subclass can do."""
    return UserError(f"{type(option).__name__}: {what}", f"Give its class the method {method}, or choose another in the config file.")


_FOREIGN = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], str(Path(__file__).parents[2]))
"""Where lines of code are not a user's."""


def _own_line(lines: traceback.StackSummary) -> traceback.FrameSummary:
    """The last line of a user's file; of any, where there is none."""
    return next((line for line in reversed(lines) if not line.filename.startswith(_FOREIGN)), lines[-1])


def numbers_of(score, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """float32 [B]: score(prompt, response) of each, which must be a number."""
    return np.array([float(score(prompt, response)) for prompt, response in zip(prompts, responses, strict=True)], np.float32)


def is_held_out(text: str) -> bool:
    """Whether a prompt is one of validation: an eighth, by a hash of its text."""
    return xxhash.xxh3_64_intdigest(text.encode()) % 8 == 0


def check_scores(scores, rows: int, length: int, name: str) -> np.ndarray:
    """float32 scores [rows] or [rows, length]; NaN stays, and is left out of the step. UserError for another shape, or for integers, which
    would truncate fractions."""
    scores = np.asarray(scores)
    if scores.shape not in ((rows,), (rows, length)):
        raise UserError(
            f"{name}: gave scores of shape {scores.shape} for {rows} responses", f"Return [{rows}], or [{rows}, {length}] by token."
        )
    if not np.issubdtype(scores.dtype, np.floating):
        raise UserError(f"{name}: gave scores of type {scores.dtype}", "Return floats.")
    return scores.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Environment:
    """One source of prompts, with its reward. Subclasses give `draw` and `score`; `demonstrate` where something can be imitated.

    path_fields: the fields that name files or folders, of a reward too.
    """

    path_fields: ClassVar[tuple[str, ...]] = ()

    @property
    def alphabet(self) -> str:
        """Every character of prompts and good responses: the tokens of a model that is trained on nothing else."""
        return string.printable

    @property
    def held_out(self) -> bool:
        """Whether there are enough different prompts to keep some of them from training."""
        return True

    @property
    def files(self) -> tuple[str, ...]:
        """What is read from disk: their digests are kept with a run."""
        return ()

    def prompt(self, seed: int, row: int, split: str = "train") -> Prompt:
        """The prompt of a row."""
        rng = generator_of(self, seed, row, split)
        for _ in range(DRAWS):
            prompt = self.draw(rng)
            if not self.held_out or is_held_out(prompt.text) == (split == "validation"):
                return prompt
        raise UserError(
            f"{type(self).__name__}: none of {DRAWS} prompts that it sampled is for {split}",
            "Make its prompts differ more, or let both splits share them: held_out False.",
        )

    def examined(self, seed: int, split: str) -> Sequence[Prompt]:
        """The prompts of a split that are examined before a run: all that there are, or as many as tell."""
        return [self.prompt(seed, row, split) for row in range(EXAMINED)]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """UserError for prompts that lack what it takes to score responses to them."""

    def texts(self, prompts: Sequence[Prompt]) -> Iterator[tuple[str, str]]:
        """Whatever it is known to say, as (what an error calls it, text)."""
        return ((prompt.name, text) for prompt in prompts for text in prompt.texts)

    def remarks(self) -> list[str]:
        """Warnings about what was read: what is not used, or left out."""
        return []

    def demonstration(self, prompt: Prompt, seed: int, row: int) -> str:
        """A response to imitate; the same for the same row."""
        return self.demonstrate(prompt, generator_of(self, seed, row, "demonstration"))

    def transcript(self, prompt: Prompt, seed: int, row: int) -> tuple[Prompt, str]:
        """A demonstration with all that comes before its last response."""
        return prompt, self.demonstration(prompt, seed, row)

    def draw(self, rng: random.Random) -> Prompt:
        raise lacking(self, "draw", "gives no prompts")

    def demonstrate(self, prompt: Prompt, rng: random.Random) -> str:
        raise lacking(self, "demonstrate", "shows no responses to imitate")

    def score(self, prompt: Prompt, response: str) -> float:
        """What a response is worth."""
        raise lacking(self, "score", "does not say what a response is worth")

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str], ids, mask) -> np.ndarray:
        """float [B], or [B, T] with a reward for each token. ids int32, mask float32 [B, T]: of the responses, as they were drawn."""
        return numbers_of(self.score, prompts, responses)

    def gold(self, prompts: Sequence[Prompt], responses: Sequence[str], ids, mask) -> np.ndarray | None:
        """What responses are really worth, where `scores` only stands for it; None where it does not."""
        return None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a simulator says to a turn of the policy. reward: what that turn earned. ends: nothing follows, and text is not read."""

    text: str = ""
    reward: float = 0.0
    ends: bool = False
    role: Literal["user", "tool"] = "user"


@dataclasses.dataclass(frozen=True)
class Simulator(Environment):
    """An environment that answers: a person, a tool, a game. Subclasses give `draw`, `reply`, and `act` where something can be imitated.

    All that happens is a pure function of the prompt and of what the policy has said, so any point of any conversation can be reached
    again: by a run that resumes, or by a search that looks ahead.
    """

    turns: int = 4
    """Maximum turns of the policy."""

    def __post_init__(self):
        if self.turns < 1:
            raise ValueError(f"{type(self).__name__}: turns is {self.turns}; the policy needs at least one")

    def reply(self, prompt: Prompt, said: tuple[str, ...]) -> Reply:
        """To the last of the policy's turns so far. What it says to the last turn of all is not read, but for its reward."""
        raise lacking(self, "reply", "does not answer")

    def act(self, prompt: Prompt, said: tuple[str, ...], rng: random.Random) -> str:
        """A turn to imitate, after those said so far."""
        raise lacking(self, "act", "shows no responses to imitate")

    def prompt(self, seed, row, split="train"):
        """As a conversation that the text of the prompt begins."""
        prompt = super().prompt(seed, row, split)
        return prompt if prompt.messages else dataclasses.replace(prompt, messages=(("user", prompt.text),))

    def texts(self, prompts):
        yield from super().texts(prompts)
        for prompt in prompts:
            reply = self.reply(prompt, ("",))
            if not reply.ends:
                yield f"what is answered to nothing, after the {prompt.name}", reply.text

    def transcript(self, prompt, seed, row):
        rng, messages = generator_of(self, seed, row, "demonstration"), list(prompt.messages)
        said: tuple[str, ...] = ()
        while True:
            said = (*said, self.act(prompt, said, rng))
            reply = self.reply(prompt, said)
            if reply.ends or len(said) == self.turns:
                return dataclasses.replace(prompt, messages=tuple(messages)), said[-1]
            messages += [("assistant", said[-1]), (reply.role, reply.text)]

    def score(self, prompt, response):
        """A response of one turn alone."""
        return self.reply(prompt, (response,)).reward


def generator_of(environment: Environment, seed: int, row: int, purpose: str) -> random.Random:
    return random.Random(f"{type(environment).__name__} {seed} {row} {purpose}")


# ------------------------------------------------------------------------------------------------------------------ tiny tasks
