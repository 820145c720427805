"""A run on all media: it resumes to the bit, says how well it answers with and without them, and writes what it was judged by."""

import jax
import numpy as np
import pytest

from model.generate import Sampling
from tests.train.omni.conftest import EXPERIMENT, objective, parameters, rows
from tests.train.test_resume import start, train_and_stop
from train.loop import train
from train.mesh import make_mesh
from train.omni.answers import MediaWriter
from train.omni.sources import judged, open_media, shapes_of
from train.runs import open_run
from train.telemetry import read_metrics

TIMING = {"time", "seconds", "tokens_per_second", "data_wait", "step_ms"}


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))


def test_a_run_on_four_modalities_resumes_to_the_bit(tmp_path, one_device, monkeypatch):
    whole, parts = (start(tmp_path / name, EXPERIMENT) for name in ("whole", "parts"))
    train(whole)
    train_and_stop(parts.path, 3, monkeypatch)
    train(open_run(parts.path))
    logged = [[{k: v for k, v in row.items() if k not in TIMING} for row in read_metrics(run.path)] for run in (whole, parts)]
    assert logged[0] == logged[1]
    last = [row for row in logged[0] if row["kind"] == "evaluation"][-1]
    assert {"text", "image", "video", "audio", "caption", "image/unseen", "blind", "blind_image"} <= set(last) and "blind_text" not in last


def test_what_is_written_is_what_was_judged_exact():
    """Greedy decoding from parts of a prompt writes the answer where every learned token was the likeliest, and nowhere else."""
    sources = open_media(EXPERIMENT)
    params, tokenizer = parameters(6.0), sources[0].tokenizer()

    class Run:
        experiment = EXPERIMENT

        @staticmethod
        def tokenizer():
            return tokenizer

    writer, shapes = MediaWriter(Run, params), shapes_of(EXPERIMENT)
    prompts, wanted = [], []
    for source, split in list(judged(EXPERIMENT, sources).values())[:5]:
        for pieces, _ in source.samples(split, np.arange(2), shapes, tokenizer, None):
            prompts.append(pieces[:-1])
            wanted.append(pieces[-1].content)
    written = writer.ids(prompts, tokens=8, sampling=Sampling(temperature=0.0))
    # Teacher-forced with what was written as the answer, every token is a hit.
    from data.media_rows import Layout, Piece, RowFiller

    room = {kind: int(np.prod(shape.largest)) for kind, shape in shapes.items()}
    layout = Layout(EXPERIMENT.model.context_length, room)
    filler = RowFiller(layout, shapes, tokenizer, np.arange(len(prompts)))
    for row, (pieces, ids) in enumerate(zip(prompts, written, strict=True)):
        filler.add(row, [*pieces, Piece("text", np.array(ids), learned=True)])
    batch = filler.batch
    ends = np.array([np.flatnonzero(weights)[-1] for weights in batch.weights])
    batch.weights[np.arange(len(ends)), ends] = 0  # the end may have been drawn, or the room was full
    metrics = jax.jit(lambda params, batch: objective()(params, batch, None)[1])(params, batch)
    assert float(metrics["exact"].total) == float(metrics["exact"].weight) == len(prompts)
    assert len(set(map(tuple, written))) > 1


def test_blind_rows_are_the_same_rows_without_their_media():
    seen, blind = rows(split="validation").batch(0, 4), rows(split="validation", blind=True).batch(0, 4)
    learned = seen.weights > 0
    np.testing.assert_array_equal(learned, blind.weights > 0)
    np.testing.assert_array_equal(seen.targets[learned], blind.targets[learned])
    assert not blind.slots.any() and seen.slots.any()
