"""Validation: mean nats per token and bits per byte over a split."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from data.text.batches import Batches
from data.text.shards import Corpus
from train.checkpoints.checkpointer import in_eight_bits, load_parameters
from train.devices.mesh import inference_mesh, put_batch, row_shards
from train.experiment import Experiment
from train.objectives.make import make_objective
from train.objectives.terms import means
from train.runs.runs import Run, text_data
from train.sources.examples import ExampleBatches
from train.step.update import compiler_options, on_mesh


def make_evaluate(objective, mesh, frozen=None):
    """evaluate(params, batch) -> {name: (total, weight)}: the objective without randomness, compiled for the mesh.

    frozen: what the objective reads and does not train.
    """

    def evaluate(params, frozen, batch):
        terms, metrics, _ = objective(params, batch, None, frozen=frozen)
        return {name: (term.total, term.weight) for name, term in terms.items()} | {name: tuple(mean) for name, mean in metrics.items()}

    compiled = on_mesh(jax.jit(evaluate, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)
    return lambda params, batch: compiled(params, frozen, batch)


def add_up(evaluate, params, batch, count: int, size: int, mesh, between: Callable[[], None]) -> dict[str, np.ndarray]:
    """{name: (total, weight)} over rows 0 to count - 1, `size` at once. batch(first, rows): any of them, those past the end included."""
    found: dict[str, np.ndarray] = {}
    for first in range(0, count, size):

        def make(start, rows, first=first):
            made = batch(first + start, rows)
            inside = (first + start + np.arange(rows) < count).astype(np.float32)  # the last batch may reach past the rows asked for
            if hasattr(made, "counts"):
                return made._replace(counts=made.counts * inside)
            return made._replace(weights=made.weights * inside[:, None])

        for name, (total, weight) in jax.device_get(evaluate(params, put_batch(mesh, make, size))).items():
            found[name] = found.get(name, np.zeros(2)) + np.array([total, weight], np.float64)
        between()
    return found


def evaluation_rows(experiment: Experiment, mesh) -> int:
    """Rows at once: those of a micro-batch, or a few more, so that they divide over the devices."""
    size = experiment.batch_size // experiment.micro_batches
    return -(-size // row_shards(mesh)) * row_shards(mesh)


def evaluate_examples(
    evaluate, params, sources: list, experiment: Experiment, mesh, *, rows: int = 0, between: Callable[[], None] = lambda: None
) -> dict:
    """Means over the rows of demonstrations or comparisons that are kept from training: {"loss", ..., "examples"}; empty where none can be
    learned from."""
    batches = ExampleBatches(experiment, sources, "validation")
    count = min(rows or batches.validation_rows, batches.validation_rows)
    totals = add_up(evaluate, params, batches.batch, count, evaluation_rows(experiment, mesh), mesh, between)
    if not totals or not totals["loss"][1]:
        return {}
    return means(totals) | {"examples": count}


def evaluate_corpora(
    evaluate,
    params,
    corpora: list[Corpus],
    experiment: Experiment,
    mesh,
    *,
    split: str = "validation",
    rows: int = 0,
    between: Callable[[], None] = lambda: None,
) -> dict:
    """Means over the split, every token predicted once; empty when no corpus has a token to predict in it.

    rows: of each corpus, from its start; 0 takes all. Returns {"loss": nats per token, "bits_per_byte", "perplexity", "tokens", ...}; bits
    per byte count the raw UTF-8 bytes of the split, in proportion when only some rows are used. With several corpora, also "sources", the
    names of all, and "loss/<i>" of each that has the split, i being its place among them. `between` is called after every batch.
    """
    totals: dict[str, np.ndarray] = {}
    damaged = text_data(experiment).max_damaged
    expected_bytes, losses = 0.0, {}
    size = evaluation_rows(experiment, mesh)
    for number, corpus in enumerate(corpora):
        if not corpus.targets(split):
            continue
        batches = Batches([corpus], split=split, context_length=experiment.model.context_length, order="sequential", max_damaged=damaged)
        count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
        own = add_up(evaluate, params, batches.batch, count, size, mesh, between)
        expected_bytes += batches.raw_bytes * own["loss"][1] / batches.targets
        if own["loss"][1]:
            losses[number] = own["loss"][0] / own["loss"][1]
        totals = {name: totals.get(name, np.zeros(2)) + value for name, value in own.items()}
    if not totals or not totals["loss"][1]:
        return {}
    result: dict[str, Any] = means(totals)
    nats, tokens = totals["loss"]
    result |= {
        "bits_per_byte": float(nats / math.log(2) / max(expected_bytes, 1e-8)),
        "perplexity": math.exp(min(result["loss"], 700.0)),
        "tokens": int(tokens),
    }
    if len(corpora) > 1:
        result |= {"sources": source_names([corpus.path for corpus in corpora])}
        result |= {f"loss/{number}": float(loss) for number, loss in losses.items()}
    return result


def source_names(paths: list[str]) -> list[str]:
    """What a person calls each folder of shards: the last parts of its path, as many as tell all of them apart."""
    parts = [(path if "://" in path else os.path.abspath(path)).rstrip("/").split("/") for path in paths]
    for depth in range(1, 1 + max(map(len, parts))):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names)]  # one folder, named more than once


def evaluate_run(
    run: Run,
    *,
    split: str = "validation",
    rows: int = 0,
    batch_size: int = 0,
    shards: tuple[str, ...] = (),
    step: int | None = None,
    raw: bool = False,
    int8: bool = False,
) -> dict:
    """Measure a checkpoint of a run (default: the latest; the averaged parameters, where kept, unless `raw`).

    rows: of each folder of shards, 0 for all. batch_size: rows at once, 0 for as many as in training. shards: other folders than the
    run's own, prepared with the same tokenizer. int8: with weights and activations rounded to eight bits. Returns {"step", "split",
    "loss", "bits_per_byte", ...} of `evaluate_corpora`.
    """
    experiment = run.experiment
    if batch_size:
        experiment = dataclasses.replace(experiment, batch_size=batch_size, micro_batches=1)
    mesh = inference_mesh(experiment.mesh)
    corpora: list = run.other_corpora(shards) if shards else run.corpora()
    params, step = load_parameters(run, mesh, step=step, raw=raw)
    params = in_eight_bits(params) if int8 else params
    found = evaluate_corpora(
        make_evaluate(make_objective(experiment, mesh), mesh), params, corpora, experiment, mesh, split=split, rows=rows
    )
    if not found:
        raise UserError(
            f"nothing to predict in a {split} split of {', '.join(str(corpus.path) for corpus in corpora)}",
            "Prepare with --validation 0.1, or give --shards.",
        )
    return {"step": step, "split": split} | found
