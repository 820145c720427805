"""Several folders of shards in one run: a modality of which there is little is still learned."""

import dataclasses

import jax
import numpy as np

from data.decoding import encode_image, encode_sound
from data.media import Facts, Part, Sample
from data.media_shards import write_media
from tests.train.omni.conftest import EXPERIMENT, MODEL
from tests.train.test_resume import start
from train.experiment import Evaluation, Schedule
from train.loop import train
from train.mesh import make_mesh
from train.omni.experiment import MediaShards
from train.omni.sources import make_media_batches, open_media


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


def test_a_scarce_modality_is_learned_beside_a_plentiful_one(tmp_path, monkeypatch):
    """Thirty pictures to each recording: with a weight of its own the recording's share of rows is that weight, and its names are learned
    as the pictures' are."""
    folders = []
    for kind, count, names in (("image", 120, ("d", "b")), ("audio", 4, ("l", "h"))):
        splits = {"train": samples_of(kind, count, 0), "validation": samples_of(kind, 8, 1)}
        write_media(str(tmp_path / kind), splits, classes=list(names))
        folders.append(str(tmp_path / kind))
    monkeypatch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    model = dataclasses.replace(MODEL, context_length=48, encoders=(MODEL.encoders[0], MODEL.encoders[2]))
    data = MediaShards(shards=tuple(folders), weights=(2.0, 1.0))
    experiment = dataclasses.replace(
        EXPERIMENT, model=model, data=data, steps=40, evaluation=Evaluation(every=0), schedule=Schedule("constant", warmup_steps=2)
    )
    sources = open_media(experiment)
    batches = make_media_batches(experiment, [one.source for one in sources], sources[0].tokenizer())
    _, which, _ = batches.samples(0, 120)
    rows, first = np.unique(batches.samples(0, 120)[0], return_index=True)
    assert len(rows) == 120 and (which[first] == 1).mean() == 1 / 3
    by_count = dataclasses.replace(experiment, data=dataclasses.replace(data, weights=()))
    plain = make_media_batches(by_count, [one.source for one in sources], sources[0].tokenizer())
    assert (plain.samples(0, 600)[1] == 1).mean() < 0.1
    found = train(start(tmp_path / "run", experiment))["validation"]
    assert found["0"] == found["1"] == 1.0
    assert found["blind_0"] < 1 and found["blind_1"] < 1
