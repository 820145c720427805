"""A server under clients that leave, read slowly, flood it and send rubbish, and one that is killed or given other parameters meanwhile."""

import asyncio
import collections
import dataclasses
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.serve.conftest import ROOT, Server
from tests.train.conftest import corpora, tiny  # noqa: F401
from tests.train.tiny_runs import start, train

pytestmark = pytest.mark.slow
TEXTS = 24
"""Different requests, which come again and again."""


def body(number: int, stream: bool = True) -> dict:
    draw = random.Random(number)
    prompt = "".join(draw.choice("abcdefgh ") for _ in range(draw.choice((1, 7, 20, 45))))
    return {"prompt": prompt, "max_tokens": draw.choice((1, 8, 30)), "seed": number, "temperature": 0.9, "stream": stream}


async def ask(port: int, what: dict, leave_after: int = -1, pause: float = 0.0) -> tuple[int, str | None, list[str]]:
    """(status, text or None where it is not whole, ids of the answer). leave_after: events after which the connection is dropped."""
    raw = json.dumps(what).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n" % len(raw) + raw)
        status, text, ids, events = int((await reader.readline()).split()[1]), "", set(), 0
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                found = json.loads(line[6:])
                ids.add(found["id"])
                text += found["choices"][0]["text"]
                events += 1
                if events == leave_after:
                    return status, None, [*ids]
                await asyncio.sleep(pause)
            elif line.startswith(b"data: [DONE]"):
                return status, text, [*ids]
        return status, None, [*ids]
    finally:
        writer.close()


async def all_of(port: int, plans: list[tuple[dict, int, float]], at_once: int):
    """What becomes of each plan (request, events after which it leaves, pause between reads), so many of them at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(what, leave_after, pause):
        async with room:
            return await ask(port, what, leave_after, pause)

    return await asyncio.gather(*(one(*plan) for plan in plans))


def post(address: str, route: str, raw: bytes) -> tuple[int, dict]:
    """(status, answer)"""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address + route, raw, {"content-type": "application/json"}), timeout=60
        ) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def memory() -> float:
    """Resident MiB of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def settle(parts) -> None:
    until = time.monotonic() + 20
    while parts.engine.running or parts.engine.waiting:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_thousand_requests_of_which_many_are_given_up(listen):
    """Nothing is lost, nothing comes twice, nobody gets another's text, and memory is what it was."""
    draw = random.Random(0)
    with listen(engine_options={"most_jobs": 2000, "most_tokens": 10**6, "prefix_bytes": 1 << 20}) as (address, _, parts):
        port = int(address.rsplit(":", 1)[1])
        expected = [asyncio.run(ask(port, body(number)))[1] for number in range(TEXTS)]
        assert None not in expected
        plans = []
        for _ in range(1000):
            leaves = draw.choice((-1, -1, 1, 2, 3))
            plans.append((body(draw.randrange(TEXTS)), leaves, draw.choice((0.0, 0.0, 0.0, 0.05))))
        asyncio.run(all_of(port, plans[:200], 50))
        settle(parts)
        before = memory()
        found = asyncio.run(all_of(port, plans, 50))
        settle(parts)
        after = memory()
    whole = [(plan, answer) for plan, answer in zip(plans, found, strict=True) if plan[1] < 0]
    for (what, _, _), (status, text, ids) in whole:
        assert status == 200 and text == expected[what["seed"]] and len(ids) == 1
    every = collections.Counter(id_ for _, _, ids in found for id_ in ids)
    assert max(every.values()) == 1 and len(whole) > 300
    assert after < 1.05 * before, (before, after)


def test_two_hundred_streams_and_eight_hundred_who_wait(listen):
    """The first two hundred are long, so that all run at once; each repeats a letter of its own."""
    most = 0
    long = [{"prompt": "abc", "max_tokens": 110, "logit_bias": {str(65 + n % 26): 100}, "stream": True} for n in range(200)]

    async def watch(parts):
        nonlocal most
        while True:
            most = max(most, parts.engine.running)
            await asyncio.sleep(0.005)

    async def ask_all(port, parts):
        watching = asyncio.ensure_future(watch(parts))
        try:
            return await all_of(port, [(what, -1, 0.0) for what in (*long, *(body(n % TEXTS) for n in range(800)))], 1000)
        finally:
            watching.cancel()

    with listen(engine_options={"widths": (200,), "most_jobs": 1000, "most_tokens": 10**6}) as (address, _, parts):
        port = int(address.rsplit(":", 1)[1])
        expected = [asyncio.run(ask(port, body(number)))[1] for number in range(TEXTS)]
        found = asyncio.run(ask_all(port, parts))
        settle(parts)
    assert most == 200
    assert [status for status, _, _ in found] == [200] * 1000
    assert [text for _, text, _ in found] == [chr(65 + n % 26) * 110 for n in range(200)] + [expected[n % TEXTS] for n in range(800)]


SHORT = {"prompt": "abc", "max_tokens": 20}
"""What fits the context of a tiny run."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30), 2**63])
    | st.floats()
    | st.text(st.characters(codec=None, categories=None), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=16,
)
FIELDS = (
    "messages model max_tokens max_completion_tokens temperature top_p top_k min_p n stop seed logit_bias logprobs top_logprobs stream "
    "prompt stream_options response_format tools tool_choice echo best_of frequency_penalty presence_penalty input dimensions user "
    "allowed_token_ids stop_token_ids ignore_eos tokens encoding_format parallel_tool_calls modalities"
).split()
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize")


def test_five_thousand_bodies_of_rubbish_are_the_clients_fault(listen):
    """Never a status of 500 or more, and the server answers after."""
    statuses = collections.Counter()

    class Embedder:
        """Of which a body gets far enough to be looked at."""

        most, vocabulary = 20, 256

        def rows(self, texts, whole):
            return [np.array([*text.encode(errors="replace")] if isinstance(text, str) else text) for text in texts]

        def vectors(self, rows):
            return np.ones((len(rows), 3), np.float32)

    with listen(embedder=Embedder()) as (address, _, _parts):
        likely = st.fixed_dictionaries(
            {
                "messages": st.just([{"role": "user", "content": "a"}]) | JSON,
                "prompt": st.just("a") | JSON,
                "max_tokens": st.just(1) | JSON,
                "input": st.just("a") | JSON,
            }
        )
        bodies = st.one_of(JSON, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5), likely)

        @settings(max_examples=5000, deadline=None, database=None, suppress_health_check=[*HealthCheck])
        @given(st.sampled_from(ROUTES), bodies.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
        def rubbish(route, raw):
            status, answer = post(address, route, raw)
            statuses[status] += 1
            assert status < 500 and (status == 200 or answer["error"]["message"]), raw

        rubbish()
        assert post(address, "/v1/completions", json.dumps(body(0, stream=False)).encode())[0] == 200
    assert sum(statuses.values()) >= 5000 and statuses[400] > 1000


def test_huge_prompts_bombs_and_many_stop_strings_are_answered_quickly(listen):
    with listen() as (address, _, _parts):
        for least, raw in (
            (400, json.dumps({"prompt": "x" * 10_000_000, "max_tokens": 1}).encode()),
            (400, json.dumps({"prompt": "x", "stop": ["y"] * 100_000}).encode()),
            (400, json.dumps({"prompt": [1] * 1_000_000, "max_tokens": 1}).encode()),
            (200, json.dumps({"prompt": "x", "n": 64, "response_format": {"type": "regex", "regex": "(a{1000}){1000}"}}).encode()),
            (400, json.dumps({"prompt": "x", "max_tokens": 10**400}).encode()),
            (400, b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ):
            began = time.monotonic()
            status, _ = post(address, "/v1/completions", raw)
            assert status == least and time.monotonic() - began < 10
        assert post(address, "/v1/completions", json.dumps(body(1, stream=False)).encode())[0] == 200


def test_parameters_are_swapped_twenty_times_under_load(listen, model):
    """No request is dropped, and once the swaps are over texts are as before."""
    import jax

    other = jax.tree.map(lambda x: x * 1.25, model[1])
    with listen(engine_options={"most_jobs": 2000, "most_tokens": 10**6}) as (address, _, parts):
        port = int(address.rsplit(":", 1)[1])
        expected = [asyncio.run(ask(port, body(number)))[1] for number in range(TEXTS)]
        found: list = []
        load = threading.Thread(
            target=lambda: found.extend(asyncio.run(all_of(port, [(body(n % TEXTS), -1, 0.0) for n in range(400)], 32)))
        )
        load.start()
        for number in range(20):
            parts.engine.swap(model[1] if number % 2 else other)
            time.sleep(0.1)
        load.join(120)
        assert [status for status, text, _ in found if text is not None] == [200] * 400
        assert [asyncio.run(ask(port, body(number)))[1] for number in range(TEXTS)] == expected


def test_nothing_is_compiled_in_five_hundred_random_requests(trained):
    """By the server's own count, whatever is asked for."""
    draw, server = random.Random(2), Server(trained, "--guesses", "2")
    port = int(server.address.rsplit(":", 1)[1])
    choices = {
        "temperature": (0, 0.3, 1.7),
        "top_p": (0.1, 0.9),
        "top_k": (1, 40),
        "min_p": (0.1,),
        "typical_p": (0.5,),
        "repetition_penalty": (1.3,),
        "frequency_penalty": (-1, 1.5),
        "presence_penalty": (0.7,),
        "logit_bias": ({"65": 5}, {str(n): -3 for n in range(90)}),
        "stop": ("a", ["bc", "d"]),
        "n": (2, 5),
        "logprobs": (0, 3),
        "echo": (True,),
        "response_format": ({"type": "regex", "regex": "[a-z]{3,9}"}, {"type": "json_object"}),
    }
    plans = []
    for _ in range(500):
        chosen = {name: draw.choice(values) for name, values in choices.items() if draw.random() < 0.25}
        if "response_format" in chosen:
            chosen.pop("echo", None)
        prompt = "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(1, 20)))
        plans.append(({"prompt": prompt, "max_tokens": draw.randint(1, 10), "stream": draw.random() < 0.5} | chosen, -1, 0.0))
    try:
        found = asyncio.run(all_of(port, plans, 12))
        assert [status for status, _, _ in found] == [200] * 500
        lines = server.ask("/metrics").read().decode().splitlines()
        values = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
        assert values["omnia_compilations_total"] == 0 and values["omnia_generation_tokens_total"] > 2000
    finally:
        server.process.kill()
        server.process.wait()


def test_twenty_checkpoints_are_taken_under_load(corpora, tmp_path):  # noqa: F811
    """As a training run writes them, one after another; no request is dropped."""
    whole = start(tmp_path / "run", dataclasses.replace(tiny.__wrapped__(corpora), steps=1))
    train(whole)
    server = Server(str(whole.path), "--watch")
    port, ends, going = int(server.address.rsplit(":", 1)[1]), collections.Counter(), True

    async def load():
        async def one(number: int):
            while going:
                status, text, _ = await ask(port, body(number) | SHORT)
                ends[status if text is not None else "cut"] += 1

        await asyncio.gather(*(one(number) for number in range(6)))

    asking = threading.Thread(target=lambda: asyncio.run(load()))
    asking.start()
    try:
        for step in range(2, 22):
            train(dataclasses.replace(whole, experiment=dataclasses.replace(whole.experiment, steps=step)))
            server.until(f"now step {step}\n", 60)
    finally:
        going = False
        asking.join(60)
        server.process.kill()
        server.process.wait()
    assert ends.keys() == {200} and ends[200] > 100, ends


@pytest.fixture(scope="module")
def trained(corpora, tmp_path_factory):  # noqa: F811
    whole = start(tmp_path_factory.mktemp("served") / "run", dataclasses.replace(tiny.__wrapped__(corpora), steps=2))
    train(whole)
    return str(whole.path)


def test_a_server_that_is_killed_comes_back_and_says_the_same(trained):
    """SIGKILL amid streams, five times: clients see the end of their connection, ask again, and get the same texts."""
    draw, texts = random.Random(1), {}
    for _ in range(5):
        server = Server(trained)
        port = int(server.address.rsplit(":", 1)[1])
        try:
            before = time.monotonic()
            found = [asyncio.run(ask(port, body(number) | SHORT))[1] for number in range(4)]
            assert time.monotonic() - before < 30 and None not in found
            assert texts.setdefault("all", found) == found
            killer = threading.Timer(0.2 + 0.3 * draw.random(), os.kill, (server.process.pid, signal.SIGKILL))
            killer.start()
            ends = asyncio.run(until_killed(port))
            assert ends["cut"] and not ends["wrong"]
        finally:
            server.process.kill()
            server.process.wait()


def test_a_thousand_requests_over_a_server_that_is_killed_again_and_again(trained):
    """Under a supervisor that starts it anew, with clients that leave, read slowly, and ask again where they were cut off: every text that
    somebody waits for comes, whole, right and once, and no two answers have one id."""
    draw, port, kills = random.Random(4), _free_port(), 5
    reference = Server(trained)
    expected = [asyncio.run(ask(int(reference.address.rsplit(":", 1)[1]), body(number) | SHORT))[1] for number in range(TEXTS)]
    reference.kill()
    assert len(set(expected)) > TEXTS // 2
    answered: list[tuple[int, str, str]] = []
    room, counts = asyncio.Semaphore(16), collections.Counter()

    async def one(number: int, leaves: int, pause: float) -> None:
        async with room:
            while True:
                try:
                    status, text, ids = await ask(port, body(number) | SHORT, leaves, pause)
                except (ConnectionError, IndexError):  # nobody listens, or the connection ended before its first line
                    counts["again"] += 1
                    await asyncio.sleep(0.2)
                    continue
                assert status in (200, 503), status  # 503 while it loads
                if status == 200 and text is None and leaves < 0:
                    counts["cut"] += 1
                elif status == 200:
                    if leaves < 0:
                        answered.append((number, text, *ids))
                    return
                await asyncio.sleep(0.2)

    async def kill(server: Server) -> Server:
        for _ in range(kills):
            await asyncio.sleep(1 + draw.random())
            server.kill()
            server = await asyncio.to_thread(Server, trained, port=port)
        return server

    async def all_of_them() -> Server:
        plans = [(draw.randrange(TEXTS), draw.choice((-1, -1, -1, 1, 3)), draw.choice((0.0, 0.0, 0.05))) for _ in range(1000)]
        counts["whole"] = sum(leaves < 0 for _, leaves, _ in plans)
        killing = asyncio.create_task(kill(await asyncio.to_thread(Server, trained, port=port)))
        await asyncio.gather(*(one(*plan) for plan in plans))
        return await killing

    asyncio.run(all_of_them()).kill()
    assert len(answered) == counts["whole"] > 400 and counts["cut"] and counts["again"]
    assert all(text == expected[number] for number, text, _ in answered)
    assert len({id_ for *_, id_ in answered}) == len(answered)


async def until_killed(port: int) -> collections.Counter:
    """How streams ended that were asked for until nobody listens: whole, cut off, or with a status that is wrong."""
    ends: collections.Counter = collections.Counter()

    async def one(number: int):
        while True:
            try:
                status, text, _ = await ask(port, body(number % TEXTS) | SHORT, pause=0.01)
            except (ConnectionError, IndexError):
                ends["cut"] += 1
                return
            ends["wrong" if status != 200 else "whole" if text is not None else "cut"] += 1

    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(8))), 60)
    return ends


def test_two_hosts_answer_as_one(trained):
    """Each with a device of its own, which the parameters are split over; SIGTERM to both ends both."""
    alone = Server(trained)
    try:
        texts = [alone.complete(), alone.complete(temperature=1, seed=3, prompt="hello"), alone.complete(logprobs=2)]
    finally:
        alone.process.kill()
        alone.process.wait()
    hosts = {"OMNIA_PROCESSES": "2", "OMNIA_COORDINATOR": f"127.0.0.1:{_free_port()}"}
    command = [sys.executable, str(ROOT / "omnia.py"), "serve", trained, "--slots", "2", "--chunk", "8"]
    environment = os.environ | hosts | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "OMNIA_PROCESS": "1"}
    other = subprocess.Popen(command, env=environment)
    try:
        first = Server(trained, environment=hosts | {"OMNIA_PROCESS": "0"})
        for _ in range(2):  # with prefixes that were read before, too
            assert [first.complete(), first.complete(temperature=1, seed=3, prompt="hello"), first.complete(logprobs=2)] == texts
        for process in (other, first.process):
            process.send_signal(signal.SIGTERM)
        assert first.process.wait(60) == 0 and other.wait(60) == 0
    finally:
        for process in (other, first.process):
            process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
