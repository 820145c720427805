"""Texts from texts: translation, summaries, corrections, questions with free answers."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from data.errors import UserError
from data.records.record import Record, check_text
from train.generation.chat import Chat
from train.kinds import Column
from train.rl.environments.environment import Prompt
from train.sources.encoding import Transcriber
from train.tasks.examples import Example, column
from train.tasks.task import Task, TaskDataset

Measure = Literal["bleu", "chrf", "rouge", "wer", "cer", "exact", "contains"]


@dataclasses.dataclass(frozen=True)
class SequenceToSequence(Task):
    """Texts with the texts to write from them."""

    home: ClassVar[str] = ":SequenceDataset"

    source: str = "source"
    """Column of the text to read."""
    target: str = "target"
    """Column of the text to write; or of a list of texts that are all right, of which the first is learned."""
    measures: tuple[Measure, ...] = ("bleu", "chrf", "rouge", "exact")
    """What answers are scored by: BLEU and chrF (sacrebleu), ROUGE-1/2/L, error rates of words and of characters, whether the answer is
    one of the targets, or holds one."""
    language: str = "en"
    """Language of the targets, which decides what the measures count: zh counts characters."""


class SequenceDataset(TaskDataset):
    """Answers are texts."""

    options: SequenceToSequence
    own_prompt = "{source}\n"
    label_option: ClassVar[str] = "target"
    label_fields: ClassVar[tuple[str, ...]] = ("targets",)
    changeable: ClassVar[tuple[str, ...]] = ("source",)

    def example(self, record: Record) -> Example:
        o = self.options
        fields = {name: value for name, value in record.items() if isinstance(value, str)}
        fields["source"] = column(record, o.source)
        if o.target not in record:
            return Example(fields, None, record.where)
        given = record[o.target]
        targets = tuple(given) if isinstance(given, list) else (column(record, o.target),)
        if not targets or not all(isinstance(one, str) and one.strip() for one in targets):
            raise UserError(f"{record.where}: {o.target} holds no text", "Give a text, or a list of texts.")
        return Example(fields, targets, record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        return self.prompted("source") | {self.options.source: Column("The text to read.")}

    def answer(self, example: Example) -> str:
        return example.label[0]

    def found(self, example: Example, outputs: Any) -> Any:
        return outputs.strip()

    def score(self, examples: Sequence[Example], answers: Sequence[Any]):
        from train.tasks.metrics.texts import text_scores

        return text_scores([example.label for example in examples], answers, self.options.measures, self.options.language)

    def loss_of(self, example: Example, answer: Any) -> float:
        """1 - F1 of the words, or characters, that it shares with the nearest target."""
        from train.tasks.metrics.spans import overlap
        from train.tasks.metrics.words import units

        given = units(answer, self.options.language)
        return 1.0 - max(overlap(given, units(target, self.options.language)) for target in example.label)

    def shown(self, example: Example, answer: Any) -> dict[str, Any]:
        return {"targets": None if example.label is None else list(example.label), "answer": answer}


@dataclasses.dataclass(frozen=True)
class Conversations(SequenceToSequence):
    """Instructions and conversations with the replies to learn, in the words of the model's chat template."""

    home: ClassVar[str] = ":ConversationDataset"
    path_fields = (*SequenceToSequence.path_fields, "judge")

    source: str = "prompt"
    """Column of the instruction; or, with `messages`, not read."""
    target: str = "response"
    """Column of the reply; or, with `messages`, not read."""
    messages: str = "messages"
    """Column of a conversation, a list of {"role", "content"}: the last one, of the assistant, is learned. A record without it is an
    instruction with a reply."""
    system: str = ""
    """What the system says before each conversation that does not begin with it."""
    measures: tuple[Measure, ...] = ("rouge", "exact")
    """What replies are scored by: see SequenceToSequence."""
    judge: str = ""
    """Run of Coherence data, which judges replies too: the measures coherence, how well they follow from the conversation, and
    contradicting, the share that contradicts it. Empty: none."""


class ConversationDataset(SequenceDataset):
    """The prompt is the conversation up to the reply, by the template of the run's model where it has one, else by roles in plain words."""

    options: Conversations
    _chat: Any = None
    _chat_from: Any = None
    changeable = ()

    def example(self, record: Record) -> Example:
        o = self.options
        if o.messages not in record:
            found = super().example(record)
            return found._replace(parts=self._with_system([{"role": "user", "content": found.fields["source"]}]))
        *before, reply = self._said(record, reply=True)
        return self._example(before, (reply["content"],), record.where)

    @property
    def row_columns(self) -> dict[str, Column]:
        return {
            self.options.source: Column("What the assistant is told."),
            self.options.messages: Column('A conversation in place of that: {"role", "content"} of each turn.', "list"),
        }

    @property
    def row(self) -> dict[str, Any]:
        return {self.options.source: "Hello."}

    def examples_of(self, record: Record) -> list[Example]:
        """A conversation to continue; a reply at its end is not read."""
        name = self.options.messages
        turns = record.get(name)
        if turns is None:
            return [self.example(Record({key: value for key, value in record.items() if key != name}, record.where))]
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
            record = Record(record | {name: turns[:-1]}, record.where)
        return [self._example(self._said(record, reply=False), None, record.where)]

    def _said(self, record: Record, *, reply: bool) -> list[dict[str, str]]:
        """reply: whether the assistant's stands at the end."""
        turns, name = record[self.options.messages], self.options.messages
        good = isinstance(turns, list) and all(
            isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str) for turn in turns
        )
        ends = good and len(turns) > reply and turns[-1]["role"]
        if not ends or (ends != "assistant" if reply else ends in ("assistant", "system") or not turns[-1]["content"].strip()):
            what = "conversation that ends with the assistant" if reply else "conversation to reply to"
            last = ", the last of them the reply to learn" if reply else ""
            raise UserError(f"{record.where}: {name} is no {what}", f'Give a list of {{"role", "content"}}{last}.')
        for turn in turns:
            check_text(turn["content"], f"{record.where}: a turn of {name}")
        return [{"role": turn["role"], "content": turn["content"]} for turn in turns]

    def _example(self, before: list[dict[str, str]], label: tuple[str, ...] | None, where: str) -> Example:
        return Example({"source": before[-1]["content"]}, label, where, self._with_system(before))

    def _with_system(self, turns: list[dict[str, str]]) -> tuple[dict[str, str], ...]:
        if self.options.system and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.options.system}, *turns]
        return tuple(turns)

    @functools.cached_property
    def _judge(self) -> Any:
        from train.apps.dialogue.coherence import load_judge

        return load_judge(self.options.judge)

    def score(self, examples: Sequence[Example], answers: Sequence[Any]):
        found = super().score(examples, answers)
        if not self.options.judge:
            return found
        from train.apps.dialogue.coherence import Turn
        from train.tasks.metrics.scores import mean_of

        said = [[Turn(turn["role"], turn["content"]) for turn in example.parts if turn["role"] != "system"] for example in examples]
        judged_N2 = self._judge.last(
            [[*turns, Turn("assistant", answer.strip() or "...")] for turns, answer in zip(said, answers, strict=True)]
        )
        each = {"coherence": judged_N2[:, 0], "contradicting": (judged_N2[:, 1] > 0.5).astype(float)}
        values = {name: float(one.mean()) for name, one in each.items()}
        return found._replace(
            values={**found.values, **values}, measures={**found.measures, **{name: mean_of(one) for name, one in each.items()}}
        )

    def check(self, sources: list) -> None:
        super().check(sources)
        if self.options.judge:
            _ = self._judge

    def check_way(self) -> None:
        super().check_way()
        if self.way != "head" and self.chat.template and self.options.prompt:
            raise UserError("data.prompt has no place in the model's chat template", "Leave it out, or give data.system.")

    @property
    def chat(self):
        """What belongs to a conversation with the model that the run starts from."""
        if self._chat is None or self._chat_from != self.place:
            self._chat, self._chat_from = super().chat if self.way == "text" else Chat(), self.place
        return self._chat

    @property
    def stops(self) -> tuple[str, ...]:
        """A chat model ends its replies itself."""
        return () if self.chat.template else super().stops

    @functools.cached_property
    def _transcriber(self) -> Transcriber:
        return Transcriber(self.tokens, self.chat)

    def prompt_ids(self, example: Example, room: int):
        if self.chat.template:
            turns = tuple((turn["role"], turn["content"]) for turn in self._turns(example))
            ids = self._transcriber.prompt(Prompt("", messages=turns))
            self._cut |= len(ids) > room
            return np.array(ids[-room:], np.int32)
        return super().prompt_ids(example, room)

    def prompt_text(self, example: Example) -> str:
        if self.options.prompt:
            return super().prompt_text(example)
        return "\n".join([*(f"{turn['role']}: {turn['content']}" for turn in self._turns(example)), "assistant: "])

    def _turns(self, example: Example) -> list[dict[str, str]]:
        """The conversation up to the reply, behind those that are shown before it; what a system said once is not said again."""
        found: list[dict[str, str]] = []
        for shot in self.shots_for(example):
            found += [*_new(shot.parts, found), {"role": "assistant", "content": self.answer(shot)}]
        return [*found, *_new(example.parts, found)]

    def answer_ids(self, answer: str):
        if not self.chat.template:
            return super().answer_ids(answer)
        ids = self._transcriber.turn(answer)
        self._cut |= len(ids) > self.options.written
        return np.array(ids[: self.options.written], np.int32)


def _new(turns: Sequence[dict[str, str]], said: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Turns without those of a system that stand first in what was said."""
    return [turn for turn in turns if turn["role"] != "system" or turn not in said[:1]]
