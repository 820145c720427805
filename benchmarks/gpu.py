"""Races for one GPU. Every attempt is a process of its own, which finds the card empty and nothing compiled.

python benchmarks/gpu.py [NAME ...] [--json] [--shards DIR] [--seconds 200]
python benchmarks/gpu.py --device cpu --tiny    # the same code on tiny shapes, to see that it works; its figures mean nothing

gpt2_124m        training steps of configs/gpt2_124m.py: packed rows, which is what counts, and rows under the causal mask alone
gpt2_1558m       of configs/gpt2_1558m.py, packed, four micro-batches a step, by what the backward pass recomputes
attention        each kernel of model/attention/dispatch.py that the device runs, and how far it is from the reference in float32: wrong
                 where that is over four times as far as the reference itself is in bfloat16
shakespeare_gpu  configs/shakespeare.py:nanogpt_gpu by the command line until validation is nanoGPT's 1.4697: seconds since the process
                 started, compiling included, evaluations left out. DIR: `omnia prepare text --tokenizer char --validation 0.1`
torch_compile    ours under the causal mask against the nanoGPT checkout in $NANOGPT under torch.compile, by $PEER, a Python with torch for
                 CUDA (.venv-peers/bin/python unless set)

Steps are on random tokens in bfloat16, and every step's loss is read, one step late, as the training loop does. Figures are medians of
rounds; MFU counts what the causal mask leaves (train/planning/flops.py). Sizes of micro-batch are tried while --seconds last; the best
counts. `--device tpu` runs the same on a TPU. Each attempt is said on stderr. Each race gives one line on stdout as it ends; with --json an
object of name, ours, peer, ratio (above 1 when ours is better; null without a peer), unit, device, goal, attempts, and error or missing
where there is no figure. Exit code 0: every race has its figure; 2: no such device, or something to be given is missing; 1: a race failed.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import json, platform, jax, jaxlib
device = jax.devices()[0]
versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "python": platform.python_version()}
print(json.dumps({"platform": device.platform, "kind": device.device_kind, "count": jax.device_count(), "versions": versions}))
"""
PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
"""Environment of a program of ours, wherever it is started from."""
GRACE = 10  # seconds that a program has to end when it is asked to, before it is killed
TARGET = 1.4697  # what nanoGPT's README states for this setting
GOALS = {
    "gpt2_124m": "450,000 tokens/s on one H200; stretch 600,000",
    "gpt2_1558m": "MFU of 0.5",
    "attention": "`auto` takes the fastest kernel",
    "shakespeare_gpu": "less than 60 s on one H200",
    "torch_compile": "a ratio above 1",
}
TINY = {"num_layers": 2, "embed_dim": 32, "num_heads": 2, "context_length": 64, "vocab_size": 256}
TOO_FAR = 4
"""A kernel is wrong when it differs by more than this multiple of what rounding to bfloat16 costs the reference."""
TINY_RUN = "--model.num-layers 1 --model.embed-dim 32 --model.num-heads 2 --model.context-length 32 --steps 60 --evaluation.every 20"


def process(command: list[str], environment: dict, seconds: float) -> list[dict]:
    """The rows that a program printed, and why it failed where it did; ended, with what it started, after `seconds`."""
    # Files, since a pipe stays open as long as anything that the program started.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=out, stderr=said, start_new_session=True)
        late = ""
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            late = f"Error: not done after {seconds:.0f} s"
        finally:
            end(child)
        out.seek(0)
        said.seek(0)
        rows = [json.loads(line) for line in out if line.startswith("{")]
        return rows + [{"error": late or reason(said.read()), "code": child.returncode}] * (child.returncode != 0)


def end(child: subprocess.Popen) -> None:
    """End a program that leads a session, and what is in it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)


def reason(said: str) -> str:
    """The line that matters of a traceback, or of an error of omnia's."""
    if "RESOURCE_EXHAUSTED" in said or "OutOfMemoryError" in said:
        return "out of memory"
    lines = said.strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if "Error" in line or line.startswith("omnia: ")), lines[-1])[:300]


def attempts(options, groups: list[list[tuple[dict, list, dict]]]) -> list[dict]:
    """Rows of all attempts, each (label, command, environment). A group begins while one as long as the longest so far still fits."""
    began, longest, rows = time.monotonic(), 0.0, []
    for group in groups:
        started = time.monotonic()
        late = started - began + longest > options.seconds
        for label, command, environment in group:
            left = began + options.seconds - time.monotonic()
            found = [{"error": "not tried: no time left"}] if late else process(command, environment, max(left, 1))
            rows += [label | row for row in found]
            print(*(json.dumps(label | row) for row in found), sep="\n", file=sys.stderr, flush=True)
        longest = max(longest, time.monotonic() - started)
    return rows


def inside(options, label: dict, name: str, shape: dict) -> tuple[dict, list, dict]:
    """An attempt of our own: a function of benchmarks/workers/jax_gpu.py."""
    environment = {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".92"}
    shape |= {"rounds": 3 if options.tiny else 5, "round_seconds": 2 if name == "train_steps" and not options.tiny else 0.1}
    command = [sys.executable, f"{ROOT}/benchmarks/workers/jax_gpu.py", name, json.dumps(shape)]
    return label, command, environment | PATHS | {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def our_steps(options, config: str, rows: int, *, packed: bool, micro_batches: int = 1, **model):
    label = {"side": "ours", "packed": packed, "micro_batch": rows} | model
    shape = {"config": config, "rows": rows, "packed": packed, "micro_batches": micro_batches}
    return inside(options, label, "train_steps", shape | {"model": model | (TINY if options.tiny else {})})


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
    sys.path.insert(0, str(ROOT))
    from model.attention.dispatch import KERNELS  # only here: everything else of this file needs no JAX

    shapes = [[2, 128, 2, 16]] if options.tiny else [[8, 1024, 12, 64], [4, 4096, 16, 128]]
    names = [name for name, kernel in KERNELS.items() if kernel.platform in ("", options.device)]
    # A kernel that breaks takes the whole process's device with it. The reference first, which says what is right; then the fast ones.
    names = [names[0], *names[:0:-1]]
    groups = [[inside(options, {"kernel": name}, "attention_kernels", {"shapes": shapes, "kernel": name})] for name in names]
    rows = attempts(options, groups)
    chosen = [row for row in rows if row.get("auto") and row["packed"] and row["shape"] == shapes[-1] and "both_ms" in row]
    unit = f"ms forward and backward, {shapes[-1]}, packed, by `auto`"
    found = {"ours": chosen[0]["both_ms"] if chosen else None, "unit": unit, "attempts": rows}
    wrong = wrong_kernels(rows)
    return found | ({"error": f"wrong: {', '.join(wrong)}"} if wrong else {})


def wrong_kernels(rows: list[dict]) -> list[str]:
    """Kernels that are too far from the reference on some shape; each of their rows gets `wrong`."""
    measured = [row for row in rows if "output_difference" in row]
    rounding = {(str(row["shape"]), row["packed"]): row for row in measured if row["kernel"] == "reference"}
    for row in measured:
        allowed = rounding.get((str(row["shape"]), row["packed"]))
        if allowed:
            # Not `>`, so that a NaN is wrong.
            row["wrong"] = not all(row[name] <= TOO_FAR * allowed[name] for name in ("output_difference", "gradient_difference"))
    return sorted({row["kernel"] for row in measured if row.get("wrong")})


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
    sys.path.insert(0, str(ROOT))
    from train.loop.telemetry import read_metrics

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
            child = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | environment, start_new_session=True)
        try:
            while code is None and seconds is None and time.monotonic() - began < options.seconds:
                time.sleep(0.1)
                code, rows = child.poll(), read_metrics(run)
                # The run's clock starts with its loop. Each new row bounds by how much it is late.
                start = min([start] + [time.monotonic() - began - row["time"] for row in rows[-1:]])
                seconds = training_seconds(rows, target)
        finally:
            end(child)
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


def race(name: str, options, device: str) -> dict:
    """The line of a race."""
    line = {"name": name, "ours": None, "peer": None, "ratio": None, "unit": "", "device": device, "goal": GOALS[name]}
    line |= RACES[name](options)
    line["ratio"] = line["ours"] / line["peer"] if line["ours"] and line["peer"] else None
    if "missing" not in line and (line["ours"] is None or (name == "torch_compile" and line["peer"] is None)):
        line.setdefault("error", next((row["error"] for row in line["attempts"] if "error" in row), "no figure"))
    return line


def figures(line: dict) -> str:
    """What a race found, in words."""
    found = [f"{key} {line[key]:,.6g}" for key in ("ours", "causal_only", "mfu", "peer", "ratio") if line.get(key) is not None]
    return ", ".join(found + [f"{key}: {line[key]}" for key in ("missing", "error") if key in line])


def probe(device: str, seconds: float = 120) -> dict:
    """What JAX sees, asked in a process of its own: the one that asks takes the card's memory."""
    return process([sys.executable, "-c", PROBE], {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}, seconds)[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RACES) + "; all of them unless named")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each race")
    parser.add_argument("--shards", metavar="DIR", help="tiny Shakespeare, prepared")
    parser.add_argument("--seconds", type=float, default=200, help="for each race; what is not done by then is stopped (200)")
    parser.add_argument("--device", choices=("gpu", "tpu", "cpu"), default="gpu", help="cpu needs --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a check of this program")
    options = parser.parse_args(arguments)
    if strange := set(options.names) - set(RACES):
        parser.error(f"no race {', '.join(sorted(strange))}; there are {', '.join(RACES)}")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny: the shapes of these races are for a GPU")
    found = probe(options.device)
    if found.get("platform") != options.device:
        why = found.get("error") or f"JAX sees a {found['platform']}"
        print(f"no {options.device}: {why} (`--device cpu --tiny` tries the code without one)", file=sys.stderr)
        return 2
    lines = []
    for name in options.names or RACES:
        lines.append(line := race(name, options, found["kind"]))
        words = f"{name}: {figures(line)} [{line['unit']}] on {line['device']}; the goal is {line['goal']}"
        print(json.dumps(line) if options.json else words, flush=True)
    return 1 if any("error" in line for line in lines) else 2 if any("missing" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
