"""Several folders of shards in one run: a modality of which there is little is still learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data.media.kinds import Facts, Part, Sample
from data.media.shards import write_media
from data.media.signals.encoding import encode_image, encode_sound
from model.transformer import Decoder
from tests.train.media.conftest import EXPERIMENT, MODEL, RUN, parameters
from train.objectives.media.media_lm import MediaLMLoss
from train.sources.dataset import dataset_of
from train.sources.media.options import MediaShards


def samples_of(kind, count, seed):
    """Dark and bright pictures, low and high tones."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        label = number % 2
        if kind == "image":
            content = encode_image(np.clip(rng.normal(60 + 130 * label, 20, (16, 16, 3)), 0, 255).astype(np.uint8))
            facts = Facts(width=16, height=16, bytes=len(content))
        else:
            time, pitch = np.arange(2560) / 16_000, (300, 1500)[label] * rng.uniform(0.9, 1.1)
            content = encode_sound(0.3 * np.sin(2 * np.pi * pitch * time), 16_000)
            facts = Facts(rate=16_000, samples=2560, bytes=len(content))
        found.append((Sample((Part(kind, content),), label=label), [facts]))
    return found


def test_a_scarce_modality_is_learned_beside_a_plentiful_one(tmp_path):
    """Thirty pictures to each recording: with a weight of its own the recording's share of rows is that weight, and its names are learned
    as the pictures' are."""
    folders = []
    for kind, count, names in (("image", 120, ("d", "b")), ("audio", 4, ("l", "h"))):
        splits = {"train": samples_of(kind, count, 0), "validation": samples_of(kind, 8, 1)}
        write_media(str(tmp_path / kind), splits, classes=list(names))
        folders.append(str(tmp_path / kind))
    model = dataclasses.replace(RUN.model, context_length=48, encoders=(MODEL.encoders[0], MODEL.encoders[2]))
    data = MediaShards(shards=tuple(folders), weights=(2.0, 1.0))
    experiment = dataclasses.replace(EXPERIMENT, model=model, data=data)
    sources = dataset_of(experiment).open()
    batches = dataset_of(experiment).batches_of([one.source for one in sources], sources[0].tokenizer(), "train")
    _, which, _ = batches.samples(0, 120)
    rows, first = np.unique(batches.samples(0, 120)[0], return_index=True)
    assert len(rows) == 120 and (which[first] == 1).mean() == 1 / 3
    by_count = dataclasses.replace(experiment, data=dataclasses.replace(data, weights=()))
    plain = dataset_of(by_count).batches_of([one.source for one in sources], sources[0].tokenizer(), "train")
    assert (plain.samples(0, 600)[1] == 1).mean() < 0.1
    objective, optimizer = MediaLMLoss(Decoder(model), experiment.objective), optax.adam(4e-3)
    params = parameters(1.0, experiment)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        gradient = jax.grad(lambda params: total(objective(params, batch, None)[0]))(params)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state

    for number in range(60):
        params, state = step(params, state, batches.batch(8 * number, 8))
    exact = jax.jit(lambda params, batch: objective(params, batch, None)[1]["exact"])
    for one in sources:
        kept = dataset_of(experiment).batches_of([one.source], one.tokenizer(), "validation")
        found = exact(params, kept.batch(0, 8))
        assert found.total == found.weight == 8


def total(terms):
    """What a step makes smaller."""
    return sum(term.coefficient * term.total / jnp.maximum(term.weight, 1.0) for term in terms.values())
