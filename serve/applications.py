"""Runs at work behind the API: rows to lines, and conversations with one that answers people, in OpenAI's form."""

import functools
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from data.records.record import Record
from serve.protocol import ChatRequest, Refused
from train.kinds import Application

MOST_TURNS = 256
"""Turns of the user in a conversation."""


class Working:
    """A run's application, for one request at a time. Nothing of one is remembered for another."""

    def __init__(self, application: Application, name: str):
        self._application, self.name = application, name

    def compile(self) -> None:
        """Answer a row once, so that what it needs is compiled."""
        self.lines([self._application.example])

    @property
    def talks(self) -> bool:
        return type(self._application).reply is not Application.reply

    @functools.cached_property
    def page(self) -> dict[str, Any]:
        """What its page shows, before anything is answered: see Application."""
        one = self._application
        return {
            "columns": {name: column._asdict() for name, column in one.columns.items()},
            "example": one.example,
            "notice": one.notice,
            "labels": list(one.labels),
            "most": one.at_once,
            "talks": self.talks,
        }

    @property
    def most_rows(self) -> int:
        """Of a request."""
        return self._application.at_once

    def lines(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        with self._application.forgetting():
            return self._application.answers([Record(row, f"row {number}") for number, row in enumerate(rows, 1)])

    def reply(self, request: ChatRequest) -> dict[str, Any]:
        """The completion of a conversation: the answer, and beside it under `omnia` what it rests on."""
        if request.n != 1:
            raise Refused("an application gives one answer", "n", "unsupported_parameter")
        if request.tools:
            raise Refused("an application calls no tools", "tools", "unsupported_parameter")
        if request.format["type"] != "text" or request.logprobs:
            raise Refused("an application answers in its own words", "response_format", "unsupported_parameter")
        turns = [turn["content"] for turn in request.messages if turn["role"] == "user"]
        if not turns or any(not isinstance(turn, str) for turn in turns):
            raise Refused("an application reads the texts of user messages", "messages", "unsupported_content")
        if len(turns) > MOST_TURNS:
            raise Refused(f"messages has {len(turns)} turns of the user; there may be {MOST_TURNS}", "messages")
        line = self._application.reply(turns)
        if line is None:
            raise Refused("this run answers rows and no people: use /v1/apply", "model", "unsupported_model")
        if "error" in line:
            raise Refused(str(line["error"]), "messages")
        message = {"role": "assistant", "content": line["answer"]}
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "omnia": {name: value for name, value in line.items() if name != "answer"},
        }


def events(completion: dict[str, Any], usage: bool) -> bytes:
    """The same as a stream, which is here at once."""
    (choice,) = completion["choices"]
    head = {name: completion[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    more = {"usage": None} if usage else {}
    said = {"index": 0, "delta": choice["message"], "logprobs": None, "finish_reason": None}
    chunks = [head | {"choices": [said], "omnia": completion["omnia"]} | more]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]} | more)
    if usage:
        chunks.append(head | {"choices": [], "usage": completion["usage"]})
    return (
        b"".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode("utf-8", "replace") for chunk in chunks) + b"data: [DONE]\n\n"
    )
