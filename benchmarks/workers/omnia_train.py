"""Rounds of training steps of our own step, on random tokens. Started by benchmarks/race.py."""

import json
import resource
import sys
import time

import jax
import numpy as np

from data.text.rows import TextBatch
from model.config import ModelConfig
from model.presets import MODERN
from model.transformer import Decoder, count_parameters
from train import experiment
from train.devices.mesh import divide_cpu, make_mesh, put_batch
from train.objectives.bind import bind
from train.optimizers.build import make_optimizer
from train.step.state import initial_state
from train.step.update import jit_update, make_update
from train.verbs.arguments import start_jax


def main():
    shape = json.loads(sys.argv[1])
    start_jax()
    model = ModelConfig(
        vocab_size=shape["vocab"],
        context_length=shape["context"],
        num_layers=shape["layers"],
        embed_dim=shape["width"],
        num_heads=shape["heads"],
        **(MODERN if shape["modern"] else {"bias": shape["bias"]}),
    )
    options = experiment.AdamW(learning_rate=1e-3, beta2=0.99)
    run = experiment.Experiment(model=model, batch_size=shape["batch"], optimizer=options)
    divide_cpu(run)
    mesh = make_mesh(run.mesh)
    optimizer = make_optimizer(options, experiment.Schedule(warmup_steps=10), 1000)
    state = initial_state(Decoder(model).start, optimizer, mesh, 0, ema=False)
    update = jit_update(make_update(bind(run, mesh).loss, optimizer, seed=0), mesh)
    rows, length = shape["batch"], shape["context"]
    tokens = np.random.default_rng(0).integers(0, shape["vocab"], (rows, length + 1)).astype(np.int32)
    batch = TextBatch(
        tokens[:, :-1],
        tokens[:, 1:],
        np.ones((rows, length), np.float32),
        np.ones((rows, length), np.int32),
        np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        np.arange(rows, dtype=np.int32),
    )
    batch = put_batch(mesh, lambda first, count: jax.tree.map(lambda x: x[first : first + count], batch), rows)
    for _ in range(shape["warm"]):
        state, metrics = update(state, None, batch)
    jax.block_until_ready(metrics)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(shape["steps"]):
            before, (state, metrics) = metrics, update(state, None, batch)
            loss = float(before["loss"].total) / float(before["loss"].weight)  # every step's, one step late: as the loop does
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - began) / shape["steps"]
        print(
            json.dumps(
                {
                    "ms": 1000 * seconds,
                    "tokens_per_second": rows * length / seconds,
                    "loss": loss,
                    "parameters": count_parameters(model),
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
