"""What a private step costs beside a plain one: time, as ratios of interleaved steps, and memory, as the compiler plans it.

python benchmarks/privacy.py [--model small|smollm2] [--length 128] [--rounds 7]

small: a decoder of 4 layers of 256 with 4,096 tokens, all parameters. smollm2: 30 layers of 576 with 49,152 tokens, random weights, LoRA of
rank 8. Units are documents as long as a row, all of them drawn, so both steps read the same tokens.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from data.text.rows import TextBatch
from model.config import ModelConfig
from train.adapters.options import LoRA
from train.adapters.training import AdaptedLoss, fresh_leaves, method_of
from train.devices.mesh import make_mesh
from train.experiment import CausalLM, Exact, Experiment, MeshShape
from train.kinds import realise
from train.objectives.bind import bind
from train.step.private.gradient import SECRET
from train.step.private.options import Private
from train.step.update import compiler_options, on_mesh

SMALL: dict[str, Any] = {"vocab_size": 4096, "num_layers": 4, "embed_dim": 256, "num_heads": 4}
SMOLLM2: dict[str, Any] = {"vocab_size": 49152, "num_layers": 30, "embed_dim": 576, "num_heads": 9, "num_kv_heads": 3, "mlp_dim": 1536}
LLAMA: dict[str, Any] = {"norm": "rmsnorm", "positions": "rotary", "gated": True, "activation": "silu", "bias": False, "scan": True}
UNITS = 16
WAYS = {
    "plain": Exact(),
    "vmap, all at once": Private(epsilon=0.0, micro_batch=UNITS),
    "vmap, 4 units at once": Private(epsilon=0.0, micro_batch=4),
    "vmap, 1 unit at once": Private(epsilon=0.0, micro_batch=1),
    "two passes, all at once": Private(epsilon=0.0, way="two_pass", micro_batch=UNITS),
    "two passes, 4 at once": Private(epsilon=0.0, way="two_pass", micro_batch=4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("small", "smollm2"), default="small")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    o = parser.parse_args()
    shape = SMALL if o.model == "small" else SMOLLM2 | LLAMA
    adapters = {"adapters": LoRA(rank=8), "start": "random"} if o.model == "smollm2" else {}
    experiment = Experiment(batch_size=UNITS, model=ModelConfig(**shape, context_length=o.length), objective=CausalLM(), **adapters)
    bound, method = bind(experiment), method_of(experiment)
    params = nn.unbox(jax.jit(bound.start)(jax.random.key(0)))
    loss: Any = bound.loss
    frozen: dict[str, Any] = {SECRET: np.zeros(2, np.uint32)}
    if method is not None:
        frozen["base"], loss = params, AdaptedLoss(bound.loss, method, ())
        params = nn.unbox(jax.jit(lambda key: fresh_leaves(bound, method, key))(jax.random.key(1)))
    tokens = np.random.default_rng(0).integers(0, shape["vocab_size"], (UNITS, o.length)).astype(np.int32)
    ones, rows = np.ones_like(tokens), np.arange(UNITS, dtype=np.int32)
    where = np.broadcast_to(np.arange(o.length, dtype=np.int32), tokens.shape)
    batch = TextBatch(tokens, np.roll(tokens, -1, 1), ones.astype(np.float32), ones, where, rows)
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    options = compiler_options(jax.devices()[0].platform)
    programs, memory = {}, {}
    for name, gradient in WAYS.items():
        take = realise(gradient, dataclasses.replace(experiment, gradient=gradient), "token")

        def step(params, frozen, batch, take=take, plain=name == "plain"):
            own = {key: value for key, value in frozen.items() if not plain or key != SECRET}
            return take(loss, params, batch, jax.random.key(0), frozen=own or None)[0]

        compiled = on_mesh(jax.jit(step, compiler_options=options).lower, mesh)(params, frozen, batch).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes + sum(leaf.nbytes for leaf in jax.tree.leaves((params, frozen)))
        programs[name] = compiled
        jax.block_until_ready(compiled(params, frozen, batch))
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(o.rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(params, frozen, batch))
            seconds[name].append(time.perf_counter() - began)
    print(f"{'':24} {'ms':>8} {'ratio':>6} {'MiB':>8} {'ratio':>6}")
    for name in WAYS:
        ratio = statistics.median(own / plain for own, plain in zip(seconds[name], seconds["plain"], strict=True))
        spent = 1e3 * statistics.median(seconds[name])
        print(f"{name:24} {spent:8.0f} {ratio:6.2f} {memory[name] / 2**20:8.0f} {memory[name] / memory['plain']:6.2f}")


if __name__ == "__main__":
    main()
