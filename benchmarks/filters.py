"""What filters of logits cost for each token that is drawn, beside the same sets by sorting.

python benchmarks/filters.py [--vocabulary 50257] [--rows 16]
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from model.attention.dispatch import MASKED
from model.decoding.filters import keep_top_k, keep_top_p

ROUNDS = 15


def sorted_top_p(x_BV, p: float):
    sorted_BV = jnp.sort(x_BV, axis=-1, descending=True)
    p_BV = jax.nn.softmax(sorted_BV, axis=-1)
    kept_BV = jnp.cumsum(p_BV, axis=-1) - p_BV < p
    return jnp.where(x_BV >= jnp.where(kept_BV, sorted_BV, jnp.inf).min(-1, keepdims=True), x_BV, MASKED)


def sliced_top_k(x_BV, k: int):
    return jnp.where(x_BV >= jax.lax.top_k(x_BV, k)[0][:, -1:], x_BV, MASKED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    logits = np.random.default_rng(0).standard_normal((options.rows, options.vocabulary)).astype(np.float32) * 3
    x_BV = jnp.asarray(logits)
    pairs = {"top_p 0.9": (sorted_top_p, keep_top_p, 0.9), "top_k 50": (sliced_top_k, keep_top_k, 50)}
    for name, (before, after, value) in pairs.items():
        compiled = [jax.jit(function, static_argnums=1) for function in (before, after)]
        sets = [np.asarray(function(x_BV, value)) > MASKED for function in compiled]
        milliseconds: list[list[float]] = [[], []]
        for _ in range(ROUNDS):  # by turns, so that what else runs on the machine slows both
            for function, times in zip(compiled, milliseconds, strict=True):
                began = time.perf_counter()
                jax.block_until_ready(function(x_BV, value))
                times.append(1000 * (time.perf_counter() - began))
        old, new = (statistics.median(times) for times in milliseconds)
        print(f"{name}: {old:.2f} ms before, {new:.2f} ms now, {old / new:.1f} times as fast; {(sets[0] != sets[1]).sum()} tokens differ")


if __name__ == "__main__":
    main()
