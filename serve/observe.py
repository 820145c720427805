"""What is measured of the server, in Prometheus' format and under vLLM's names, and the log of who asked how much: never what."""

import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from data.files.chain import ChainLog
from serve.jobs import Job

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)
SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class Observed:
    """Counters and times. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"omnia_{name}", what, registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"omnia_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"omnia_{name}", what, buckets=buckets, registry=registry)

        self._used = gauge("kv_cache_usage_perc", "Share of the slots' places that texts may have filled, from 0 to 1.")
        self._running = gauge("num_requests_running", "Texts that are read or continued.")
        self._waiting = gauge("num_requests_waiting", "Texts that wait for a slot.")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._asked = counter("prefix_cache_queries", "Tokens of prompts, of which the prefix store may have some.")
        self._cached = counter("prefix_cache_hits", "Tokens of prompts that the prefix store had.")
        self._generated = counter("generation_tokens", "Tokens drawn.")
        self._finished = counter("request_success", "Texts ended, by the reason.", "finished_reason")
        self._rejected = counter("admission_rejections", "Requests refused because the queue was full.")
        self._compiled = counter("compilations", "Programs compiled since the server was ready: there should be none.")
        self._first = histogram("time_to_first_token_seconds", "From the queue to the first token.", LONG)
        self._whole = histogram("e2e_request_latency_seconds", "From the queue to the last token.", LONG)
        self._queued = histogram("request_queue_time_seconds", "In the queue.", SHORT)
        self._prefill = histogram("request_prefill_time_seconds", "From a slot to the first token.", LONG)
        self._decode = histogram("request_decode_time_seconds", "From the first token to the last.", LONG)
        self._inference = histogram("request_inference_time_seconds", "From a slot to the last token.", LONG)
        self._between = histogram("inter_token_latency_seconds", "Between two tokens of a text, on average.", SHORT)
        self._tokens = histogram("iteration_tokens_total", "Tokens drawn by a call of the engine.", SIZES)
        self._call = histogram("call_seconds", "From the start of a call of the engine to its tokens.", SHORT)
        self._prompts = histogram("request_prompt_tokens", "Tokens of a prompt.", SIZES)
        self._texts = histogram("request_generation_tokens", "Tokens drawn for a text.", SIZES)

    def gauge(self, *, running: int, waiting: int, used: float) -> None:
        self._used.set(used)
        self._running.set(running)
        self._waiting.set(waiting)

    def read(self, tokens: int, cached: int) -> None:
        self._prompt.inc(tokens)
        self._asked.inc(tokens)
        self._cached.inc(cached)
        self._prompts.observe(tokens)

    def call(self, tokens: int, seconds: float) -> None:
        self._generated.inc(tokens)
        self._call.observe(seconds)
        self._tokens.observe(tokens)

    def ended(self, job: Job, finish: str) -> None:
        self._finished.labels(finish).inc()
        times = job.times
        if "begun" in times:
            self._queued.observe(times["begun"] - times["queued"])
        if job.drawn:
            self._first.observe(times["first"] - times["queued"])
            self._whole.observe(times["ended"] - times["queued"])
            self._prefill.observe(times["first"] - times["begun"])
            self._decode.observe(times["ended"] - times["first"])
            self._inference.observe(times["ended"] - times["begun"])
            self._texts.observe(job.drawn)
            if job.drawn > 1:
                self._between.observe((times["ended"] - times["first"]) / (job.drawn - 1))

    def rejected(self) -> None:
        self._rejected.inc()

    def compiled(self) -> None:
        self._compiled.inc()

    @property
    def compilations(self) -> int:
        return int(self._compiled._value.get())

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class AuditLog:
    """A line of JSON for each request, in a file that is only added to: time, request, key's name, route, status, tokens, seed, seconds. It
    never holds a text, a key or an address. Lines are chained: `omnia audit verify` finds any change."""

    def __init__(self, path: Path | None):
        self._log = None if path is None else ChainLog(str(path))

    def write(self, **fields: Any) -> None:
        if self._log is not None:
            self._log.add({"time": round(time.time(), 3)} | fields)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
