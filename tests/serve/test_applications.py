"""A run at work behind the API: rows, conversations, and what is refused."""

import json
import urllib.error
import urllib.request

import pytest

from serve.applications import MOST_TURNS, Working
from train.kinds import Application


class Counting(Application):
    """Says how many turns it was told, and how many rows it remembers."""

    def __init__(self):
        self.count = 0

    def answers(self, rows):
        lines = []
        for row in rows:
            self.count += 1
            lines.append({"text": row["text"], "count": self.count} if "text" in row else {"error": f"{row.where}: no text"})
        return lines

    def state(self):
        return self.count

    def restore(self, state):
        self.count = state

    def reply(self, turns):
        if turns[-1] == "":
            return {"error": "nothing is asked"}
        return {"answer": f"{len(turns)} <b>turns</b>", "confidence": 0.5, "citations": [{"id": 1, "link": "javascript:x", "quote": "q"}]}


@pytest.fixture(scope="module")
def address(listen):
    with listen(served=None, working=Working(Counting(), "tiny")) as (found, _, _):
        yield found


def post(address: str, route: str, body) -> tuple[int, str]:
    request = urllib.request.Request(address + route, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def chat(address: str, *turns: str, **more) -> tuple[int, dict]:
    messages = [{"role": "user", "content": turn} for turn in turns]
    status, text = post(address, "/v1/chat/completions", {"messages": messages} | more)
    return status, json.loads(text)


def test_rows_are_answered_in_order_and_nothing_of_them_is_remembered(address):
    for _ in range(2):
        status, text = post(address, "/v1/apply", {"rows": [{"text": "a"}, {}, {"text": "b"}]})
        assert status == 200
        assert json.loads(text)["data"] == [{"text": "a", "count": 1}, {"error": "row 2: no text"}, {"text": "b", "count": 3}]


def test_a_conversation_is_answered_with_what_the_answer_rests_on(address):
    status, found = chat(address, "one", "two")
    assert status == 200 and found["choices"][0]["message"] == {"role": "assistant", "content": "2 <b>turns</b>"}
    assert found["choices"][0]["finish_reason"] == "stop" and found["omnia"]["confidence"] == 0.5


def test_a_stream_joins_to_the_whole(address):
    body = {"messages": [{"role": "user", "content": "one"}], "stream": True, "stream_options": {"include_usage": True}}
    status, text = post(address, "/v1/chat/completions", body)
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert status == 200 and events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == "1 <b>turns</b>"
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, "stop"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 0 and len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}, "tools"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * (MOST_TURNS + 1)}, "messages"),
    ],
)
def test_what_an_application_cannot_do_is_refused_by_name(address, more, param):
    status, found = chat(address, "one", **more)
    assert status == 400 and found["error"]["param"] == param


@pytest.mark.parametrize("body", [{}, {"rows": []}, {"rows": [1]}, {"rows": {}}, {"rows": [{}] * 257}, {"rows": [{}], "more": 1}, []])
def test_bodies_that_are_no_rows_are_refused(address, body):
    assert post(address, "/v1/apply", body)[0] == 400


def test_other_routes_and_other_runs_say_where_to_go(address, listen):
    status, text = post(address, "/v1/completions", {"prompt": "x"})
    assert status == 400 and "/v1/apply" in text
    with listen() as (other, _, _):
        status, text = post(other, "/v1/apply", {"rows": [{"text": "a"}]})
        assert status == 400 and "no rows" in text


def test_a_run_that_talks_with_nobody_says_so(listen):
    class Silent(Counting):
        def reply(self, turns):
            return None

    with listen(served=None, working=Working(Silent(), "tiny")) as (address, _, _):
        status, found = chat(address, "one")
        assert status == 400 and "/v1/apply" in found["error"]["message"]
