"""A tiny model that reads every medium, and rows of the world for it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from model.media.encoder_config import AudioEncoder, ImageEncoder, Projection, VideoEncoder
from model.media.multimodal_config import MultimodalConfig
from model.transformer import Decoder
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.objectives.bind import bind
from train.objectives.media.media_lm import MediaLMLoss
from train.objectives.media.options import MediaLM
from train.sources.dataset import dataset_of
from train.sources.media.options import WorldScenes

TOWER = {"num_layers": 1, "embed_dim": 16, "num_heads": 2}
MODEL = MultimodalConfig(
    vocab_size=384,
    context_length=112,
    num_layers=2,
    embed_dim=32,
    num_heads=2,
    positions="rotary",
    encoders=(
        ImageEncoder(patch=8, rows=2, columns=2, **TOWER),
        VideoEncoder(frames=2, patch=8, times=2, rows=2, columns=2, projector=Projection("resampler", latents=3, layers=1), **TOWER),
        AudioEncoder(times=8, projector=Projection("linear", shuffle=2), **TOWER),
    ),
)
EXPERIMENT = Experiment(
    steps=4,
    batch_size=4,
    model=MODEL,
    data=WorldScenes(scenes=200, validation=6, images=2, media_dropout=0.2),
    objective=MediaLM(),
    optimizer=AdamW(learning_rate=1e-2),
    schedule=Schedule(warmup_steps=2),
    mesh=MeshShape(data=1),
    evaluation=Evaluation(every=0, rows=2),
    checkpoints=Checkpoints(every=4, keep=9),
    samples=Samples(tokens=0),
    logging=Logging(every=1),
)

RUN = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, num_layers=1))
"""For whole runs, which take most of their time to compile."""
CROSS = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, fusion="cross_attention"))


@functools.cache
def parameters(scale: float = 1.0, experiment: Experiment = EXPERIMENT):
    """Fresh ones. scale: of all, to make a fresh model sure of something."""
    made = nn.meta.unbox(jax.jit(bind(experiment).start)(jax.random.key(0)))
    return jax.tree.map(lambda x: x * scale, made)


@functools.cache
def objective(experiment: Experiment = EXPERIMENT):
    return MediaLMLoss(Decoder(experiment.model), MediaLM())


@functools.cache
def rows(experiment: Experiment = EXPERIMENT, **options):
    sources = dataset_of(experiment).open()
    return dataset_of(experiment).batches_of([sources[0].source], sources[0].tokenizer(), **{"split": "train"} | options)


@pytest.fixture(scope="session")
def batch():
    """Rows that hold every medium."""
    made = rows().batch(0, 12)
    assert all(np.asarray(getattr(made, kind).segments).any() for kind in ("image", "video", "audio"))
    return made
