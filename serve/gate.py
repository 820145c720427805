"""What may stand between clients and the model: it sees the texts that are asked before the model does, and answers before clients do."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from serve.protocol import ChatRequest, CompletionRequest, Refused

FORM = frozenset(
    "additionalProperties arguments array boolean description enum function id integer items name null number object parameters properties "
    "required strict string type".split()
)
"""What the form of tools and calls itself says: nobody's text."""


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

    def passes(self, texts: Sequence[str]) -> bool:
        """Whether other texts that were made of the answer, such as the arguments of a call, may be shown."""
        return True


class Passage:
    """One request. texts: what the model reads instead of those that were asked."""

    def __init__(self, texts: Sequence[str]):
        self.texts = list(texts)

    def outgoing(self) -> Outgoing:
        """For each answer of the request."""
        return Outgoing()

    def outgoing_after(self, before: str) -> Outgoing:
        """For each answer that is one text with the prompt before it."""
        return self.outgoing()


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
        return _chat_through(gate, request, owner)
    assert isinstance(request, CompletionRequest)
    prompts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
    if len(prompts) < len(request.prompts):
        raise Refused("prompts of token ids are not available here: prompts are filtered", "prompt", "unsupported_parameter")
    passage = gate.open(prompts, owner)
    return dataclasses.replace(request, prompts=tuple(passage.texts)), passage


def _chat_through(gate: Gate, request: ChatRequest, owner: str) -> tuple[ChatRequest, Passage]:
    """Contents of messages first, then every other text that a template may show: tools, calls, names."""
    turns = [turn | {"content": _joined(turn["content"])} for turn in request.messages]
    contents = [text for turn in turns for text in _texts(turn["content"])]
    rest = [{name: value for name, value in turn.items() if name not in ("role", "content")} for turn in turns]
    others = list(dict.fromkeys(strings([*rest, *request.tools])))
    passage = gate.open([*contents, *others], owner)
    content, changed = iter(passage.texts), dict(zip(others, passage.texts[len(contents) :], strict=True))
    turns = [
        turn | _changed(more, changed) | {"content": _with_texts(turn["content"], content)} for turn, more in zip(turns, rest, strict=True)
    ]
    tools, choice = tuple(_changed(tool, changed) for tool in request.tools), _changed(request.tool_choice, changed)
    return dataclasses.replace(request, messages=tuple(turns), tools=tools, tool_choice=choice), passage


def strings(value: Any) -> list[str]:
    """The texts in a value of JSON, names of fields too, but for those of FORM."""
    inside = [value]
    for one in inside:  # which grows meanwhile: a model may write any number of values within values
        inside += [*one, *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else []
    return [one for one in inside if isinstance(one, str) and one not in FORM]


def _changed(value: Any, texts: Mapping[str, str]) -> Any:
    """A value of JSON with other texts in it."""
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, list):
        return [_changed(one, texts) for one in value]
    return {_changed(name, texts): _changed(one, texts) for name, one in value.items()} if isinstance(value, dict) else value


def _joined(content: Any) -> Any:
    """A content whose texts have other media between them."""
    if isinstance(content, str):
        return content
    found: list[dict[str, Any]] = []
    for part in content:
        if found and part["type"] == found[-1]["type"] == "text":
            found[-1] = part | {"text": found[-1]["text"] + part["text"]}
        else:
            found.append(part)
    return found


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _with_texts(content: Any, rest: Any) -> Any:
    if isinstance(content, str):
        return next(rest)
    return [part | {"text": next(rest)} if part["type"] == "text" else part for part in content]
