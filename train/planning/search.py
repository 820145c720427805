"""Which mesh, remat policy and micro-batches make a step fastest: the most promising by arithmetic are compiled, and compared."""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from data.errors import UserError
from train.experiment import Experiment

REMAT: tuple[Any, ...] = ("none", "dots", "sublayers", "full")
MOST_MICRO_BATCHES = 64


def search(
    experiment: Experiment, topology: str, candidates: int, make_plan: Callable[..., dict]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The plan of the fastest variant that fits, with another mesh, remat policy and micro_batches; and all that was tried, that first.

    Layers are scanned, so that a variant compiles about as fast whole as with few layers. Each row of what was tried has mesh, remat,
    micro_batches and either error or fits, bytes_per_device, seconds, predicted_mfu. UserError when none fits.
    """
    from train.planning.ahead_of_time import topology_devices
    from train.planning.roofline import chip_of

    devices = topology_devices(topology)
    chip = chip_of(devices[0])
    ranked = sorted(
        ((seconds, place, variant) for place, (seconds, variant) in enumerate(variants(experiment, len(devices), chip))),
        key=lambda one: one[:2],
    )
    if not ranked:
        raise UserError(f"no mesh of {len(devices)} devices has room for {experiment.name}", "Use more chips, or a smaller --batch-size.")
    tried: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    started = time.monotonic()
    for number, (_, _, variant) in enumerate(ranked[:candidates], 1):
        row, found = try_variant(variant, topology, make_plan)
        tried.append(row)
        done = f"{number} of {min(candidates, len(ranked))}, {time.monotonic() - started:.0f} s"
        settings = f"mesh {row['mesh']}" + (f", remat {row['remat']}, {row['micro_batches']} micro-batches" if "remat" in row else "")
        said = row.get("error") or f"{row['seconds']:.3f} s a step, {row['bytes_per_device'] / 2**30:.1f} GiB" + " (too much)" * (
            not row["fits"]
        )
        print(f"{done}: {settings}: {said}", file=sys.stderr, flush=True)
        if row.get("fits") and (best is None or row["seconds"] < best["seconds"]["seconds"]):
            best = found
    tried.sort(key=lambda row: (not row.get("fits", False), row.get("seconds", 0.0)))
    if best is None:
        raise UserError(
            f"none of {len(tried)} candidates fits {topology}", "Try more (--candidates), more chips, or a smaller --batch-size."
        )
    return best, tried


def try_variant(variant: Experiment, topology: str, make_plan: Callable[..., dict]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of what `search` tried, and the plan behind it ({} where there is none)."""
    mesh = {name: size for name, size in dataclasses.asdict(variant.mesh).items() if size > 1 and name != "cpu_devices"}
    row: dict[str, Any] = {"mesh": mesh, "remat": variant.model.remat, "micro_batches": variant.micro_batches}
    try:
        found = make_plan(variant, topology, quiet=True)
    except (UserError, ValueError, NotImplementedError, RuntimeError) as error:  # what a compiler refuses is no reason to stop
        return row | {"error": str(error).splitlines()[0]}, {}
    row |= {name: found[name] for name in ("fits", "bytes_per_device", "predicted_mfu")}
    return row | ({"seconds": found["seconds"]["seconds"]} if "seconds" in found else {}), found


def variants(experiment: Experiment, devices: int, chip) -> Iterator[tuple[float, Experiment]]:
    """(seconds of a step by arithmetic, experiment) of everything that divides and has room, by arithmetic, on so many chips."""
    from train.planning.roofline import MATMUL

    c, shape = experiment.model, experiment.mesh
    per_layer = c.embed_dim * c.head_width * (2 * c.num_heads + 2 * c.kv_heads)
    per_layer += c.embed_dim * c.mlp_width * (3 if c.gated else 2) * max(1, c.experts)
    parameters = c.num_layers * per_layer + c.embed_dim * (c.vocab_size * (1 if c.tied_embeddings else 2) + c.hashed_rows)
    width = c.head_width * (2 * c.num_heads + 2 * c.kv_heads) + c.mlp_width * (2 if c.gated else 1)
    kept = {"full": c.embed_dim, "sublayers": 3 * c.embed_dim, "dots": width + 2 * c.embed_dim, "none": 2 * width + 6 * c.embed_dim}
    tokens = experiment.batch_size * c.context_length
    free = devices // (shape.context * shape.expert)
    sizes = [size for size in range(1, free + 1) if free % size == 0]
    for fsdp, tensor in itertools.product(sizes, sizes):
        data = free // (fsdp * tensor)
        divides = not (free % (fsdp * tensor) or c.num_heads % tensor or c.kv_heads % tensor or c.mlp_width % tensor or c.embed_dim % fsdp)
        if not divides or tensor > 8:
            continue
        micros = (1,) if experiment.objective.unit == "batch" else (1, 2, 4, 8, 16, 32, MOST_MICRO_BATCHES)
        for micro, remat in itertools.product(micros, REMAT):
            if experiment.batch_size % micro or (experiment.batch_size // micro) % (data * fsdp * shape.expert):
                continue
            local = tokens / (data * fsdp * shape.context * shape.expert * micro)
            room = 16 * parameters / (fsdp * tensor * shape.expert) + 2 * kept[remat] * local * c.num_layers / tensor
            if room > chip.hbm:
                continue
            again = 4 / 3 if remat in ("full", "sublayers") else 1.0
            seconds = again * 6 * parameters * tokens / (devices * chip.peak * MATMUL)
            # Parameters gathered for each pass and gradients scattered, in 16 bits; twice where shards are no whole tiles of 16 rows.
            gathers = 0.0 if fsdp == 1 else micro * (4 if again > 1 else 3) * 2 * parameters / tensor / (4 * chip.link)
            gathers *= 2 if fsdp > 1 and (c.embed_dim // fsdp) % 16 else 1
            summed = 0.0 if data == 1 else 2 * 4 * parameters / (fsdp * tensor) / (2 * chip.link)
            shared = 0.0 if tensor == 1 else micro * 8 * 2 * local * c.embed_dim * c.num_layers / (2 * chip.link)
            mesh = dataclasses.replace(shape, data=data, fsdp=fsdp, tensor=tensor)
            model = dataclasses.replace(c, remat=remat, scan=True)
            yield seconds + gathers + summed + shared, dataclasses.replace(experiment, mesh=mesh, model=model, micro_batches=micro)
