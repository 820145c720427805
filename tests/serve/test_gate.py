"""What stands between clients and the model sees all that is asked, changes it, and holds back, changes or ends what is answered."""

import time

import openai
import pytest

from serve.gate import Gate, Outgoing, Passage
from serve.protocol import Refused
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
