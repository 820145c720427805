"""Which pretraining makes better vectors of texts: `configs/encoder_or_decoder.py`, three seeds of each variant, judged by a linear probe.

python benchmarks/pretraining.py --shards SHARDS --probe PROBE.jsonl [--probe ...]
A probe is a JSONL file of {"text", "label"}; the last fifth is held out. Vectors are means of hidden states. Prints one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from model.transformer import count_parameters
from train.generation.embeddings import load_embedder
from train.loop.telemetry import read_metrics
from train.runs.directory import open_run

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--probe", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=["next", "masked", "shared"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict = {}
        for seed in range(arguments.seeds):
            for variant in arguments.variants:
                run = train(variant, seed, arguments.shards, Path(folder) / f"{variant}{seed}")
                found.setdefault(variant, []).append(measure(run, arguments.probe))
                print(variant, seed, found[variant][-1], file=sys.stderr, flush=True)
    print(json.dumps({variant: summary(rows) for variant, rows in found.items()}))


def train(variant: str, seed: int, shards: str, run: Path) -> Path:
    command = [sys.executable, ROOT / "omnia.py", "train", f"{ROOT}/configs/encoder_or_decoder.py:{variant}", "--run-dir", run]
    subprocess.run([*command, "--data.shards", shards, "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL)
    return run


def measure(path: Path, probes: list[str]) -> dict:
    run, rows = open_run(path), read_metrics(path)
    steps = [row["step_ms"] for row in rows if row["kind"] == "train" and "step_ms" in row]
    loss = [row["loss"] for row in rows if row["kind"] == "evaluation"][-1]
    result = {"parameters": count_parameters(run.experiment.model), "loss": loss, "step_ms": statistics.median(steps) if steps else None}
    embedder = load_embedder(run)
    return result | {Path(probe).stem: accuracy(embedder, probe) for probe in probes}


def accuracy(embedder, probe: str) -> float:
    """Of a logistic regression on standardised vectors, on the held-out fifth."""
    rows = [json.loads(line) for line in Path(probe).read_text().splitlines()]
    rows = [rows[number] for number in np.random.default_rng(0).permutation(len(rows))]
    names = sorted({row["label"] for row in rows})
    labels = np.array([names.index(row["label"]) for row in rows])
    vectors = embedder([row["text"] for row in rows])
    cut = len(rows) * 4 // 5
    vectors = (vectors - vectors[:cut].mean(0)) / (vectors[:cut].std(0) + 1e-6)
    weights = fitted(vectors[:cut], labels[:cut], len(names))
    predicted = (vectors[cut:] @ weights["w"] + weights["b"]).argmax(-1)
    return float((predicted == labels[cut:]).mean())


def fitted(x, y, classes: int, penalty: float = 1e-3):
    """Weights that minimise the cross-entropy and a small penalty on their squares, by L-BFGS."""
    weights = {"w": jnp.zeros((x.shape[1], classes)), "b": jnp.zeros(classes)}

    def loss(weights):
        logits = jnp.asarray(x) @ weights["w"] + weights["b"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + penalty * jnp.square(weights["w"]).sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        weights, state = carry
        value, gradient = value_and_grad(weights, state=state)
        updates, state = optimizer.update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.jit(lambda: jax.lax.scan(step, (weights, optimizer.init(weights)), length=200))()
    return jax.device_get(weights)


def summary(rows: list[dict]) -> dict:
    """Each measure's mean and all its values."""
    return {name: {"mean": statistics.mean(row[name] for row in rows), "all": [row[name] for row in rows]} for name in rows[0]}


if __name__ == "__main__":
    main()
