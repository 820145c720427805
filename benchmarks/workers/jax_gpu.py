"""Our side of the races of benchmarks/gpu.py, which starts it: one attempt, NAME and a JSON object of sizes. Rows of JSON on stdout."""

import dataclasses
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data.text.rows import TextBatch
from model.attention.dispatch import Mask, Problem, attend, choose_kernel, reference
from model.flops import training_flops_per_token
from model.transformer import Decoder
from train.devices.mesh import make_mesh, put_batch
from train.experiment import MeshShape
from train.objectives.bind import bind, update_of
from train.optimizers.build import make_optimizer
from train.planning.flops import peak_flops
from train.step.state import initial_state
from train.step.update import jit_update
from train.verbs.config_files import load_config

ROOT = Path(__file__).resolve().parents[2]


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
    """One attempt: milliseconds of a kernel, forward and with the gradient, and its largest differences from the reference in float32."""

    def with_gradient(function, qkv, mask, weight):
        output, gradient = jax.vjp(lambda *x: function(*x, mask), *qkv)
        return output, gradient(weight.astype(output.dtype))

    def milliseconds(once, *arguments, again=10):
        # Results become the next inputs, in one program: launching it is not what is timed.
        many = jax.jit(lambda qkv, *rest: jax.lax.fori_loop(0, again, lambda _, qkv: once(qkv, *rest), qkv))
        seconds = timed_rounds(lambda count: jax.block_until_ready([many(*arguments) for _ in range(count)]), shape)
        return 1000 * statistics.median(seconds) / again

    def differences(kernel, qkv, mask, weight, exact):
        found = jax.jit(with_gradient, static_argnums=0)(kernel, qkv, mask, weight)
        output, gradients = jax.tree.map(lambda x, y: float(jnp.abs(x.astype(jnp.float32) - y).max()), found, exact)
        return {"output_difference": output, "gradient_difference": max(gradients)}

    def speed(kernel, qkv, mask, weight):
        forward = milliseconds(lambda qkv, mask: (kernel(*qkv, mask), *qkv[1:]), qkv, mask)
        both = milliseconds(lambda qkv, mask, weight: with_gradient(kernel, qkv, mask, weight)[1], qkv, mask, weight)
        return {"forward_ms": forward, "both_ms": both}

    def kernel(*x):
        return attend(*x, kernel=shape["kernel"])

    for sizes, packed in itertools.product(shape["shapes"], (False, True)):
        *qkv, weight = (jax.random.normal(key, sizes, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4))
        mask = Mask(causal=True, query_segments_BT=random_batch(*sizes[:2], 2, packed=packed).segments)
        problem = Problem(sizes[1], sizes[1], sizes[3], jnp.bfloat16)
        exactly = tuple(x.astype(jnp.float32) for x in qkv)
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(with_gradient, static_argnums=0)(reference, exactly, mask, weight)
        auto = choose_kernel("auto", mask.features(), problem, jax.devices()[0].platform)
        row = {"shape": sizes, "packed": packed, "kernel": shape["kernel"], "auto": auto == shape["kernel"]}
        try:
            row |= differences(kernel, tuple(qkv), mask, weight, exact)
            row |= speed(kernel, tuple(qkv), mask, weight)
        except (ValueError, NotImplementedError, RuntimeError) as error:  # refused, not for this card, or out of memory
            row["error"] = str(error).partition("\n")[0][:300]
        say(**row)


if __name__ == "__main__":
    {"train_steps": train_steps, "attention_kernels": attention_kernels}[sys.argv[1]](json.loads(sys.argv[2]))
