"""From requests to jobs: what a run cannot do by itself."""

import json

import pytest

from serve.protocol import chat_request, completion_request
from serve.served import Served
from tests.serve.conftest import CHAT, CONTEXT, TOKENIZER, run
from train.generation.chat import Chat
from train.generation.text import TextGenerator

SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["file", "folder"]}}, "required": ["kind"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "entry", "schema": SCHEMA}}


@pytest.mark.parametrize("seed", range(3))
def test_a_form_ends_where_texts_have_no_end(make_engine, model, seed):
    """Of a run on one long text, whose model knows no end of a document."""
    served = Served("endless", TextGenerator(*model, TOKENIZER, None), TOKENIZER, Chat(), size=CONTEXT)
    request = completion_request({"prompt": "a", "max_tokens": 60, "response_format": FORM})
    plain = completion_request({"prompt": "a", "max_tokens": 60})
    assert served.sampling(plain).stop_ids == ()
    with make_engine() as parts:
        (ids, _, finish), (others, _, why) = run(
            parts.engine,
            [served.job(served.prompt("a"), one, served.sampling(one), 60, seed, 0, "") for one in (request, plain)],
        )
    assert finish == "stop" and json.loads(served.decode(ids))["kind"] in ("file", "folder")
    assert why == "length" and len(others) == 60


def test_json_has_one_space_between_its_parts(make_engine, generator):
    """In answers and in the arguments of tools: a small model would put nothing but spaces."""
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    pair = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["a", "b"], "additionalProperties": False}
    turns = [{"role": "user", "content": "a"}]
    form = chat_request({"messages": turns, "response_format": {"type": "json_schema", "json_schema": {"schema": pair}}})
    tools = [{"type": "function", "function": {"name": "f", "parameters": pair}}]
    call = chat_request({"messages": turns, "tools": tools, "tool_choice": "required"})
    with make_engine() as parts:
        found = run(parts.engine, [served.job(served.prompt("a"), one, served.sampling(one), 90, 1, 0, "") for one in (form, call)])
    texts = [served.decode(ids) for ids, *_ in found]
    assert texts[0] == '{"a": 1, "b": 2}'
    assert texts[1] == '<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
