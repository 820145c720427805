"""A run on all media: it resumes to the bit, says how well it answers with and without them, and writes what it was judged by."""

import dataclasses

import jax
import numpy as np
import pytest

from data.media.rows import Layout, Piece, RowFiller
from model.decoding.sampling import Sampling
from tests.train.media.conftest import CROSS, EXPERIMENT, RUN, objective, parameters, rows
from tests.train.tiny_runs import TIMING, start, train, train_and_stop
from train.devices.mesh import make_mesh
from train.experiment import MeshShape
from train.generation.about_media import MediaWriter
from train.loop.row_learner import RowLearner
from train.loop.telemetry import read_metrics
from train.planning.doctor import examine
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.sources.media.shapes import shapes_of


def test_a_run_on_four_modalities_resumes_to_the_bit(tmp_path, monkeypatch):
    whole, parts = (start(tmp_path / name, RUN) for name in ("whole", "parts"))
    train(whole)
    train_and_stop(parts.path, 2, monkeypatch)
    train(open_run(parts.path))
    logged = [[{k: v for k, v in row.items() if k not in TIMING} for row in read_metrics(run.path)] for run in (whole, parts)]
    assert logged[0] == logged[1]
    last = [row for row in logged[0] if row["kind"] == "evaluation"][-1]
    assert {"text", "image", "video", "audio", "caption", "image/unseen", "blind", "blind_image"} <= set(last) and "blind_text" not in last


@pytest.mark.parametrize("experiment", [EXPERIMENT, CROSS], ids=["tokens", "cross attention"])
def test_what_is_written_is_what_was_judged_exact(experiment):
    """With what greedy decoding writes from parts of a prompt as the answer, every learned token is the likeliest one."""
    sources, params = dataset_of(experiment).open(), parameters(6.0, experiment)
    tokenizer, shapes = sources[0].tokenizer(), shapes_of(experiment)
    writer = MediaWriter(experiment, tokenizer, params)
    prompts = []
    for source, split in list(dataset_of(experiment).validation(sources).values())[:5]:
        prompts += [pieces[:-1] for pieces, _ in source.samples(split, np.arange(2), shapes, tokenizer, None)]
    written = writer.ids(prompts, tokens=8, sampling=Sampling(temperature=0.0))
    room = {kind: shape.most for kind, shape in shapes.items()}
    filler = RowFiller(Layout(experiment.model.context_length, room), shapes, tokenizer, np.arange(len(prompts)))
    for row, (pieces, ids) in enumerate(zip(prompts, written, strict=True)):
        filler.add(row, [*pieces, Piece("text", np.array(ids), learned=True)])
    batch = filler.batch
    ends = np.array([np.flatnonzero(weights)[-1] for weights in batch.weights])
    batch.weights[np.arange(len(ends)), ends] = 0  # the end may have been drawn, or the room was full
    metrics = jax.jit(lambda params, batch: objective(experiment)(params, batch, None)[1])(params, batch)
    assert float(metrics["exact"].total) == float(metrics["exact"].weight) == len(prompts)
    assert len(set(map(tuple, written))) > 1


def test_blind_rows_are_the_same_rows_without_their_media():
    seen, blind = rows(split="validation").batch(0, 4), rows(split="validation", blind=True).batch(0, 4)
    learned = seen.weights > 0
    np.testing.assert_array_equal(learned, blind.weights > 0)
    np.testing.assert_array_equal(seen.targets[learned], blind.targets[learned])
    assert not blind.slots.any() and seen.slots.any()


def test_the_doctor_and_the_compiler_know_rows_of_media(tmp_path):
    found = examine(dataclasses.replace(EXPERIMENT, mesh=MeshShape(), batch_size=8), tmp_path / "run", compile_step=False)
    assert found["healthy"] and any("train 200 samples" in check["detail"] for check in found["checks"])
    mesh = make_mesh(EXPERIMENT.mesh, jax.devices()[:1])
    _, _, (_, abstract) = RowLearner.abstract_step(EXPERIMENT, mesh)
    made = rows().batch(0, EXPERIMENT.batch_size)
    jax.tree.map(lambda x, known: (x.shape, x.dtype) == (known.shape, known.dtype) or pytest.fail(f"{x} {known}"), made, abstract)
