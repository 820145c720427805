"""Whatever a client sends is understood, or refused by the name of the parameter."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.protocol import CHAT, COMPLETION, Refused, chat_request, completion_request, embedding_request

SAY = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BAD = [
    ({"temperature": 3}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"seed": -(10**400)}, "seed"),
    ({"max_tokens": 3, "max_completion_tokens": 3}, "max_completion_tokens"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": -1}, "min_p"),
    ({"n": 0}, "n"),
    ({"n": 10**9}, "n"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"stop": 7}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["a"] * 100_000}, "stop"),
    ({"stop": "a" * 1000}, "stop"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 2**70}, "seed"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": 3}, "logprobs"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": None, "repetition_penalty": 0}, "repetition_penalty"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include": True}}, "stream_options"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0]"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": 3}, "tool_choice"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "film"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
    ({"temprature": 1}, "temprature"),
    ({"functions": []}, "functions"),
    ({"suffix": "x"}, "suffix"),
]


@pytest.mark.parametrize("change, param", BAD, ids=lambda value: str(value)[:40])
def test_a_mistake_is_named_by_its_parameter(change, param):
    with pytest.raises(Refused) as refused:
        chat_request(SAY | change)
    assert refused.value.param == param and refused.value.status == 400 and len(str(refused.value)) < 300
    assert json.loads(json.dumps(refused.value.body()))["error"]["param"] == param


def test_the_nearest_parameter_is_named():
    with pytest.raises(Refused, match="did you mean temperature"):
        chat_request(SAY | {"temprature": 1})


@pytest.mark.parametrize("body", [None, [], 3, "x", {}])
def test_what_is_no_request_is_refused(body):
    for of in (chat_request, completion_request, embedding_request):
        with pytest.raises(Refused):
            of(body)


@pytest.mark.parametrize("prompt", [[], "", [[]], [1, "a"], [-1], [[1], "a"], [True], {"a": 1}, 3, [2**40]], ids=str)
def test_prompts_are_texts_or_ids(prompt):
    if prompt in ("", [[1], "a"]):  # an empty text is the model's affair, and both kinds may be mixed
        assert completion_request({"prompt": prompt}).prompts
        return
    with pytest.raises(Refused) as refused:
        completion_request({"prompt": prompt})
    assert refused.value.param == "prompt"


def test_what_is_well_formed_is_understood():
    request = chat_request(
        SAY | {"max_completion_tokens": 5, "stop": "x", "logit_bias": {"3": -100}, "top_k": -1, "user": "me", "tools": [TOOL], "seed": -1}
    )
    assert request.most == 5 and request.stop == ("x",) and request.logit_bias == ((3, -100.0),) and request.top_k == 0
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat_request({"messages": [{"role": "developer", "content": parts}]}).messages == ({"role": "system", "content": "ab"},)
    assert completion_request({"prompt": [1, 2]}).prompts == ((1, 2),)
    assert completion_request({"prompt": "a", "logprobs": 0}).logprobs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*CHAT, *COMPLETION, "type", "role", "content"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*CHAT, *COMPLETION, "best_of", "x"]), json_values, max_size=6), st.booleans())
def test_garbage_is_refused_and_nothing_else_is_raised(body, with_prompt):
    for of, needed in ((chat_request, SAY), (completion_request, {"prompt": "a"}), (embedding_request, {"input": "a"})):
        with contextlib.suppress(Refused):
            of(needed | body if with_prompt else body)
