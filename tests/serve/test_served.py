"""From requests to jobs: what a run cannot do by itself."""

import json

import pytest

from serve.protocol import Refused, chat_request, completion_request, counting_request, decoding_request
from serve.served import Served
from tests.serve.conftest import CHAT, CONTEXT, END, TOKENIZER, run
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
            [served.job(served.prompt("a"), one, served.sampling(one), 60, seed, 0, "", served.grammar(one)) for one in (request, plain)],
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
        found = run(
            parts.engine,
            [served.job(served.prompt("a"), one, served.sampling(one), 90, 1, 0, "", served.grammar(one)) for one in (form, call)],
        )
    texts = [served.decode(ids) for ids, *_ in found]
    assert texts[0] == '{"a": 1, "b": 2}'
    assert texts[1] == '<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


def test_a_form_that_no_text_has_is_refused_and_one_that_costs_too_much_cuts_its_text(make_engine, generator):
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    for schema in ({"$ref": "#"}, {"enum": []}):
        request = completion_request({"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})
        with pytest.raises(Refused) as refused:
            served.grammar(request)
        assert refused.value.param == "response_format"
    request = completion_request({"prompt": "a", "response_format": {"type": "regex", "regex": "(a{1000}){1000}"}})
    with make_engine() as parts:
        ((ids, _, finish),) = run(
            parts.engine, [served.job(served.prompt("a"), request, served.sampling(request), 60, 0, 0, "", served.grammar(request))]
        )
    assert finish == "length" and set(served.decode(ids)) == {"a"}


def test_arguments_of_tools_may_refer_to_definitions(make_engine, generator):
    """A schema that refers to its own root, as those of models within models do."""
    inner = {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"], "additionalProperties": False}
    outer = {"type": "object", "properties": {"inner": {"$ref": "#/$defs/Inner"}}, "required": ["inner"], "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": name, "parameters": outer | {"$defs": {"Inner": inner}}}} for name in ("f", 'g"')]
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    request = chat_request({"messages": [{"role": "user", "content": "a"}], "tools": tools, "tool_choice": "required"})
    with make_engine() as parts:
        prompt, drawn = served.prompt("a"), served.sampling(request)
        found = run(parts.engine, [served.job(prompt, request, drawn, 100, seed, 0, "", served.grammar(request)) for seed in range(6)])
    calls = [json.loads(served.decode(ids).removeprefix("<tool_call>").removesuffix("</tool_call>")) for ids, *_ in found]
    assert all(call["arguments"] == {"inner": {"x": 1}} for call in calls) and {call["name"] for call in calls} == {"f", 'g"'}


def test_arguments_of_earlier_calls_are_written_as_what_they_are(generator):
    """Clients send them as a text; templates write an object."""
    template = (
        "{% for turn in messages %}{% for call in turn.tool_calls or [] %}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}."
    )
    served = Served("tiny", generator, TOKENIZER, Chat(template), size=CONTEXT)
    call = {"id": "1", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    request = chat_request({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]})
    assert served.decode(served.conversation(request).ids) == '{"on": true}.'
    for arguments in ("{", "[1]", 3):
        turn = {"role": "assistant", "tool_calls": [{"function": {"name": "light", "arguments": arguments}}]}
        with pytest.raises(Refused, match="arguments"):
            chat_request({"messages": [turn]})
    with pytest.raises(Refused, match="must be a list"):
        chat_request({"messages": [{"role": "assistant", "tool_calls": "x"}]})


def test_tools_that_a_template_does_not_tell_of_are_refused(generator):
    served = Served("tiny", generator, TOKENIZER, Chat("{% for turn in messages %}{{ turn.content }}{% endfor %}"), size=CONTEXT)
    turns, tools = [{"role": "user", "content": "a"}], [{"type": "function", "function": {"name": "f", "parameters": None}}]
    with pytest.raises(Refused, match="does not tell it of tools"):
        served.conversation(chat_request({"messages": turns, "tools": tools}))
    assert served.conversation(chat_request({"messages": turns, "tools": tools, "tool_choice": "none"})).ids


@pytest.mark.parametrize(
    "check, body",
    [
        (counting_request, {"prompt": "a", "add_special_tokens": False}),
        (counting_request, {"messages": [{"role": "user", "content": "a"}], "temperature": 1}),
        (decoding_request, {"tokens": [[65], [66]]}),
        (decoding_request, {"tokens": [65], "skip_special_tokens": True}),
    ],
)
def test_what_would_count_or_decode_otherwise_is_refused(check, body):
    with pytest.raises(Refused):
        check(body)


def test_ids_that_are_never_drawn_cannot_be_allowed_alone(generator):
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    request = completion_request({"prompt": "a", "allowed_token_ids": [65, TOKENIZER.base_size + 1]})
    with pytest.raises(Refused, match="special token"):
        served.sampling(request)
    assert served.sampling(completion_request({"prompt": "a", "allowed_token_ids": [65, END]})).allowed == (65, END)


def test_a_form_of_which_nothing_is_allowed_cuts_its_text(make_engine, generator):
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    request = completion_request({"prompt": "a", "response_format": {"type": "regex", "regex": "[0-9]{4}"}, "allowed_token_ids": [97, 98]})
    with make_engine() as parts:
        ((ids, _, finish),) = run(
            parts.engine, [served.job(served.prompt("a"), request, served.sampling(request), 9, 0, 0, "", served.grammar(request))]
        )
    assert finish == "length" and not ids


def test_names_of_tools_are_written_as_they_are(make_engine, generator):
    served = Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)
    tools = [{"type": "function", "function": {"name": "天气", "parameters": {"type": "object", "additionalProperties": False}}}]
    request = chat_request({"messages": [{"role": "user", "content": "a"}], "tools": tools, "tool_choice": "required"})
    with make_engine() as parts:
        prompt = served.prompt("a")
        ((ids, *_),) = run(parts.engine, [served.job(prompt, request, served.sampling(request), 90, 0, 0, "", served.grammar(request))])
    assert served.decode(ids) == '<tool_call>\n{"name": "天气", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize("arguments", ['{"a": "\\ud800"}', '{"a": 1e400}', '{"a": NaN}'])
def test_arguments_that_no_json_holds_are_refused(arguments):
    with pytest.raises(Refused, match="arguments"):
        chat_request({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]})
