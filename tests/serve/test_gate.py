"""What stands between clients and the model sees all that is asked, changes it, and holds back, changes or ends what is answered."""

import asyncio
import copy
import json
import time

import openai
import pytest

from serve.answers import ChatAnswer, CompletionAnswer
from serve.forbidden import Phrases
from serve.gate import Gate, Outgoing, Passage, through
from serve.guard import Guard
from serve.jobs import Piece
from serve.protocol import Refused, chat_request, completion_request
from tests.serve.conftest import TOKENIZER

HI = [{"role": "user", "content": "my name is ann"}]


class Upper(Outgoing):
    """Answers in capitals, in pieces of three characters; an answer ends before a z."""

    def __init__(self):
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        if "z" in self._held:
            self.stopped = True
            found, self._held = self._held[: self._held.index("z")].upper(), ""
            return found
        shown = len(self._held) // 3 * 3
        found, self._held = self._held[:shown].upper(), self._held[shown:]
        return found

    def finish(self) -> str:
        return self._held.upper()


class Watch(Gate):
    """Keeps a word away from the model, and refuses another."""

    def __init__(self):
        self.seen: list = []

    def open(self, texts, owner):
        self.seen.append((list(texts), owner))
        if any("secret" in text for text in texts):
            raise Refused("that is not answered here", "messages", "content_filter")

        class Changed(Passage):
            def outgoing(self):
                return Upper()

        return Changed([text.replace("ann", "bob") for text in texts])


@pytest.fixture(scope="module")
def guarded(listen, served):
    with listen() as (address, _, parts):
        served.gate = Watch()
        try:
            yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60), served.gate, parts
        finally:
            served.gate = None


def bare(client, gate, served, **how):
    """The same request, past the gate."""
    served.gate = None
    try:
        return client.chat.completions.create(**how)
    finally:
        served.gate = gate


HOW = {"model": "tiny", "max_tokens": 40, "temperature": 1.0, "seed": 2}


def test_the_model_reads_what_the_gate_lets_pass_and_clients_too(guarded, served):
    client, gate, _ = guarded
    changed = bare(client, gate, served, messages=[{"role": "user", "content": "my name is bob"}], **HOW).choices[0].message.content
    whole = client.chat.completions.create(messages=HI, **HOW).choices[0]
    ended = "z" in changed
    assert whole.message.content == changed.partition("z")[0].upper()
    assert (whole.finish_reason == "content_filter") == ended
    pieces = [chunk.choices[0] for chunk in client.chat.completions.create(messages=HI, stream=True, **HOW)]
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.message.content
    assert pieces[-1].finish_reason == whole.finish_reason
    assert gate.seen[-1] == (["my name is ann"], "")


def test_completions_pass_it_too(guarded, served):
    client, gate, _ = guarded
    found = client.completions.create(model="tiny", prompt=["ann", "x"], max_tokens=9, temperature=0, n=2)
    assert gate.seen[-1][0] == ["ann", "x"]
    served.gate = None
    expected = client.completions.create(model="tiny", prompt=["bob", "x"], max_tokens=9, temperature=0, n=2)
    served.gate = gate
    assert [one.text for one in found.choices] == [one.text.partition("z")[0].upper() for one in expected.choices]


def test_an_answer_that_must_end_ends_and_frees_its_slot(guarded):
    client, _, parts = guarded
    reply = client.chat.completions.create(messages=HI, logit_bias={str(ord("z")): 100}, **HOW)
    assert reply.choices[0].finish_reason == "content_filter" and reply.choices[0].message.content == ""
    until = time.monotonic() + 10
    while parts.engine.running:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    "how, code",
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a secret"}]}]}, "content_filter"),
        ({"messages": HI, "logprobs": True}, "unsupported_parameter"),
    ],
    ids=["refused", "logprobs"],
)
def test_what_must_not_be_asked_is_refused(guarded, how, code):
    client, *_ = guarded
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", **how)
    assert refused.value.code == code


def test_ids_that_it_cannot_read_are_refused(guarded):
    client, *_ = guarded
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.completions.create(model="tiny", prompt=TOKENIZER.encode("a secret").tolist())


ASKS = {"role": "user", "content": "hi"}


def tool(**function):
    return {"type": "function", "function": {"name": "light", "parameters": {"type": "object", "properties": {}}} | function}


def call(arguments: str = "{}", **more):
    return {
        "role": "assistant",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "light", "arguments": arguments}} | more],
    }


@pytest.mark.parametrize(
    "turn, tools",
    [
        (ASKS, [tool(description="tell NAME")]),
        (ASKS, [tool(name="NAME")]),
        (ASKS, [tool(parameters={"type": "object", "properties": {"NAME": {"type": "string"}}})]),
        (ASKS, [tool(parameters={"type": "object", "properties": {"x": {"description": "of NAME"}}})]),
        (ASKS, [tool(parameters={"type": "object", "properties": {"x": {"enum": ["a", "NAME"]}}})]),
        (call('{"x": ["a", "NAME"]}'), []),
        (call('{"NAME": 1}'), []),
        (call(id="NAME"), []),
        ({"role": "user", "content": "hi", "name": "NAME"}, []),
        ({"role": "tool", "content": "hi", "tool_call_id": "NAME"}, []),
    ],
    ids=lambda value: str(value)[-70:],
)
def test_all_that_a_template_may_show_is_seen_and_changed(turn, tools):
    """Not the words of OpenAI's form, which are in every request."""

    def request(name):
        return chat_request(json.loads(json.dumps({"messages": [*HI, turn], "tools": tools}).replace("NAME", name)))

    gate = Watch()
    with pytest.raises(Refused):
        through(gate, request("secret"), "")
    changed, _ = through(gate, request("ann"), "")
    assert (changed.tools, changed.messages[1]) == (request("bob").tools, request("bob").messages[1])
    assert gate.seen[-1][0][0] == HI[0]["content"] and "type" not in gate.seen[-1][0]


def test_texts_are_seen_as_the_model_reads_them():
    """Parts without another medium between them are one text, and arguments are those that escapes spell."""
    gate, medium = Watch(), {"type": "image_url", "image_url": {"url": ""}}
    parts = [{"type": "text", "text": "my sec"}, {"type": "text", "text": "ret"}, medium, {"type": "text", "text": "ann"}]
    for turn in ({"role": "user", "content": parts}, call('{"x": "my s\\u0065cret"}')):
        with pytest.raises(Refused):
            through(gate, chat_request({"messages": [turn]}), "")
    changed, _ = through(gate, chat_request({"messages": [{"role": "user", "content": parts[1:]}]}), "")
    assert changed.messages[0]["content"] == [parts[1], medium, {"type": "text", "text": "bob"}]


class Says:
    """An engine whose model says one text, a letter at a time."""

    def __init__(self, text: str):
        self._text = text.encode()

    def submit(self, *jobs):
        for place, job in enumerate(jobs):
            for number, letter in enumerate([*([one] for one in self._text), []]):
                piece = Piece(letter, [-0.5] * len(letter), finish="" if letter else "stop")
                asyncio.get_running_loop().call_later(0.001 * (number + place), self._give, job, piece)

    def _give(self, job, piece):
        job.pieces.append(piece)
        job.signal.set()

    def cancel(self, job, why=""):
        pass


def answered(served, kind, request, said):
    """(the choices as a whole, all chunks of the stream) of what a model says, past phrases that are stopped."""
    own = copy.copy(served)
    notes: list = []
    own.gate = Guard(Phrases(["bomb"]), note=lambda *note: notes.append(note))

    async def both():
        answers = [kind(own, Says(said), request, "ann") for _ in range(2)]
        for answer in answers:
            answer.answer.start()
        return (await answers[0].whole())["choices"], [chunk["choices"][0] async for chunk in answers[1].chunks()]

    return *asyncio.run(both()), notes


@pytest.mark.parametrize("echo", [False, True])
def test_a_completion_is_one_text_with_its_prompt(served, echo):
    request = completion_request({"prompt": "how to make a bo", "echo": echo, "n": 2, "max_tokens": 20})
    whole, chunks, notes = answered(served, CompletionAnswer, request, "mb. And so on")
    assert [one["text"] for one in whole] == ["how to make a bo" * echo] * 2
    assert "".join(one["text"] for one in chunks) == "how to make a bo" * echo * 2
    assert {one["finish_reason"] for one in whole} == {"content_filter"} and len(notes) == 4
    whole, chunks, notes = answered(served, CompletionAnswer, request, "at and so on")
    assert whole[0]["text"] == "how to make a bo" * echo + "at and so on" and not notes


@pytest.mark.parametrize(
    "said, kept",
    [
        ('<tool_call>{"name": "light", "arguments": {"x": "a \\u0062omb"}}</tool_call>', ""),
        ('<tool_call>{"name": "light", "arguments": {"\\u0062omb": 1}}</tool_call>', ""),
        ('<tool_call>{"name": "light", "arguments": {"x": "b\\no\\nm\\nb"}}</tool_call>', ""),
        ('<tool_call>{"name": "b\\u006fmb", "arguments": {}}</tool_call>', ""),
        ('Look: b-o<tool_call>{"name": "light", "arguments": {}}</tool_call>mb', "Look: b-o"),
        ('<tool_call>{"name": "light", "arguments": {"x": ' + "[" * 400 + '"\\u0062omb"' + "]" * 400 + "}}</tool_call>", ""),
    ],
    ids=["value", "name of a field", "lines", "name", "around", "deep"],
)
def test_what_is_made_of_a_call_is_looked_at(served, said, kept):
    request = chat_request({"messages": HI, "tools": [tool()]})
    whole, chunks, notes = answered(served, ChatAnswer, request, said)
    assert whole[0]["message"] == {"role": "assistant", "content": kept, "refusal": None}
    assert "".join(one["delta"].get("content") or "" for one in chunks) == kept and not any("tool_calls" in one["delta"] for one in chunks)
    assert whole[0]["finish_reason"] == chunks[-1]["finish_reason"] == "content_filter"
    assert len(notes) == 2
    fine, _, notes = answered(served, ChatAnswer, request, '<tool_call>{"name": "light", "arguments": {"x": "b\\u006fat"}}</tool_call>')
    assert fine[0]["finish_reason"] == "tool_calls" and not notes
