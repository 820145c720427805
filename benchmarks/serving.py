"""The server against `omnia generate`: tokens a second, first tokens, prefix hits, the cost of filters, the host's and HTTP's own work.

python benchmarks/serving.py [--size tiny|gpt2] [--requests 16] [--tokens 48]

A model of random weights, byte tokens; requests over HTTP on this machine, from another process. Ratios are of one interleaved run.
"""

import argparse
import functools
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

SIZES = {
    "tiny": {"vocab_size": 4096, "num_layers": 4, "embed_dim": 128, "num_heads": 4},
    "gpt2": {"vocab_size": 50304, "num_layers": 12, "embed_dim": 768, "num_heads": 12},
}
CONTEXT, PROMPT, ROUNDS, TIMED = 512, 128, 3, 21
LONG = CONTEXT - 16
"""Of a prompt of which nine tenths are known, and of one that arrives while others are answered."""


# ------------------------------------------------------------------------------------------------ the client's process


def post(port: int, body: dict) -> tuple[list[float], int]:
    """(seconds from the request to each event of a stream, tokens drawn)."""
    raw, began = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode(), time.perf_counter()
    lines = (b"POST /v1/completions HTTP/1.1", b"host: localhost", b"content-type: application/json", b"connection: close")
    head = b"\r\n".join((*lines, b"content-length: %d\r\n\r\n"))
    times, tokens, rest = [], 0, b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head % len(raw) + raw)
        while piece := connection.recv(65536):
            now, rest = time.perf_counter() - began, rest + piece
            while b"\n\n" in rest:
                event, rest = rest.split(b"\n\n", 1)
                if b"data: {" in event:
                    times.append(now)
                    found = json.loads(event[event.index(b"data: ") + 6 :])
                    tokens = (found.get("usage") or {}).get("completion_tokens", tokens)
    return times, tokens


def client(port: int) -> None:
    """Sends the bodies of each line at once, and writes a line with (seconds of all, [(times, tokens) of each])."""
    for line in sys.stdin:
        bodies = json.loads(line)
        began = time.perf_counter()
        with ThreadPoolExecutor(len(bodies)) as pool:
            found = list(pool.map(functools.partial(post, port), bodies))
        print(json.dumps((time.perf_counter() - began, found)), flush=True)


# ------------------------------------------------------------------------------------------------ the server's


class Feeder:
    """An engine that draws nothing: its jobs are given pieces of three tokens, so that what is left is the cost of HTTP."""

    alive, advanced, failed = True, float("inf"), ""

    def __init__(self):
        self.jobs = []

    def submit(self, *jobs) -> None:
        self.jobs += jobs

    def cancel(self, job, why: str = "") -> None: ...

    def stop(self, seconds: float) -> None: ...


def microseconds_of_a_chunk(application, at_once, bodies: list[dict], chunks: int = 60) -> float:
    """Processor time that the event loop's thread takes for a chunk of a stream."""
    from serve.jobs import Piece

    feeder, seconds = Feeder(), []
    engine, application._engine = application._engine, feeder

    def on_loop(what):
        found, done = [], threading.Event()
        application._loop.call_soon_threadsafe(lambda: (found.append(what()), done.set()))
        done.wait()
        return found[0]

    def feed(last: bool) -> None:
        for job in feeder.jobs:
            job.pieces.append(Piece([97] * 3, [-1.0] * 3, finish="length" if last else ""))
        application.woken(feeder.jobs)
        while any(job.pieces for job in feeder.jobs):
            time.sleep(0.0005)

    asking = threading.Thread(target=at_once, args=(bodies,))
    asking.start()
    while len(feeder.jobs) < len(bodies):
        time.sleep(0.01)
    feed(False)
    for _ in range(chunks):
        before = on_loop(time.thread_time)
        feed(False)
        seconds.append((on_loop(time.thread_time) - before) / len(bodies))
    feed(True)
    asking.join()
    application._engine = engine
    return 1e6 * statistics.median(seconds)


def reading_ms(programs: Any, tokens: int, start: int = 0) -> float:
    """Milliseconds of a prompt, or of the end of one, by the programs alone; a median."""
    from serve.programs import Part

    rows, found = programs.empty_rows(), []
    for _ in range(TIMED):
        began = time.perf_counter()
        for place in range(start, start + tokens, programs.chunk):
            rows, logits = programs.read(rows, {0: Part([7] * min(programs.chunk, start + tokens - place), place)})
        logits.block_until_ready()
        found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found)


def step_of(programs: Any, width: int) -> float:
    """Milliseconds of a call that draws one token in each slot of a bank, by the programs alone; a median."""
    from model.decoding.sampling import Sampling
    from serve.jobs import Job
    from serve.programs import NO_ADAPTER, Newcomer, Part

    rows, logits = programs.read(programs.empty_rows(), {0: Part([7], 0)})
    bank, found = programs.bank(width, programs.places[-1]), []
    for place in range(width):
        bank = programs.insert(bank, rows, logits, [Newcomer(place, 0, Job([7], Sampling(temperature=0.8), 0, CONTEXT - 1))])
    for _ in range(TIMED):
        began = time.perf_counter()
        bank, drawn = programs.go_on(bank, np.ones(width, bool), 1, 0, np.full(width, NO_ADAPTER, np.int32))
        drawn.count_B.block_until_ready()
        found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES], default="tiny")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--client", type=int, default=0, help="the process that asks: the server's port")
    o = parser.parse_args()
    if o.client:
        return client(o.client)

    import jax
    import uvicorn
    from flax import linen as nn

    from data.tokenizer import byte_tokenizer
    from model.config import ModelConfig
    from model.decoding.sampling import Sampling
    from model.transformer import Decoder
    from serve.engine import Engine
    from serve.http import Application
    from serve.jobs import Job
    from serve.observe import Observed
    from serve.prefix import PrefixStore
    from serve.programs import programs_for
    from serve.scheduler import Scheduler
    from serve.served import Served
    from train.generation.chat import Chat
    from train.generation.text import TextGenerator

    model, tokenizer = Decoder(ModelConfig(context_length=CONTEXT, **SIZES[o.size])), byte_tokenizer()
    params = nn.unbox(model.start(jax.random.key(0)))
    generator = TextGenerator(model, params, tokenizer, tokenizer.specials["document_end"])
    observed = Observed()
    began = time.perf_counter()
    programs = programs_for(model, generator.params, slots=o.requests, context=CONTEXT)
    programs.compile()
    print(f"compiled in {time.perf_counter() - began:.0f} s")
    application = Application(observed, name="bench")
    store = PrefixStore(chunk=programs.chunk, most_bytes=1 << 30)
    engine = Engine(programs, Scheduler(most_jobs=1000, most_tokens=10**7), store, observed, application.woken)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: observed.compiled() if event.endswith("backend_compile_duration") else None
    )
    engine.start()
    application.serve(Served("bench", generator, tokenizer, Chat(), size=CONTEXT), engine)
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning", access_log=False))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    asking = subprocess.Popen(
        [sys.executable, __file__, "--client", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert asking.stdin is not None and asking.stdout is not None
    draw = np.random.default_rng(0)

    def at_once(bodies: list[dict]) -> tuple[float, list[tuple[list[float], int]]]:
        asking.stdin.write(json.dumps(bodies) + "\n")
        return json.loads(asking.stdout.readline())

    def prompts(count: int, length: int = PROMPT) -> list[list[int]]:
        return [draw.integers(1, 256, length).tolist() for _ in range(count)]

    def bodies(count: int, length: int = PROMPT, **more) -> list[dict]:
        # The end is never drawn, so that all texts are equally long.
        return [{"prompt": prompt, "max_tokens": o.tokens, "logit_bias": {"256": -100}} | more for prompt in prompts(count, length)]

    def offline() -> float:
        some, began = prompts(o.requests), time.perf_counter()
        found = generator.generate(some, tokens=o.tokens, sampling=Sampling(bias=((256, -100.0),)), seed=0)
        seconds = time.perf_counter() - began
        assert all(len(one.ids) == o.tokens for one in found)
        return o.requests * o.tokens / seconds

    def without_http() -> float:
        bare = Engine(programs, Scheduler(most_jobs=1000, most_tokens=10**7), PrefixStore(chunk=programs.chunk, most_bytes=0), Observed())
        jobs = [Job(prompt, Sampling(bias=((256, -100.0),)), 0, o.tokens, choice=i) for i, prompt in enumerate(prompts(o.requests))]
        bare.submit(*jobs)
        began = time.monotonic()
        bare.start()
        bare.stop(600)  # once all have ended
        assert all(job.drawn == o.tokens for job in jobs)
        return o.requests * o.tokens / (max(job.times["ended"] for job in jobs) - began)

    def online(**more) -> float:
        seconds, found = at_once(bodies(o.requests, **more))
        assert all(tokens == o.tokens for _, tokens in found)
        return o.requests * o.tokens / seconds

    offline(), without_http(), online(), online(top_p=0.9)  # warm
    ready = observed.compilations
    rates: dict[str, list[float]] = {"generate": [], "without HTTP": [], "served": [], "served, top_p 0.9": []}
    for _ in range(ROUNDS if o.size == "gpt2" else 3 * ROUNDS):
        rates["generate"].append(offline())
        rates["without HTTP"].append(without_http())
        rates["served"].append(online())
        rates["served, top_p 0.9"].append(online(top_p=0.9))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):,.0f} tokens/s, {o.requests} at once, {PROMPT} + {o.tokens} tokens")
    for name in ("without HTTP", "served"):
        print(f"{name} / generate {statistics.median(np.divide(rates[name], rates['generate'])):.2f}")
    print(f"with top_p / without {statistics.median(np.divide(rates['served, top_p 0.9'], rates['served'])):.2f}", flush=True)

    alone, first, misses, hits, gaps = [], [], [], [], []
    for _ in range(5):
        times = at_once(bodies(1))[1][0][0]
        first.append(times[0])
        alone.append((o.tokens - 8) / (times[-2] - times[0]))
        (long,) = bodies(1, LONG - LONG // 10, max_tokens=8)
        misses.append(at_once([long])[1][0][0][0])
        hits.append(at_once([long | {"prompt": long["prompt"] + prompts(1, LONG // 10)[0]}])[1][0][0][0])
        (other,) = bodies(1, CONTEXT - 8, max_tokens=4)
        found = at_once([*bodies(2), other])[1]
        gaps.append(max(np.diff(times).max() for times, _ in found[:2]))
    first_ms, miss_ms, hit_ms, gap_ms = (1000 * statistics.median(found) for found in (first, misses, hits, gaps))
    prefill_ms, step_ms = reading_ms(programs, PROMPT), step_of(programs, 1)
    print(
        f"one request: {statistics.median(alone):,.0f} tokens/s; first tokens after {first_ms:.1f} ms; reading its prompt and one step "
        f"take {prefill_ms:.1f} and {step_ms:.1f}"
    )
    print(
        f"a prompt of about {LONG}: first tokens after {miss_ms:.0f} ms; {hit_ms:.0f} where nine tenths are known ({hit_ms / miss_ms:.2f})"
    )
    chunk_ms, step_ms = reading_ms(programs, programs.chunk, CONTEXT - programs.chunk), step_of(programs, 4)
    print(
        f"longest gap of a stream while a prompt of {CONTEXT - 8} arrives: {gap_ms:.1f} ms; its last chunk and a call take {chunk_ms:.1f} "
        f"and {step_ms:.1f}"
    )
    print(
        f"processor time of a chunk: {microseconds_of_a_chunk(application, at_once, bodies(o.requests, max_tokens=300)):.0f} microseconds"
    )
    print(f"compiled since it was ready: {observed.compilations - ready}")
    asking.stdin.close()
    server.should_exit = True
    engine.stop(1.0)


if __name__ == "__main__":
    main()
