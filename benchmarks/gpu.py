"""Races for one GPU. Every attempt is a process of its own, which finds the card empty and nothing compiled.

python benchmarks/gpu.py [NAME ...] [--json] [--shards DIR] [--seconds 150]
python benchmarks/gpu.py --device cpu --tiny    # the same code on tiny shapes, to see that it works; its figures mean nothing

gpt2_124m        training steps of configs/gpt2_124m.py: packed rows, which is what counts, and rows under the causal mask alone
gpt2_1558m       of configs/gpt2_1558m.py, packed, four micro-batches a step, by what the backward pass recomputes
attention        each kernel of model/attention/dispatch.py that the device runs, and how far it is from the reference in float32
shakespeare_gpu  configs/shakespeare.py:nanogpt_gpu by the command line until validation is nanoGPT's 1.4697: seconds since the process
                 started, compiling included, evaluations left out. DIR: `omnia prepare text --tokenizer char --validation 0.1`
torch_compile    ours under the causal mask against the nanoGPT checkout in $NANOGPT under torch.compile, by $PEER, a Python with torch for
                 CUDA (.venv-peers/bin/python unless set)

Steps are on random tokens in bfloat16, and every step's loss is read, one step late, as the training loop does. Figures are medians of
rounds; MFU counts what the causal mask leaves (train/planning/flops.py). Sizes of micro-batch are tried while --seconds last; the best
counts. Each attempt is said on stderr. Each race gives one line on stdout as it ends; with --json an object of name, ours, peer, ratio
(above 1 when ours is better; null without a peer), unit, device, goal, attempts, and error or missing where there is no figure. Exit code
0: every race has its figure; 2: no GPU, or something to be given is missing; 1: a race failed.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data.text.rows import TextBatch
from model.attention.dispatch import KERNELS, Mask, Problem, attend, choose_kernel, reference
from model.flops import training_flops_per_token
from model.transformer import Decoder
from train.devices.mesh import make_mesh, put_batch
from train.experiment import MeshShape
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind, update_of
from train.optimizers.build import make_optimizer
from train.planning.flops import peak_flops
from train.step.state import initial_state
from train.step.update import jit_update
from train.verbs.config_files import load_config

ROOT = Path(__file__).resolve().parent.parent
TARGET = 1.4697  # what nanoGPT's README states for this setting
GOALS = {
    "gpt2_124m": "450,000 tokens/s on one H200; stretch 600,000",
    "gpt2_1558m": "MFU of 0.5",
    "attention": "`auto` takes the fastest kernel",
    "shakespeare_gpu": "less than 60 s on one H200",
    "torch_compile": "a ratio above 1",
}
TINY = {"num_layers": 2, "embed_dim": 32, "num_heads": 2, "context_length": 64, "vocab_size": 256}
TINY_RUN = "--model.num-layers 1 --model.embed-dim 32 --model.num-heads 2 --model.context-length 32 --steps 60 --evaluation.every 20"


def say(**row) -> None:
    print(json.dumps(row), flush=True)


def train_steps(shape: dict) -> None:
    """One attempt: tokens per second, MFU, peak memory and seconds of compilation of a training step."""
    run = load_config(f"{ROOT}/configs/{shape['config']}.py")
    model = dataclasses.replace(run.model, dtype="bfloat16", **shape["model"])
    parts, length, device = shape["micro_batches"], model.context_length, jax.devices()[0]
    rows = shape["rows"] * parts
    run = dataclasses.replace(run, model=model, batch_size=rows, micro_batches=parts, mesh=MeshShape())
    mesh, optimizer = make_mesh(run.mesh, [device]), make_optimizer(run.optimizer, run.schedule, run.steps)
    state = initial_state(Decoder(model).start, optimizer, mesh, 0, ema=False)
    batch = random_batch(rows, length, model.vocab_size, packed=shape["packed"])
    batch = put_batch(mesh, lambda first, count: jax.tree.map(lambda x: x[first : first + count], batch), rows)
    update = update_of(dataclasses.replace(run, micro_batches=parts), bind(run, mesh), optimizer)
    began = time.perf_counter()
    step = jit_update(update, mesh, lower=True)(state, None, batch).compile()
    compiled, loss = time.perf_counter() - began, 0.0
    state, metrics = step(state, None, batch)

    def steps(count):
        nonlocal state, metrics, loss
        for _ in range(count):
            before, (state, metrics) = metrics, step(state, None, batch)
            loss = float(before["loss"].total) / float(before["loss"].weight)
        jax.block_until_ready(state)

    seconds = timed_rounds(steps, shape)
    if not math.isfinite(loss):
        sys.exit(f"Error: the loss is {loss}")
    speed, peak = rows * length / statistics.median(seconds), peak_flops(device.device_kind)
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    mask = {"causal", "segments"} if shape["packed"] else {"causal"}
    say(
        tokens_per_second=speed,
        slowest_and_fastest=[rows * length / max(seconds), rows * length / min(seconds)],
        mfu=speed * training_flops_per_token(model, length) / peak if peak else None,
        peak_gib=memory and memory / 2**30,
        compile_seconds=compiled,
        attention=choose_kernel(model.attention, mask, Problem(length, length, model.head_width, "bfloat16"), device.platform),
        loss=loss,
    )


def random_batch(rows: int, length: int, vocabulary: int, *, packed: bool):
    """Random tokens, about four documents to a row; or one, without segments, so that the model takes the causal mask alone."""
    random, index_T = np.random.default_rng(0), np.arange(length, dtype=np.int32)
    tokens = random.integers(0, vocabulary, (rows, length + 1)).astype(np.int32)
    begins_BT = (random.random((rows, length)) < (4 / length if packed else 0)) | (index_T == 0)
    positions_BT = index_T - np.maximum.accumulate(begins_BT * index_T, axis=1)
    segments_BT = begins_BT.cumsum(1, dtype=np.int32) if packed else None
    weights_BT = np.ones((rows, length), np.float32)
    return TextBatch(tokens[:, :-1], tokens[:, 1:], weights_BT, segments_BT, positions_BT, np.arange(rows, dtype=np.int32))


def timed_rounds(run, shape: dict) -> list[float]:
    """Seconds a call in each round, where run(count) makes that many; a first short round warms and says how many make a round."""
    run(2)
    began = time.perf_counter()
    run(2)
    count = max(2, round(shape["round_seconds"] / ((time.perf_counter() - began) / 2)))
    seconds = []
    for _ in range(shape["rounds"]):
        began = time.perf_counter()
        run(count)
        seconds.append((time.perf_counter() - began) / count)
    return seconds


def attention_kernels(shape: dict) -> None:
    """One attempt: milliseconds of each kernel, forward and with the gradient, and its largest differences from the reference."""

    def with_gradient(function, qkv, mask, weight):
        output, gradient = jax.vjp(lambda *x: function(*x, mask), *qkv)
        return output, gradient(weight.astype(output.dtype))

    def milliseconds(once, *arguments, again=10):
        # Results become the next inputs, in one program: launching it is not what is timed.
        many = jax.jit(lambda qkv, *rest: jax.lax.fori_loop(0, again, lambda _, qkv: once(qkv, *rest), qkv))
        seconds = timed_rounds(lambda count: jax.block_until_ready([many(*arguments) for _ in range(count)]), shape)
        return 1000 * statistics.median(seconds) / again

    def measure(kernel, qkv, mask, weight, exact):
        found = jax.jit(with_gradient, static_argnums=0)(kernel, qkv, mask, weight)
        output, gradients = jax.tree.map(lambda x, y: float(jnp.abs(x.astype(jnp.float32) - y).max()), found, exact)
        forward = milliseconds(lambda qkv, mask: (kernel(*qkv, mask), *qkv[1:]), qkv, mask)
        both = milliseconds(lambda qkv, mask, weight: with_gradient(kernel, qkv, mask, weight)[1], qkv, mask, weight)
        return {"forward_ms": forward, "both_ms": both, "output_difference": output, "gradient_difference": max(gradients)}

    platform = jax.devices()[0].platform
    for sizes, packed in itertools.product(shape["shapes"], (False, True)):
        *qkv, weight = (jax.random.normal(key, sizes, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4))
        mask = Mask(causal=True, query_segments_BT=random_batch(*sizes[:2], 2, packed=packed).segments)
        problem = Problem(sizes[1], sizes[1], sizes[3], jnp.bfloat16)
        exactly = tuple(x.astype(jnp.float32) for x in qkv)
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(with_gradient, static_argnums=0)(reference, exactly, mask, weight)
        auto = choose_kernel("auto", mask.features(), problem, platform)
        for name in reversed([name for name, kernel in KERNELS.items() if kernel.platform in ("", platform)]):  # fast ones first
            row = {"shape": sizes, "packed": packed, "kernel": name, "auto": name == auto}
            try:
                row |= measure(lambda *x, name=name: attend(*x, kernel=name), tuple(qkv), mask, weight, exact)
            except (ValueError, NotImplementedError, RuntimeError) as error:  # refused, not for this card, or out of memory
                row["error"] = str(error).partition("\n")[0][:300]
            say(**row)


def process(command: list[str], environment: dict, seconds: float) -> list[dict]:
    """The rows that a program printed, and why it failed where it did; killed, with what it started, after `seconds`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, start_new_session=True, **pipes)
    try:
        out, said = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, said = child.communicate()[0], f"Error: not done after {seconds:.0f} s"
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows + [{"error": reason(said)}] * (child.returncode != 0)


def reason(said: str) -> str:
    """The line of a traceback that matters."""
    if "RESOURCE_EXHAUSTED" in said or "OutOfMemoryError" in said:
        return "out of memory"
    lines = said.strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:300]


def attempts(options, groups: list[list[tuple[dict, list, dict]]]) -> list[dict]:
    """Rows of all attempts, each (label, command, environment). A group begins while one as long as the longest so far still fits."""
    began, longest, rows = time.monotonic(), 0.0, []
    for group in groups:
        started = time.monotonic()
        late = started - began + longest > options.seconds
        for label, command, environment in group:
            left = began + options.seconds + 60 - time.monotonic()
            found = [{"error": "not tried: no time left"}] if late else process(command, environment, max(left, 1))
            rows += [label | row for row in found]
            print(*(json.dumps(label | row) for row in found), sep="\n", file=sys.stderr, flush=True)
        longest = max(longest, time.monotonic() - started)
    return rows


def inside(options, label: dict, function, shape: dict) -> tuple[dict, list, dict]:
    """An attempt of our own: a function of this file in a process of its own."""
    environment = {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".92"}
    shape |= {"rounds": 3 if options.tiny else 5, "round_seconds": 2 if function is train_steps and not options.tiny else 0.1}
    command = [sys.executable, __file__, "--inside", function.__name__, json.dumps(shape)]
    return label, command, environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def our_steps(options, config: str, rows: int, *, packed: bool, micro_batches: int = 1, **model):
    label = {"side": "ours", "packed": packed, "micro_batch": rows} | model
    shape = {"config": config, "rows": rows, "packed": packed, "micro_batches": micro_batches}
    return inside(options, label, train_steps, shape | {"model": model | (TINY if options.tiny else {})})


def best(rows: list[dict], figure: str = "tokens_per_second", **of) -> float | None:
    return max((row[figure] for row in rows if row.get(figure) and all(row[name] == of[name] for name in of)), default=None)


def gpt2_124m(options) -> dict:
    sizes = (2,) if options.tiny else (32, 64, 16)
    rows = attempts(options, [[our_steps(options, "gpt2_124m", size, packed=packed)] for size in sizes for packed in (True, False)])
    found = {"ours": best(rows, packed=True), "mfu": best(rows, "mfu", packed=True)}
    return found | {"causal_only": best(rows, packed=False), "unit": "tokens/s", "attempts": rows}


def gpt2_1558m(options) -> dict:
    # Scanned layers compile in a fraction of the time, so that each way of recomputing has its turn; then they are written out.
    cases = [("dots", 8, True), ("sublayers", 16, True), ("full", 16, True), ("dots", 8, False), ("sublayers", 16, False)]
    cases += [] if options.tiny else [("dots", 16, False), ("sublayers", 32, False), ("full", 32, False)]
    form = {"packed": True, "micro_batches": 4}
    size = 1 if options.tiny else None
    rows = attempts(options, [[our_steps(options, "gpt2_1558m", size or n, remat=remat, scan=scan, **form)] for remat, n, scan in cases])
    return {"ours": best(rows), "mfu": best(rows, "mfu"), "unit": "tokens/s", "attempts": rows}


def attention(options) -> dict:
    shapes = [[2, 128, 2, 16]] if options.tiny else [[8, 1024, 12, 64], [4, 4096, 16, 128]]
    rows = attempts(options, [[inside(options, {}, attention_kernels, {"shapes": shapes})]])
    chosen = [row for row in rows if row.get("auto") and row["packed"] and row["shape"] == shapes[-1] and "error" not in row]
    unit = f"ms forward and backward, {shapes[-1]}, packed, by `auto`"
    return {"ours": chosen[0]["both_ms"] if chosen else None, "unit": unit, "attempts": rows}


def torch_compile(options) -> dict:
    peer = os.path.abspath(os.environ.get("PEER") or f"{ROOT}/.venv-peers/bin/python")
    checkout = os.environ.get("NANOGPT")
    if not checkout or not Path(checkout, "model.py").is_file():
        return {"missing": "NANOGPT, the folder of a nanoGPT checkout"}
    if not Path(peer).is_file():
        return {"missing": f"PEER, a Python with torch; {peer} is not there"}
    sizes = {"n_layer": 12, "n_embd": 768, "n_head": 12, "block_size": 1024, "vocab_size": 50_304}
    sizes = dict(zip(sizes, TINY.values(), strict=True)) if options.tiny else sizes
    groups = []
    for size in (2,) if options.tiny else (32, 64, 16):
        mine = our_steps(options, "gpt2_124m", size, packed=False)
        shape = json.loads(mine[1][-1]) | {"model": sizes, "device": "cpu" if options.device == "cpu" else "cuda"}
        command = [peer, f"{ROOT}/benchmarks/workers/torch_gpu.py", json.dumps(shape)]
        environment = {"NANOGPT": os.path.abspath(checkout), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
        groups.append([mine, ({"side": "peer", "packed": False, "micro_batch": size}, command, environment)])
    rows = attempts(options, groups)
    # Neither side counts a size that the other had no time for.
    late = [row for row in rows if "not done" in row.get("error", "")]
    unfinished = {row["micro_batch"] for row in late if not best(rows, side=row["side"], micro_batch=row["micro_batch"])}
    fair = [row for row in rows if row["micro_batch"] not in unfinished]
    return {"ours": best(fair, side="ours"), "peer": best(fair, side="peer"), "unit": "tokens/s", "attempts": rows}


def shakespeare_gpu(options) -> dict:
    if not options.shards:
        return {"missing": "--shards DIR, made by `omnia prepare text --input input.txt --output DIR --tokenizer char --validation 0.1`"}
    target = 4.1 if options.tiny else TARGET
    with tempfile.TemporaryDirectory() as folder:
        run, said = Path(folder, "run"), Path(folder, "said")
        command = [sys.executable, f"{ROOT}/omnia.py", "train", f"{ROOT}/configs/shakespeare.py:nanogpt_gpu", "--run-dir", str(run)]
        command += ["--data.shards", options.shards, "--samples.tokens", "0", *(TINY_RUN.split() if options.tiny else [])]
        environment = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"} | ({"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {})
        began, start, code, seconds = time.monotonic(), math.inf, None, None
        with said.open("w") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | environment)
        while code is None and seconds is None and time.monotonic() - began < options.seconds + 60:
            time.sleep(0.1)
            code, rows = child.poll(), read_metrics(run)
            # The run's clock starts with its loop. Each new row bounds by how much it is late.
            start = min([start] + [time.monotonic() - began - row["time"] for row in rows[-1:]])
            seconds = training_seconds(rows, target)
        child.kill()
        child.wait()
        losses = [[row["step"], row["loss"]] for row in rows if row["kind"] == "evaluation"]
        found = {"ours": seconds and start + seconds, "unit": f"s to validation {target}", "attempts": losses}
        return found if seconds else found | {"error": reason(said.read_text()) if code else f"validation {target} was not reached"}


def training_seconds(rows: list[dict], target: float) -> float | None:
    """Seconds on a run's clock until the first evaluation that gives `target` or less, evaluations left out; None if there is none.

    The row of training before an evaluation is written as that begins, the evaluation's own as it ends.
    """
    evaluating = 0.0
    for before, row in itertools.pairwise(rows):
        if row["kind"] == "evaluation":
            if row["loss"] <= target:
                return before["time"] - evaluating
            evaluating += row["time"] - before["time"]
    return None


RACES = {race.__name__: race for race in (gpt2_124m, gpt2_1558m, attention, shakespeare_gpu, torch_compile)}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--inside"]:
        {"train_steps": train_steps, "attention_kernels": attention_kernels}[arguments[1]](json.loads(arguments[2]))
        return 0
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RACES) + "; all of them unless named")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each race")
    parser.add_argument("--shards", metavar="DIR", help="tiny Shakespeare, prepared")
    parser.add_argument("--seconds", type=float, default=150, help="for attempts to begin in; the last gets a minute more (150)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu needs --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a check of this program")
    options = parser.parse_args(arguments)
    if strange := set(options.names) - set(RACES):
        parser.error(f"no race {', '.join(sorted(strange))}; there are {', '.join(RACES)}")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny: the shapes of these races are for a GPU")
    # This process never asks for devices itself: it would take the card's memory.
    probe = "import jax, json; d = jax.devices()[0]; print(json.dumps({'platform': d.platform, 'kind': d.device_kind}))"
    found = process([sys.executable, "-c", probe], {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {}, 120)[0]
    if found.get("platform") != options.device:
        why = found.get("error") or f"JAX sees a {found['platform']}"
        print(f"no {options.device}: {why} (`--device cpu --tiny` tries the code without one)", file=sys.stderr)
        return 2
    lines = []
    for name in options.names or RACES:
        line = {"name": name, "ours": None, "peer": None, "ratio": None, "unit": "", "device": found["kind"], "goal": GOALS[name]}
        line |= RACES[name](options)
        line["ratio"] = line["ours"] / line["peer"] if line["ours"] and line["peer"] else None
        if "missing" not in line and (line["ours"] is None or (name == "torch_compile" and line["peer"] is None)):
            line.setdefault("error", next((row["error"] for row in line["attempts"] if "error" in row), "no figure"))
        lines.append(line)
        figures = [f"{key} {line[key]:,.6g}" for key in ("ours", "causal_only", "mfu", "peer", "ratio") if line.get(key) is not None]
        figures += [f"{key}: {line[key]}" for key in ("missing", "error") if key in line]
        words = f"{name}: {', '.join(figures)} [{line['unit']}] on {line['device']}; the goal is {line['goal']}"
        print(json.dumps(line) if options.json else words, flush=True)
    return 1 if any("error" in line for line in lines) else 2 if any("missing" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
