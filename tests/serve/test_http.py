"""The server as OpenAI's own client and a raw one see it."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import openai
import pydantic
import pytest

from model.heads import Head, logits, vocabulary_table
from serve.answers import ChatAnswer
from serve.http import Application, Asked
from serve.jobs import Piece
from serve.keys import new_key, read_keys
from serve.observe import Observed
from serve.protocol import chat_request
from tests.serve.conftest import CHUNK, CONTEXT, END, TOKENIZER

HI = [{"role": "user", "content": "hi"}]
GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


def joined(stream):
    """(text by choice, why each ended, usage, chunks) of a stream of chat or completions."""
    texts, finishes, usage, chunks = {}, {}, None, []
    for chunk in stream:
        chunks.append(chunk)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            piece = choice.delta.content if hasattr(choice, "delta") else choice.text
            assert choice.index not in finishes
            texts[choice.index] = texts.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                finishes[choice.index] = choice.finish_reason
    return texts, finishes, usage, chunks


# ------------------------------------------------------------------------------------------------ chat


def test_a_reply(client):
    reply = client.chat.completions.create(messages=HI, **GREEDY)
    (choice,) = reply.choices
    assert reply.object == "chat.completion" and reply.model == "tiny" and reply.id.startswith("chatcmpl-") and reply.system_fingerprint
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason in ("stop", "length")
    prompt = len(TOKENIZER.encode("<|user|>hi\n<|assistant|>"))
    assert reply.usage.prompt_tokens == prompt and reply.usage.total_tokens == prompt + reply.usage.completion_tokens
    assert reply.usage.completion_tokens <= 12


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("options", [{}, {"stop": ["e"]}, {"temperature": 1.0}, {"logprobs": True, "top_logprobs": 2}], ids=str)
def test_a_stream_is_the_whole_answer_in_pieces(client, n, options):
    how = GREEDY | {"n": n, "seed": 5, "max_tokens": 20} | options
    whole = client.chat.completions.create(messages=HI, **how)
    texts, finishes, usage, chunks = joined(
        client.chat.completions.create(messages=HI, stream=True, stream_options={"include_usage": True}, **how)
    )
    assert [texts[i] for i in range(n)] == [choice.message.content for choice in whole.choices]
    assert [finishes[i] for i in range(n)] == [choice.finish_reason for choice in whole.choices]
    assert usage.model_dump(exclude={"prompt_tokens_details"}) == whole.usage.model_dump(exclude={"prompt_tokens_details"})
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].choices[0].delta.role == "assistant" and not chunks[-1].choices
    if options.get("logprobs"):
        for i, choice in enumerate(whole.choices):
            found = [t for chunk in chunks for c in chunk.choices if c.index == i and c.logprobs for t in c.logprobs.content]
            assert [t.token for t in found] == [t.token for t in choice.logprobs.content]


def test_choices_differ_and_seeds_repeat(client):
    how = {"model": "tiny", "max_tokens": 16, "temperature": 1.0, "n": 4}
    one, again, other, unseeded = (
        client.chat.completions.create(messages=HI, **how, **seed) for seed in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {})
    )
    texts = [[choice.message.content for choice in reply.choices] for reply in (one, again, other, unseeded)]
    assert texts[0] == texts[1] != texts[2] and texts[3] not in texts[:3] and len({*texts[0]}) == 4


def test_logprobs_join_to_the_text(client):
    reply = client.chat.completions.create(messages=HI, logprobs=True, top_logprobs=3, **GREEDY | {"max_tokens": 30})
    content = reply.choices[0].logprobs.content
    raw = bytes(byte for token in content for byte in token.bytes)
    assert raw.decode("utf-8", "replace") == reply.choices[0].message.content
    for token in content:
        others = [other.logprob for other in token.top_logprobs]  # also of ids that are no text, which this model likes
        assert len(others) == 3 and others == sorted(others, reverse=True) and others[0] >= token.logprob - 1e-5
        assert any(other == pytest.approx(token.logprob, abs=1e-5) for other in others)


def test_a_stop_string_ends_the_text_before_it_and_is_not_in_it(client):
    free = (
        client.chat.completions.create(messages=HI, **GREEDY | {"temperature": 1, "seed": 3, "max_tokens": 40}).choices[0].message.content
    )
    for start, length in ((3, 1), (5, 2), (9, 4)):
        stop = free[start : start + length]
        reply = client.chat.completions.create(messages=HI, stop=stop, **GREEDY | {"temperature": 1, "seed": 3, "max_tokens": 40})
        assert reply.choices[0].message.content == free[: free.index(stop)] and reply.choices[0].finish_reason == "stop"


def test_a_bias_of_a_hundred_decides(client):
    for id_ in (65, 66):
        reply = client.chat.completions.create(messages=HI, logit_bias={str(id_): 100}, **GREEDY)
        assert reply.choices[0].message.content == chr(id_) * 12


def test_penalties_change_the_text(client):
    plain, penalised = (
        client.chat.completions.create(messages=HI, presence_penalty=p, frequency_penalty=p, **GREEDY | {"max_tokens": 40}) for p in (0, 2)
    )
    letters = [set(reply.choices[0].message.content) for reply in (plain, penalised)]
    assert len(letters[1]) > len(letters[0])


def test_the_rest_of_the_context_is_the_default_limit(client):
    reply = client.chat.completions.create(model="tiny", messages=HI, logit_bias={"65": 100})
    assert reply.usage.total_tokens == CONTEXT and reply.choices[0].finish_reason == "length"


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_schema_is_obeyed(client, seed, stream):
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    how = {"model": "tiny", "seed": seed, "temperature": 1, "max_tokens": 100, "response_format": form, "stream": stream}
    answer = client.chat.completions.create(messages=HI, logit_bias={"32": -100, "10": -100}, **how)
    if stream:
        texts, finishes, *_ = joined(answer)
        text, finish = texts[0], finishes[0]
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
    if finish == "stop":
        found = json.loads(text)
        assert isinstance(found["a"], int) and found["b"] in ("x", "y")
    else:  # a model that knows nothing may write digits for ever
        assert re.match(r'\{\s*"a"\s*:', text)


def test_an_expression_is_obeyed(client):
    for seed in range(4):
        how = {"model": "tiny", "seed": seed, "extra_body": {"response_format": {"type": "regex", "regex": "[a-f]{3}-[0-9]{2}"}}}
        reply = client.chat.completions.create(messages=HI, max_tokens=20, temperature=1, **how)
        assert re.fullmatch("[a-f]{3}-[0-9]{2}", reply.choices[0].message.content) and reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_forbidden_is_not_written(client, seed):
    """However it comes about: the model is made to want it, letter by letter, and writes around it. With and without a form of its own."""
    want = {str(ord(letter)): 60 for letter in "ab/"}
    form = {"type": "regex", "forbidden": ["ab", "b+/", "/a"]}
    text = client.completions.create(
        model="tiny", prompt="x", max_tokens=60, seed=seed, logit_bias=want, extra_body={"response_format": form}
    )
    said = text.choices[0].text
    assert {*said} <= {*"ab/"} and len(said) == 60 and not re.search("ab|b+/|/a", said)
    free = client.completions.create(model="tiny", prompt="x", max_tokens=60, seed=seed, logit_bias=want).choices[0].text
    assert re.search("ab|b+/|/a", free)
    form |= {"regex": "[ab]{4}/?"}
    kept = client.completions.create(
        model="tiny", prompt="x", max_tokens=20, seed=seed, logit_bias=want, extra_body={"response_format": form}
    )
    assert re.fullmatch("b*a*", kept.choices[0].text.rstrip("/")) and len(kept.choices[0].text) in (4, 5)
    for wrong in (["("], "ab", [""], ["a"] * 17):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt="x", extra_body={"response_format": form | {"forbidden": wrong}})


def test_json_is_obeyed(client):
    reply = client.chat.completions.create(
        messages=HI,
        model="tiny",
        response_format={"type": "json_object"},
        logit_bias={"125": 20, "32": -100, "10": -100, "13": -100, "9": -100},
    )
    assert json.loads(reply.choices[0].message.content) == {}


ON = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": ON}} for name in ("light", "door")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "door"}}], ids=str)
def test_a_tool_is_called_with_arguments_of_its_schema(client, choice, stream):
    how = {"model": "tiny", "max_tokens": 90, "seed": 1, "tools": TOOLS, "tool_choice": choice, "stream": stream}
    answer = client.chat.completions.create(messages=HI, logit_bias={"32": -100, "10": -20, "13": -100, "9": -100}, **how)
    if stream:
        chunks = [choice for chunk in answer for choice in chunk.choices]
        calls = [call for choice in chunks for call in choice.delta.tool_calls or ()]
        name, arguments = calls[0].function.name, "".join(call.function.arguments or "" for call in calls)
        finish = chunks[-1].finish_reason
        assert calls[0].id and calls[0].type == "function" and not any(choice.delta.content for choice in chunks)
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments, finish = call.function.name, call.function.arguments, answer.choices[0].finish_reason
        assert answer.choices[0].message.content is None
    assert finish == "tool_calls" and isinstance(json.loads(arguments)["on"], bool)
    assert name in ("light", "door") if choice == "required" else name == "door"


class Script:
    """An engine whose model says what it is told to, a few letters at a time."""

    def __init__(self, text: str):
        self._text = text.encode()

    def submit(self, job):
        def give(piece):
            job.pieces.append(piece)
            job.signal.set()

        parts = [[*self._text[start : start + 3]] for start in range(0, len(self._text), 3)]
        pieces = [Piece(ids, [-0.5] * len(ids), np.zeros((len(ids), 1), int), np.zeros((len(ids), 1))) for ids in parts]
        for place, piece in enumerate([*pieces, Piece([], [], finish="stop")]):
            asyncio.get_running_loop().call_later(0.002 * place, give, piece)

    def cancel(self, job, why=""):
        pass


CALLED = '<tool_call>\n{"name": "light", "arguments": {"on": true}}\n</tool_call>'


@pytest.mark.parametrize(
    "said, content, calls",
    [
        ("Good morning.", "Good morning.", 0),
        (f"I will. {CALLED}", "I will.", 1),
        (f"{CALLED}\n{CALLED}", None, 2),
        ("a < b <tool", "a < b <tool", 0),
        ("so <tool_call>{no JSON}</tool_call>!", "so <tool_call>{no JSON}</tool_call>!", 0),
    ],
)
@pytest.mark.parametrize("more", [{}, {"parallel_tool_calls": False}, {"tool_choice": "none"}], ids=str)
def test_a_model_that_may_call_tools_says_what_it_says(served, said, content, calls, more):
    """Streamed or whole, and with a log-probability for each token; where no tool may be called a call is text."""
    request = chat_request({"messages": HI, "tools": TOOLS, "logprobs": True, **more})
    if more.get("tool_choice") == "none":
        content, calls = said, 0
    calls = min(calls, 1) if "parallel_tool_calls" in more else calls

    def answer():
        found = ChatAnswer(served, Script(said), request, "")
        found.answer.start()
        return found

    async def streamed():
        return [chunk["choices"][0] async for chunk in answer().chunks()]

    async def whole():
        return (await answer().whole())["choices"]

    (choice,) = asyncio.run(whole())
    chunks = asyncio.run(streamed())
    assert choice["message"]["content"] == content == ("".join(chunk["delta"].get("content") or "" for chunk in chunks) or None)
    assert len(choice["message"].get("tool_calls", ())) == calls
    named = [call["function"]["name"] for chunk in chunks for call in chunk["delta"].get("tool_calls", ()) if "id" in call]
    assert named == ["light"] * calls
    assert choice["finish_reason"] == chunks[-1]["finish_reason"] == ("tool_calls" if calls else "stop")
    whole = [token["bytes"] for token in choice["logprobs"]["content"]]
    assert b"".join(map(bytes, whole)) == said.encode()
    assert [token["bytes"] for chunk in chunks for token in (chunk["logprobs"] or {"content": ()})["content"]] == whole
    if not calls and len(said) > 4 and "<" not in said:
        assert len(chunks) > 4  # shown as it comes


def test_turns_of_tools_are_read(client):
    """What a tool was asked and what it answered stand in the conversation."""
    call = {"id": "call_1", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    turns = [*HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": "done"}]
    reply = client.chat.completions.create(messages=turns, tools=TOOLS, tool_choice="none", **GREEDY)
    expected = TOKENIZER.encode("<|user|>hi\n<|assistant|>\n<|tool|>done\n<|assistant|>")
    assert reply.usage.prompt_tokens == len(expected) and reply.choices[0].message.tool_calls is None


def test_a_call_that_is_cut_short_is_no_call(client):
    how = {"model": "tiny", "max_tokens": 20, "tools": TOOLS, "tool_choice": "required"}
    (choice,) = client.chat.completions.create(messages=HI, **how).choices
    assert choice.finish_reason == "length" and not choice.message.tool_calls and choice.message.content.startswith("<tool_call>")


# ------------------------------------------------------------------------------------------------ completions


def test_completions_of_several_prompts(client, generator):
    from model.decoding.sampling import Sampling

    prompts = ["one", "two three"]
    reply = client.completions.create(model="tiny", prompt=prompts, max_tokens=9, temperature=0, n=2, echo=True)
    expected = generator.generate(prompts, tokens=9, sampling=Sampling(temperature=0.0), seed=0)
    assert reply.object == "text_completion" and [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    for number, choice in enumerate(reply.choices):
        assert choice.text == prompts[number // 2] + expected[number // 2].text
    assert client.completions.create(model="tiny", prompt="a").usage.completion_tokens <= 16


def test_a_prompt_of_ids_is_that_of_its_text(client):
    ids = client.post("/../tokenize", body={"prompt": "hello"}, cast_to=object)["tokens"]
    one, other = (client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0) for prompt in ("hello", ids))
    assert one.choices[0].text == other.choices[0].text and one.usage.prompt_tokens == other.usage.prompt_tokens == len(ids)
    assert client.post("/../detokenize", body={"tokens": ids[1:]}, cast_to=object)["prompt"] == "hello"


@pytest.mark.parametrize("logprobs", [0, 3])
def test_completions_have_logprobs(client, logprobs):
    how = {"model": "tiny", "prompt": "x", "max_tokens": 10, "temperature": 0, "logprobs": logprobs}
    whole = client.completions.create(**how).choices[0]
    assert len(whole.logprobs.tokens) == len(whole.logprobs.token_logprobs) == len(whole.logprobs.text_offset) == 10
    assert "".join(whole.logprobs.tokens) == whole.text or "\ufffd" in whole.text
    assert (whole.logprobs.top_logprobs is None) == (logprobs == 0)
    pieces = [choice for chunk in client.completions.create(stream=True, **how) for choice in chunk.choices]
    assert [t for piece in pieces for t in piece.logprobs.tokens] == whole.logprobs.tokens
    assert [o for piece in pieces for o in piece.logprobs.text_offset] == whole.logprobs.text_offset


def test_every_likely_token_has_a_name_of_its_own_and_the_drawn_one_is_among_them(client):
    """Also where tokens are parts of characters, which alone are no text, or have none."""
    how = {"model": "tiny", "prompt": "x", "max_tokens": 20, "temperature": 1.5, "seed": 5, "logprobs": 20}
    found = client.completions.create(**how).choices[0].logprobs
    names = {name for likeliest in found.top_logprobs for name in likeliest}
    assert any(name.startswith("bytes:\\x") for name in names) and "\ufffd" not in names and "" not in names
    for likeliest, log_prob in zip(found.top_logprobs, found.token_logprobs, strict=True):
        assert len(likeliest) in (20, 21) and any(abs(own - log_prob) < 1e-6 for own in likeliest.values())


def test_an_echo_alone_draws_nothing(client):
    reply = client.completions.create(model="tiny", prompt="abc", max_tokens=0, echo=True)
    assert reply.choices[0].text == "abc" and reply.usage.completion_tokens == 0 and reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("drawn", [0, 5])
def test_an_echo_has_the_logprobs_of_the_prompt(client, model, drawn):
    """Beside a pass of the model over the whole prompt, which is longer than a chunk; whole, streamed, and with nothing read before."""
    decoder, params = model
    ids = np.random.default_rng(2).integers(32, 127, 2 * CHUNK + 5)
    hidden_TD = decoder.apply({"params": params}, ids[None]).hidden_BTD[0]
    log_p_TV = np.asarray(jax.nn.log_softmax(logits(Head(hidden_TD, vocabulary_table(params)))))
    how = {"model": "tiny", "prompt": ids.tolist(), "max_tokens": drawn, "echo": True, "logprobs": 3, "temperature": 0}
    client.completions.create(**how | {"echo": False, "max_tokens": 1})
    choice = client.completions.create(**how).choices[0]
    found = choice.logprobs
    assert len(found.tokens) == len(ids) + drawn and found.token_logprobs[0] is None and found.top_logprobs[0] is None
    np.testing.assert_allclose(found.token_logprobs[1 : len(ids)], log_p_TV[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    for place, likeliest in enumerate(found.top_logprobs[1 : len(ids)]):
        np.testing.assert_allclose(sorted(likeliest.values())[-1], log_p_TV[place].max(), atol=1e-4)
    pieces = [piece for chunk in client.completions.create(stream=True, **how) for piece in chunk.choices]
    assert "".join(piece.text for piece in pieces) == choice.text
    assert [x for piece in pieces for x in piece.logprobs.token_logprobs] == found.token_logprobs
    assert [x for piece in pieces for x in piece.logprobs.text_offset] == found.text_offset


@pytest.mark.parametrize("options", [{}, {"n": 2}, {"echo": True}, {"stop": "a"}, {"temperature": 1.0, "seed": 4}], ids=str)
def test_streamed_completions_are_the_whole(client, options):
    how = {"model": "tiny", "prompt": ["p", "q"], "max_tokens": 14, "temperature": 0} | options
    whole = client.completions.create(**how)
    texts, finishes, *_ = joined(client.completions.create(stream=True, **how))
    assert [texts[c.index] for c in whole.choices] == [c.text for c in whole.choices]
    assert [finishes[c.index] for c in whole.choices] == [c.finish_reason for c in whole.choices]


# ------------------------------------------------------------------------------------------------ mistakes

NONSENSE = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "nonsense"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}


@pytest.mark.parametrize(
    "options, param, code",
    [
        ({"temperature": 9}, "temperature", None),
        ({"max_tokens": 10_000}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 500}]}, "messages", "context_length_exceeded"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", None),
        ({"n": 100}, "n", None),
        ({"model": "gpt-4"}, "model", "model_not_found"),
        ({"response_format": NONSENSE}, "response_format", None),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "unsupported_content"),
        ({"messages": []}, "messages", None),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0]", None),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", None),
        ({"temperature": -1}, "temperature", None),
        ({"top_p": 0}, "top_p", None),
        ({"frequency_penalty": 3}, "frequency_penalty", None),
        ({"presence_penalty": "x"}, "presence_penalty", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"n": 0}, "n", None),
        ({"stop": ["a"] * 17}, "stop", None),
        ({"stop": [""]}, "stop", None),
        ({"seed": "x"}, "seed", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
        ({"logit_bias": {"a": 1}}, "logit_bias", None),
        ({"logit_bias": {"65": 101}}, "logit_bias.65", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"response_format": {"type": "xml"}}, "response_format", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
    ],
    ids=str,
)
def test_mistakes_are_named_and_the_server_works_after(client, options, param, code):
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as error:
        client.chat.completions.create(**{"messages": HI} | GREEDY | options)
    assert error.value.param == param and error.value.code == code and error.value.type == "invalid_request_error"
    assert client.chat.completions.create(messages=HI, **GREEDY).choices


def ask(address, path, data=None, method=None, **headers):
    """(status, body, headers) of a raw request."""
    raw = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    request = urllib.request.Request(address + path, raw, {"content-type": "application/json"} | headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


@pytest.mark.parametrize(
    "path, data, options, status",
    [
        ("/v1/nothing", None, {}, 404),
        ("/v1/chat/completions", None, {}, 405),
        ("/v1/models", b"{}", {}, 405),
        ("/v1/models/other", None, {}, 404),
        ("/v1/chat/completions", b"{", {}, 400),
        ("/v1/chat/completions", b"\xff\xfe", {}, 400),
        ("/v1/chat/completions", b'{"messages": NaN}', {}, 400),
        ("/v1/chat/completions", b"[" * 100_000, {}, 400),
        ("/v1/chat/completions", b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", {}, 400),
        ("/v1/completions", rb'{"prompt": "a", "response_format": {"type": "regex", "regex": "\ud800"}}', {}, 400),
        ("/v1/completions", b'{"prompt": "\xed\xa0\x80"}', {}, 400),
        ("/v1/completions", '{"prompt": "a"}'.encode("utf-16"), {}, 400),
        ("/v1/completions", rb'{"prompt": "\ud83d\ude00", "max_tokens": 1}', {"sec-fetch-site": "cross-site"}, 403),
        ("/v1/completions", rb'{"prompt": "a", "max_tokens": 1}', {"origin": "http://evil.example"}, 403),
        ("/v1/completions", rb'{"prompt": "a", "max_tokens": 1}', {"origin": "http://["}, 403),
        ("/v1/chat/completions", b"{}", {"content-type": "text/plain"}, 415),
        ("/v1/chat/completions", b"{}", {"content-encoding": "gzip"}, 415),
        ("/v1/chat/completions", b"{}", {"host": "evil.example"}, 421),
        ("/v1/embeddings", b'{"input": "a"}', {}, 400),
        ("/tokenize", b"{}", {}, 400),
        ("/detokenize", b'{"tokens": "a"}', {}, 400),
    ],
)
def test_errors_have_openais_form(address, path, data, options, status):
    found, body, headers = ask(address, path, data, **options)
    assert found == status
    assert {*json.loads(body)["error"]} == {"message", "type", "param", "code"} and "evil" not in body.decode()
    assert headers["x-request-id"].startswith("req_")


def test_a_body_that_is_too_large_is_refused(address, monkeypatch):
    monkeypatch.setattr("serve.http.MOST_BYTES", 1000)
    assert ask(address, "/v1/completions", {"prompt": "x" * 2000})[0] == 413
    assert ask(address, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


def test_a_length_that_is_no_number_is_not_believed():
    """Servers in front of the application refuse such a header, or let it through."""

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    asked = Asked({"headers": [(b"content-length", b"\xb2")]}, receive, None, "1")
    assert asyncio.run(Application(Observed(), name="x")._body(asked, lambda body: body)) == {}


def test_the_page_itself_may_ask_and_pairs_of_surrogates_are_letters(address):
    raw, own = rb'{"prompt": "\ud83d\ude00", "max_tokens": 1}', address.removeprefix("http://")
    for headers in ({"sec-fetch-site": "same-origin", "origin": "http://elsewhere"}, {"origin": f"http://{own}"}, {}):
        assert ask(address, "/v1/completions", raw, **headers)[0] == 200
    assert json.loads(ask(address, "/tokenize", rb'{"prompt": "\ud83d\ude00"}')[1])["count"] == 5


@pytest.mark.parametrize("state", ["loading", "draining"])
def test_before_and_after_it_can_a_server_says_when_to_come_again(address, listen, state, monkeypatch):
    """And not that the model could not do what it is asked."""
    with listen() as (address, application, _):
        monkeypatch.setattr(application, *(("ready", False) if state == "loading" else ("draining", True)))
        for path, body in (
            ("/v1/chat/completions", {"messages": HI}),
            ("/v1/completions", {"prompt": "a"}),
            ("/v1/embeddings", {"input": "a"}),
            ("/tokenize", {"prompt": "a"}),
        ):
            status, _, headers = ask(address, path, body)
            assert status == 503 and int(headers["retry-after"]) >= 1
        assert ask(address, "/ready")[0] == 503 and ask(address, "/health")[0] == 200
        monkeypatch.undo()
        assert ask(address, "/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200


def test_connections_that_wait_for_ever_are_ended(listen, monkeypatch):
    """Without a request, with half of its head or of its body, and with an answer that nobody reads."""
    monkeypatch.setattr("serve.connections.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("serve.connections.STALLED_SECONDS", 0.2)
    monkeypatch.setattr("serve.http.IDLE_SECONDS", 0.2)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
    with listen() as (address, application, parts):
        host, port = address.removeprefix("http://").split(":")
        for sent, expected in (
            (b"", b""),
            (head, b""),
            (head + b"content-length: 90\r\n\r\n{", b"HTTP/1.1 408"),
            (b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"HTTP/1.1 200"),  # and then half of another
            (head + b"content-length: 90\r\norigin: http://a\r\n\r\n", b"HTTP/1.1 403"),  # and then a letter of the body
        ):
            with socket.create_connection((host, int(port)), timeout=4) as connection:  # sooner than connections that are kept alive end
                connection.sendall(sent)
                found = b""
                if expected[-3:] in (b"200", b"403"):
                    found = connection.recv(65536)
                    connection.sendall(b"GET /he")
                with contextlib.suppress(ConnectionResetError):
                    while piece := connection.recv(65536):
                        found += piece
                assert found.startswith(expected) and bool(found) == bool(expected)
        monkeypatch.setattr(application._talk, "_text", "x" * (32 << 20))  # more than the system takes
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            time.sleep(1)
            count = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(1 << 20):
                    count += len(piece)
            assert count < 32 << 20
        assert ask(address, "/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200


def test_a_request_keeps_its_id(address):
    assert ask(address, "/v1/models", **{"x-request-id": "mine-1"})[2]["x-request-id"] == "mine-1"
    assert ask(address, "/v1/models", **{"x-request-id": "a b"})[2]["x-request-id"].startswith("req_")


def test_a_fault_of_ours_says_nothing_of_what_was_asked(address, monkeypatch, capfd):
    def broken(*_):
        raise KeyError("the secret prompt")

    monkeypatch.setattr("serve.http.chat_request", broken)
    status, body, _ = ask(address, "/v1/chat/completions", {"messages": HI})
    assert status == 500 and b"secret" not in body and "secret" not in "".join(capfd.readouterr())


# ------------------------------------------------------------------------------------------------ the rest


def test_models_and_health_and_metrics(client, address):
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").owned_by == "omnia"
    assert ask(address, "/health")[0] == ask(address, "/ready")[0] == 200
    client.completions.create(model="tiny", prompt="a", max_tokens=3)
    text = ask(address, "/metrics")[1].decode()
    values = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert values["omnia_generation_tokens_total"] >= 3 and values["omnia_num_requests_running"] == 0
    assert values["omnia_compilations_total"] == 0


def test_what_ends_is_counted_by_its_reason(listen):
    """A stop string is no client that left; what drew nothing has no time to its first token."""
    with listen(engine_options={"widths": (1,), "most_jobs": 1}) as (address, _, parts):

        def values() -> dict[str, float]:
            lines = ask(address, "/metrics")[1].decode().splitlines()
            return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}

        prompt = "b" * (2 * CHUNK)
        for more in ({"stop": "A"}, {"max_tokens": 5}, {"max_tokens": 0, "echo": True}):
            assert ask(address, "/v1/completions", {"prompt": prompt, "logit_bias": {"65": 100}} | more)[0] == 200
        until = time.monotonic() + 5
        while sum(values().get(f'omnia_request_success_total{{finished_reason="{why}"}}', 0) for why in ("stop", "length")) < 2:
            assert time.monotonic() < until
        found = values()
        assert found['omnia_request_success_total{finished_reason="stop"}'] == 1
        assert found['omnia_request_success_total{finished_reason="length"}'] == 1
        assert 'omnia_request_success_total{finished_reason="cancelled"}' not in found
        assert found["omnia_time_to_first_token_seconds_count"] == found["omnia_request_prompt_tokens_count"] == 2
        assert found["omnia_prompt_tokens_total"] == found["omnia_prefix_cache_queries_total"] == 2 * (2 * CHUNK + 1)
        assert found["omnia_prefix_cache_hits_total"] == 2 * CHUNK and found["omnia_generation_tokens_total"] >= 6
        assert found["omnia_admission_rejections_total"] == 0


def test_the_page_is_one_file_that_loads_nothing(address):
    status, body, headers = ask(address, "/")
    page = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/html") and len(body) < 30_000
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page) and "@import" not in page


@pytest.fixture(scope="module")
def guarded(listen, tmp_path_factory):
    """(address, {name: key}, audit file) of a server with keys."""
    from serve.observe import AuditLog

    folder = tmp_path_factory.mktemp("keys")
    path = str(folder / "keys.json")
    secrets = {name: new_key(path, name) for name in ("ann", "eve", "root", "slow", "poor", "few", "other")}
    stored = json.loads((folder / "keys.json").read_text())
    for row, more in zip(
        stored["keys"],
        (
            {"context": 60},
            {"role": "observer"},
            {"role": "admin"},
            {"requests_per_minute": 1},
            {"requests_per_minute": 1},
            {"tokens_per_minute": 30},
            {},
        ),
        strict=True,
    ):
        row.update(more)
    (folder / "keys.json").write_text(json.dumps(stored))
    with listen(keys=read_keys(path), hosts=(), audit=AuditLog(folder / "audit.jsonl")) as (found, application, _):
        yield found, secrets, folder / "audit.jsonl", application


def test_every_route_but_health_needs_a_key(guarded):
    address, secrets, _, application = guarded
    for path in (*application.routes, "/v1/nothing", "/docs"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": secrets["ann"]}, {"authorization": "Basic !!"}):
            for method in ("GET", "POST", "OPTIONS", "PUT"):
                status, body, more = ask(address, path, b"{}" if method == "POST" else None, method, **headers)
                assert status == 401 and "www-authenticate" in {name.lower() for name in more}, (path, method, headers)
    assert ask(address, "/health")[0] == 200
    assert ask(address, "/v1/models/", authorization=f"Bearer {secrets['ann']}")[0] == 200


def test_every_route_asks_for_its_role(guarded):
    """Another role's key is as good as none, and tried on each."""
    address, secrets, _, application = guarded
    for path, (method, what, _) in application._routes.items():
        for name, may in (("ann", "ask"), ("eve", "observe"), ("root", what)):
            status = ask(address, path, b"{}" if method == "POST" else None, method, authorization=f"Bearer {secrets[name]}")[0]
            assert (status == 403) == (what != may), (path, name)


def test_a_key_pays_before_its_request_is_looked_at(guarded):
    """Also for what is refused, and for counting tokens."""
    address, secrets, _, application = guarded
    headers = {"authorization": f"Bearer {secrets['poor']}"}
    assert ask(address, "/tokenize", {"prompt": "a"}, **headers)[0] == 200
    for path in ("/tokenize", "/v1/embeddings", "/v1/chat/completions"):
        assert ask(address, path, b"no JSON at all", **headers)[0] == 429
    assert application._keys.running["poor"] == 0


def test_what_runs_when_the_engine_fails_ends_with_an_error(listen, monkeypatch):
    """A stream says so in an event, whole answers by their status; then the server is not ready, and says so."""
    with listen() as (address, application, parts):
        body = {"prompt": "a", "max_tokens": CONTEXT - 2, "logit_bias": {"65": 100}}
        calls, go_on = [], parts.programs.go_on

        def lucky_twice(*arguments):
            calls.append(1)
            return go_on(*arguments) if len(calls) < 3 else 1 / 0

        monkeypatch.setattr(parts.programs, "go_on", lucky_twice)
        stream = urllib.request.urlopen(
            urllib.request.Request(
                address + "/v1/completions", json.dumps(body | {"stream": True}).encode(), {"content-type": "application/json"}
            )
        )
        events = [json.loads(line[6:]) for line in stream if line.startswith(b"data: {")]
        assert events[-1]["error"]["type"] == "server_error"
        assert ask(address, "/v1/completions", body)[0] == 503
        status, found, _ = ask(address, "/ready")
        assert status == 503 and json.loads(found)["status"] == "stuck" and ask(address, "/health")[0] == 200


def test_an_engine_that_does_not_go_round_is_stuck(listen, monkeypatch):
    with listen() as (address, _, parts):
        assert ask(address, "/ready")[0] == 200
        monkeypatch.setattr("serve.http.STUCK_SECONDS", -1.0)
        assert json.loads(ask(address, "/ready")[1])["status"] == "stuck"


def test_the_client_tries_again_waits_and_gives_up(listen):
    """Its own retries and time-outs: a full queue is worth another try, and a slow answer is not waited for for ever."""
    with listen(engine_options={"widths": (1,), "most_jobs": 1}) as (address, _, parts):
        whole = {"model": "tiny", "max_tokens": CONTEXT - 2, "logit_bias": {"65": 100}, "prompt": "a"}
        patient = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=8, timeout=60)
        with ThreadPoolExecutor(6) as threads:
            found = [*threads.map(lambda _: patient.completions.create(**whole).choices[0].text, range(6))]
        assert found == ["A" * (CONTEXT - 2)] * 6
        hasty = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=1e-3)
        with pytest.raises(openai.APITimeoutError):
            hasty.completions.create(**whole)
        until = time.monotonic() + 10
        while parts.engine.running or parts.engine.waiting:  # what nobody waits for is not drawn
            assert time.monotonic() < until
            time.sleep(0.01)


def test_the_client_that_waits_for_many_at_once(address):
    async def all_of():
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            whole = await asyncio.gather(*(client.chat.completions.create(messages=HI, seed=n, **GREEDY) for n in range(4)))
            stream = await client.chat.completions.create(messages=HI, stream=True, **GREEDY)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [reply.choices[0].message.content for reply in whole] + [text]

    assert len({*asyncio.run(all_of())}) == 1


def test_an_answer_becomes_an_object_of_the_clients_class(client):
    """`parse` sends the schema of a class, and reads what came by it."""
    made = type("Light", (pydantic.BaseModel,), {"__annotations__": {"on": bool}})
    bias = {"32": -100, "10": -20, "13": -100, "9": -100}
    reply = client.chat.completions.parse(model="tiny", messages=HI, response_format=made, max_tokens=60, seed=1, logit_bias=bias)
    assert isinstance(reply.choices[0].message.parsed, made) and isinstance(reply.choices[0].message.parsed.on, bool)


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 1},
        {"min_p": 0.5},
        {"typical_p": 0.4},
        {"repetition_penalty": 1.5},
        {"frequency_penalty": 2.0, "presence_penalty": 2.0, "temperature": 0.1},
        {"top_p": 0.2},
    ],
    ids=str,
)
def test_each_way_to_draw_repeats_with_its_seed(client, options):
    own = {name: options.pop(name) for name in ("top_k", "min_p", "typical_p", "repetition_penalty") if name in options}
    how = {"model": "tiny", "prompt": "ab", "max_tokens": 16, "temperature": 1.3, "seed": 11} | options
    options.pop("temperature", None)
    plain = client.completions.create(**how | {name: 0 for name in options if "penalty" in name} | {"top_p": 1}).choices[0].text
    first, again = (client.completions.create(**how, extra_body=own).choices[0].text for _ in range(2))
    assert first == again != plain


def test_roles_and_limits_of_keys(guarded):
    address, secrets, _, _ = guarded

    def status(name, path, data=None):
        return ask(address, path, data, authorization=f"Bearer {secrets[name]}")[0]

    assert [status(name, "/metrics") for name in ("ann", "eve", "root")] == [403, 200, 200]
    assert [status(name, "/v1/models") for name in ("ann", "eve", "root")] == [200, 403, 200]
    body = {"prompt": "a", "max_tokens": 2}
    assert status("ann", "/v1/completions", body) == 200
    assert status("ann", "/v1/completions", {"prompt": "a", "max_tokens": 90}) == 400
    assert [status("slow", "/v1/completions", body) for _ in range(2)] == [200, 429]
    basic = base64.b64encode(f"me:{secrets['ann']}".encode()).decode()
    assert ask(address, "/", authorization=f"Basic {basic}")[0] == 200
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_the_audit_log_knows_who_and_how_much_and_never_what(guarded):
    address, secrets, path, _ = guarded
    ask(
        address,
        "/v1/completions",
        {"prompt": "my diary", "max_tokens": 3},
        authorization=f"Bearer {secrets['root']}",
        **{"x-request-id": secrets["root"]},  # by mistake: whatever a client calls its request, the log has a digest of it
    )
    ask(address, "/v1/secret-path", authorization="Bearer stolen")
    time.sleep(0.1)
    content, called = path.read_text(), hashlib.sha256(secrets["root"].encode()).hexdigest()[:16]
    (line,) = [row for row in map(json.loads, content.splitlines()) if row["client_request"] == called]
    assert line["request"].startswith("req_") and line["left"] is False
    assert line["key"] == "root" and line["status"] == 200 and line["completion_tokens"] <= 3 and line["prompt_tokens"] == 9
    assert not any(word in content for word in ("diary", "stolen", "secret-path", *secrets.values()))


def test_a_client_that_leaves_frees_its_slots(listen, monkeypatch):
    """Whether it was reading a stream or waiting for a whole answer: long before its texts would have ended."""
    with listen(engine_options={"widths": (2,)}) as (address, _, parts):
        ended, go_on = [], parts.programs.go_on

        def slowly(*arguments):
            time.sleep(0.02)
            return go_on(*arguments)

        monkeypatch.setattr("serve.engine.MOST_STEPS", 1)
        monkeypatch.setattr(parts.programs, "go_on", slowly)
        monkeypatch.setattr(parts.observed, "ended", lambda job, finish: ended.append((finish, job.drawn)))
        host, port = address.removeprefix("http://").split(":")
        for stream in (True, False):
            body = json.dumps({"prompt": "a", "max_tokens": CONTEXT - 2, "logit_bias": {"65": 100}, "n": 2, "stream": stream}).encode()
            connection = socket.create_connection((host, int(port)))
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(body)
                + body
            )
            until = time.monotonic() + 10
            while not parts.engine.running and time.monotonic() < until:
                time.sleep(0.002)
            connection.close()
            while parts.engine.running:
                assert time.monotonic() < until
                time.sleep(0.002)
    assert len(ended) == 4 and all(finish == "cancelled" and drawn < CONTEXT // 2 for finish, drawn in ended)


def test_more_texts_than_ever_wait_are_refused_for_good(listen):
    with listen(engine_options={"widths": (1,), "most_jobs": 2}) as (address, _, _):
        status, found, _ = ask(address, "/v1/completions", {"prompt": "a", "max_tokens": 2, "n": 3})
        assert status == 400 and json.loads(found)["error"]["param"] == "n"


def test_a_key_has_its_tokens_and_its_prefixes_for_itself(guarded):
    address, secrets, *_ = guarded

    def by(name: str, prompt: str):
        said = {"authorization": f"Bearer {secrets[name]}"}
        status, found, headers = ask(
            address, "/v1/completions", {"prompt": prompt, "max_tokens": 2, "logit_bias": {str(END): -100}}, **said
        )
        return status, json.loads(found), headers

    def known(name: str) -> int:
        return by(name, "read by one, and by no other key " * 2)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert known("root") == 0 and known("root") >= CHUNK and known("other") == 0 and known("other") >= CHUNK
    assert by("few", "a" * 20)[0] == 200
    status, found, headers = by("few", "a" * 20)
    assert status == 429 and found["error"]["type"] == "rate_limit_error" and int(headers["retry-after"]) >= 1


def test_ids_may_be_allowed_and_may_end_a_text(client):
    def text(**more):
        (choice,) = client.completions.create(model="tiny", prompt="a", max_tokens=12, seed=3, temperature=1, **more).choices
        return choice.text, choice.finish_reason

    assert set(text(extra_body={"allowed_token_ids": [65, 66]})[0]) == {"A", "B"}
    assert text(logit_bias={"65": 100}, extra_body={"stop_token_ids": [65]}) == ("A", "stop")
    assert text(logit_bias={str(END): 100}) == ("", "stop")
    assert text(logit_bias={str(END): 100}, extra_body={"ignore_eos": True})[1] == "length"
    for wrong in ({"allowed_token_ids": [10**6]}, {"stop_token_ids": []}, {"stop_token_ids": [*range(17)]}, {"allowed_token_ids": [True]}):
        with pytest.raises(openai.BadRequestError) as refused:
            text(extra_body=wrong)
        assert refused.value.param == next(iter(wrong))


def test_a_full_queue_says_when_to_come_again(listen):
    with listen(engine_options={"widths": (1,), "most_jobs": 1}) as (address, _, _):
        body = {"prompt": "a", "max_tokens": CONTEXT - 2, "logit_bias": {"65": 100}}
        found = []
        threads = [threading.Thread(target=lambda: found.append(ask(address, "/v1/completions", body))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(status for status, _, _ in found)
        assert 200 in statuses and 429 in statuses and {*statuses} == {200, 429}
        assert all(int(headers["retry-after"]) >= 1 for status, _, headers in found if status == 429)


def test_embeddings(listen):
    class Embedder:
        """The length of a text, and two numbers."""

        most, vocabulary = 9, 256

        def rows(self, texts, whole):
            return [np.array([*map(ord, text)] if isinstance(text, str) else text) for text in texts]

        def vectors(self, rows):
            found = np.array([[len(row), 3.0, 4.0] for row in rows], np.float32)
            return found / np.linalg.norm(found, axis=1, keepdims=True)

    with listen(embedder=Embedder()) as (address, application, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        reply = client.embeddings.create(model="tiny", input=["", "abcd"])  # in base64, as the client asks by itself
        vectors = np.array([row.embedding for row in reply.data])
        np.testing.assert_allclose(vectors, Embedder().vectors(["", "abcd"]), atol=1e-6)
        assert reply.usage.prompt_tokens == 4
        ids = client.embeddings.create(model="tiny", input=[list(b"abcd")])
        np.testing.assert_allclose(ids.data[0].embedding, vectors[1], atol=1e-6)
        short = client.embeddings.create(model="tiny", input="abcd", dimensions=2, encoding_format="float").data[0].embedding
        np.testing.assert_allclose(np.linalg.norm(short), 1.0, atol=1e-6)
        for options, param in (
            ({"input": "a", "dimensions": 9}, "dimensions"),
            ({"input": ["a", "x" * 10]}, "input"),
            ({"input": [1, 300]}, "input"),
            ({"input": ["a"] * 3000}, "input"),
        ):
            with pytest.raises(openai.BadRequestError) as error:
                client.embeddings.create(model="tiny", **options)
            assert error.value.param == param
        application._embeddings = 64
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(model="tiny", input="a")


def test_vectors_that_nobody_waits_for_keep_their_place_until_they_are_computed(listen):
    """A thread cannot be given up: whoever leaves does not make room for another that would be computed beside it."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        most, vocabulary = 9, 256

        def rows(self, texts, whole):
            return [np.ones(1, int) for _ in texts]

        def vectors(self, rows):
            begun.set()
            assert go_on.wait(30)
            return np.ones((len(rows), 2), np.float32)

    with listen(embedder=Slow()) as (address, application, _):
        host, port = address.removeprefix("http://").split(":")
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 14\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + b'{"input": "a"}')
            assert begun.wait(30)
        time.sleep(0.3)
        assert application._embeddings == 1 and application._embedding.locked()
        go_on.set()
        until = time.monotonic() + 20
        while application._embeddings:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert ask(address, "/v1/embeddings", {"input": "a"})[0] == 200


def test_many_at_once_get_their_own(listen):
    """Each prompt makes the model repeat a letter of its own."""
    with listen(engine_options={"most_jobs": 500}) as (address, _, parts):
        client, wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120), []

        def one(number):
            letter = 65 + number % 26
            how = {"model": "tiny", "max_tokens": 3 + number % 9, "logit_bias": {str(letter): 100}, "temperature": 1}
            if number % 2:
                text = joined(client.completions.create(prompt="a" * (1 + number % 40), stream=True, **how))[0][0]
            else:
                text = client.completions.create(prompt="a" * (1 + number % 40), **how).choices[0].text
            if text != chr(letter) * (3 + number % 9):
                wrong.append((number, text))

        threads = [threading.Thread(target=lambda first=first: [one(first + 10 * i) for i in range(6)]) for first in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and CHUNK
        assert parts.engine.running == parts.engine.waiting == 0
