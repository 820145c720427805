"""Prompts, conversations and responses as token ids."""

import datetime
import functools
from collections.abc import Iterable

import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer
from train.generation.chat import Chat
from train.rl.environments.environment import Prompt, Reply
from train.sources.records import ROLES

SAID = "\uf8ff"
"""What the model says where only what a template writes behind it is wanted: a private-use character, which no template looks for."""

TODAY = datetime.datetime(2025, 1, 1)
"""For templates that write the date: what is learned must not depend on the day."""


class Transcriber:
    """Writes conversations as a model knows them: by its authors' chat template, where it has one, and otherwise each turn between the id
    of its role and the end of the document. A prompt of plain text stands behind the document's start."""

    def __init__(self, tokenizer: Tokenizer, chat: Chat = Chat()):
        self.tokenizer, self._chat = tokenizer, chat if chat.template else Chat()
        self._end: int = tokenizer.specials["document_end"]

    @property
    def templated(self) -> bool:
        """Whether conversations are written by a template."""
        return bool(self._chat.template)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """A response ends with any of these."""
        return tuple(dict.fromkeys((self._end, *self._chat.stop_ids)))

    @property
    def role_ids(self) -> tuple[int, ...]:
        """Special ids that stand in conversations without a template."""
        return () if self._chat.template else tuple(self.tokenizer.specials[name] for name in ROLES.values())

    def prompt(self, prompt: Prompt) -> list[int]:
        """The ids that a response follows."""
        start = self.tokenizer.document_start
        if not prompt.messages:
            return [start, *self.tokenizer.encode(prompt.text).tolist()]
        if self._chat.template:
            turns = [{"role": role, "content": text} for role, text in prompt.messages]
            return self._chat.encode(turns, self.tokenizer, today=TODAY)
        ids = []
        for role, text in prompt.messages:
            ids += [self.tokenizer.specials[ROLES[role]], *self.tokenizer.encode(text).tolist(), self._end]
        return [start, *ids, self.tokenizer.specials[ROLES["assistant"]]]

    def reply(self, reply: Reply, ended: bool) -> list[int]:
        """The ids between two turns of the policy: the end of the first, if it did not sample that itself, what was said to it, and its
        role."""
        if self._chat.template:
            ids, end = self._behind(reply)
            return ids[end:] if ended else ids
        text = self.tokenizer.encode(reply.text).tolist()
        roles = self.tokenizer.specials
        return [*([] if ended else [self._end]), roles[ROLES[reply.role]], *text, self._end, roles[ROLES["assistant"]]]

    def demonstration(self, prompt: Prompt, response: str, learn_prompt: bool = False) -> tuple[list[int], list[int]]:
        """Ids of prompt and response with its end, and 1 for those that are learned: responses with their ends, all turns of the assistant;
        with learn_prompt everything but the first id, which nothing precedes."""
        ids = self.prompt(prompt)
        learned = [0] * len(ids)
        for begin, count in self._earlier_turns(prompt, ids):
            learned[begin : begin + count] = [1] * count
        if learn_prompt:
            learned = [0] + [1] * (len(ids) - 1)
        answer = self.turn(response) if prompt.messages else [*self._inside(response), self._end]
        return ids + answer, learned + [1] * len(answer)

    def turn(self, text: str) -> list[int]:
        """What the assistant says in a conversation, and what ends its turn."""
        return [*self._inside(text), self._end_of_turns]

    def responses(self, prompts: list[list[int]], responses, mask) -> list[str]:
        """The texts of responses int32 [B, R] up to their masks' ends, as `read_on` gives them."""
        sampled = zip(prompts, np.asarray(responses), np.asarray(mask), strict=True)
        return [self.read_on(prompt, ids[: int(kept.sum())].tolist()) for prompt, ids, kept in sampled]

    def read_on(self, before: list[int], ids: list[int]) -> str:
        """The text of ids, as it reads after others, without a stop token at the end."""
        ids = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(before + ids)[len(self.tokenizer.decode(before)) :]

    def _inside(self, text: str) -> list[int]:
        """Ids of what the assistant says."""
        encode = self.tokenizer.encode_inside if self._chat.template else self.tokenizer.encode
        return encode(text).tolist()

    @functools.cached_property
    def _end_of_turns(self) -> int:
        """What the template writes behind a turn of the assistant, of the ids that end one; the first of those where it writes none."""
        if not self._chat.stop_ids:
            return self._end
        ids, end = self._behind(Reply("-"))
        return ids[end - 1] if end else self._chat.stop_ids[0]

    def _earlier_turns(self, prompt: Prompt, ids: list[int]) -> Iterable[tuple[int, int]]:
        """Where earlier turns of the assistant stand, each with its end: (place, ids). Of a template's not one before all others, nor
        those that it leaves out or changes."""
        for number, (role, text) in enumerate(prompt.messages):
            if role == "assistant":
                if self.templated and not (number and text):
                    continue
                before = len(self.prompt(Prompt("", messages=prompt.messages[:number])))  # of none, the start without a role
                begin, said = before + (not number), self._inside(text)
                if ids[begin : begin + len(said)] == said:
                    yield begin, len(said) + 1

    def _behind(self, reply: Reply) -> tuple[list[int], int]:
        """What a template writes between a turn of the assistant and the next, and how many of those ids end the turn; 0 for none."""
        turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": SAID}, {"role": reply.role, "content": reply.text}]
        ids: list[int] = []
        behind = False
        for piece, special in self._chat.render(turns, today=TODAY):
            if not behind and special is None and SAID in piece:
                piece, behind = piece.rpartition(SAID)[2], True
            if behind:
                ids += [special] if special is not None else self.tokenizer.encode_inside(piece).tolist()
        return ids, next((place for place, id_ in enumerate(ids, 1) if id_ in self._chat.stop_ids), 0)


def check_texts(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> None:
    """UserError for the first of texts, each behind what an error calls it, that a tokenizer cannot encode."""
    texts = list(texts)
    try:
        tokenizer.encode("".join(sorted(set().union(*(text for _, text in texts)))))  # a few thousand characters, however many texts
    except UserError:
        for name, text in texts:
            try:
                tokenizer.encode(text)
            except UserError as error:
                what = str(error).partition("\n")[0]
                raise UserError(f"{name}: {what}", "Leave that out, or start from a run whose tokenizer has it.") from None
