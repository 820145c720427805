"""Our speed beside what people use today: `python benchmarks/race.py NAME --json`.

Both sides run in subprocesses of their own, in turn, for several rounds; figures are medians. The last line printed is one JSON object:
name, ours, peer (null when it is missing, with the reason), ratio (above 1 when ours is better), unit, and what else was seen.

    NANOGPT   folder of a nanoGPT checkout      train_tiny, time_to_loss, gpt2_cpu
    PEER      a Python with torch (and, for generate, transformers; for harness, lm-eval too; for grpo and ppo, trl); `make parity` builds
              .venv-peers/bin/python
    OMNIA_DATA folder of the public data sets of configs/harness      harness
    LLAMA     a Python with llama-cpp-python    chat, at batch 1, from the same file
    PEER_DATA a Python with webdataset, mosaicml-streaming and Pillow       images, records
    PEER_AUDIO a Python with librosa            audio
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKERS = Path(__file__).parent / "workers"
TINY = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12, "vocab": 65, "bias": False, "steps": 20, "warm": 5}
GPT2 = {"layers": 12, "heads": 12, "width": 768, "context": 512, "batch": 2, "vocab": 50257, "bias": False, "steps": 1, "warm": 1}


class Missing(Exception):
    """A peer that is not here."""


class Worker:
    """A subprocess that warms up, says `ready`, and does one round whenever it is asked to."""

    def __init__(self, script: str, options: dict, *, python: str = sys.executable):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false"}
        if script.startswith(("omnia_", "harness_")):
            environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # as the omnia command does for itself
        options = options | {"threads": os.cpu_count()}
        self._process = subprocess.Popen(
            [python, str(WORKERS / script), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._name = script

    def begin(self) -> None:
        self._cpu = cpu_seconds(self._process.pid)
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended during a round")
        return json.loads(line) | {"cpu_s": cpu_seconds(self._process.pid) - self._cpu}

    def ready(self) -> "Worker":
        for line in self._process.stdout:
            if line.strip() == "ready":
                return self
        raise RuntimeError(f"{self._name} ended before it was ready")

    def round(self) -> dict:
        self.begin()
        return self.end()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def cpu_seconds(process: int) -> float:
    """Of a process and all its descendants, those that live."""
    children, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
        seconds[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    family = [process]
    for one in family:
        family += children.get(one, [])
    return sum(seconds.get(one, 0.0) for one in family)


def peer_python() -> str:
    python = os.environ.get("PEER") or str(ROOT / ".venv-peers" / "bin" / "python")
    if not Path(python).exists():
        raise Missing(f"PEER: no Python at {python}; `make parity` builds one with torch and transformers")
    return python


def nanogpt() -> str:
    if not (Path(os.environ.get("NANOGPT", "")) / "model.py").exists() or not os.environ.get("NANOGPT"):
        raise Missing("NANOGPT: set it to a folder with a checkout of karpathy/nanoGPT")
    return peer_python()


def interleave(workers: dict, rounds: int) -> dict:
    """{name: rows of all rounds}, every worker once a round, in turn."""
    rows: dict[str, list] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            rows[name].append(worker.round())
    for worker in workers.values():
        worker.close()
    return rows


def median(rows: list, key: str) -> float:
    return statistics.median(row[key] for row in rows)


def with_peer(make) -> tuple:
    """(worker, "") or (None, why the peer is missing)."""
    try:
        return make().ready(), ""
    except Missing as error:
        print(f"the peer is missing: {error}", file=sys.stderr)
        return None, str(error)


def train(name: str, shape: dict, rounds: int) -> dict:
    peer, reason = with_peer(lambda: Worker("nanogpt_train.py", shape, python=nanogpt()))
    workers = {"peer": peer} if peer else {}
    workers["ours"] = Worker("omnia_train.py", shape | {"modern": False}).ready()
    workers["best"] = Worker("omnia_train.py", shape | {"modern": True}).ready()
    rows = interleave(workers, rounds)
    speed = {name: median(found, "tokens_per_second") for name, found in rows.items()}
    return {
        "name": name,
        "ours": speed["ours"],
        "peer": speed.get("peer"),
        "ratio": speed["ours"] / speed["peer"] if peer else None,
        "unit": "tokens per second",
        "best_block": speed["best"],
        "best_block_ratio": speed["best"] / speed["peer"] if peer else None,
        "ms": {name: [round(row["ms"], 1) for row in found] for name, found in rows.items()},
        "peak_mib": {name: round(median(found, "peak_mib")) for name, found in rows.items()},
        "parameters": {name: found[0]["parameters"] for name, found in rows.items()},
        **({"missing": reason} if reason else {}),
    }


def train_tiny(arguments) -> dict:
    """nanoGPT's CPU setting, warm, against its eager PyTorch; `best_block` is our own block at the same parameter count."""
    return train("train_tiny", TINY, arguments.rounds or 9)


def gpt2_cpu(arguments) -> dict:
    """GPT-2 124M, sequence 512, batch 2, float32, against nanoGPT's eager PyTorch; peak memory of each process beside."""
    return train("gpt2_cpu", GPT2, arguments.rounds or 3)


def generate(arguments) -> dict:
    """GPT-2 124M's shape, 64 + 128 tokens, greedy, on the same weights, at batch 1 and 8, against transformers; and ours in int8."""
    return generation("generate", arguments, lambda folder, python: make_gpt2(folder, python), 50257)


def chat(arguments) -> dict:
    """The same of SmolLM2 135M, whose published weights are fetched; at batch 1 also llama.cpp on the file itself, with 4-bit weights."""
    return generation("chat", arguments, lambda folder, python: exported("smollm2", folder), 49152)


def make_gpt2(folder: str, python: str) -> None:
    Worker("transformers_generate.py", {"folder": folder, "make": {}}, python=python).ready().close()


def exported(name: str, folder: str) -> None:
    """A published model, through a run of ours, as transformers reads it."""
    omnia("import", name, "--run-dir", f"{folder}/run")
    omnia("export", f"{folder}/run", "--format", "hf", "--output", f"{folder}/model")
    for path in Path(folder, "model").iterdir():
        shutil.move(path, folder)


def generation(name: str, arguments, make, vocabulary: int) -> dict:
    result: dict = {"name": name, "unit": "tokens per second", "batches": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            python = peer_python()
        except Missing as error:
            print(f"the peer is missing: {error}", file=sys.stderr)
            return result | {"ours": None, "peer": None, "ratio": None, "missing": f"it makes the weights. {error}"}
        make(folder, python)
        draw = random.Random(0)
        for batch in (1, 8):
            options = {"folder": folder, "new": 128, "prompts": [[draw.randrange(vocabulary) for _ in range(64)] for _ in range(batch)]}
            workers = {
                "peer": Worker("transformers_generate.py", options, python=python).ready(),
                "ours": Worker("omnia_generate.py", options | {"int8": False}).ready(),
                "int8": Worker("omnia_generate.py", options | {"int8": True}).ready(),
            }
            if name == "chat" and batch == 1 and os.environ.get("LLAMA"):
                from train.bridge.packages import fetch

                gguf = options | {"gguf": str(fetch("smollm2"))}
                workers["llama"] = Worker("llama_generate.py", gguf, python=os.environ["LLAMA"]).ready()
            rows = interleave(workers, arguments.rounds or 3)
            speed = {name: median(found, "tokens_per_second") for name, found in rows.items()}
            result["batches"][batch] = speed | {
                "ratio": speed["ours"] / speed["peer"],
                "int8_ratio": speed["int8"] / speed["peer"],
                **({"int8_to_llama": speed["int8"] / speed["llama"]} if "llama" in speed else {}),
                "same_tokens": rows["ours"][0]["tokens"] == rows["peer"][0]["tokens"],
                "peak_mib": {name: round(median(found, "peak_mib")) for name, found in rows.items()},
            }
    first = result["batches"][1]
    return result | {"ours": first["ours"], "peer": first["peer"], "ratio": first["ratio"]}


def embed(arguments) -> dict:
    """Vectors of MiniLM, whose published weights are fetched, against transformers in batches of 32, in order and sorted by length."""
    if not arguments.text:
        raise SystemExit("give --text FILE: a sentence on each line")
    result: dict = {"name": "embed", "unit": "sentences per second"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            python = peer_python()
        except Missing as error:
            return result | {"ours": None, "peer": None, "ratio": None, "missing": str(error)}
        exported("minilm", folder)
        options = {"folder": folder, "texts": os.path.abspath(arguments.text), "most": 4096}
        workers = {
            "peer": Worker("transformers_embed.py", options | {"sorted": False}, python=python).ready(),
            "peer_sorted": Worker("transformers_embed.py", options | {"sorted": True}, python=python).ready(),
            "ours": Worker("omnia_embed.py", options).ready(),
        }
        rows = interleave(workers, arguments.rounds or 5)
        speed = {name: median(found, "sentences_per_second") for name, found in rows.items()}
        apart = max(abs(a - b) for a, b in zip(rows["ours"][0]["first"], rows["peer"][0]["first"], strict=True))
        ratios = {"ratio": speed["ours"] / speed["peer"], "ratio_to_sorted": speed["ours"] / speed["peer_sorted"]}
        return result | speed | ratios | {"largest_difference_of_the_first": apart}


HARNESS = {  # tasks of configs/harness: examples, solved examples in a prompt, and the model's context
    "local_openbookqa": (50, 0, 1024),
    "local_openbookqa, 5 shots": (50, 5, 1024),
    "local_trec": (100, 0, 1024),
    "local_dialogsum": (25, 0, 1024),
    "local_wikitext2": (1, 0, 512),
    "local_xquad_en": (16, 0, 1024),
}


def harness(arguments) -> dict:
    """lm-eval's requests on SmolLM2 135M, whose published weights are fetched: answers and speed, against its own `hf` model at its own
    batch size of 1 and at 16; the ratio of a task is to the faster one, that of the race is the smallest."""
    if not os.environ.get("OMNIA_DATA"):
        raise SystemExit("OMNIA_DATA: set it to the folder with the public data sets of configs/harness")
    result: dict = {"name": "harness", "unit": "requests per second", "tasks": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            python = peer_python()
        except Missing as error:
            return result | {"ours": None, "peer": None, "ratio": None, "missing": str(error)}
        exported("smollm2", folder)
        for task, (limit, shots, context) in HARNESS.items():
            options = {"folder": folder, "data": os.path.abspath(os.environ["OMNIA_DATA"]), "tasks": str(ROOT / "configs" / "harness")}
            options |= {"task": task.partition(",")[0], "limit": limit, "shots": shots, "context": context}
            workers = {
                "ours": Worker("harness_requests.py", options | {"model": "omnia"}, python=python).ready(),
                "peer": Worker("harness_requests.py", options | {"model": "hf", "batch": 1}, python=python).ready(),
                "peer_16": Worker("harness_requests.py", options | {"model": "hf", "batch": 16}, python=python).ready(),
            }
            rows = interleave(workers, arguments.rounds or 3)
            speed = {name: median(found, "requests_per_second") for name, found in rows.items()}
            answers = {name: found[0]["answers"] for name, found in rows.items()}
            same = agreement(answers["ours"], answers["peer"]) | {"peer_to_peer_16": agreement(answers["peer_16"], answers["peer"])}
            ratios = {"ratio": speed["ours"] / max(speed["peer"], speed["peer_16"]), "requests": rows["ours"][0]["count"]}
            result["tasks"][task] = speed | ratios | same
    least = min(result["tasks"].values(), key=lambda found: found["ratio"])
    return result | {"ours": least["ours"], "peer": max(least["peer"], least["peer_16"]), "ratio": least["ratio"]}


def agreement(ours: dict, theirs: dict) -> dict:
    """How far two models' answers to the same requests are apart."""
    found: dict = {}
    for kind, answers in ours.items():
        pairs = list(zip(answers, theirs[kind], strict=True))
        if kind == "generate_until":
            found["other_texts"] = [pair for pair in pairs if pair[0] != pair[1]]
        else:
            numbers = [(a[0], b[0]) if isinstance(a, list) else (a, b) for a, b in pairs]
            found["largest_difference_nats"] = max(abs(a - b) for a, b in numbers)
            found["largest_relative_difference"] = max(abs(a - b) / abs(b) for a, b in numbers)
            if isinstance(answers[0], list):
                found["greedy_differs"] = sum(a[1] != b[1] for a, b in pairs)
    return found


def omnia(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "omnia.py"), *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def shakespeare(arguments, folder: Path) -> Path:
    """Tiny Shakespeare, prepared by characters with its last tenth held out."""
    if not arguments.text:
        raise SystemExit("give --text FILE: tiny Shakespeare's input.txt")
    omnia("prepare", "text", "--input", arguments.text, "--output", str(folder), "--tokenizer", "char", "--validation", "0.1")
    return folder


def time_to_loss(arguments) -> dict:
    """Seconds from process start to a validation loss of 1.88 over the last tenth, evaluations excluded; both at their own setting.

    Ours is configs/shakespeare.py:fast, by the command line, whose learning rate reaches zero where the loss does.
    """
    goal, rows = 1.88, {"ours": [], "peer": []}
    peer, reason = True, ""
    try:
        python = nanogpt()
    except Missing as error:
        peer, reason = False, str(error)
        print(f"the peer is missing: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        shards = shakespeare(arguments, Path(temporary) / "shards")
        for seed in range(arguments.rounds or 1):
            run = Path(temporary) / f"run{seed}"
            began = time.time()
            omnia(
                *("train", "configs/shakespeare.py:fast", "--run-dir", str(run), "--data.shards", str(shards), "--seed", str(seed)),
                *("--evaluation.every", "40", "--samples.tokens", "0", "--checkpoints.every", "0"),
            )
            started = (run / "environment.json").stat().st_mtime - began  # which is written as the clock of metrics.jsonl starts
            excluded, reached, last = 0.0, None, {}
            for line in (run / "metrics.jsonl").read_text().splitlines():
                row = json.loads(line)
                if row["kind"] == "evaluation":
                    excluded += row["seconds"]
                    last = {"loss": row["loss"], "seconds": started + row["time"] - excluded}
                    if reached is None and row["loss"] <= goal:
                        reached = last["seconds"]
            rows["ours"].append({"seconds": reached, "end": last})
            if peer:
                options = {"text": arguments.text, "goal": goal, "seed": seed}
                worker = Worker("nanogpt_loss.py", options, python=python).ready()
                rows["peer"].append(worker.round())
                worker.close()
    if not all(row["seconds"] for row in rows["ours"]):
        raise SystemExit(f"ours did not reach {goal}: {rows}")
    ours = statistics.median(row["seconds"] for row in rows["ours"])
    theirs = statistics.median(row["seconds"] for row in rows["peer"]) if peer else None  # of all its steps where it never gets there
    return {
        "name": "time_to_loss",
        "ours": ours,
        "peer": theirs,
        "ratio": theirs / ours if peer else None,
        "unit": "seconds",
        "peer_reached": all(row["reached"] for row in rows["peer"]) if peer else None,
        "rounds": rows,
        **({"missing": reason} if reason else {}),
    }


def input_(arguments) -> dict:
    """Packed batches of prepared shards, one process, rows of 1,024; and the memory over as many steps as an hour of training takes."""
    with tempfile.TemporaryDirectory() as temporary:
        worker = Worker("omnia_input.py", {"folder": temporary, "rows": 64, "length": 1024, "tokens": 100_000_000}).ready()
        rows = [worker.round() for _ in range(arguments.rounds or 9)]
        worker.close()
    return {
        "name": "input",
        "ours": median(rows, "tokens_per_second"),
        "peer": None,
        "ratio": median(rows, "tokens_per_second") / 10e6,
        "missing": "no peer: the ratio is to the goal, 10 M tokens per second",
        "unit": "tokens per second",
        "tokens": sum(row["tokens"] for row in rows),
        "rss_mib": [round(row["rss_mib"], 1) for row in rows],
    }


def restart(arguments) -> dict:
    """Seconds from process start to the end of the first step of configs/shakespeare.py:best: cold (nothing compiled before) and warm."""
    rows: dict[str, list] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as temporary:
        shards = shakespeare(arguments, Path(temporary) / "shards")
        for number in range(arguments.rounds or 3):
            cache = Path(temporary) / f"cache{number}"
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
            for kind in ("cold", "warm"):
                run = Path(temporary) / f"{kind}{number}"
                began = time.time()
                omnia(
                    *("train", "configs/shakespeare.py:best", "--run-dir", str(run), "--data.shards", str(shards), "--steps", "2"),
                    *("--samples.tokens", "0", "--evaluation.rows", "64", "--logging.every", "1"),
                )
                first = next(row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if row["kind"] == "train")
                rows[kind].append((run / "environment.json").stat().st_mtime - began + first["time"])
            shutil.rmtree(cache)
    ours = statistics.median(rows["warm"])
    cold = statistics.median(rows["cold"])
    return {"name": "restart", "ours": ours, "peer": cold, "ratio": cold / ours, "unit": "seconds", "rounds": rows, "peer_is": "ours, cold"}


def policy(kind: str, arguments) -> dict:
    """A step of ours (4 layers, 128 wide, bytes, 32 responses of 64 tokens in groups of 8) against one of TRL's GRPO, which has no PPO."""
    shape = {"kind": kind, "layers": 4, "heads": 4, "width": 128, "batch": 32, "group": 8, "prompt": 16, "new": 64, "steps": 4, "warm": 3}
    shape["micro_batches"] = {"grpo": 2, "ppo": 4}[kind]  # the same gradients in less memory
    peer, reason = with_peer(lambda: Worker("trl_grpo.py", shape, python=peer_python()))
    workers = {"peer": peer} if peer else {}
    workers["ours"] = Worker("omnia_policy.py", shape).ready()
    rows = interleave(workers, arguments.rounds or 5)
    seconds = {name: median(found, "seconds") for name, found in rows.items()}
    return {
        "name": kind,
        "ours": seconds["ours"],
        "peer": seconds.get("peer"),
        "ratio": seconds["peer"] / seconds["ours"] if peer else None,
        "unit": "seconds a step",
        "parts": {name: round(median(rows["ours"], name), 4) for name in ("rollout", "reward", "update")},
        "rollout_tokens_per_second": median(rows["ours"], "rollout_tokens_per_second"),
        "generate_tokens_per_second": median(rows["ours"], "generate_tokens_per_second"),
        "peak_mib": {name: round(median(found, "peak_mib")) for name, found in rows.items()},
        "rounds": {name: [round(row["seconds"], 3) for row in found] for name, found in rows.items()},
        **({"missing": reason} if reason else {}),
    }


def grpo(arguments) -> dict:
    """GRPO against TRL's GRPO, at the same shape."""
    return policy("grpo", arguments)


def ppo(arguments) -> dict:
    """PPO with a critic of its own, one epoch, against TRL's GRPO, which has none."""
    return policy("ppo", arguments)


class Together:
    """Workers that do their rounds at the same time, each a part of the work."""

    def __init__(self, *workers: Worker):
        self._workers = workers

    def round(self) -> dict:
        for worker in self._workers:
            worker.begin()
        rows = [worker.end() for worker in self._workers]
        return {"seconds": max(row["seconds"] for row in rows)} | {
            key: sum(row[key] for row in rows) for key in ("records", "made", "cpu_s")
        }

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def stream(kind: str, arguments, count: int, batch: int, per_record: int = 1) -> dict:
    """Records a second of our stream, of two bare decoders of the same files, and of other people's streams; CPU time of all processes
    beside, which tells of the work where the machine is not quiet.
    """
    sys.path.insert(0, str(ROOT))
    from benchmarks.media_files import make

    with tempfile.TemporaryDirectory() as temporary:
        raw, missing = Path(temporary) / "raw", {}
        if kind == "audio" and arguments.recordings:
            raw = Path(arguments.recordings)
        else:
            make(kind, raw, count)
        options = {"kind": kind, "raw": str(raw), "batch": batch, "batches": count // batch, "warm": 8}

        def worker(script: str, name: str, **more):
            (Path(temporary) / name).mkdir()
            python = more.pop("python", sys.executable)
            return Worker(script, options | {"folder": str(Path(temporary) / name)} | more, python=python).ready()

        def pair(script: str, name: str, **more) -> Together:
            return Together(*(worker(script, f"{name}{part}", part=part, **more) for part in (0, 1)))

        def python_of(variable: str, packages: str, *names: str) -> str:
            """A Python for peers; "" where it is missing, which is noted for these names."""
            python = os.environ.get(variable, "")
            if Path(python).is_file():
                return python
            missing.update(dict.fromkeys(names, f"{variable}: set it to a Python with {packages}"))
            print(f"the peer is missing: {missing[names[0]]}", file=sys.stderr)
            return ""

        workers: dict = {"ours": worker("omnia_media.py", "ours")}
        if kind == "records":
            workers["ours_here"] = worker("omnia_media.py", "ours_here", processes=0)
        if kind == "video":
            workers["ours_8_frames"] = worker("omnia_media.py", "ours_8_frames", frames=8)
        if kind in ("images", "video"):
            workers["bare"] = pair("bare_decoder.py", "bare")
        streams = ("webdataset", "mosaic") if kind in ("images", "records") else ()
        if streams and (python := python_of("PEER_DATA", "webdataset and mosaicml-streaming", *streams)):
            workers |= {name: worker(f"{name}_records.py", name, python=python) for name in streams}
        if kind == "audio" and (python := python_of("PEER_AUDIO", "librosa", "librosa")):
            workers["librosa"] = pair("librosa_mel.py", "librosa", python=python)
        rows = interleave(workers, arguments.rounds or 5)
    rates = {name: [row["records"] * per_record / row["seconds"] for row in found] for name, found in rows.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: round(statistics.median(1e6 * row["cpu_s"] / row["made"] for row in found)) for name, found in rows.items()}
    peer = {"records": "webdataset", "audio": "librosa"}.get(kind, "bare")
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates.get(peer, ()), strict=False)]
    return {
        "name": kind,
        "ours": middle["ours"],
        "peer": middle.get(peer),
        "ratio": middle["ours"] / middle[peer] if peer in middle else None,
        "median_of_ratios": statistics.median(ratios) if ratios else None,
        "peer_is": peer,
        "unit": "frames per second" if kind == "video" else "records per second",
        "medians": {name: round(value, 1) for name, value in middle.items()},
        "rounds": {name: [round(value) for value in values] for name, values in rates.items()},
        "cpu_us_per_record": cost,
        **({"missing": missing} if missing else {}),
    }


def images(arguments) -> dict:
    """2,000 JPEGs of 320 x 320, shuffled, two processes: ours against two bare decoders (Pillow), webdataset and mosaic streaming."""
    return stream("images", arguments, 2000, 50)


def video(arguments) -> dict:
    """Every frame of 64 clips, two processes, against two bare decoders (PyAV); `ours_8_frames` counts 96 of a clip of which it takes 8."""
    return stream("video", arguments, 64, 4, per_record=96)


def audio(arguments) -> dict:
    """1,000 recordings of 1 to 6 s, 16 kHz, FLAC, or those of --recordings, shuffled, as log-mel patches, two processes, against two bare
    processes of librosa with one thread each (as it comes, its threads cost four times the CPU time)."""
    count = len(os.listdir(arguments.recordings)) if arguments.recordings else 1000
    return stream("audio", arguments, count, 20)


def records(arguments) -> dict:
    """20,000 texts of 1 to 2 kB, shuffled, two processes: ours, webdataset and mosaic streaming; `ours_here` is without other processes."""
    return stream("records", arguments, 20_000, 250)


RACES = {
    "train_tiny": train_tiny,
    "time_to_loss": time_to_loss,
    "gpt2_cpu": gpt2_cpu,
    "generate": generate,
    "chat": chat,
    "embed": embed,
    "harness": harness,
    "input": input_,
    "restart": restart,
    "grpo": grpo,
    "ppo": ppo,
    "images": images,
    "video": video,
    "audio": audio,
    "records": records,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RACES)
    parser.add_argument("--json", action="store_true", help="print the result alone, as one line of JSON")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each side (0: the race's own number)")
    parser.add_argument("--recordings", default="", help="folder of recordings for audio, instead of made ones")
    parser.add_argument("--text", default="", help="tiny Shakespeare's input.txt, for time_to_loss and restart; lines for embed")
    arguments = parser.parse_args()
    result = RACES[arguments.name](arguments)
    if not arguments.json:
        for key, value in result.items():
            print(f"{key:18s} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
