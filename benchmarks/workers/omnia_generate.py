"""Rounds of greedy generation by our own decoder with published weights. Started by benchmarks/race.py."""

import functools
import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from model.decoding.generate import generate
from model.decoding.quantize import quantize
from model.decoding.sampling import Sampling
from model.stack import unstack_layers
from model.transformer import Decoder
from train.bridge.importing import load_published
from train.verbs.arguments import start_jax


def main():
    shape = json.loads(sys.argv[1])
    start_jax()
    config, params = load_published(Path(shape["folder"]))
    if shape["int8"]:
        params = quantize(params)
    params = jax.tree.map(jnp.asarray, unstack_layers(params))
    prompts_BT = jnp.asarray(shape["prompts"], jnp.int32)
    batch, length = prompts_BT.shape
    run = jax.jit(functools.partial(generate, Decoder(config), sampling=Sampling(temperature=0.0), max_new_tokens=shape["new"]))
    arguments = params, prompts_BT, jnp.full(batch, length), jax.random.split(jax.random.key(0), batch)
    jax.block_until_ready(run(*arguments))
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        tokens_BS = np.asarray(run(*arguments).tokens_BS)
        seconds = time.perf_counter() - began
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "tokens_per_second": batch * shape["new"] / seconds,
                    "tokens": tokens_BS[:, length:].tolist(),
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
