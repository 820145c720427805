"""What may stand between clients and the model: it sees the texts that are asked before the model does, and answers before clients do."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from serve.protocol import ChatRequest, CompletionRequest, Refused


class Outgoing:
    """One answer on its way out. Text that may yet have to be changed is held back."""

    stopped = False
    """Set where the answer must end here: its finish_reason is then content_filter."""

    def feed(self, text: str) -> str:
        """What may be shown now, given what has come of the answer since."""
        return text

    def finish(self) -> str:
        """Nothing more comes: the rest that may be shown."""
        return ""


class Passage:
    """One request. texts: what the model reads instead of those that were asked."""

    def __init__(self, texts: Sequence[str]):
        self.texts = list(texts)

    def outgoing(self) -> Outgoing:
        """For each answer of the request."""
        return Outgoing()


class Gate:
    """Subclasses say what passes."""

    def open(self, texts: Sequence[str], owner: str) -> Passage:
        """A passage for a request of a key, whose texts are in their order; Refused for what must not be asked. Called on any thread."""
        return Passage(texts)


def through(gate: Gate, request: Any, owner: str) -> tuple[Any, Passage]:
    """A request as the gate lets it pass. Refused where the gate cannot see what is asked or answered."""
    if request.logprobs:
        raise Refused("log-probabilities are not available here: answers are filtered", "logprobs", "unsupported_parameter")
    if isinstance(request, ChatRequest):
        texts = [text for turn in request.messages for text in _texts(turn["content"])]
        passage = gate.open(texts, owner)
        rest = iter(passage.texts)
        turns = tuple(turn | {"content": _with_texts(turn["content"], rest)} for turn in request.messages)
        return dataclasses.replace(request, messages=turns), passage
    assert isinstance(request, CompletionRequest)
    prompts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
    if len(prompts) < len(request.prompts):
        raise Refused("prompts of token ids are not available here: prompts are filtered", "prompt", "unsupported_parameter")
    passage = gate.open(prompts, owner)
    return dataclasses.replace(request, prompts=tuple(passage.texts)), passage


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _with_texts(content: Any, rest: Any) -> Any:
    if isinstance(content, str):
        return next(rest)
    return [part | {"text": next(rest)} if part["type"] == "text" else part for part in content]
