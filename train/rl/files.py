"""Prompts and demonstrations from JSON files."""

import dataclasses
import functools
import re

from data.errors import UserError
from data.order import shuffled
from train.rl.environments import Environment, Prompt, is_held_out
from train.rl.examples import ROLES, read_records
from train.rl.rewards import Answer, Reward


@dataclasses.dataclass(frozen=True)
class Listed(Environment):
    """Prompts that are all known: each comes once in a pass over them, in an order that the seed decides. Subclasses give `listed`."""

    def listed(self, split: str) -> list[Prompt]:
        raise NotImplementedError

    def prompt(self, seed, row, split="train"):
        prompts = self.listed(split)
        _, index = shuffled(row, len(prompts), seed)
        return prompts[int(index)]


@dataclasses.dataclass(frozen=True)
class PromptFile(Listed):
    """Records of a JSONL file, of a JSON list, gzipped or not, or of a prepared data set of TFDS, tfds:NAME[/CONFIG][:VERSION][@SPLIT], as
    prompts; all fields of a record are its prompt's facts.

    A record that has `messages`, a list of {"role", "content"}, is a conversation: the turns before the last are the prompt, and the last
    one, the assistant's, is the response.
    """

    path: str = ""
    """The file, or tfds:NAME."""
    validation_path: str = ""
    """A file of its own for validation. Empty: an eighth of the prompts, by a hash of their text."""
    prompt_template: str = "{prompt}"
    """Text of a prompt; names in braces are fields of the record."""
    response_template: str = "{response}"
    """Text of the response to imitate, in the same way."""
    reward: Reward = Answer()
    """What a response is worth."""

    @property
    def files(self) -> tuple[str, ...]:
        own = (self.path, self.validation_path) if self.validation_path else (self.path,)
        return (*own, *getattr(self.reward, "files", ()))

    def listed(self, split):
        return _prompts(self, split)

    def demonstration(self, prompt, seed, row):
        if "messages" in prompt.facts:
            return prompt.facts["messages"][-1]["content"]
        return _fill(self.response_template, prompt.facts, self.path)

    def scores(self, prompts, responses, ids, mask):
        return self.reward.scores(prompts, responses, ids, mask)


@functools.lru_cache
def _prompts(file: PromptFile, split: str) -> list[Prompt]:
    """Those of a split, in the order of the file."""
    if not file.path:
        raise UserError("PromptFile: no path", "Give one in the config file, or --data.environments.0.path FILE.")
    path = file.validation_path if split == "validation" and file.validation_path else file.path
    found = []
    for record in read_records(path):
        if "messages" in record:
            turns = _turns(record["messages"], path)
            prompt = Prompt("\n".join(text for _, text in turns[:-1]), record, turns[:-1])
        else:
            prompt = Prompt(_fill(file.prompt_template, record, path), record)
        if file.validation_path or is_held_out(prompt.text) == (split == "validation"):
            found.append(prompt)
    if not found:
        raise UserError(f"{path}: has no prompts for {split}", "Give a larger file, or --data.environments.0.validation-path FILE.")
    return found


def _turns(messages, path: str) -> tuple[tuple[str, str], ...]:
    try:
        turns = tuple((turn["role"], turn["content"]) for turn in messages)
    except (TypeError, KeyError):
        turns = ()
    if len(turns) < 2 or turns[-1][0] != "assistant" or not all(role in ROLES and isinstance(text, str) for role, text in turns):
        raise UserError(
            f"{path}: messages {str(messages)[:80]!r} are no conversation",
            f'Give a list of {{"role", "content"}}, roles being {", ".join(ROLES)}, the last one the assistant\'s.',
        )
    return turns


def _fill(template: str, record: dict, path: str) -> str:
    def value(found: re.Match) -> str:
        if found[1] not in record:
            raise UserError(f"{path}: a record has no field {found[1]!r}", f"It has: {', '.join(map(str, record))}.")
        return str(record[found[1]])

    return re.sub(r"\{(\w+)\}", value, template)
