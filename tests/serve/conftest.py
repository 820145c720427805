"""A small model with a chat template, served: by an engine alone, and by a server on a port of this machine."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.tokenizer import byte_tokenizer
from model.config import ModelConfig
from model.stack import unstack_layers
from model.transformer import Decoder, abstract_parameters
from serve.engine import Engine
from serve.jobs import Job
from serve.observe import Observed
from serve.prefix import PrefixStore
from serve.programs import Programs
from serve.scheduler import Scheduler
from serve.served import Served
from train.devices.mesh import MeshShape, make_mesh, parameter_shardings
from train.generation.chat import Chat
from train.generation.text import TextGenerator

ROOT = Path(__file__).parents[2]
CHUNK, CONTEXT = 16, 128
TOKENIZER = byte_tokenizer()
END = TOKENIZER.specials["document_end"]
TURNS = "{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] }}\n{% endfor %}"
TEMPLATE = TURNS + "{% for tool in tools or [] %}{{ tool.function.name }},{% endfor %}<|assistant|>"
CHAT = Chat(TEMPLATE, defaults={"temperature": 0.7})


@pytest.fixture(scope="session")
def spread():
    """spread(mesh) -> (model, parameters on it), with weights large enough that what is drawn differs from place to place."""
    config = ModelConfig(vocab_size=-(-TOKENIZER.size // 64) * 64, context_length=CONTEXT, num_layers=2, embed_dim=32, num_heads=2)
    rng = np.random.default_rng(1)
    boxed = abstract_parameters(config)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), nn.unbox(boxed))
    return lambda mesh: (Decoder(config), unstack_layers(jax.device_put(params, parameter_shardings(mesh, boxed))))


@pytest.fixture(scope="session")
def model(spread):
    """On a mesh, as those of a run are: what is made of them lies in another way than fresh arrays do."""
    return spread(make_mesh(MeshShape(), jax.devices()[:1]))


@pytest.fixture(scope="session")
def generator(model):
    return TextGenerator(*model, TOKENIZER, END, CHAT)


@dataclasses.dataclass
class Parts:
    programs: Programs
    scheduler: Scheduler
    prefixes: PrefixStore
    observed: Observed
    engine: Engine


@pytest.fixture(scope="session")
def make_engine(model):
    """make(widths=..., ...) -> Parts with a running engine; programs of the same widths are compiled once, exact ones for one width."""
    compiled: dict[tuple[int, ...], Programs] = {}

    @contextlib.contextmanager
    def make(widths=(4,), most_jobs=64, most_tokens=100_000, prefix_bytes=1 << 24, wake=None, observed=None, programs=None):
        if programs is None and widths not in compiled:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("serve.programs.LEAST_PLACES", 32)
                compiled[widths] = Programs(*model, widths=widths, size=CONTEXT, chunk=CHUNK, rows=2, exact=len(widths) == 1)
        if (
            programs is None and not next(iter(compiled[widths]._go_on.values()))._cache_size()
        ):  # nor where JAX has forgotten what it compiled
            compiled[widths].compile()
        if programs is None:
            programs = compiled[widths]
            programs.params = model[1]
        observed = observed or Observed()
        scheduler, prefixes = Scheduler(most_jobs=most_jobs, most_tokens=most_tokens), PrefixStore(chunk=CHUNK, most_bytes=prefix_bytes)
        engine = Engine(programs, scheduler, prefixes, observed, wake or set_signals)
        engine.start()
        try:
            yield Parts(programs, scheduler, prefixes, observed, engine)
        finally:
            engine.stop(0.5)
            assert not engine.alive

    return make


def set_signals(jobs: list[Job]) -> None:
    for job in jobs:
        if job.signal is not None:
            job.signal.set()


def result(job: Job, seconds: float = 60.0):
    """(ids, log_probs, why it ended) of a job, waited for; its signal must be a threading.Event."""
    ids, log_probs, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        job.signal.wait(0.5)
        job.signal.clear()
        while job.pieces:
            piece = job.pieces.popleft()
            ids += piece.ids
            log_probs += piece.log_probs
            if piece.finish:
                return ids, log_probs, piece.finish
    raise AssertionError("the job did not end")


def run(engine, some: list[Job], pause: float = 0.0):
    for job in some:
        job.signal = threading.Event()
        engine.submit(job)
        time.sleep(pause)
    return [result(job) for job in some]


def one_by_one(engine, some: list[Job]):
    return [run(engine, [job])[0] for job in some]


@pytest.fixture(scope="session")
def served(generator):
    return Served("tiny", generator, TOKENIZER, CHAT, size=CONTEXT)


@pytest.fixture(scope="session")
def listen(make_engine, served):
    """listen(**options of Application) -> (address, application, parts), on a port of its own until the block's end."""
    import uvicorn

    from serve.connections import Connection
    from serve.http import Application

    @contextlib.contextmanager
    def start(engine_options=None, embedder=None, adapters=(), served=served, working=None, **options):
        observed = Observed()
        application = Application(observed, name="tiny", **options)
        with make_engine(wake=application.woken, observed=observed, **(engine_options or {})) as parts:
            if served is not None:
                served.adapters = adapters
            application.serve(served, parts.engine, embedder, working)
            options = {"host": "127.0.0.1", "port": 0, "log_level": "warning", "access_log": False, "http": Connection}
            server = uvicorn.Server(uvicorn.Config(application, **options))
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            try:
                yield f"http://127.0.0.1:{port}", application, parts
            finally:
                server.should_exit = True
                thread.join(10)
                assert not thread.is_alive()

    return start


@pytest.fixture(scope="session")
def address(listen):
    """A server that anybody on this machine may ask."""
    with listen() as (found, _, _):
        yield found


class Server:
    """`omnia serve` as a process of its own."""

    def __init__(self, run: str, *options: str, port: int = 0, environment: dict[str, str] | None = None):
        command = [sys.executable, str(ROOT / "omnia.py"), "serve", run, "--port", str(port), "--slots", "2", "--chunk", "8", *options]
        own = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""} | (environment or {})
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.address = re.search(r"https?://\S+(?=,)", self.until("ready after"))[0]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def until(self, words: str, seconds: float = 120) -> str:
        """The line that has these words."""
        end = time.monotonic() + seconds
        while not (found := [line for line in self.lines if words in line]):
            assert time.monotonic() < end and self.process.poll() is None, "".join(self.lines)
            time.sleep(0.05)
        return found[-1]

    def ask(self, path: str, body: dict | None = None):
        raw = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(urllib.request.Request(self.address + path, raw, {"content-type": "application/json"}), timeout=60)

    def complete(self, **options) -> str:
        return json.load(self.ask("/v1/completions", {"prompt": "ab", "max_tokens": 12, "temperature": 0} | options))["choices"][0]["text"]
