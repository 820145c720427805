"""A small published encoder, fine-tuned here and with transformers, side by side: `python benchmarks/finetuning.py DATA OUT [NAME ...]`.

DATA holds the public sets as folders (trec_qc, mr_polarity, subjectivity, rte, ner_wnut17); OUT takes files, runs and results.jsonl, a
line for each finished pair, which is not done again. PEER is a Python with torch, transformers and seqeval (`make parity` builds
.venv-peers/bin/python). Both have the same examples, batch, rate, schedule, steps and length of texts; examples a second are those of
training steps, compilation and evaluation aside.
"""

import argparse
import csv
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETS = {
    "trec": {"steps": 170, "rate": 1e-4},
    "mr": {"steps": 150, "rate": 1e-4},
    "subjectivity": {"steps": 150, "rate": 1e-4},
    "rte": {"steps": 60, "rate": 1e-4},
    "wnut17": {"steps": 212, "rate": 2e-4, "kind": "tagging"},
}
BATCH, LENGTH = 32, 128


def lines(path: Path) -> list[str]:
    return gzip.open(path, "rt", encoding="utf-8").read().splitlines()


def write(path: Path, rows: list[tuple], names: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def prepare(data: Path, out: Path) -> None:
    """The sets as tables, train and test: official parts, or every tenth line for testing."""
    trec = {part: [line.partition(" ") for line in lines(data / "trec_qc" / f"{part}.txt.gz")] for part in ("train", "test")}
    for part, rows in trec.items():
        write(out / f"trec_{part}.csv", [(text, label.partition(":")[0]) for label, _, text in rows], ("text", "label"))
    two = {
        "mr": ("mr_polarity", {"neg": "rt-polarity.neg.gz", "pos": "rt-polarity.pos.gz"}),
        "subjectivity": ("subjectivity", {"plot": "plot.tok.gt9.5000.gz", "quote": "quote.tok.gt9.5000.gz"}),
    }
    for name, (folder, files) in two.items():
        rows = [(text, label, place) for label, file in files.items() for place, text in enumerate(lines(data / folder / file))]
        for part in ("train", "test"):
            chosen = [row[:2] for row in rows if (row[2] % 10 == 9) == (part == "test")]
            write(out / f"{name}_{part}.csv", chosen, ("text", "label"))
    for part, ending in (("train", "dev"), ("test", "test")):
        rows = [json.loads(line) for number in (1, 2) for line in lines(data / "rte" / f"rte{number}_{ending}.jsonl.gz")]
        chosen = [(row["premise"], row["hypothesis"], str(row["label"])) for row in rows]
        write(out / f"rte_{part}.csv", chosen, ("text", "pair", "label"))
    for part in ("train", "test"):
        (out / f"wnut17_{part}.conll").write_text("\n".join(lines(data / "ner_wnut17" / f"{part}.conll.gz")) + "\n", encoding="utf-8")


def ours(name: str, seed: int, model: Path, out: Path) -> dict:
    o, ending = SETS[name], "conll" if SETS[name].get("kind") else "csv"
    run = out / f"{name}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    omnia = [sys.executable, "-m", "omnia"]
    kind = o.get("kind", "classification")
    pair = ["--data.pair", "pair"] if name == "rte" else []
    options = {
        "run-dir": run,
        "start": model,
        "seed": seed,
        "steps": o["steps"],
        "batch-size": BATCH,
        "data.files": out / f"{name}_train.{ending}",
        "data.validation": 0,
        "data.length": LENGTH,
        "optimizer.learning-rate": o["rate"],
        "schedule.warmup-steps": o["steps"] // 10,
        "evaluation.best": "loss",
        "checkpoints.every": 0,
        "logging.every": 10,
    }
    flags = [part for flag, value in options.items() for part in (f"--{flag}", str(value))]
    began = time.monotonic()
    quiet = {"check": True, "cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    no_best = ["--checkpoints.no-use-best", "--checkpoints.keep-best", "0"] if kind == "tagging" else []
    subprocess.run([*omnia, "train", f"configs/tasks/{kind}.py", *flags, *pair, *no_best], **quiet)
    whole = time.monotonic() - began
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = [(row["step"], row["time"]) for row in rows if row.get("kind") == "train"]
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(times, times[1:], strict=False)]
    test = out / f"{name}_test.{ending}"
    found = subprocess.run([*omnia, "evaluate", str(run), "--files", str(test), "--json"], **quiet).stdout
    score = json.loads(found.splitlines()[-1])
    shutil.rmtree(run)
    measured = {"score": score["f1" if kind == "tagging" else "accuracy"], "seconds": whole}
    return measured | {"examples_per_second": BATCH / statistics.median(steps)}


def peers(name: str, seed: int, model: Path, out: Path) -> dict:
    o = SETS[name]
    kind, ending = o.get("kind", "classification"), "conll" if o.get("kind") else "csv"
    options = {
        "model": str(model),
        "kind": kind,
        "train": str(out / f"{name}_train.{ending}"),
        "test": str(out / f"{name}_test.{ending}"),
        "steps": o["steps"],
        "warmup": o["steps"] // 10,
        "rate": o["rate"],
        "seed": seed,
        "batch": BATCH,
        "length": LENGTH,
        "threads": len(os.sched_getaffinity(0)),
    }
    python = os.environ.get("PEER", str(ROOT / ".venv-peers/bin/python"))
    script = [python, str(ROOT / "benchmarks/workers/transformers_finetune.py"), json.dumps(options)]
    done = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "false"})
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=[*SETS])
    parser.add_argument("--seeds", type=int, default=5)
    o = parser.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    prepare(o.data, o.out)
    model, folder, results = o.out / "minilm", o.out / "minilm_hf", o.out / "results.jsonl"
    if not model.is_dir():
        subprocess.run([sys.executable, "-m", "omnia", "import", "minilm", "--run-dir", str(model)], check=True, cwd=ROOT)
        subprocess.run(
            [sys.executable, "-m", "omnia", "export", str(model), "--format", "hf", "--output", str(folder)], check=True, cwd=ROOT
        )
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    for seed in range(o.seeds):
        for name in o.names:
            if any((row["name"], row["seed"]) == (name, seed) for row in done):
                continue
            row = {"name": name, "seed": seed, "ours": ours(name, seed, model, o.out), "peer": peers(name, seed, folder, o.out)}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            done.append(row)
            print(json.dumps(row), flush=True)
    for name in o.names:
        rows = [row for row in done if row["name"] == name]
        scores = {side: [row[side]["score"] for row in rows] for side in ("ours", "peer")}
        ratios = [row["ours"]["examples_per_second"] / row["peer"]["examples_per_second"] for row in rows]
        told = {side: f"{statistics.mean(x):.4f} +- {statistics.stdev(x) if len(x) > 1 else 0:.4f}" for side, x in scores.items()}
        print(json.dumps({"name": name, "seeds": len(rows)} | told | {"speed_ratio": round(statistics.median(ratios), 2)}))


if __name__ == "__main__":
    main()
