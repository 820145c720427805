"""Prompts and demonstrations from JSON files."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from data.errors import UserError
from data.files.json_files import kind_of
from data.records.record import Record, check_text, is_number, lacks
from data.records.rows import read_records
from data.rows.order import shuffled
from train.rl.environments.environment import Environment, Prompt, is_held_out, lacking
from train.rl.rewards.rewards import Answer, Reward
from train.sources.records import answered_turns, check_asks, prompt_of, shown, turns_of, unused


@dataclasses.dataclass(frozen=True)
class Listed(Environment):
    """Prompts that are all known: each comes once in a pass over them, in an order that the seed decides. Subclasses give `read`."""

    def read(self, split: str) -> Sequence[Prompt]:
        """The prompts of a split; UserError where there are none."""
        raise lacking(self, "read", "gives no prompts")

    def listed(self, split: str) -> tuple[Prompt, ...]:
        """The same, read once for this object: what happens to the files during a run changes nothing."""
        if split not in self._read:
            self._read[split] = tuple(self.read(split))
        return self._read[split]

    def records(self, path: str) -> list[Record]:
        """Of a file, in the same way."""
        if path not in self._files:
            self._files[path] = read_records(path)
        return self._files[path]

    @functools.cached_property
    def _read(self) -> dict[str, tuple[Prompt, ...]]:
        return {}

    @functools.cached_property
    def _files(self) -> dict[str, list[Record]]:
        return {}

    def examined(self, seed, split):
        return self.listed(split)

    def prompt(self, seed, row, split="train"):
        prompts = self.listed(split)
        _, index = shuffled(row, len(prompts), seed)
        return prompts[int(index)]


@dataclasses.dataclass(frozen=True)
class PromptFile(Listed):
    """Records of a JSONL file, of a JSON list, gzipped or not, or of a prepared data set of TFDS, `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`,
    as prompts; all fields of a record are its prompt's facts.

    A field that is a list of {"role", "content"} is a conversation. A prompt may be one, where its template is the field alone. A record
    that has `messages` is one as a whole, unless a template is given: the turns before the last are the prompt, and the last one, the
    assistant's, is the response. What else stands in a template must be text or a number.
    """

    path: str = ""
    """JSONL file, JSON list (gzipped or not), or tfds:NAME."""
    validation_path: str = ""
    """Separate file for validation. Empty: hold out an eighth of the prompts, by a hash of their text."""
    prompt_template: str = "{prompt}"
    """Text of a prompt; names in braces are fields of the record."""
    response_template: str = "{response}"
    """Text of the response to imitate; names in braces are fields of the record."""
    reward: Reward = Answer()
    """Reward of a response."""

    path_fields = ("path", "validation_path")

    @property
    def files(self) -> tuple[str, ...]:
        if not self.path:
            raise UserError("PromptFile: no path", "Give one in the config file, or --data.environments.0.path FILE.")
        own = (self.path, self.validation_path) if self.validation_path else (self.path,)
        return (*own, *getattr(self.reward, "files", ()))

    def read(self, split):
        """In the order of the file."""
        path = self.files[1] if split == "validation" and self.validation_path else self.path
        prompts = [self._prompt(record) for record in self.records(path)]
        found = [prompt for prompt in prompts if self.validation_path or is_held_out(prompt.text) == (split == "validation")]
        if not found:
            distinct = len({prompt.text for prompt in prompts})
            raise UserError(
                f"{path}: has no prompts for {split}: {len(prompts)} prompts, {distinct} of them different",
                "Give a larger file, or --data.environments.0.validation-path FILE.",
            )
        return found

    def _is_conversation(self, record: dict) -> bool:
        """Whether `messages` hold both prompt and response. Templates that a user gives come first."""
        return record.get("messages") is not None and (self.prompt_template, self.response_template) == ("{prompt}", "{response}")

    def _prompt(self, record: Record) -> Prompt:
        if self._is_conversation(record):
            what = f"{record.where}: messages"
            turns = check_asks(answered_turns(record["messages"], what)[0], what)
            return Prompt(shown(turns), record, turns, record.where)
        name = _only_field(self.prompt_template)
        if isinstance(record.get(name), list):
            text, turns = prompt_of(record[name], f"{record.where}: {name}")
            return Prompt(text, record, turns, record.where)
        return Prompt(_fill(self.prompt_template, record, record.where), record, (), record.where)

    def demonstration(self, prompt, seed, row):
        record, name = prompt.facts, _only_field(self.response_template)
        if self._is_conversation(record):
            return answered_turns(record["messages"], f"{prompt.where}: messages")[1]
        if isinstance(record.get(name), list):
            turns = turns_of(record[name], f"{prompt.where}: {name}")
            if len(turns) != 1 or turns[0][0] != "assistant":
                raise UserError(f"{prompt.where}: {name} is not a single turn of the assistant", "Put all turns before it into the prompt.")
            return turns[0][1]
        return _fill(self.response_template, record, prompt.where)

    def scores(self, prompts, responses, ids, mask):
        return self.reward.scores(prompts, responses, ids, mask)

    def check(self, prompts):
        self.reward.check(prompts)

    def remarks(self):
        """Fields that stand in no template, and what is in both files."""
        records = [prompt.facts for prompt in self.listed("train")]
        names = {name for template in (self.prompt_template, self.response_template) for name in _FIELD.findall(template)}
        said = []
        if rest := unused(records, {"messages"} if any(map(self._is_conversation, records)) else names):
            said.append(f"{self.path}: in no template: {', '.join(rest)} (a reward may read them)")
        held = {prompt.text for prompt in self.listed("validation")} if self.validation_path else set()
        if both := len(held & {prompt.text for prompt in self.listed("train")}):
            said.append(f"{self.validation_path}: {both} of {len(held)} prompts for validation are trained on too: they are in {self.path}")
        return said


_FIELD = re.compile(r"\{([^{}]*)\}")


def _only_field(template: str) -> str:
    """The field that a template consists of; empty where there is more to it."""
    found = _FIELD.fullmatch(template)
    return found[1] if found else ""


def _fill(template: str, record: dict, where: str) -> str:
    """A template with a record's values for the names in braces. Braces around what is no name stay."""

    def value(found: re.Match) -> str:
        name = found[1]
        if name not in record:
            if re.fullmatch(r"[\w.-]+", name):
                raise lacks(Record(record, where), name)
            return found[0]
        one = record[name]
        if isinstance(one, str):
            return check_text(one, f"{where}: {name}")
        if not is_number(one):
            what = one if isinstance(one, float) else kind_of(one)
            raise UserError(f"{where}: {name} is {what}, and stands in a template", "Give text or a finite number there.")
        return str(one)

    return _FIELD.sub(value, template)
